"""Server-side targets: hold so many GPUs, buy so much work by a deadline, spend so much a day evenly.

A target is an ordinary client of the auction with one live bid at a time. `plan` says what that bid
should look like now; whoever runs targets (api/target_runner.py) makes it so with ordinary commands. The
budget is hard because the bid carries it: its `max_spend`, which the engine keeps to the microdollar, is
what the target may spend in all less what its earlier bids, all of them ended, have spent. Pure functions
of what they are given: no clock, no I/O.

- hold: one elastic bid at the target's limit.
- deadline: the limit starts near what the market was cheap at lately and rises to what the rest of the
  budget affords on average, as the time that is left comes to be needed. Being early enough to pay the
  dear hours seldom is the idea of "uniform progress" (Wu et al., Can't Be Late, NSDI 2024); here the rise
  is complete when half of the time left would be needed, so that interruptions find room behind it.
- pace: the budget's even line over the UTC day; what spending is off the line is made up for within an
  hour: allocation-following pacing (Agarwal et al., Budget Pacing for Targeted Online Advertisements at
  LinkedIn, KDD 2014), with a whole GPU of hysteresis.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from auction.billing import hold_window_s
from auction.commands import AmendBid, PlaceBid
from auction.errors import Rejection
from auction.ids import derived_id
from auction.limits import DAY_US
from auction.model import Bid, Market, TimeInForce
from auction.units import MICROSECONDS_PER_SECOND, SECONDS_PER_HOUR, Amount, Price, exposure

DAY_S = DAY_US // MICROSECONDS_PER_SECOND
DEADLINE_AHEAD_US_MAX = 31 * DAY_US
BIDS_PER_TARGET_MAX = 1_000
FULL_URGENCY_SHARE = 2  # the limit has risen to what the budget affords when 1/2 of the time left is needed
SPREAD_WIDTHS = 4  # a deadline without a width of its own asks for this many times its even rate
MINOR_SHARE = 100  # a limit that would change by less than 1/100 stays
ENDGAME_TICKS = 2  # work that will be done within so many ticks ends by the second


class TargetKind(StrEnum):
    HOLD = "hold"
    DEADLINE = "deadline"
    PACE = "pace"


class TargetState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    MET = "met"  # the work is done
    MISSED = "missed"  # its time is over
    EXHAUSTED = "exhausted"  # its budget is
    ENDED = "ended"  # a hold or a pace, at its wish
    CANCELLED = "cancelled"


TARGET_FINAL = frozenset(TargetState) - {TargetState.ACTIVE, TargetState.PAUSED}


class Target(Struct, frozen=True):
    """What is wanted, and how far its runner has come."""

    id: str
    account: str
    key: str  # that made it: its limits bind the target's bids
    kind: TargetKind
    market: str
    gpus: int  # at most at a time
    min_gpus: int
    limit: Price  # at most, whatever the budget affords
    gpu_seconds: int | None  # of a deadline: the work
    ends_at_us: int | None  # a deadline; until when to hold or pace
    max_spend: Amount | None  # in all
    spend_per_day: Amount | None  # of a pace
    created_at_us: int
    updated_at_us: int
    state: TargetState = TargetState.ACTIVE
    reason: str | None = None  # why it is paused, or asks for nothing now: a problem code
    bids: int = 0  # placed so far, one after another
    day: int = 0  # of a pace: days since the epoch that `day_cap` is of
    day_cap: Amount = Amount(0)  # of a pace: what it may have spent since its beginning when that day ends
    is_settled: bool = False  # it has ended, and its last bid too
    version: int = 1


class Situation(Struct, frozen=True):
    """What a plan may know: the market, the live bid, and all that was bought so far."""

    now_us: int
    market: Market
    price: Price | None  # the market's last; without a live bid, what one GPU would cost now
    cheap: Price | None  # the lower quartile of the day's prices; None without enough of them
    bid: Bid | None
    spent: Amount  # by all bids of the target, settled or not
    spent_earlier: Amount  # of that, by bids that have ended
    gpu_seconds: int
    running_gpus: int


class Wanted(Struct, frozen=True):
    """The bid that the target wants now."""

    gpus: int
    limit: Price
    max_spend: Amount | None
    expires_at_us: int | None


class Supply(Struct, frozen=True):
    """What a market has: GPUs of its nodes, and the lowest reserve that is on offer."""

    gpus: int
    lowest_reserve: Price | None


def plan(target: Target, situation: Situation) -> Wanted | TargetState | None:
    """Return the bid that is wanted now, None for none at all now, or the state in which the target ends."""
    match target.kind:
        case TargetKind.HOLD:
            return _hold(target, situation)
        case TargetKind.DEADLINE:
            return _deadline(target, situation)
        case TargetKind.PACE:
            return _pace(target, situation)


def begin_day(target: Target, now_us: int, spent_before: Amount) -> tuple[int, Amount]:
    """Return a pace's (day, day_cap) for the UTC day of `now_us`.

    `spent_before` is what its bids were charged for the seconds before that day. A target made during the
    day gets the day's share from then on.
    """
    assert target.spend_per_day is not None
    day = now_us // DAY_US
    allowance = target.spend_per_day
    if target.created_at_us // DAY_US == day:
        allowance = Amount(allowance * ((day + 1) * DAY_US - target.created_at_us) // DAY_US)
    return day, Amount(spent_before + allowance)


def _hold(target: Target, situation: Situation) -> Wanted | TargetState:
    if _is_over(target, situation):
        return TargetState.ENDED
    gpus = _funded(target, situation, target.limit, target.max_spend, target.gpus)
    if gpus < target.min_gpus:
        return TargetState.EXHAUSTED
    return _wanted(target, situation, gpus, target.limit, target.max_spend)


def _deadline(target: Target, situation: Situation) -> Wanted | TargetState:
    assert target.gpu_seconds is not None and target.max_spend is not None and target.ends_at_us is not None
    market, bid = situation.market, situation.bid
    work_s = target.gpu_seconds - situation.gpu_seconds
    if work_s <= 0:
        return TargetState.MET
    if _is_over(target, situation):
        return TargetState.MISSED
    # What the hold ties up behind the last second of work is not there to pay for work.
    money = target.max_spend - situation.spent
    affordable = money * SECONDS_PER_HOUR // (work_s + target.min_gpus * _window_s(market))
    top = min(target.limit, _on_grid(affordable, market))
    if top <= 0:
        return TargetState.EXHAUSTED
    bottom = top if situation.cheap is None else min(situation.cheap, top)
    needed_us = FULL_URGENCY_SHARE * work_s * MICROSECONDS_PER_SECOND // target.gpus
    left_us = target.ends_at_us - situation.now_us
    limit = _on_grid(bottom + (top - bottom) * min(needed_us, left_us) // left_us, market)
    limit = Price(max(limit, market.price_increment))
    if bid is not None:
        limit = Price(max(limit, min(bid.limit, top)))  # a lowered limit loses its rank (RULES.md R3)
        holdable = _on_grid(money * SECONDS_PER_HOUR // (bid.gpus * _window_s(market)), market)
        limit = min(limit, max(bid.limit, holdable))
        if abs(limit - bid.limit) * MINOR_SHARE < bid.limit:
            limit = bid.limit
    gpus = _funded(target, situation, limit, target.max_spend, target.gpus)
    if gpus < target.min_gpus:
        return TargetState.EXHAUSTED
    wanted = _wanted(target, situation, gpus, limit, target.max_spend)
    return replace(wanted, expires_at_us=_done_at_us(target, situation, work_s))


def _done_at_us(target: Target, situation: Situation, work_s: int) -> int:
    """Return when the bid should end: at the deadline, or when the work is done if that is a tick away."""
    assert target.ends_at_us is not None
    if situation.running_gpus == 0:
        return target.ends_at_us
    left_s = -(-work_s // situation.running_gpus)
    if left_s > ENDGAME_TICKS * situation.market.tick_seconds:
        return target.ends_at_us
    return min(target.ends_at_us, situation.now_us + left_s * MICROSECONDS_PER_SECOND)


def _pace(target: Target, situation: Situation) -> Wanted | TargetState | None:
    assert target.spend_per_day is not None and target.day == situation.now_us // DAY_US
    if _is_over(target, situation):
        return TargetState.ENDED
    if target.max_spend is not None and _funded(target, situation, target.limit, target.max_spend, 1) < 1:
        return TargetState.EXHAUSTED
    market, bid = situation.market, situation.bid
    now_gpus = 0 if bid is None else bid.gpus
    left_s = (target.day + 1) * DAY_S - situation.now_us // MICROSECONDS_PER_SECOND
    held = exposure(target.limit, now_gpus, _window_s(market)) if now_gpus else 0
    line = target.day_cap - held - target.spend_per_day * left_s // DAY_S
    even = target.spend_per_day * SECONDS_PER_HOUR // DAY_S
    rate = max(0, min(even + line - situation.spent, 2 * even))
    price = target.limit if situation.price is None else min(situation.price, target.limit)
    price = Price(max(price, market.price_increment))
    gpus = rate // price
    if (now_gpus - 1) * price <= rate < (now_gpus + 1) * price:
        gpus = now_gpus
    cap = target.day_cap if target.max_spend is None else min(target.day_cap, target.max_spend)
    gpus = _funded(target, situation, target.limit, cap, min(gpus, target.gpus))
    if gpus < target.min_gpus:
        return None
    return _wanted(target, situation, gpus, target.limit, cap)


def _wanted(target: Target, situation: Situation, gpus: int, limit: Price, cap: Amount | None) -> Wanted:
    """Return the bid that keeps all bids together within `cap`: earlier ones have spent part of it."""
    max_spend = None if cap is None else Amount(cap - situation.spent_earlier)
    return Wanted(gpus, limit, max_spend, target.ends_at_us)


def _is_over(target: Target, situation: Situation) -> bool:
    return target.ends_at_us is not None and situation.now_us >= target.ends_at_us


def _funded(target: Target, situation: Situation, limit: Price, cap: Amount | None, gpus: int) -> int:
    """Return how many of `gpus` the hold can be paid for.

    What a live bid has already it keeps: where the budget ends there, the engine ends it, with a notice.
    """
    if cap is None:
        return gpus
    payable = max(0, cap - situation.spent) * SECONDS_PER_HOUR // (limit * _window_s(situation.market))
    kept = 0 if situation.bid is None else situation.bid.gpus
    return min(gpus, max(payable, kept))


def _window_s(market: Market) -> int:
    """Return for how long a bid must be funded, with what it runs up while a command is on its way."""
    return hold_window_s(market) + market.tick_seconds


def _on_grid(price: int, market: Market) -> Price:
    return Price(min(price - price % market.price_increment, market.price_cap))


def bid_of(target: str, number: int) -> str:
    """Return the id of a target's bid, counted from 1: what was placed is found again after any crash."""
    return derived_id("bid", target, number)


def next_bid(target: Target, wanted: Wanted) -> PlaceBid:
    """Return the command that places the target's next bid."""
    return PlaceBid(
        bid=bid_of(target.id, target.bids + 1),
        account=target.account,
        market=target.market,
        gpus=wanted.gpus,
        limit=wanted.limit,
        min_gpus=target.min_gpus,
        labels={"target": target.id},
        time_in_force=TimeInForce.GTC if wanted.expires_at_us is None else TimeInForce.GTT,
        expires_at_us=wanted.expires_at_us,
        max_spend=wanted.max_spend,
        key=target.key,
    )


def amendment(target: Target, bid: Bid, wanted: Wanted) -> AmendBid | None:
    """Return the command that makes the bid what is wanted; None when it is that."""
    same = AmendBid(bid.id, target.account, key=target.key)
    change = replace(
        same,
        limit=None if wanted.limit == bid.limit else wanted.limit,
        gpus=None if wanted.gpus == bid.gpus else wanted.gpus,
        paused=False if bid.is_paused else None,
        expires_at_us=None if wanted.expires_at_us == bid.expires_at_us else wanted.expires_at_us,
        max_spend=None if wanted.max_spend == bid.max_spend else wanted.max_spend,
    )
    return None if change == same else change


def check_reachable(target: Target, market: Market, supply: Supply) -> None:
    """Refuse a new target that cannot be met; `accepted` says per field what alone would make it one.

    Raises Rejection (`target_unreachable`).
    """
    if target.min_gpus > supply.gpus or (target.kind is TargetKind.HOLD and target.gpus > supply.gpus):
        field = "min_gpus" if target.min_gpus > supply.gpus else "gpus"
        accepted = {field: supply.gpus} if supply.gpus else {}
        raise _unreachable(f"the market has {supply.gpus} GPUs", field, accepted)
    if target.kind is TargetKind.DEADLINE:
        _check_deadline(target, market, supply)
    budget = target.max_spend if target.spend_per_day is None else target.spend_per_day
    needed = exposure(target.limit, target.min_gpus, _window_s(market))
    if target.kind is not TargetKind.DEADLINE and budget is not None and budget < needed:
        field = "max_spend" if target.spend_per_day is None else "spend_per_day"
        detail = f"{needed} microusd are held while {target.min_gpus} GPUs run at the limit"
        raise _unreachable(detail, field, {field: needed})
    if target.spend_per_day is not None:
        most = exposure(target.limit, min(target.gpus, supply.gpus), DAY_S)
        if target.spend_per_day > most:
            detail = f"all that may be had at the limit costs {most} microusd a day"
            raise _unreachable(detail, "spend_per_day", {"spend_per_day": most})


def _check_deadline(target: Target, market: Market, supply: Supply) -> None:
    assert target.gpu_seconds is not None and target.max_spend is not None and target.ends_at_us is not None
    left_s = (target.ends_at_us - target.created_at_us) // MICROSECONDS_PER_SECOND
    width = min(target.gpus, supply.gpus)
    if target.gpu_seconds > width * left_s:
        later_us = (
            target.created_at_us + (-(-target.gpu_seconds // max(1, width)) + 1) * MICROSECONDS_PER_SECOND
        )
        accepted = {"gpu_seconds": width * left_s, "ends_at": later_us}
        raise _unreachable(f"{width} GPUs work {width * left_s} s until then", "gpu_seconds", accepted)
    if supply.lowest_reserve is None:
        return  # nobody offers now; who knows at what price they will
    if target.limit < supply.lowest_reserve:
        accepted = {"limit_price_per_gpu_hour": supply.lowest_reserve}
        raise _unreachable("no owner offers that low", "limit_price_per_gpu_hour", accepted)
    needed_s = target.gpu_seconds + target.min_gpus * _window_s(market)
    least = exposure(supply.lowest_reserve, 1, needed_s)
    if target.max_spend < least:
        work_s = target.max_spend * SECONDS_PER_HOUR // supply.lowest_reserve - (
            needed_s - target.gpu_seconds
        )
        accepted = {"max_spend": least, "gpu_seconds": max(0, work_s)}
        detail = f"at the lowest reserve on offer, with the last hold, that is {least} microusd"
        raise _unreachable(detail, "max_spend", accepted)


def _unreachable(detail: str, field: str, accepted: Mapping[str, int]) -> Rejection:
    return Rejection("target_unreachable", detail, pointer=f"/{field}", accepted=accepted)
