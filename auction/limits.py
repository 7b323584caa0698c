"""What an account or one of its keys may risk: price, open notional, spend per day.

The operator limits an account, an account limits its keys, so that a bot that runs away stops where
somebody said it must (FAULTS.md F32). A limit binds what is new and what is refilled: lowering one below
what is used ends bids with their notice, one after another, as their holds come to be refilled.

Spend of a day, UTC, is what was settled in it; what is held counts with it, and a hold covers a whole
notice, so the cap is never passed, not even by the bill of the last notice.
"""

from msgspec import Struct

from auction.errors import Rejection
from auction.events import EventKind
from auction.model import Bid, Limits
from auction.state import State
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price

DAY_US = 86_400 * MICROSECONDS_PER_SECOND
WARN_PERCENTS = (50, 75, 90)


class LimitWarning(Struct, frozen=True):
    """How far a limit is used up, as its account is told."""

    id: str  # the account or the key
    limit: str  # max_open_notional_per_hour | spend_cap_per_day
    percent: int
    used: Amount
    maximum: Amount


def binding(state: State, account: str, *keys: str | None) -> list[Limits]:
    """Return the limits that bind what these keys of an account do, each once."""
    if not state.limits:
        return []
    scopes = dict.fromkeys((account, *keys))
    return [state.limits[scope] for scope in scopes if scope is not None and scope in state.limits]


def admit(state: State, bound: list[Limits], *, limit: Price, more_notional: int, more_held: int) -> None:
    """Refuse what would pass a limit; each code says what is left."""
    for limits in bound:
        if limits.is_stopped:
            raise Rejection("key_stopped", "this key was stopped; another key of the account can resume it")
        if limits.max_price is not None and limit > limits.max_price:
            raise Rejection(
                "max_price_exceeded",
                f"{limit} microusd is above {limits.max_price}, the most that {limits.id} may bid",
                pointer="/limit_price_per_gpu_hour",
                maximum=limits.max_price,
            )
        use = state.limit_uses[limits.id]
        if limits.max_open_notional is not None and more_notional > 0:
            left = limits.max_open_notional - use.notional
            if more_notional > left:
                raise Rejection(
                    "open_notional_exceeded",
                    f"limits x GPUs of live bids of {limits.id} may cost {limits.max_open_notional} microusd "
                    f"per hour; this would add {more_notional} to {use.notional}",
                    required=Amount(more_notional),
                    available=Amount(max(0, left)),
                )
        day_left = _room(state, limits)
        if day_left is not None and more_held > day_left:
            raise Rejection(
                "spend_cap_reached",
                f"{limits.id} may spend {limits.spend_cap_per_day} microusd a day, UTC; "
                f"the hold needs {more_held}",
                required=Amount(more_held),
                available=Amount(day_left),
            )


def room(state: State, bid: Bid) -> int | None:
    """Return by how much the bid's hold may grow under the caps of the day; None: they do not bind it."""
    rooms = [_room(state, limits) for limits in binding(state, bid.account, bid.key)]
    return min((left for left in rooms if left is not None), default=None)


def record_spend(state: State, bid: Bid, amount: Amount) -> None:
    """Count a charge on the day, and warn where it passes 50, 75 or 90 %."""
    for limits in binding(state, bid.account, bid.key):
        _roll(state, limits)
        limits.spent_today = Amount(limits.spent_today + amount)
        limits.warned_spend = _warn(
            state, limits, "spend_cap_per_day", limits.spent_today, limits.spend_cap_per_day,
            limits.warned_spend,
        )  # fmt: skip
        state.touch(limits)


def warn_notional(state: State, bid: Bid) -> None:
    """After a bid was placed or changed: warn where the open notional passes 50, 75 or 90 %."""
    for limits in binding(state, bid.account, bid.key):
        warned = _warn(
            state, limits, "max_open_notional_per_hour", state.limit_uses[limits.id].notional,
            limits.max_open_notional, limits.warned_notional,
        )  # fmt: skip
        if warned != limits.warned_notional:
            limits.warned_notional = warned
            state.touch(limits)


def spent_today(limits: Limits, now_us: int) -> Amount:
    return limits.spent_today if limits.day == now_us // DAY_US else Amount(0)


def _room(state: State, limits: Limits) -> int | None:
    if limits.spend_cap_per_day is None:
        return None
    used = spent_today(limits, state.now_us) + state.limit_uses[limits.id].held
    return max(0, limits.spend_cap_per_day - used)


def _roll(state: State, limits: Limits) -> None:
    """Begin a new day's count."""
    today = state.now_us // DAY_US
    if limits.day != today:
        limits.day = today
        limits.spent_today = Amount(0)
        limits.warned_spend = 0


def _warn(state: State, limits: Limits, name: str, used: int, maximum: int | None, warned: int) -> int:
    """Tell the account if `used` has reached a step it was not told of; return the step that it is on."""
    if not maximum:
        return 0
    percent = used * 100 // maximum
    step = max((step for step in WARN_PERCENTS if percent >= step), default=0)
    if step > warned:
        warning = LimitWarning(limits.id, name, step, Amount(used), Amount(maximum))
        state.emit(EventKind.LIMIT_WARNING, warning, account=limits.account)
    return step
