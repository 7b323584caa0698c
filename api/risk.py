"""Risk in numbers: how likely a limit is to be outbid, from the market's own record of the last week.

A record is read once in half a minute (api/risk_record.py); the estimate is auction/risk.py's.
"""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct

from api.call import Call, Reply
from api.fields import PriceField, format_instant
from api.risk_record import Record
from api.routes import NoBody, route
from api.wire_market import SuggestionView
from api.wire_risk import InterruptionsView
from auction.errors import Rejection
from auction.model import Market
from auction.risk import NO_LIMIT, Outlook, TooShort, median_run_cells
from auction.units import Price, format_microusd

HORIZON_SECONDS_MAX = 86_400
SAMPLES_MIN = 8
SUGGESTION_HORIZON_SECONDS = 3_600
SUGGESTIONS = (("balanced", 0.20), ("safe", 0.05))  # outbid within an hour at most so likely


class InterruptionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit_price_per_gpu_hour: PriceField
    horizon_seconds: Annotated[int, Meta(ge=1, le=HORIZON_SECONDS_MAX)] = SUGGESTION_HORIZON_SECONDS


class Odds(Struct, frozen=True):
    probability: float | None
    samples: int
    median_run_seconds: int | None


def odds(kept: Record, limit: int, horizon_seconds: int) -> Odds:
    """Estimate one limit; no probability on too short a record, or while nothing is on offer."""
    outlook = outlook_of(kept, horizon_seconds)
    if outlook is None:
        return Odds(None, 0, None)
    if outlook.samples < SAMPLES_MIN:
        return Odds(None, outlook.samples, None)
    found = outlook.estimate(limit)
    cells = median_run_cells(kept.grid, limit)
    return Odds(found.probability, found.samples, None if cells is None else cells * kept.step_seconds)


def outlook_of(kept: Record, horizon_seconds: int) -> Outlook | None:
    if kept.grid[-1] == NO_LIMIT:
        return None
    try:
        return Outlook(kept.grid, -(-horizon_seconds // kept.step_seconds))
    except TooShort:
        return None


@route("GET", "/v1/markets/{market}/interruptions")
async def get_interruptions(call: Call[NoBody, InterruptionsQuery]) -> Reply[InterruptionsView]:
    """Say how likely a limit is to be outbid within a time, from the market's own record."""
    market = call.core.markets.get(call.path_part("market"))
    if market is None:
        raise Rejection("market_not_found", "no such market")
    limit, horizon = int(call.query.limit_price_per_gpu_hour), call.query.horizon_seconds
    kept = await call.services.records.of(market, call.now_us)
    found = Odds(None, 0, None)
    if kept is not None:
        found = await asyncio.to_thread(odds, kept, limit, horizon)
    seconds = 0 if kept is None else int(kept.grid.size) * kept.step_seconds
    return call.reply(
        InterruptionsView(
            market=market.id,
            tick=market.tick if kept is None else kept.tick,
            limit_price_per_gpu_hour=format_microusd(limit),
            horizon_seconds=horizon,
            probability=None if found.probability is None else f"{found.probability:.4f}",
            samples=found.samples,
            samples_min=SAMPLES_MIN,
            median_run_seconds=found.median_run_seconds,
            record_from=None if kept is None else format_instant(kept.from_us),
            record_seconds=seconds,
        )
    )


def suggestions(kept: Record, market: Market, cheapest: Price | None) -> list[SuggestionView]:
    """Suggest limits: the cheapest that wins now, and two that are outbid in 20 % and 5 % of hours at most.

    Empty while the record has fewer than SAMPLES_MIN stretches of an hour.
    """
    outlook = outlook_of(kept, SUGGESTION_HORIZON_SECONDS)
    if outlook is None or outlook.samples < SAMPLES_MIN or cheapest is None:
        return []
    limits = [("cheapest", int(cheapest))]
    for label, probability in SUGGESTIONS:
        limit = outlook.limit_for(probability)
        if limit is not None:
            limits.append((label, max(limit, int(cheapest))))
    increment = market.price_increment
    shown = []
    for label, limit in limits:
        on_step = min(-(-limit // increment) * increment, market.price_cap)
        found = outlook.estimate(on_step)
        shown.append(
            SuggestionView(label, format_microusd(on_step), f"{found.probability:.4f}", found.samples)
        )
    return shown
