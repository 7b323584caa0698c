"""The files of a data directory around the cluster: its lock, its socket directory, its log.

Decides who owns a directory, where its socket lies, how much log is kept, and what is put on disk
before it is relied on. Must not know how a server is started. Invariants: the lock is the kernel's
and ends with its holder, however that ends; no mode is changed of a directory that was there before.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import IO

from sql.binaries import EmbeddedPostgresError
from sql.server_user import ServerUser

PORT = 5432  # only names the socket: nothing listens on a network
SOCKET_PATH_BYTES_MAX = 100  # the kernel allows 107 on Linux, 103 on macOS
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_BYTES = 2_000


class DataDirectoryBusy(EmbeddedPostgresError):
    """Another live process owns the data directory."""


def create(data_dir: Path) -> None:
    """Make `data_dir` where it is missing; root's may be passed through by the server's user."""
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True)
        data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)


def lock(data_dir: Path) -> int:
    """Own `data_dir` until the descriptor returned is closed; raises DataDirectoryBusy."""
    path = data_dir / ".owner.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode().strip()
        os.close(descriptor)
        raise DataDirectoryBusy(
            f"{data_dir} is in use by process {owner or '(unknown)'}: stop it first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)  # for the message above, never for a decision
    return descriptor


def cluster_major(cluster: Path) -> int | None:
    """Return the PostgreSQL version that made `cluster`, None where there is none yet."""
    version = cluster / "PG_VERSION"
    if version.exists():
        return int(version.read_text())
    if cluster.exists() and any(cluster.iterdir()):
        raise EmbeddedPostgresError(
            f"{cluster} is not empty and not a PostgreSQL cluster: choose another directory"
        )
    return None


def socket_dir(data_dir: Path) -> Path:
    """Return where the server's socket lies; `data_dir` is resolved, so every process finds the same."""
    inside = data_dir / "s"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX:
        return inside
    # Not $TMPDIR: it differs between a service and the shell that looks into its books.
    return Path("/tmp", f"fallow-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}")


def create_socket_dir(directory: Path, user: ServerUser) -> None:
    """Make the socket directory, private to the server's user."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not _is_ours(directory, user):
        raise EmbeddedPostgresError(f"{directory} exists and is not ours: remove it")
    if directory.stat().st_uid != user.uid:
        os.chown(directory, user.uid, user.gid)


def remove_sockets(directory: Path, user: ServerUser) -> None:
    """Remove what a killed server left in the socket directory; only where no server lives."""
    if directory.exists() and _is_ours(directory, user):
        for path in directory.glob(f".s.PGSQL.{PORT}*"):
            path.unlink(missing_ok=True)


def _is_ours(directory: Path, user: ServerUser) -> bool:
    # The fallback lies in /tmp, where anybody may have put a link to elsewhere under its name.
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (os.geteuid(), user.uid)


def change_owner(cluster: Path, user: ServerUser) -> None:
    """Give all of `cluster` to `user`, the top last: it is what tells a finished change."""
    for folder, folders, files in os.walk(cluster):
        for name in [*folders, *files]:
            os.chown(os.path.join(folder, name), user.uid, user.gid, follow_symlinks=False)
    os.chown(cluster, user.uid, user.gid)


def sync_file_system(path: Path) -> None:
    """Put everything written to the file system of `path` on disk; raises OSError if that failed."""
    if sys.platform != "linux":
        os.sync()
        return
    # One call instead of initdb's fsync of a thousand files.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs {path}")
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Put the names in `path` on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ServerLog:
    """What the server and initdb print: one file and one former file, both bounded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> IO[bytes]:
        """Open the log for appending; only its owner may read it, it can hold statements."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self.path, flags, 0o600), "ab")

    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def tail(self, start_bytes: int = 0) -> str:
        """Return the log's end, at most from `start_bytes` on, to be put behind an error message."""
        start_bytes = max(start_bytes, self.size_bytes() - LOG_TAIL_BYTES)
        if not self.path.exists():
            return ""
        with open(self.path, "rb") as file:
            file.seek(start_bytes)
            return f"; {self.path} ends with:\n{file.read(LOG_TAIL_BYTES).decode(errors='replace').rstrip()}"

    def bound(self) -> None:
        """Move a log that is too long aside. The server appends, so it may be cut while it writes."""
        if self.size_bytes() > LOG_BYTES_MAX:
            shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)
