"""The lock, the list of parts and what ready-made tools say: `python -m tests.supply.tools lock|sbom FILE`.

`.ci/requirements.lock` pins every distribution that the tests' environment has by version and hash; it is
written from pyproject.toml by this command and never by hand. The list of parts (CycloneDX) is made from it
when it is asked for, so that it cannot be out of date.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.proof.tools import ROOT, environment

LOCK = ROOT / ".ci" / "requirements.lock"
PACKAGES = ("auction", "matching", "api", "sql", "fallow")
TOOL_SECONDS_MAX = 300
# What bandit says and we mean: asserts are part of the program (__main__ refuses -O); statements in sql/ are
# put together from columns that the code names, never from values.
BANDIT_SKIPS = "B101,B608"
# The socket's directory must be the same for a service and a shell; anybody may read a copied server's files.
BANDIT_KNOWN = {("B108", "sql/data_dir.py"), ("B103", "sql/server_user.py")}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """Return {distribution: version} of the lock."""
    return {normal(name): version for name, version in _PIN.findall(LOCK.read_text())}


def pinned() -> dict[str, str]:
    """Return what pyproject.toml pins for running and for testing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {normal(name): version for name, version in _PIN.findall("\n".join(asked))}


def write_lock() -> None:
    """Resolve pyproject.toml anew."""
    _tool(
        "uv", "pip", "compile", "-q", "--python-version", "3.11", "--generate-hashes", "--extra", "test",
        "--no-emit-index-url", "--custom-compile-command", "python -m tests.supply.tools lock",
        "pyproject.toml", "-o", str(LOCK),
    )  # fmt: skip


def sbom() -> dict[str, Any]:
    """Return the list of parts of what the lock names."""
    made = json.loads(_tool("cyclonedx-py", "requirements", str(LOCK), "--of", "JSON").stdout)
    assert isinstance(made, dict)
    return made


def bandit() -> list[str]:
    """Return what bandit finds of medium severity and above, without what is meant."""
    done = _tool("bandit", "-q", "-r", *PACKAGES, "-f", "json", "-ll", "-s", BANDIT_SKIPS, fails=True)
    return [
        f"{one['filename']}:{one['line_number']} {one['test_id']} {one['issue_text']}"
        for one in json.loads(done.stdout)["results"]
        if (one["test_id"], one["filename"].removeprefix("./")) not in BANDIT_KNOWN
    ]


def audit_lock() -> tuple[bool | None, str]:
    """Ask for known weaknesses of what the lock names; None where the service does not answer for them."""
    done = _tool(
        "pip-audit", "--strict", "-r", str(LOCK), "--disable-pip", "--progress-spinner", "off", fails=True
    )
    last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:200]
    if "could not be audited" in last or "onnection" in last:
        return None, f"its service does not answer here: {last}"
    return done.returncode == 0, last


def _tool(name: str, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(environment() / "bin" / name), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX,
    )  # fmt: skip
    assert fails or done.returncode == 0, done.stderr[-1000:]
    return done


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        write_lock()
    elif len(sys.argv) == 3 and sys.argv[1] == "sbom":
        Path(sys.argv[2]).write_text(json.dumps(sbom(), indent=2) + "\n")
    else:
        raise SystemExit(__doc__)
