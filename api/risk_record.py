"""What a market's prices did lately, kept for the markets that were asked about last.

A record is a week of ticks: it is read at most once in RECORD_STANDS_SECONDS, by one asker for all.
"""

import asyncio
from collections import OrderedDict

from msgspec import Struct

from auction.model import Market
from auction.risk import Prices, keep_prices, on_grid
from auction.units import MICROSECONDS_PER_SECOND
from sql.reads import Reader
from sql.risk_reads import record

RECORD_SECONDS = 7 * 86_400
RECORDS_KEPT_MAX = 32
RECORD_STANDS_SECONDS = 30


class Record(Struct, frozen=True):
    """A market's keep prices on a grid of its tick length, up to its newest tick."""

    tick: int
    read_at_us: int
    from_us: int
    step_seconds: int
    grid: Prices


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
                kept = await self._read(market, market.tick, now_us)
                if kept is None:
                    return None
                self._kept[market.id] = kept
            self._kept.move_to_end(market.id)
            while len(self._kept) > RECORDS_KEPT_MAX:
                self._kept.popitem(last=False)
            return kept

    async def _read(self, market: Market, tick: int, now_us: int) -> Record | None:
        from_us = now_us - RECORD_SECONDS * MICROSECONDS_PER_SECOND
        at_us, high, entry = await record(self._reader, market.id, from_us=from_us)
        if at_us.size == 0:
            return None
        step_us = market.tick_seconds * MICROSECONDS_PER_SECOND
        grid = on_grid(at_us, keep_prices(high, entry), step_us=step_us, until_us=int(at_us[-1]))
        return Record(tick, now_us, int(at_us[0]), market.tick_seconds, grid)
