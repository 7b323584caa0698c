"""The owner's own programs: `on_start`, `on_drain`, `on_stop`, each an executable in one directory.

A hook gets one JSON object on standard input, CUDA_VISIBLE_DEVICES and FALLOW_LEASE in its environment; its
exit status 0 means that it is done. What `on_start` prints may be `{"connect": {...}}`: how the tenant
reaches its lease. A hook that is not there has nothing to do. One that takes too long is killed.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

import msgspec
from msgspec import Struct

from api.wire_workloads import PayloadView

OUTPUT_BYTES_MAX = 64 * 1024
HOOKS = ("on_start", "on_drain", "on_stop")


class HookFailed(Exception):
    """A hook did not end with status 0 in its time."""


class Order(Struct, frozen=True, omit_defaults=True):
    """What a hook is told."""

    lease: str
    gpu_indices: list[int]
    gpu_uuids: list[str]
    reason: str | None = None
    reclaim_at: str | None = None
    ssh_public_key: str | None = None
    payload: PayloadView | None = None


class _Output(Struct, frozen=True):
    connect: dict[str, str] = {}


async def run_hook(directory: Path | None, name: str, order: Order, seconds_max: float) -> dict[str, str]:
    """Run a hook to its end; return what it says about connecting. Raises HookFailed."""
    assert name in HOOKS
    program = None if directory is None else directory / name
    if program is None or not program.exists():
        return {}
    # Files, not pipes: a payload that the hook leaves running inherits them, and must not be waited for.
    with TemporaryFile() as told, TemporaryFile() as printed:
        told.write(msgspec.json.encode(order))
        told.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                program, stdin=told, stdout=printed, env=_environment(order), start_new_session=True
            )
        except OSError as error:
            raise HookFailed(f"{name}: {error.strerror}") from error
        try:
            async with asyncio.timeout(max(0.0, seconds_max)):
                status = await process.wait()
        except TimeoutError:
            raise HookFailed(f"{name} took over {seconds_max:.0f} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        printed.seek(0)
        output = printed.read(OUTPUT_BYTES_MAX)
    if status != 0:
        raise HookFailed(f"{name} ended with status {status}")
    return _connect_of(name, output)


def _connect_of(name: str, output: bytes) -> dict[str, str]:
    if name != "on_start" or not output.strip():
        return {}
    try:
        return msgspec.json.decode(output, type=_Output).connect
    except msgspec.DecodeError as error:
        raise HookFailed(f"{name} printed no such object: {error}") from None


def _environment(order: Order) -> Mapping[str, str]:
    visible = order.gpu_uuids or [str(index) for index in order.gpu_indices]
    return os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(visible), "FALLOW_LEASE": order.lease}
