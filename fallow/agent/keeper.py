"""Keeps one payload: starts it, outlives the agent, and ends only when nothing of the payload is left.

Run by path with `python -I`, so it imports nothing of ours: `keeper.py DIRECTORY USER COMMAND...`, USER
empty for the same one. In DIRECTORY it writes `keeper` (its pid and start time; who finds the file there
already leaves), `log` (the payload's output, its first 16 MiB) and at last `exit` (the payload's exit
status, 128 + n for signal n). SIGTERM is passed on; SIGUSR1 kills. As the subreaper it is the parent of
whatever the payload leaves behind.
"""

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

LOG_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PASSED_ON: dict[int, int] = {signal.SIGTERM: signal.SIGTERM, signal.SIGUSR1: signal.SIGKILL}
WATCHED: set[int] = {*PASSED_ON, signal.SIGCHLD}
LOOK_SECONDS = 5.0  # should a SIGCHLD ever be missed
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as a shell says it


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; raises OSError when there is none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def main(directory: Path, user: str, command: list[str]) -> None:
    """Keep the payload to its end."""
    try:
        file = os.open(directory / "keeper", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    status = _run(directory, user, command, file)
    _sweep()
    fresh = directory / "exit.new"
    fresh.write_text(str(status))
    fresh.rename(directory / "exit")


def _run(directory: Path, user: str, command: list[str], file: int) -> int:
    # Blocked for good, in every thread, and taken one by one: a handler would run too late for a signal that
    # comes just before waitpid() sleeps, and the payload would outlive its lease.
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    with os.fdopen(file, "w") as keeper:
        keeper.write(f"{os.getpid()} {start_time(os.getpid())}")
    identity: dict[str, Any] = {}
    if user:
        entry = pwd.getpwnam(user)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        process = subprocess.Popen(
            command,
            cwd=directory / "work",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED),
            **identity,
        )
    except FileNotFoundError:
        return NOT_FOUND
    except OSError:
        return NOT_EXECUTABLE
    assert process.stdout is not None
    threading.Thread(target=_log, args=(process.stdout, directory / "log"), daemon=True).start()
    while (status := process.poll()) is None:
        taken = signal.sigtimedwait(WATCHED, LOOK_SECONDS)
        if taken is not None and taken.si_signo in PASSED_ON:
            _signal_group(process.pid, PASSED_ON[taken.si_signo])
        _reap(process.pid)
    return status if status >= 0 else 128 - status


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _log(output: IO[bytes], path: Path) -> None:
    left = LOG_BYTES_MAX
    with path.open("wb", buffering=0) as log:
        while chunk := os.read(output.fileno(), CHUNK_BYTES):
            log.write(chunk[:left])
            left -= min(left, len(chunk))


def _reap(payload: int) -> None:
    """Take note of orphans that have ended; they would stay in the table of processes till the end."""
    for child in _children():
        if child != payload:
            os.waitpid(child, os.WNOHANG)


def _sweep() -> None:
    """Kill what the payload left behind: orphans become children of this process, however deep they were."""
    while children := _children():
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
