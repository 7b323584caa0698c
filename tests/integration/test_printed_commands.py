"""Every command that the READMEs and the demo print, run as printed against a demo.

What a reader would put in is put in: the key and the address that the demo printed, a deadline not yet over.
What cannot run in a test is named with its reason, and whatever is neither run nor named fails.
"""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.app import ROUTES
from tests.integration.test_demo import free_port

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "api/README.md", "fallow/README.md")]
SECONDS_MAX = 90
NOT_RUN = {
    "pip install . && fallow demo": "it is how this test's own environment and demo began",
    "pip install -e '.[test]' && pytest": "it is what runs this test",
    "pip install 'fallow[agent]'": "packages are installed before the tests",
    "python -m bench": "a quarter of an hour of measuring; test_bench_kernel.py runs it in small",
    "python -m bench.calibration": "minutes of replay; test_bench_calibration.py runs it in small",
    "python -m tests.proof": "hours; tests/proof/test_promises.py runs every row in small",
    "fallow serve": "a server of its own; test_market_process.py starts it",
    "fallow init": "needs a production database; test_cli.py prepares one",
    "fallow migrate": "needs a production database; test_cli.py migrates one",
    "fallow backup FILE": "test_backup.py writes, verifies and restores one",
    "fallow restore --verify FILE": "test_backup.py writes, verifies and restores one",
}
NEEDS_MORE = {  # commands that the text names without all that they need: that they exist, with these options
    "fallow agent run --node NODE --hooks DIR",
    "fallow bot report",
    "fallow demo squeeze",
    "fallow run",
    "fallow login",
}


def all_text():
    """Return what the pages say, one after the other."""
    return "\n".join(page.read_text() for page in PAGES)


def printed_commands():
    """Return the commands of their blocks, in order, and those inside their sentences."""
    text = all_text()
    blocks, inline = [], []
    for kind, body in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        joined = body.replace("\\\n", " ")
        if kind == "console":
            blocks += [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        elif kind == "sh":
            blocks += [line for line in joined.splitlines() if line.strip()]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:fallow|curl|python -m|pip) [^`]+)`", outside)
    return [" ".join(command.split()) for command in blocks], [" ".join(one.split()) for one in inline]


def printed_python():
    (program,) = re.findall(r"^```python\n(.*?)^```", all_text(), re.MULTILINE | re.DOTALL)
    return program


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo in its default place, as a reader starts it, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    beside = Path(sys.executable).parent
    environment = {**os.environ, "XDG_DATA_HOME": str(home), "PATH": f"{beside}:{os.environ['PATH']}"}
    command = ["fallow", "demo", "--tick-seconds", "1", "--port", str(free_port())]
    log = home / "demo.stderr"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            printed = []
            while not printed or not printed[-1].startswith("Ctrl-C"):
                line = process.stdout.readline()
                assert line, log.read_text()[-3000:]
                printed.append(line.rstrip())
            yield Shell(printed, environment)
        finally:
            process.terminate()
            process.wait(30)


class Shell:
    """A reader's terminal: commands of one block share it."""

    def __init__(self, printed, environment):
        self.printed = printed
        self.environment = environment
        self.url = re.search(r"http://127\.0\.0\.1:\d+", printed[0])[0]
        self.key = next(line.split()[-1] for line in printed if "buyer's key" in line)

    def commands(self):
        """Return what the demo says to try."""
        lines = [line[2:] for line in self.printed[self.printed.index("try:") + 1 :] if line.startswith("  ")]
        beside = [line.partition(":")[2].strip() for line in self.printed if line.startswith("beside it:")]
        return lines + beside

    def run(self, *commands, **variables):
        """Run commands in one shell."""
        return subprocess.run(
            ["bash", "-ec", "\n".join(commands)],
            cwd=self.environment["XDG_DATA_HOME"],
            env=self.environment | variables,
            capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
        )  # fmt: skip

    def check(self, command, *before, **variables):
        done = self.run(*before, command, **variables)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        if command.startswith("curl"):
            answer = json.loads(done.stdout)
            assert "problem" not in str(answer.get("type")), (command, answer)
        return done.stdout

    def filled(self, command):
        """Put in what a reader would."""
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        command = command.replace("http://127.0.0.1:8080", self.url)
        return re.sub(r"20\d\d-\d\d-\d\dT06:00Z", f"{tomorrow:%Y-%m-%dT%H:%MZ}", command)


def test_what_the_demo_prints_works(demo):
    commands = demo.commands()
    assert len(commands) >= 10
    settings = [command for command in commands if re.match(r"(export |KEY=)", command)]
    for command in commands:
        if command not in settings:
            demo.check(command, *settings)


def test_the_blocks_of_the_readmes_work(demo):
    blocks, _ = printed_commands()
    ran = 0
    for command in blocks:
        if command in NOT_RUN or command.startswith("export "):
            continue
        variables = {"KEY": demo.key, "FALLOW_KEY": demo.key, "FALLOW_URL": demo.url}
        output = demo.check(demo.filled(command), **variables)
        ran += 1
        if command.startswith("fallow run"):
            assert re.fullmatch(r"lease_\w+ has 1 GPU\n", output)
        if command == "fallow replay":
            assert output.strip().endswith("match")
    assert ran >= 9


def test_the_commands_inside_sentences_work_or_exist(demo):
    _, inline = printed_commands()
    assert len(inline) >= 10
    for command in inline:
        if command in NOT_RUN:
            continue
        shown = f"{command.split(' -- ')[0]} --help" if command in NEEDS_MORE else command
        demo.check(shown, FALLOW_KEY=demo.key, FALLOW_URL=demo.url)


def test_the_python_of_the_readmes_trades(demo):
    """Its stream goes on for ever: what it says of its own bid is enough."""
    program = f"KEY = {demo.key!r}\n{demo.filled(printed_python())}"
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, env=demo.environment, text=True
    ) as process:
        while "lease.started" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen.add(line.split()[0])
        process.kill()


def test_the_routes_that_the_readmes_name_exist():
    known = {(route.method, re.sub(r"\{\w+\}", "*", route.path)) for route in ROUTES} | {
        ("GET", "/v1/stream")
    }
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/v1/[^` ?]*)", all_text())
    assert len(named) >= 15
    for method, path in named:
        path = re.sub(r"\{\w+\}|20\d\d-\d\d", "*", path)
        assert (method, path) in known, (method, path)


def test_what_the_readmes_link_to_is_there():
    linked = [(page, to) for page in PAGES for to in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert len(linked) >= 10
    assert [] == [(page.name, to) for page, to in linked if not (page.parent / to).exists()]


def test_everything_named_here_is_still_printed():
    blocks, inline = printed_commands()
    assert set(NOT_RUN) | NEEDS_MORE <= {*blocks, *inline}
