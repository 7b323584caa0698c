"""The bugs that these suites exist for, planted into the store for as long as a test wants them.

Nothing of this is reachable from the product: a test, or a server process that a test starts through
`command`, patches the class before it runs.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from auction.errors import Unavailable
from sql import store
from sql.store import PostgresStore

EARLY_S = 0.05  # how long a commit stays behind its acknowledgement


@contextmanager
def keys_forgotten() -> Iterator[None]:
    """A reused key: answers are not kept with the commit, so a retry is decided again."""
    original = PostgresStore.commit

    def commit(self: PostgresStore, changes: Any) -> Any:
        changes.answers = []
        return original(self, changes)

    with _patched("commit", commit):
        yield


@contextmanager
def acknowledged_early() -> Iterator[None]:
    """An acknowledgement before the commit: a crash between the two loses what was promised."""
    original = PostgresStore.commit

    def commit(self: PostgresStore, changes: Any) -> Any:
        writing = original(self, changes)
        return _early(self, writing, self._next_seq + len(changes.journal))

    with _patched("commit", commit):
        yield


@contextmanager
def losses_called_successes() -> Iterator[None]:
    """A reply to a commit that was lost is taken for a success without a look."""

    async def happened(self: PostgresStore, connection: Any, seq: int) -> bool:
        connection.terminate()
        await self._reacquire()
        await self._writer().execute("UPDATE shards SET next_seq = $1 WHERE shard_id = 0", seq)
        return True

    with _patched("_happened", happened):
        yield


@contextmanager
def unfenced() -> Iterator[None]:
    """An engine that never asks whether the shard is still its own."""
    original = store.query
    fence = "UPDATE shards SET next_seq = $4 WHERE shard_id = $1 AND $2 > 0 AND $3 > 0 RETURNING next_seq"
    store.query = lambda name: fence if name == "fence" else original(name)
    try:
        yield
    finally:
        store.query = original


PLANTS = {
    plant.__name__: plant for plant in (keys_forgotten, acknowledged_early, losses_called_successes, unfenced)
}


def command(plant: str | None) -> list[str]:
    """Return the command that runs `fallow` with this bug, or as it is."""
    if plant is None:
        return [sys.executable, "-m", "fallow.cli"]
    program = f"from tests.crash import planted; planted.run({plant!r})"
    return [sys.executable, "-c", program]


def run(plant: str) -> None:
    """Be `fallow` with a bug, in a process of its own."""
    from fallow.cli import main

    with PLANTS[plant]():
        main()


async def _early(engine_store: Any, writing: Any, seq: int) -> None:
    previous = getattr(engine_store, "late", None)
    if previous is not None:
        await previous
    engine_store._next_seq = seq

    async def late() -> None:
        await asyncio.sleep(EARLY_S)
        try:
            await writing
        except Unavailable:
            engine_store._next_seq = -1  # whoever commits next is told

    engine_store.late = asyncio.create_task(late())


@contextmanager
def _patched(name: str, value: Any) -> Iterator[None]:
    original = getattr(PostgresStore, name)
    setattr(PostgresStore, name, value)
    try:
        yield
    finally:
        setattr(PostgresStore, name, original)
