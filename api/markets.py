"""Public market data: markets, ticks, the curve, quotes, the time.

What was decided is read from the database; the curve and the quote are of the book as it stands.
"""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

from msgspec import Meta, Struct

from api.call import Call, Reply
from api.codec import JSON, Page
from api.fields import (
    CURRENCY,
    TIME_US_MAX,
    Cursor,
    GpuCount,
    PageLimit,
    TickNumber,
    format_instant,
    format_price_or_none,
    is_object_id,
    parse_instant,
)
from api.paging import page, read_number
from api.risk import suggestions
from api.routes import NoBody, NoQuery, route
from api.wire_market import (
    CurveView,
    MarketView,
    QuoteView,
    TickView,
    TimeView,
    market_view,
    tick_view,
)
from auction.errors import Rejection
from auction.model import Curve
from auction.ports import Answer
from auction.units import format_microusd
from sql.reads import INT64_MAX

NDJSON = "application/x-ndjson"
EXPORT_TICKS_MAX = 5_000  # of one answer
EXPORT_PAGE_TICKS = 500

_Moment = Annotated[str, Meta(max_length=40, description="a tick's number, or a time")]


class TicksQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    first: _Moment | None = None
    last: _Moment | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


class ExportQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    first: _Moment | None = None
    last: _Moment | None = None


class QuoteQuery(Struct, frozen=True, forbid_unknown_fields=True):
    gpus: GpuCount
    min_gpus: GpuCount = 1


class CurveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`tick` asks for what that tick cleared; the last 50,000 are kept."""

    tick: TickNumber | None = None


@route("GET", "/v1/time")
async def get_time(call: Call[NoBody, NoQuery]) -> Reply[TimeView]:
    """Tell the market's time."""
    return call.reply(TimeView(format_instant(call.now_us)))


@route("GET", "/v1/markets")
async def list_markets(call: Call[NoBody, NoQuery]) -> Reply[Page[MarketView]]:
    """List the markets."""
    markets = await call.services.reader.markets()
    return call.reply(Page([market_view(market) for market in markets]))


@route("GET", "/v1/markets/{market}")
async def get_market(call: Call[NoBody, NoQuery]) -> Reply[MarketView]:
    """Show one market."""
    market_id = _market_id(call)
    market = await call.services.reader.market(market_id)
    if market is None:
        raise _no_market()
    return call.reply(market_view(market))


@route("GET", "/v1/markets/{market}/ticks")
async def list_ticks(call: Call[NoBody, TicksQuery]) -> Reply[Page[TickView]]:
    """List the results of a market's ticks, newest first."""
    market_id = existing_market(call)
    query = call.query
    first, from_us = _bound(query.first, "/from", 0, 0)
    last, to_us = _bound(query.last, "/to", INT64_MAX, TIME_US_MAX)
    before = read_number(query.cursor)
    found = await call.services.reader.ticks(
        market_id, first=first, last=min(last, before - 1), from_us=from_us, to_us=to_us, limit=query.limit
    )
    return call.reply(page([tick_view(tick) for tick in found.rows], found.last and found.last.tick))


@route("GET", "/v1/markets/{market}/export", media=NDJSON)
async def export_ticks(call: Call[NoBody, ExportQuery]) -> Reply[str]:
    """Give a market's ticks from a number or time to another, oldest first, one JSON object a line.

    At most 5,000 lines; where there are more, the header `Link` has the next ones' address (`rel="next"`).
    """
    market_id = existing_market(call)
    first, from_us = _bound(call.query.first, "/from", 0, 0)
    last, to_us = _bound(call.query.last, "/to", INT64_MAX, TIME_US_MAX)
    lines: list[bytes] = []
    headers: dict[str, str] = {}
    while True:
        found = await call.services.reader.ticks_onward(
            market_id, first=first, last=last, from_us=from_us, to_us=to_us, limit=EXPORT_PAGE_TICKS
        )
        if found and len(lines) >= EXPORT_TICKS_MAX:
            until = "" if call.query.last is None else f"&to={quote(call.query.last, safe='')}"
            headers["Link"] = f'<{call.request.path}?from={found[0].tick}{until}>; rel="next"'
            break
        lines += (JSON.encode(tick_view(tick)) for tick in found)
        if len(found) < EXPORT_PAGE_TICKS:
            break
        first = found[-1].tick + 1
    body = b"".join(line + b"\n" for line in lines)
    return Reply(answer=Answer(200, NDJSON, body), headers=headers)


@route("GET", "/v1/markets/{market}/ticks/{tick}")
async def get_tick(call: Call[NoBody, NoQuery]) -> Reply[TickView]:
    """Show the result of one tick, or of the latest."""
    market_id = existing_market(call)
    text = call.path_part("tick")
    number = None
    if text != "latest":
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else -1
    return call.reply(tick_view(call.found(await call.services.reader.tick(market_id, number), "tick")))


@route("GET", "/v1/markets/{market}/curve")
async def get_curve(call: Call[NoBody, CurveQuery]) -> Reply[CurveView]:
    """Show cumulative demand and supply by price: of the book now, or as a tick cleared it."""
    market_id = existing_market(call)
    if call.query.tick is None:
        return call.reply(curve_view(call.core.curve(market_id)))
    kept = await call.services.reader.curve(market_id, call.query.tick)
    return call.reply(curve_view(call.found(kept, "curve")))


@route("GET", "/v1/markets/{market}/quote")
async def get_quote(call: Call[NoBody, QuoteQuery]) -> Reply[QuoteView]:
    """Say what so many GPUs would cost at the next tick."""
    market_id = existing_market(call)
    gpus, min_gpus = call.query.gpus, call.query.min_gpus
    quote = call.core.quote(market_id, gpus, min_gpus)
    market = call.core.markets[market_id]
    kept = await call.services.records.of(market, call.now_us)
    suggested = []
    if kept is not None:
        suggested = await asyncio.to_thread(suggestions, kept, market, quote.price_to_fill)
    return call.reply(
        QuoteView(
            market=market_id,
            tick=call.core.markets[market_id].tick,
            gpus=gpus,
            min_gpus=min_gpus,
            price_to_fill=format_price_or_none(quote.price_to_fill),
            available_gpus=quote.available_gpus,
            entry_price=format_price_or_none(quote.entry_price),
            clearing_price=format_price_or_none(quote.clearing_price),
            currency=CURRENCY,
            suggested_limits=suggested,
        )
    )


def curve_view(curve: Curve) -> CurveView:
    """Show a market's curve."""
    return CurveView(
        curve.market,
        curve.tick,
        [(format_microusd(price), gpus) for price, gpus in curve.demand],
        [(format_microusd(price), gpus) for price, gpus in curve.supply],
    )


def _market_id(call: Call[NoBody, NoQuery]) -> str:
    market_id = call.path_part("market")
    if not is_object_id(market_id):
        raise _no_market()
    return market_id


def existing_market(call: Call[Any, Any]) -> str:
    """Return the market that a path names; raise Rejection where there is none."""
    # The set of markets only grows, so the engine's own copy is as good as the stored one.
    market_id = call.path_part("market")
    if market_id not in call.core.markets:
        raise _no_market()
    return market_id


def _no_market() -> Rejection:
    return Rejection("market_not_found", "no such market")


def _bound(text: str | None, pointer: str, tick: int, instant_us: int) -> tuple[int, int]:
    """Read a bound that is a tick's number or a time; the other kind stays open."""
    if text is None:
        return tick, instant_us
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text), instant_us
    try:
        return tick, parse_instant(text)
    except ValueError as error:
        raise Rejection("invalid_value", f"{error}, or a tick's number", pointer=pointer) from None
