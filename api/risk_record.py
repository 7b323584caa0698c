"""What a market's prices did lately, read once a tick and kept for the markets that were asked about last."""

from collections import OrderedDict

from msgspec import Struct

from auction.model import Market
from auction.risk import Prices, keep_prices, on_grid
from auction.units import MICROSECONDS_PER_SECOND
from sql.reads import Reader
from sql.risk_reads import record

RECORD_SECONDS = 7 * 86_400
RECORDS_KEPT_MAX = 32


class Record(Struct, frozen=True):
    """A market's keep prices on a grid of its tick length, up to its newest tick."""

    tick: int
    from_us: int
    step_seconds: int
    grid: Prices


class Records:
    """The records of the markets asked about last."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: OrderedDict[str, Record] = OrderedDict()

    async def of(self, market: Market, now_us: int) -> Record | None:
        """Return the market's record up to its newest tick; None before its first one."""
        kept = self._kept.get(market.id)
        if kept is None or kept.tick != market.tick:
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
        return Record(tick, int(at_us[0]), market.tick_seconds, grid)
