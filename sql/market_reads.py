"""Reads of market history: candles, and how each market's last day went."""

from dataclasses import dataclass

from sql import query
from sql.reads import Reader, Slice


@dataclass(frozen=True, slots=True)
class CandleRow:
    """Prices are null in an interval without a trade; GPUs are means over its ticks."""

    start_us: int
    open: int | None
    high: int | None
    low: int | None
    close: int | None
    ticks: int
    cleared_gpus: int
    offered_gpus: int
    preempted_gpus: int


@dataclass(frozen=True, slots=True)
class MarketDay:
    """A market's last tick (null before its first), its day's prices and its hour's preemptions."""

    market: str
    price: int | None
    cleared_gpus: int | None
    offered_gpus: int | None
    demanded_gpus: int | None
    cleared_at_us: int | None
    day_open: int | None
    day_high: int | None
    day_low: int | None
    preempted_hour: int


async def candles(
    reader: Reader, market: str, *, interval_us: int, from_us: int, to_us: int, limit: int
) -> Slice[CandleRow]:
    """Return candles, newest first."""
    rows = await reader.fetch(query("candles"), market, from_us, to_us, interval_us, limit + 1)
    return Slice.of([CandleRow(*row.values()) for row in rows], limit)


async def market_days(reader: Reader, *, day_from_us: int, hour_from_us: int) -> list[MarketDay]:
    """Return every market's day, by id."""
    rows = await reader.fetch(query("market_days"), day_from_us, hour_from_us)
    return [MarketDay(*row.values()) for row in rows]
