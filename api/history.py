"""Public market history: candles, and all markets at a glance."""

from typing import Literal

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import Cursor, InstantField, PageLimit
from api.markets import existing_market
from api.paging import page, read_number
from api.routes import NoBody, NoQuery, route
from api.wire_history import CandleView, SummaryView, candle_view, summary_view
from auction.errors import Rejection
from auction.units import MICROSECONDS_PER_SECOND
from sql.market_reads import candles, market_days

HOUR_US = 3_600 * MICROSECONDS_PER_SECOND
DAY_US = 24 * HOUR_US
INTERVALS_US = {"1m": HOUR_US // 60, "5m": HOUR_US // 12, "1h": HOUR_US, "1d": DAY_US}
CANDLES_PER_WINDOW_MAX = 1_500
SUMMARY_STANDS_US = 2 * MICROSECONDS_PER_SECOND


class CandlesQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    interval: Literal["1m", "5m", "1h", "1d"] = "1m"
    from_: InstantField | None = None
    to: InstantField | None = None
    limit: PageLimit = 100
    cursor: Cursor | None = None


@route("GET", "/v1/markets/summary")
async def list_summaries(call: Call[NoBody, NoQuery]) -> Reply[Page[SummaryView]]:
    """Show every market at a glance: price, change over 24 hours, GPUs leased, idle and asked for."""
    services, now_us = call.services, call.now_us
    kept = services.summaries.get("all")
    if kept is None or not 0 <= now_us - kept[0] < SUMMARY_STANDS_US:
        days = await market_days(services.reader, day_from_us=now_us - DAY_US, hour_from_us=now_us - HOUR_US)
        markets = call.core.markets
        kept = now_us, [summary_view(markets[day.market], day) for day in days]
        services.summaries["all"] = kept
    return call.reply(Page(kept[1]))


@route("GET", "/v1/markets/{market}/candles")
async def list_candles(call: Call[NoBody, CandlesQuery]) -> Reply[Page[CandleView]]:
    """List a market's prices by interval, newest first; one without a tick is left out."""
    market, query = existing_market(call), call.query
    interval_us = INTERVALS_US[query.interval]
    to_us = call.now_us + 1 if query.to is None else int(query.to)
    longest_us = CANDLES_PER_WINDOW_MAX * interval_us
    from_us = max(0, to_us - longest_us) if query.from_ is None else int(query.from_)
    if not 0 < to_us - from_us <= longest_us:
        raise Rejection(
            "window_too_long",
            f"from lies before to, at most {CANDLES_PER_WINDOW_MAX} intervals",
            pointer="/from",
        )
    before_us = min(to_us, read_number(query.cursor))
    found = await candles(
        call.services.reader,
        market,
        interval_us=interval_us,
        from_us=from_us,
        to_us=before_us,
        limit=query.limit,
    )
    return call.reply(page([candle_view(row) for row in found.rows], found.last and found.last.start_us))
