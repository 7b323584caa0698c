"""Run a real PostgreSQL inside a data directory, for as long as this process lives.

Decides how the server is created, started, watched, restarted and stopped, so that after any kill
the next start succeeds and no acknowledged row is gone. Must not know what is stored. Invariants:
one process owns a directory (a lock held for life); the server never outlives its owner (a death
signal from the kernel); `DATA/pg` is either absent or whole (a rename commits it); nothing is
believed of a pid file; the server listens on a private socket only; no commit is reported before
it is on disk.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sql import data_dir as files
from sql.binaries import Binaries, EmbeddedPostgresError, find_binaries
from sql.data_dir import PORT, DataDirectoryBusy, ServerLog
from sql.process import POLL_S, clear_servers, spawn, wait_for_exit
from sql.server_user import ServerUser, choose_server_user

__all__ = ["DataDirectoryBusy", "EmbeddedPostgres", "EmbeddedPostgresError", "connect_arguments"]

INITDB_TIMEOUT_S = 300.0
# Crash recovery replays up to max_wal_size, which on a slow disk takes minutes.
READY_TIMEOUT_S = 900.0
SHARED_MEMORY_RETRY_S = 0.1
SHARED_MEMORY_RETRIES_MAX = 100
FAST_STOP_S = 10.0
QUIT_STOP_S = 5.0
KILL_STOP_S = 5.0

WATCH_S = 0.05
RESTART_DELAY_S_FIRST = 0.1
RESTART_DELAY_S_MAX = 5.0
STEADY_S = 60.0  # a server that lived this long restarts without delay

# Given on the command line, where neither postgresql.conf nor ALTER SYSTEM can weaken them.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "40",
    "max_wal_size": "2GB",  # 4 GB visibly lengthens crash recovery
    "wal_compression": "on",
    "shared_buffers": "128MB",
    "autovacuum": "on",
    "jit": "off",  # compiling costs more than our short statements
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
}


def connect_arguments(data_dir: Path) -> dict[str, Any]:
    """Return asyncpg's arguments for the server on `data_dir`, also from beside the process that owns it."""
    host = str(files.socket_dir(data_dir.resolve()))
    return {"host": host, "port": PORT, "user": "postgres", "database": "postgres"}


class EmbeddedPostgres:
    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, log: Callable[[str], None] | None = None
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "pg"
        self._server_log = ServerLog(self._data_dir / "postgres.log")
        self._bin_dir = bin_dir
        self._log = log or logging.getLogger("fallow.postgres").info
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._binaries: Binaries
        self._user: ServerUser

    async def start(self) -> None:
        """Start the server and return once it takes connections.

        Raises DataDirectoryBusy where another process owns the directory, EmbeddedPostgresError where
        the server cannot run. Call it from the main thread: the death signal follows the thread.
        """
        assert self._lock is None, "already started"
        try:
            files.create(self._data_dir)
            self._lock = files.lock(self._data_dir)
            self._choose_server()
            await self._remove_leftovers()
            if not (self._cluster / "PG_VERSION").exists():
                await self._create_cluster()
            self._give_to_server_user()
            await self._run_until_ready()
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):  # no space, no permission, a read-only file system
                raise EmbeddedPostgresError(f"cannot use the data directory: {error}") from error
            raise
        self._watcher = asyncio.create_task(self._watch(), name="embedded PostgreSQL watcher")
        self._watcher.add_done_callback(self._report_watcher)

    def connect_arguments(self) -> dict[str, Any]:
        """Return the arguments for `asyncpg.connect` and `asyncpg.create_pool`."""
        return connect_arguments(self._data_dir)

    @property
    def pid(self) -> int:
        """The process id of the running postmaster; changes when it is restarted."""
        assert self._child is not None, "not started"
        return self._child.pid

    async def stop(self) -> None:
        """Stop the server in order, or by force after a time, and give the directory free."""
        if self._watcher is not None:
            self._watcher.cancel()
            # A watcher that failed has said so in the log; what matters now is the stop.
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        try:
            await self._stop_child()
        finally:
            if self._lock is not None:
                os.close(self._lock)  # closing releases the flock
                self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _choose_server(self) -> None:
        major = files.cluster_major(self._cluster)
        binaries = find_binaries(self._bin_dir, major=major)
        choice = choose_server_user(self._data_dir, binaries, cluster_exists=major is not None)
        if choice.note:
            self._log(choice.note)
        self._user, self._binaries = choice.user, choice.binaries

    async def _remove_leftovers(self) -> None:
        """Clear what killed processes left; only under the lock, which proves that no owner lives."""
        try:
            ended = await clear_servers(self._cluster)
            if ended:
                self._log(f"ended {len(ended)} server processes that had outlived their owner")
            for unfinished in self._data_dir.glob("pg.init-*"):
                await clear_servers(unfinished)
                # Best effort: an orphan of initdb may still write. What stays is removed next time.
                await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
        except TimeoutError as error:
            raise EmbeddedPostgresError(str(error)) from error
        # No server lives, whatever these say: after a restart of the machine or container their pids
        # are other people's, and PostgreSQL itself would refuse to start for ever.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        files.remove_sockets(files.socket_dir(self._data_dir), self._user)

    async def _create_cluster(self) -> None:
        """Make a cluster beside its place, put it on disk, and commit it by a rename."""
        fresh = self._data_dir / f"pg.init-{os.getpid()}-{time.monotonic_ns()}"
        fresh.mkdir(mode=0o700)
        os.chown(fresh, self._user.uid, self._user.gid)
        command: list[str | Path] = [self._binaries.initdb]
        command += ["--no-sync", "--data-checksums", "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C.UTF-8", "-D", fresh]
        with self._server_log.open() as output:
            # SIGKILL: a half-made cluster is worth nothing, so initdb need not tidy up.
            self._child = spawn(command, user=self._user.launch, death_signal=signal.SIGKILL, output=output)
        if not await wait_for_exit(self._child, INITDB_TIMEOUT_S):
            raise EmbeddedPostgresError(f"initdb runs for {INITDB_TIMEOUT_S:.0f} s{self._server_log.tail()}")
        status, self._child = self._child.returncode, None
        if status != 0:
            raise EmbeddedPostgresError(f"initdb failed with status {status}{self._server_log.tail()}")
        await asyncio.to_thread(files.sync_file_system, self._data_dir)
        fresh.rename(self._cluster)
        files.sync_directory(self._data_dir)

    def _give_to_server_user(self) -> None:
        owner = self._cluster.stat().st_uid
        if owner != self._user.uid:
            if os.geteuid() != 0:
                raise EmbeddedPostgresError(
                    f"{self._cluster} belongs to uid {owner}, and we are uid {os.geteuid()}: "
                    f"run as that user, or chown -R {os.geteuid()} {self._data_dir}"
                )
            files.change_owner(self._cluster, self._user)
        files.create_socket_dir(files.socket_dir(self._data_dir), self._user)

    async def _run_until_ready(self) -> None:
        for _ in range(SHARED_MEMORY_RETRIES_MAX):
            self._server_log.bound()
            start_bytes = self._server_log.size_bytes()
            self._spawn_server()
            if await self._is_ready():
                return
            assert self._child is not None
            status = self._child.returncode
            said = self._server_log.tail(start_bytes)
            # Processes of a killed server hold its memory until they notice; they are on their way out.
            if "pre-existing shared memory block" not in said:
                break
            await asyncio.sleep(SHARED_MEMORY_RETRY_S)
        raise EmbeddedPostgresError(f"PostgreSQL did not start (status {status}){said}")

    def _spawn_server(self) -> None:
        settings = dict(_SETTINGS)
        # A list of directories to PostgreSQL: quoted, so that a comma in the path is a comma.
        socket_dir = str(files.socket_dir(self._data_dir)).replace('"', '""')
        settings["unix_socket_directories"] = f'"{socket_dir}"'
        if self._binaries.major >= 18:
            settings["io_method"] = "sync"  # io workers made a fast shutdown hang during re-initialisation
        command: list[str | Path] = [self._binaries.postgres, "-D", self._cluster, "-p", str(PORT)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._server_log.open() as output:
            # SIGQUIT: a crash to PostgreSQL, always safe, and it never waits for clients.
            self._child = spawn(command, user=self._user.launch, death_signal=signal.SIGQUIT, output=output)

    async def _is_ready(self) -> bool:
        """Wait until the server takes connections; return False where it ended instead."""
        assert self._child is not None
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._child.poll() is not None:
                return False
            with contextlib.suppress(FileNotFoundError):  # not written yet
                lines = (self._cluster / "postmaster.pid").read_text().splitlines()
                if len(lines) >= 8 and lines[0] == str(self._child.pid) and lines[7].strip() == "ready":
                    return True
            await asyncio.sleep(POLL_S)
        raise EmbeddedPostgresError(f"PostgreSQL starts for {READY_TIMEOUT_S:.0f} s{self._server_log.tail()}")

    async def _watch(self) -> None:
        delay_s = 0.0
        while True:
            assert self._child is not None
            started_s = time.monotonic()
            while self._child.poll() is None:
                await asyncio.sleep(WATCH_S)
                self._server_log.bound()
            if time.monotonic() - started_s >= STEADY_S:
                delay_s = 0.0
            status = self._child.returncode
            self._log(f"PostgreSQL ended unexpectedly (status {status}); restarting in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, RESTART_DELAY_S_FIRST), RESTART_DELAY_S_MAX)
            try:
                await self._remove_leftovers()
                await self._run_until_ready()
                self._log("PostgreSQL restarted")
            except (EmbeddedPostgresError, OSError) as error:
                # A full disk, say: it may pass, so the delay is bounded and the attempts are not.
                self._log(f"PostgreSQL does not restart: {error}")

    def _report_watcher(self, watcher: "asyncio.Task[None]") -> None:
        if not watcher.cancelled() and watcher.exception() is not None:
            self._log(f"PostgreSQL is no longer watched: {watcher.exception()!r}")

    async def _stop_child(self) -> None:
        child = self._child
        if child is None:
            return
        try:
            for number, timeout_s in ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, QUIT_STOP_S)):
                child.send_signal(number)
                if await wait_for_exit(child, timeout_s):
                    break
                self._log(f"PostgreSQL does not end on {number.name}")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait(KILL_STOP_S)
        # After SIGKILL the postmaster's children are left; after an orderly end there are none.
        await self._remove_leftovers()
        self._child = None
