"""What the agent remembers across its own death: its leases, reports that nobody took yet, fenced GPUs.

One small file, replaced whole and synced before anything that depends on it is done. A file that cannot be
read stops the agent: guessing would run a payload twice or leave one running.
"""

import os
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct, field


class Phase(StrEnum):
    STARTING = "starting"  # on_start runs, or ran when the agent died
    RUNNING = "running"
    DRAINED = "drained"  # on_drain has run
    STOPPING = "stopping"  # on_stop runs, or ran when the agent died


class Held(Struct):
    """A lease that this node serves."""

    id: str
    gpu_indices: list[int]
    phase: Phase
    reclaim_at_us: int | None = None  # of its notice
    connect: dict[str, str] = field(default_factory=dict)
    has_payload: bool = False  # that the agent's driver has started, or was about to


class Report(Struct, frozen=True):
    """What is still to be told: started, drained, finished, stopped or failed."""

    lease: str
    state: str
    connect: dict[str, str] = field(default_factory=dict)


class Memory(Struct):
    """All of it."""

    node: str
    held: dict[str, Held] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    fenced: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # leases that the market has not heard of yet: not again


class Journal:
    """The file; `memory` is what it says."""

    def __init__(self, path: Path, node: str) -> None:
        """Read the file; raises ValueError where it is another node's, or unreadable."""
        self._path = path
        self.memory = Memory(node)
        if path.exists():
            try:
                self.memory = msgspec.json.decode(path.read_bytes(), type=Memory)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path} cannot be read: {error}") from None
            if self.memory.node != node:
                raise ValueError(f"{path} belongs to node {self.memory.node}")

    def save(self) -> None:
        """Replace the file, durably."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(self.memory))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
