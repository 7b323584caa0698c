"""Two ways to the same state: the stored rows (fast, how an engine starts) and the journal (exact).

`verify_replay` walks both and compares their hashes: a start from rows is right only as long as
replaying every accepted command, from a snapshot or from nothing, leads to the same digest. It reads
and never writes, so it works beside a running engine.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from auction.commands import JournalEntry
from auction.core import Core
from auction.market import Book
from auction.ports import LiveState

REPLAY_PAGE_ENTRIES = 5_000
TICK_PAGE_ENTRIES = 100  # some milliseconds of work, where it runs beside an engine

JournalPages = Callable[[int, int], Awaitable[list[JournalEntry]]]  # (after_seq, limit)


class JournalReader(Protocol):
    """The reading half of the store port."""

    async def load(self) -> LiveState: ...
    async def read_journal(self, after_seq: int, limit: int) -> list[JournalEntry]: ...
    async def load_snapshot(self) -> tuple[int, str, bytes] | None: ...


class ReplayReport(Struct, frozen=True):
    """What a replay found. `is_match` holds when every compared hash agreed."""

    from_seq: int
    to_seq: int
    stored_hash: str  # of the state that the rows describe
    replayed_hash: str  # of the state that the journal leads to
    first_difference: str | None

    @property
    def is_match(self) -> bool:
        return self.first_difference is None


class TickReplay(Struct, frozen=True):
    """What the journal leads to at one tick; no digest where it does not get there."""

    seq: int  # the last entry that was replayed
    digest: str | None
    difference: str | None


async def verify_replay(
    reader: JournalReader,
    *,
    from_snapshot: bool = False,
    make_book: type[Book] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Replay the journal up to the stored state and compare the two.

    Starts from nothing, or with `from_snapshot` from the newest snapshot. `progress` is called with
    (entries done, entries in all) after each page.
    """
    live = await reader.load()
    stored = Core.restore(live, make_book)
    core, difference = Core(make_book), None
    snapshot = await reader.load_snapshot() if from_snapshot else None
    if snapshot is not None and snapshot[0] <= live.seq:
        seq, state_hash, payload = snapshot
        core = Core.restore(msgspec.msgpack.decode(payload, type=LiveState), make_book)
        if core.state_hash() != state_hash:
            difference = f"the snapshot of entry {seq} does not hash to what was written with it"
    first = core.seq
    while core.seq < live.seq and difference is None:
        page = await reader.read_journal(core.seq, min(REPLAY_PAGE_ENTRIES, live.seq - core.seq))
        if not page:
            difference = f"the journal ends at entry {core.seq}, the state is of entry {live.seq}"
        for entry in page:
            difference = _apply(core, entry)
            if difference is not None:
                break
        core.take_changes()
        if progress is not None:
            progress(core.seq - first, live.seq - first)
    stored_hash, replayed_hash = stored.state_hash(), core.state_hash()
    if difference is None and stored_hash != replayed_hash:
        difference = f"state hashes differ at entry {live.seq}"
    return ReplayReport(first, live.seq, stored_hash, replayed_hash, difference)


async def replay_tick(
    pages: JournalPages, market: str, tick: int, *, rest: Callable[[], Awaitable[None]]
) -> TickReplay:
    """Replay the journal from nothing up to one tick, with a `rest` after every page.

    Raises msgspec.DecodeError on an entry that cannot be read.
    """
    core = Core()
    while page := await pages(core.seq, TICK_PAGE_ENTRIES):
        for entry in page:
            difference = _apply(core, entry)
            if difference is not None:
                return TickReplay(entry.seq, None, difference)
            venue = core.markets.get(market)
            if venue is not None and venue.tick == tick:
                return TickReplay(entry.seq, venue.digest, None)
        core.take_changes()
        await rest()
    return TickReplay(core.seq, None, f"the journal ends at entry {core.seq}, before the tick")


def _apply(core: Core, entry: JournalEntry) -> str | None:
    """Apply an entry that was accepted once; say so where it is refused now."""
    core.apply(entry.command, entry.at_us)
    return None if core.seq == entry.seq else f"entry {entry.seq} was accepted once and is refused now"
