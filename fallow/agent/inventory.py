"""Which GPUs this machine has, and which of them are busy: by NVML, by nvidia-smi, or made up.

NVML needs the extra `fallow[agent]`; without it nvidia-smi is asked. Fake GPUs are for trying things out.
"""

import subprocess
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

ASK_SECONDS_MAX = 20
MEBIBYTE = 1024 * 1024


class NoGpus(Exception):
    """This machine's GPUs cannot be listed; says why, one reason a way that was tried."""


class Gpu(Struct, frozen=True):
    """One GPU; `index` is what the market calls it on this node."""

    index: int
    uuid: str
    name: str
    memory_mib: int


class Inventory(Protocol):
    """What the agent asks the machine."""

    def gpus(self) -> list[Gpu]:
        """Return the GPUs in index order; raises NoGpus."""
        ...

    def busy(self) -> set[int]:
        """Return the indices of GPUs on which some process computes; raises NoGpus."""
        ...


class FakeInventory:
    """So many GPUs that do not exist and are never busy."""

    def __init__(self, count: int) -> None:
        self._count = count

    def gpus(self) -> list[Gpu]:
        return [Gpu(index, f"GPU-fake-{index}", "Fake GPU", 80 * 1024) for index in range(self._count)]

    def busy(self) -> set[int]:
        return set()


class NvmlInventory:
    """Asks the driver through NVML."""

    def gpus(self) -> list[Gpu]:
        with _Nvml() as nvml:
            found = []
            for index in range(nvml.nvmlDeviceGetCount()):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                memory_mib = nvml.nvmlDeviceGetMemoryInfo(device).total // MEBIBYTE
                uuid, name = nvml.nvmlDeviceGetUUID(device), nvml.nvmlDeviceGetName(device)
                found.append(Gpu(index, uuid, name, memory_mib))
            return found

    def busy(self) -> set[int]:
        with _Nvml() as nvml:
            devices = (nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount()))
            return {
                index
                for index, device in enumerate(devices)
                if nvml.nvmlDeviceGetComputeRunningProcesses(device)
            }


class SmiInventory:
    """Asks nvidia-smi."""

    def gpus(self) -> list[Gpu]:
        found = []
        for line in _smi("--query-gpu=index,uuid,name,memory.total"):
            index, uuid, name, memory_mib = (part.strip() for part in line.split(","))
            found.append(Gpu(int(index), uuid, name, int(memory_mib)))
        return sorted(found, key=lambda gpu: gpu.index)

    def busy(self) -> set[int]:
        computing = {line.split(",")[0].strip() for line in _smi("--query-compute-apps=gpu_uuid,pid")}
        return {gpu.index for gpu in self.gpus() if gpu.uuid in computing}


def find_inventory(fake_gpus: int | None = None) -> tuple[Inventory, list[Gpu]]:
    """Return the first way that lists GPUs, and what it lists; raises NoGpus."""
    if fake_gpus is not None:
        fake = FakeInventory(fake_gpus)
        return fake, fake.gpus()
    reasons = []
    ways: Sequence[Inventory] = (NvmlInventory(), SmiInventory())
    for way in ways:
        try:
            gpus = way.gpus()
        except NoGpus as reason:
            reasons.append(str(reason))
            continue
        if gpus:
            return way, gpus
        reasons.append(f"{type(way).__name__} lists none")
    raise NoGpus("; ".join(reasons))


class _Nvml:
    """NVML between its init and its shutdown."""

    def __enter__(self) -> "_Nvml":
        try:
            import pynvml
        except ImportError:
            raise NoGpus("NVML: install fallow[agent]") from None
        self._module = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoGpus(f"NVML: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._module.nvmlShutdown()

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._module, name)


def _smi(query: str) -> list[str]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=True)
    except FileNotFoundError:
        raise NoGpus("nvidia-smi is not installed") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NoGpus(f"nvidia-smi: {error}") from None
    return [line for line in done.stdout.splitlines() if line.strip()]
