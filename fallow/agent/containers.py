"""Running what tenants ask for in containers, by the command line of docker or podman.

docker takes GPUs by `--gpus device=UUID,...` (NVIDIA Container Toolkit), podman by CDI names. With an ssh
key the container's port 22 is published and the key handed over as PUBLIC_KEY, which images with an ssh
daemon expect.
"""

import asyncio
import math
from collections.abc import Sequence

from api.fields import ConnectField, decode_field
from fallow.agent.payloads import UNKNOWN_EXIT, DriverFailed, Job, PayloadRefused

ASK_SECONDS_MAX = 60.0
START_SECONDS_MAX = 500.0  # an image may have to be pulled
PIDS_MAX = 8_192
NO_IMAGE = 125  # docker's own status for what it could not start
SSH_PORT = "22"


class ContainerDriver:
    """Runs each payload in a container named after its lease."""

    def __init__(
        self,
        program: str,
        *,
        host: str,
        default_image: str | None = None,
        options: Sequence[str] = (),
        has_gpus: bool = True,
    ) -> None:
        """`host` is where tenants reach published ports; `options` go to every `run`."""
        self._program = program
        self._host = host
        self._default_image = default_image
        self._options = options
        self._has_gpus = has_gpus

    def runs(self, job: Job) -> bool:
        return job.payload is not None or (job.ssh_public_key is not None and self._default_image is not None)

    async def start(self, job: Job) -> dict[str, str]:
        payload = job.payload
        image = self._default_image if payload is None else payload.image or self._default_image
        if image is None:
            raise PayloadRefused(NO_IMAGE, "this node runs images; the payload names none")
        if await self._state(job.lease) is None:
            command = [] if payload is None else payload.command
            status, printed = await self._ask(
                "run", *self._run_options(job), image, *command, within=START_SECONDS_MAX
            )
            if status != 0:
                await self._explain(status, printed)
                await self._remove(job.lease)
                raise PayloadRefused(status, printed)
        return {} if job.ssh_public_key is None else await self._connect(job.lease)

    async def exit_code(self, lease: str) -> int | None:
        state = await self._state(lease)
        if state is None:
            return UNKNOWN_EXIT
        is_running, code = state.split()
        return None if is_running == "true" else int(code)

    async def end(self, lease: str, grace_seconds: float) -> None:
        if await self._state(lease) is None:
            return
        seconds = max(0, math.floor(grace_seconds))
        await self._ask("stop", "--time", str(seconds), _name(lease), within=seconds + ASK_SECONDS_MAX)
        if await self.exit_code(lease) is None:
            raise DriverFailed(f"the container of {lease} does not end")

    async def forget(self, lease: str) -> None:
        await self._remove(lease)

    def _run_options(self, job: Job) -> list[str]:
        options = ["--detach", "--name", _name(job.lease), "--label", f"fallow.lease={job.lease}"]
        options += ["--security-opt", "no-new-privileges", "--pids-limit", str(PIDS_MAX)]
        if self._has_gpus and self._program == "podman":
            options += [f"--device=nvidia.com/gpu={uuid}" for uuid in job.gpu_uuids]
        elif self._has_gpus:
            options += ["--gpus", f'"device={",".join(job.gpu_uuids)}"']
        environment = {} if job.payload is None else dict(job.payload.env)
        environment["FALLOW_LEASE"] = job.lease
        if job.ssh_public_key is not None:
            environment["PUBLIC_KEY"] = job.ssh_public_key
            options += ["--publish", SSH_PORT]
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        return [*options, *self._options]

    async def _connect(self, lease: str) -> dict[str, str]:
        status, printed = await self._ask("port", _name(lease), f"{SSH_PORT}/tcp")
        if status != 0 or not printed:  # podman prints nothing for one that is not published
            raise PayloadRefused(NO_IMAGE, f"its ssh port is not published: {printed}")
        port = printed.splitlines()[0].rpartition(":")[2]
        return dict(decode_field(ConnectField, {"host": self._host, "port": port, "user": "root"}))

    async def _state(self, lease: str) -> str | None:
        """Return "true 0" and the like, None where there is no such container."""
        template = "{{.State.Running}} {{.State.ExitCode}}"
        status, printed = await self._ask("container", "inspect", "--format", template, _name(lease))
        if status != 0 and "no such container" not in printed.lower():
            raise DriverFailed(printed)
        return printed if status == 0 else None

    async def _explain(self, status: int, printed: str) -> None:
        """A run that failed is the tenant's trouble where the program itself works; else DriverFailed."""
        works, _ = await self._ask("version")
        if works != 0:
            raise DriverFailed(f"status {status}: {printed}")

    async def _remove(self, lease: str) -> None:
        await self._ask("rm", "--force", "--volumes", _name(lease))

    async def _ask(self, *arguments: str, within: float = ASK_SECONDS_MAX) -> tuple[int, str]:
        """Run the program; return its status and the last of what it printed. Raises DriverFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
        except OSError as error:
            raise DriverFailed(f"{self._program}: {error.strerror}") from error
        try:
            async with asyncio.timeout(within):
                printed, _ = await process.communicate()
        except TimeoutError:
            raise DriverFailed(f"{self._program} {arguments[0]} took over {within:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, printed.decode(errors="replace").strip()[-1_000:]


def _name(lease: str) -> str:
    return f"fallow-{lease}"
