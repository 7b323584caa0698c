"""Running what tenants ask for: the port of the agent's drivers, and `exec`, which runs it on the machine.

A payload is known by its lease, so that an agent that died finds it again. `exec` shares the machine's
kernel and files with the tenant: it is for tenants whom the owner trusts; for others there are containers.
"""

import asyncio
import math
import os
import pwd
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from api.wire_workloads import PayloadView
from fallow.agent import keeper

START_SECONDS_MAX = 10.0
KILL_SECONDS_MAX = 20.0
LOOK_SECONDS = 0.1
UNKNOWN_EXIT = 137  # it was killed, and nobody could say by what
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PayloadRefused(Exception):
    """It cannot be started, and it is the tenant's to change; `exit_code` is what the tenant sees."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class DriverFailed(Exception):
    """The machine cannot start, see or end it; that is its owner's to mend."""


class Job(Struct, frozen=True):
    """What is to run for a lease, and on which GPUs."""

    lease: str
    gpu_uuids: list[str]
    ssh_public_key: str | None
    payload: PayloadView | None


class Driver(Protocol):
    """A way of running payloads. Every call may be repeated."""

    def runs(self, job: Job) -> bool:
        """Say whether there is anything to start."""
        ...

    async def start(self, job: Job) -> dict[str, str]:
        """Start it unless it was started; return how its tenant reaches it.

        Raises PayloadRefused and DriverFailed.
        """
        ...

    async def exit_code(self, lease: str) -> int | None:
        """Return its exit status, None while it runs. Raises DriverFailed."""
        ...

    async def end(self, lease: str, grace_seconds: float) -> None:
        """SIGTERM, and after the grace SIGKILL; returns when nothing is left of it. Raises DriverFailed."""
        ...

    async def forget(self, lease: str) -> None:
        """Remove what an ended payload has left on the disk. Raises DriverFailed."""
        ...


class ExecDriver:
    """Runs payloads as processes of this machine, each in a directory of its own that goes with its lease."""

    def __init__(self, directory: Path, run_as: str | None = None) -> None:
        """`run_as` is the user they run as; raises ValueError where that would be root."""
        if os.geteuid() == 0 and (run_as is None or pwd.getpwnam(run_as).pw_uid == 0):
            raise ValueError("payloads must not run as root: name a user with --run-as")
        if os.geteuid() != 0 and run_as is not None:
            raise ValueError("only root can run payloads as somebody else")
        self._directory = directory
        self._user = run_as or ""

    def runs(self, job: Job) -> bool:
        return job.payload is not None

    async def start(self, job: Job) -> dict[str, str]:
        assert job.payload is not None
        if not job.payload.command:
            raise PayloadRefused(keeper.NOT_FOUND, "this node runs commands, not images")
        home = self._directory / job.lease
        work = home / "work"
        work.mkdir(parents=True, exist_ok=True)
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(work, entry.pw_uid, entry.pw_gid)
        work.chmod(0o700)
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", keeper.__file__, str(home), self._user, *job.payload.command),
            env=_environment(job, work),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        if not await _until((home / "keeper").exists, START_SECONDS_MAX):
            raise DriverFailed(f"the payload of {job.lease} does not start")
        return {}

    async def exit_code(self, lease: str) -> int | None:
        if self._keeper(lease) is not None:
            return None
        with suppress(FileNotFoundError):
            return int((self._directory / lease / "exit").read_text())
        return UNKNOWN_EXIT

    async def end(self, lease: str, grace_seconds: float) -> None:
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGUSR1, KILL_SECONDS_MAX)):
            kept_by = self._keeper(lease)
            if kept_by is None:
                return
            os.kill(kept_by, number)
            if await _until(lambda: self._keeper(lease) is None, seconds):
                return
        raise DriverFailed(f"the payload of {lease} does not end")

    async def forget(self, lease: str) -> None:
        try:
            await asyncio.to_thread(shutil.rmtree, self._directory / lease)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DriverFailed(f"what {lease} left behind stays: {error}") from error

    def _keeper(self, lease: str) -> int | None:
        """Return the keeper's pid while it lives; a process that got its number later is not it."""
        try:
            pid, started = (self._directory / lease / "keeper").read_text().split()
            return int(pid) if keeper.start_time(int(pid)) == started else None
        except (OSError, ValueError):
            return None


async def _until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so; say whether it was in time."""
    for _ in range(math.ceil(max(0.0, seconds) / LOOK_SECONDS)):
        if is_so():
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return is_so()


def _environment(job: Job, home: Path) -> Mapping[str, str]:
    """The tenant's own words, and nothing of the agent's: its key is in there."""
    assert job.payload is not None
    return {
        "PATH": PATH,
        "HOME": str(home),
        **job.payload.env,
        "CUDA_VISIBLE_DEVICES": ",".join(job.gpu_uuids),
        "FALLOW_LEASE": job.lease,
    }
