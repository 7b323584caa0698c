"""The shapes of market history. See wire.py for the rules of all wire modules."""

from msgspec import Struct

from api.fields import CURRENCY, format_instant, format_price_or_none
from auction.model import Market
from auction.units import format_microusd
from sql.market_reads import CandleRow, MarketDay


class CandleView(Struct, frozen=True):
    """Prices of the ticks in an interval, null where nothing traded; GPUs are means over its ticks."""

    start_at: str
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    ticks: int
    cleared_gpus: int
    offered_gpus: int
    preempted_gpus: int
    currency: str


class SummaryView(Struct, frozen=True):
    """A market now and over the last 24 hours; `change` is against the first price of that time."""

    market: str
    gpu_model: str
    region: str
    status: str
    price: str | None
    day_change: str | None
    day_high: str | None
    day_low: str | None
    leased_gpus: int
    idle_gpus: int
    offered_gpus: int
    demanded_gpus: int
    preempted_gpus_last_hour: int
    tick: int
    next_tick_at: str
    currency: str


def candle_view(row: CandleRow) -> CandleView:
    return CandleView(
        format_instant(row.start_us),
        format_price_or_none(row.open),
        format_price_or_none(row.high),
        format_price_or_none(row.low),
        format_price_or_none(row.close),
        row.ticks,
        row.cleared_gpus,
        row.offered_gpus,
        row.preempted_gpus,
        CURRENCY,
    )


def summary_view(market: Market, day: MarketDay) -> SummaryView:
    leased, offered = day.cleared_gpus or 0, day.offered_gpus or 0
    change = None
    if day.price is not None and day.day_open is not None:
        change = format_microusd(day.price - day.day_open)
    return SummaryView(
        market=market.id,
        gpu_model=market.gpu_model,
        region=market.region,
        status=market.status,
        price=format_price_or_none(day.price),
        day_change=change,
        day_high=format_price_or_none(day.day_high),
        day_low=format_price_or_none(day.day_low),
        leased_gpus=leased,
        idle_gpus=offered - leased,
        offered_gpus=offered,
        demanded_gpus=day.demanded_gpus or 0,
        preempted_gpus_last_hour=day.preempted_hour,
        tick=market.tick,
        next_tick_at=format_instant(market.next_tick_at_us),
        currency=CURRENCY,
    )
