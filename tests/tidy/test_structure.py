"""The structure as tests: floors, lonely imports, sizes, banned calls, named queries, live links."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ["matching", "auction", "sql", "api", "fallow"]
# api knows the engine's port and sql's readers; fallow is what a user installs.
PACKAGES = {name: sorted((ROOT / name).rglob("*.py")) for name in FLOORS}
SOURCES = [path for paths in PACKAGES.values() for path in paths]
CLOCKS_AND_DICE = {"auction/clock.py", "auction/ids.py"}
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70


def name_of(path):
    return str(path.relative_to(ROOT))


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_imports_from_its_own_floor_or_lower(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    tops = {module.split(".")[0] for module in imported_modules(ast.parse(path.read_text()))}
    above = [name for name in FLOORS[floor + 1 :] if name in tops]
    assert above == [], f"{name_of(path)} reaches up to {above}"


def test_every_module_can_be_imported_alone():
    """No import works only because another one came first."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py")
    ]
    # One process a module, forked from one that has only what others wrote: that takes most of the time.
    program = (
        "import importlib, os, sys\n"
        "import aiohttp.web, asyncpg, click, msgspec, numpy, prometheus_client\n"
        "for name in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        importlib.import_module(name)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]: print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, timeout=150, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{name_of(path)}:{node.lineno} {node.name}: {lines} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "matching").glob("*.p[xyd]*")), ids=name_of)
def test_the_kernels_files_stay_readable(path):
    """The class that Python sees is one file; everything else fits the common bound with some room."""
    assert len(path.read_text().splitlines()) <= (800 if path.suffix == ".pyx" else 550)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_says_what_it_decides(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{name_of(path)} has no docstring"
    assert len(docstring.splitlines()) <= 16


def test_time_and_chance_come_through_their_ports():
    banned = re.compile(
        r"\b(time\.time|datetime\.now|datetime\.utcnow|import random\b|uuid4|secrets\.(token|choice|rand))"
    )
    hits = [
        f"{name_of(path)}:{number}"
        for path in SOURCES
        if name_of(path) not in CLOCKS_AND_DICE
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if banned.search(line.split("#")[0])
    ]
    assert hits == []


def test_no_drawer_is_called_utils():
    assert [name_of(path) for path in SOURCES if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_every_named_query_exists_and_is_used():
    text = "\n".join(path.read_text() for path in SOURCES)
    files = {path.stem for path in (ROOT / "sql/queries").glob("*.sql")}
    named = set(re.findall(r"(?:query|_fetch)\(\s*\"([a-z0-9_]+)\"", text))
    assert set() == named - files, "queries that are not there"
    unused = {name for name in files if not name.startswith("audit_") and f'"{name}"' not in text}
    assert set() == unused


def test_packages_and_their_data_are_listed():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for floor in FLOORS
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert packages == set(project["tool"]["setuptools"]["packages"])


def test_the_kernels_stub_matches_its_module():
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "matching.book", "--ignore-missing-stub"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_links_in_markdown_lead_somewhere():
    dead = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "matching").glob("*.md"), *(ROOT / "bench").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http") and not (page.parent / target).exists():
                dead.append(f"{name_of(page)} -> {target}")
    assert dead == []
