"""Start server processes and prove which ones are alive.

Decides how a child is tied to this process and what counts as a server on a directory: its working
directory and the name of its executable, read from the kernel, never a pid file, which may name a
stranger after a restart of the machine or container. Must not know what the server is for.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sql import launcher

POLL_S = 0.01
LEFTOVER_QUIT_S = 5.0
LEFTOVER_KILL_S = 5.0


def spawn(
    command: Sequence[str | Path], *, user: str, death_signal: signal.Signals, output: IO[bytes] | int
) -> "subprocess.Popen[bytes]":
    """Start `command` as `user` (notation of `launcher`); it dies when this process's main thread does."""
    # The kernel sends the death signal when the *thread* that forked ends, not the process.
    assert threading.current_thread() is threading.main_thread(), "spawn servers from the main thread"
    # -I -S: 15 ms instead of 40, and nothing of the caller's environment is imported as root.
    launch = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(int(death_signal)), user]
    return subprocess.Popen(
        [*launch, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",  # ours may be closed to the server's user
        env=_environment(),
        start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server in order
    )


async def wait_for_exit(child: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    """Return whether `child` ended, and was reaped, within `timeout_s`."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while child.poll() is None:
        if asyncio.get_running_loop().time() >= deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def clear_servers(directory: Path) -> list[int]:
    """End every server on `directory`; return their pids. Raises TimeoutError if one survives SIGKILL."""
    loop = asyncio.get_running_loop()
    found = alive = servers_on(directory)
    if not alive:
        return []
    started_s = loop.time()
    asked: dict[int, signal.Signals] = {}
    while alive:
        waited_s = loop.time() - started_s
        # SIGQUIT is a crash to PostgreSQL: no half-done shutdown to hang in, recovery at the next start.
        number = signal.SIGQUIT if waited_s < LEFTOVER_QUIT_S else signal.SIGKILL
        for pid in alive:
            if asked.get(pid) != number:
                asked[pid] = number
                _send(pid, number)
        if waited_s > LEFTOVER_QUIT_S + LEFTOVER_KILL_S:
            raise TimeoutError(f"server processes {alive} on {directory} do not end")
        await asyncio.sleep(POLL_S)
        alive = servers_on(directory)
    return found


def servers_on(directory: Path) -> list[int]:
    """Return the pids of live PostgreSQL processes whose working directory is `directory`."""
    try:
        wanted = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not Path("/proc/self/exe").exists():
        return _servers_by_command_line(directory)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if not os.path.basename(os.readlink(f"/proc/{name}/exe")).startswith("postgres"):
                continue
            # By device and inode: a path would miss bind mounts and a directory renamed since.
            status = os.stat(f"/proc/{name}/cwd")
        except OSError:
            # Ended meanwhile, a zombie, or another user's, who could not have opened our directory.
            continue
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(int(name))
    return found


def _servers_by_command_line(directory: Path) -> list[int]:
    """The same without /proc (macOS), where the command line is all there is to go by."""
    lines = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True).stdout
    found = []
    for line in lines.splitlines():
        pid, _, command = line.strip().partition(" ")
        program = command.partition(" -D ")[0]
        if os.path.basename(program).startswith("postgres") and f" -D {directory} " in command + " ":
            found.append(int(pid))
    return found


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # Ended between the proof and the signal, which is what the signal was for.
        return


def _environment() -> dict[str, str]:
    """Our environment without PG* variables: they are meant for clients and would steer initdb."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
