"""What a market's prices did lately, kept for the markets that were asked about last.

A record is a week of ticks. At most once in RECORD_STANDS_SECONDS, by one asker for all, the ticks that came
meanwhile are added to it: a week read anew would keep the market from its beat.
"""

import asyncio
from collections import OrderedDict

import numpy as np
from msgspec import Struct

from auction.model import Market
from auction.risk import Prices, keep_prices, on_grid
from auction.units import MICROSECONDS_PER_SECOND
from sql.reads import Reader
from sql.risk_reads import Column, ticks_after

RECORD_SECONDS = 7 * 86_400
RECORD_TICKS_MAX = 100_000
RECORDS_KEPT_MAX = 32
RECORD_STANDS_SECONDS = 30


class Record(Struct, frozen=True):
    """A market's keep prices on a grid of its tick length, up to its newest tick."""

    tick: int
    read_at_us: int
    from_us: int
    step_seconds: int
    grid: Prices
    at_us: Column  # of each tick
    keep: Prices  # of each tick


class Records:
    """The records of the markets asked about last."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: OrderedDict[str, Record] = OrderedDict()
        self._lock = asyncio.Lock()  # one read at a time, however many ask

    async def of(self, market: Market, now_us: int) -> Record | None:
        """Return the market's record, at most RECORD_STANDS_SECONDS old; None before its first tick."""
        async with self._lock:
            kept = self._kept.get(market.id)
            age_us = now_us - (0 if kept is None else kept.read_at_us)
            if kept is None or not 0 <= age_us < RECORD_STANDS_SECONDS * MICROSECONDS_PER_SECOND:
                kept = await self._carry_on(kept, market, now_us)
                if kept is None:
                    return None
                self._kept[market.id] = kept
            self._kept.move_to_end(market.id)
            while len(self._kept) > RECORDS_KEPT_MAX:
                self._kept.popitem(last=False)
            return kept

    async def _carry_on(self, kept: Record | None, market: Market, now_us: int) -> Record | None:
        """Return what is kept and the ticks since; None where nothing is left of a week."""
        from_us = now_us - RECORD_SECONDS * MICROSECONDS_PER_SECOND
        behind = max(-1, market.tick - RECORD_TICKS_MAX) if kept is None else kept.tick
        ticks, at_us, high, entry = await ticks_after(self._reader, market.id, behind, from_us=from_us)
        keep = keep_prices(high, entry)
        if kept is not None:
            at_us, keep = np.concatenate((kept.at_us, at_us)), np.concatenate((kept.keep, keep))
        first = max(int(np.searchsorted(at_us, from_us)), at_us.size - RECORD_TICKS_MAX)
        at_us, keep = at_us[first:], keep[first:]
        if at_us.size == 0:
            return None
        step_us = market.tick_seconds * MICROSECONDS_PER_SECOND
        grid = on_grid(at_us, keep, step_us=step_us, until_us=int(at_us[-1]))
        newest = int(ticks[-1]) if ticks.size else behind
        return Record(newest, now_us, int(at_us[0]), market.tick_seconds, grid, at_us, keep)
