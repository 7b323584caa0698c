"""Metering and settlement: seconds measured, amounts owed, charges posted, holds kept full.

A lease is metered lazily: when it is settled, noticed, or ends, its seconds since the last time are
priced from the market's recent prices, one usage row per price. Charges are posted per lease at least
every settlement interval and at its end (RULES.md R9). The hold of a bid covers its whole limit for
the settlement interval, the notice and a margin, so a lease whose hold cannot be topped up is noticed
while the rest of the hold still pays for the notice.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from auction import funds, limits
from auction.ledger import (
    EARNING,
    FEES_ACCOUNT,
    ledger_account,
    plan_hold,
    plan_refund,
    plan_release,
    plan_settlement,
)
from auction.model import BID_FINAL, LEASE_BILLED, LEASE_ON_NODE, Alternative, Bid, EndReason, Lease, Market
from auction.money import Usage
from auction.state import State
from auction.units import (
    MICROSECONDS_PER_SECOND,
    SECONDS_PER_HOUR,
    Amount,
    Price,
    charge,
    exposure,
)

HOLD_MARGIN_S = 10
FREE_SECONDS = 600  # of a lease that its owner or its node ends
# A second is settled once its node has been heard of since: a node is known to be late before that.
HEARTBEAT_LAG_S = 20
# Prices are remembered for settlements that wait for a heartbeat, which may be missing for a minute; for
# longer where a lease is `behind`.
PRICE_MEMORY_S = 120


def hold_window_s(market: Market) -> int:
    """Return for how many seconds at its limit a bid is funded."""
    return market.settlement_seconds + market.notice_seconds + 2 * market.tick_seconds + HOLD_MARGIN_S


def required_hold(market: Market, limit: Price, gpus: int) -> Amount:
    return exposure(limit, gpus, hold_window_s(market))


def needed_hold(
    state: State, bid: Bid, limit: Price, gpus: int, alternatives: Sequence[Alternative] | None = None
) -> Amount:
    """Return the hold of a bid at this limit and quantity: the most that any market it names would need."""
    own = required_hold(state.markets[bid.market], limit, gpus)
    named = bid.alternatives if alternatives is None else alternatives
    others = (required_hold(state.markets[one.market], one.limit, gpus) for one in named)
    return max([own, *others])


def is_underfunded(state: State, bid: Bid) -> bool:
    """Say whether the hold fell short since the last tick and still does: what a restart would find."""
    fell_short = bid.id in state.books[bid.market].underfunded
    return fell_short and bid.held < needed_hold(state, bid, bid.limit, bid.gpus)


def room(state: State, bid: Bid) -> int:
    """Return by how much the bid's hold may still grow: the account's money, the bid's cap and the day's."""
    rooms: list[int] = [state.available(bid.account)]
    if bid.max_spend is not None:
        rooms.append(bid.max_spend - bid.spent - bid.held)
    of_the_day = limits.room(state, bid)
    if of_the_day is not None:
        rooms.append(of_the_day)
    return max(0, min(rooms))


def why_exhausted(state: State, bid: Bid) -> EndReason:
    """Say what leaves the bid without its hold: its own cap, the day's, or the account's money."""
    required = needed_hold(state, bid, bid.limit, bid.gpus)
    if bid.max_spend is not None and bid.max_spend - bid.spent < required:
        return EndReason.MAX_SPEND
    of_the_day = limits.room(state, bid)
    if of_the_day is not None and of_the_day < required - bid.held:
        return EndReason.SPEND_CAP
    return EndReason.FUNDS_EXHAUSTED


def adjust_hold(state: State, bid: Bid, target: Amount) -> bool:
    """Bring the bid's hold to `target`; return False (and hold what it has) when there is no room."""
    number = state.accounts[bid.account].number
    if target > bid.held:
        missing = Amount(target - bid.held)
        if room(state, bid) < missing:
            return False
        state.transfer(plan_hold(number, missing, bid.id))
    elif target < bid.held:
        state.transfer(plan_release(number, Amount(bid.held - target), bid.id))
    state.count_held(bid, target - bid.held)
    bid.held = target
    state.touch(bid)
    return True


def safe_hold(
    state: State, bid: Bid, limit: Price, gpus: int, alternatives: Sequence[Alternative] | None = None
) -> Amount:
    """Return the hold that covers a bid changed to these terms; the next settlement trims it.

    That is its new exposure, what its leases have run up already, and what they may yet cost above a
    lower limit: until the next tick they run at this tick's price, and a notice keeps the price it was
    given at.
    """
    market = state.markets[bid.market]
    required = needed_hold(state, bid, limit, gpus, alternatives)
    on_node = [lease for lease in state.bid_leases[bid.id].values() if lease.state in LEASE_ON_NODE]
    if not on_node:
        return required
    # Only prices that a lease still depends on may be looked at: how much older history is kept in
    # memory differs after a restart.
    peak = state.books[bid.market].prices[-1][1]
    owed = 0
    for lease in on_node:
        peak = max(peak, lease.notice_price or Price(0))
        owed += owed_of(state, lease)
    above = Price(max(0, peak - limit))
    lead_s = market.notice_seconds + 2 * market.tick_seconds
    return Amount(required + owed + exposure(above, bid.filled_gpus, lead_s))


def owed_of(state: State, lease: Lease) -> int:
    """Return what a lease has run up by now and not been charged yet."""
    owed: int = lease.metered - lease.settled
    if lease.metered_to_s is not None:
        for from_s, to_s, price in _segments(state, lease, second_of(state.now_us)):
            owed += exposure(price, lease.gpu_count, to_s - from_s)
    return owed


def refill_hold(state: State, bid: Bid) -> bool:
    """Top the hold up after a charge; return False when the account cannot cover the bid any more."""
    if adjust_hold(state, bid, safe_hold(state, bid, bid.limit, bid.gpus)):
        return True
    required = needed_hold(state, bid, bid.limit, bid.gpus)
    return bid.held >= required or adjust_hold(state, bid, required)


def billable_until_s(state: State, lease: Lease) -> int:
    """Return up to which second a lease can be metered now: its node's last heartbeat, if that is late."""
    assert lease.metered_to_s is not None
    alive_until_us = state.nodes[lease.node].alive_until_us
    if alive_until_us is None:
        return second_of(state.now_us)
    return max(lease.metered_to_s, second_of(min(alive_until_us, state.now_us)))


def meter(state: State, lease: Lease, to_s: int) -> None:
    """Write usage rows up to `to_s`.

    What is metered is always held: where the hold does not suffice (it does, but for an outage longer
    than its window), it is topped up first, and seconds that the account cannot pay either are metered
    at price zero. The chain of usage stays complete and nobody goes below zero.
    """
    assert lease.state in LEASE_BILLED and lease.metered_to_s is not None
    bid = state.bids[lease.bid]
    unsettled = sum(x.metered - x.settled for x in state.bid_leases[bid.id].values())
    cost, carry = 0, lease.carry
    for from_s, end_s, price in _segments(state, lease, to_s):
        amount, carry = charge(carry, price, lease.gpu_count, end_s - from_s)
        cost += amount
    if unsettled + cost > bid.held:
        reachable = min(unsettled + cost, bid.held + room(state, bid))
        adjust_hold(state, bid, Amount(reachable))
    budget = bid.held - unsettled
    for from_s, end_s, price in _segments(state, lease, to_s):
        before = lease.metered
        payable_s = _affordable_seconds(lease.carry, price, lease.gpu_count, budget)
        middle = min(end_s, from_s + payable_s)
        _record(state, lease, from_s, middle, price)
        _record(state, lease, middle, end_s, Price(0))
        budget -= lease.metered - before
    assert lease.metered_to_s >= to_s, "every billed second has a price"


def meter_to_now(state: State, lease: Lease) -> None:
    """Meter up to this second, before the price of the lease changes.

    What its node may have delivered since its last heartbeat, if that is late, is nobody's to charge.
    """
    meter(state, lease, billable_until_s(state, lease))
    assert lease.metered_to_s is not None
    _record(state, lease, lease.metered_to_s, second_of(state.now_us), Price(0))


def _segments(state: State, lease: Lease, to_s: int) -> list[tuple[int, int, Price]]:
    """Return (from, to, price) of the seconds that are not metered yet, up to `to_s`."""
    assert lease.metered_to_s is not None
    if lease.notice_price is not None:
        return [(lease.metered_to_s, to_s, lease.notice_price)]
    return list(state.books[lease.market].segments(lease.metered_to_s, to_s))


def _affordable_seconds(carry: int, price: Price, gpu_count: int, budget: int) -> int:
    """Return the most seconds whose charge stays within `budget`."""
    if price == 0:
        return 1 << 40
    return max(0, ((budget + 1) * SECONDS_PER_HOUR - 1 - carry) // (price * gpu_count))


def _record(state: State, lease: Lease, from_s: int, to_s: int, price: Price) -> None:
    if from_s >= to_s:
        return
    assert lease.metered_to_s == from_s, "a usage row starts where the last one ended"
    amount, carry = charge(lease.carry, price, lease.gpu_count, to_s - from_s)
    is_first = lease.gpu_seconds == 0
    state.record_usage(
        Usage(lease.id, from_s, to_s, lease.gpu_count, price, lease.carry, carry, amount, is_first)
    )
    lease.carry = carry
    lease.metered = Amount(lease.metered + amount)
    lease.metered_to_s = to_s
    lease.gpu_seconds += lease.gpu_count * (to_s - from_s)
    state.touch(lease)


def settle(state: State, lease: Lease, to_s: int, *, metered_to_s: int) -> Amount:
    """Meter up to `metered_to_s` and post what is owed: from the hold to the owner and the operator.

    `to_s` is when the next settlement's interval begins. Returns what was charged.
    """
    if lease.metered_to_s is not None and metered_to_s > lease.metered_to_s:
        meter(state, lease, metered_to_s)
    amount = Amount(lease.metered - lease.settled)
    lease.settled_to_s = to_s
    if is_behind(lease):
        state.books[lease.market].behind.add(lease.id)
    state.touch(lease)
    if amount == 0:
        return amount
    assert lease.metered_to_s is not None
    bid = state.bids[lease.bid]
    assert amount <= bid.held, "what is metered is held"
    market = state.markets[lease.market]
    for transfer in plan_settlement(
        state.accounts[lease.account].number,
        state.accounts[lease.owner].number,
        amount,
        fee_bps=market.fee_bps,
        lease=lease.id,
        interval_end_s=lease.metered_to_s,
    ):
        state.transfer(transfer)
    state.count_held(bid, -amount)
    bid.held = Amount(bid.held - amount)
    bid.spent = Amount(bid.spent + amount)
    lease.settled = lease.metered
    limits.record_spend(state, bid, amount)
    state.touch(bid)
    return amount


def is_behind(lease: Lease) -> bool:
    """Say whether a lease was settled without seconds that may be billed yet, once its node is heard of."""
    if lease.metered_to_s is None or lease.settled_to_s is None or lease.state not in LEASE_BILLED:
        return False
    return lease.settled_to_s - lease.metered_to_s > HEARTBEAT_LAG_S


def prices_needed_from_s(state: State, market: Market) -> int:
    """Return from which second on prices have to be known.

    PRICE_MEMORY_S covers a node that is late while the market runs; an outage of the market itself can make
    that any length.
    """
    book = state.books[market.id]
    book.behind = {id_ for id_ in book.behind if id_ in state.leases and is_behind(state.leases[id_])}
    metered_to_s = [state.leases[lease_id].metered_to_s or 0 for lease_id in book.behind]
    usual_s = second_of(state.now_us) - market.settlement_seconds - PRICE_MEMORY_S
    return min([usual_s, *metered_to_s])


def refund(state: State, lease: Lease, reason: EndReason, last_charge: Amount) -> None:
    """Give back what a broken promise costs whoever broke it, by the declared rule.

    A node that is lost forfeits the last interval (R8). Whoever is sent away by its owner or its node in
    its first ten minutes has paid for nothing.
    """
    if reason not in (EndReason.NODE_LOST, EndReason.OFFER_WITHDRAWN) or lease.started_at_us is None:
        return
    assert lease.ended_at_us is not None
    is_young = lease.ended_at_us - lease.started_at_us < FREE_SECONDS * MICROSECONDS_PER_SECOND
    amount = lease.settled if is_young else last_charge if reason is EndReason.NODE_LOST else Amount(0)
    if amount == 0:
        return
    assert lease.metered_to_s is not None
    owner_number = state.accounts[lease.owner].number
    for transfer in plan_refund(
        state.accounts[lease.account].number,
        owner_number,
        amount,
        fee_bps=state.markets[lease.market].fee_bps,
        earning=Amount(state.balances[ledger_account(owner_number, EARNING)]),
        fees=Amount(state.balances[FEES_ACCOUNT]),
        lease=lease.id,
        interval_end_s=lease.metered_to_s,
    ):
        state.transfer(transfer)
    lease.refunded = amount
    state.touch(lease)


def settle_due(state: State, market: Market, to_s: int) -> list[Bid]:
    """Settle every lease of the market whose interval is over and refill the holds.

    Returns the bids that could not be refilled: their funds are exhausted. A bid that could not be
    refilled when one of its leases ended has had until now.
    """
    book = state.books[market.id]
    due: set[str] = set()
    while book.settlements and book.settlements[0][0] <= to_s:
        _, lease_id = heappop(book.settlements)
        lease = state.leases.get(lease_id)
        if lease is None or lease.state not in LEASE_BILLED or lease.settled_to_s is None:
            continue  # it has ended, and was settled then
        if lease.settled_to_s + market.settlement_seconds <= to_s:
            due.add(lease_id)
        else:
            heappush(book.settlements, (lease.settled_to_s + market.settlement_seconds, lease_id))
    touched: dict[str, Bid] = {}
    for lease_id in sorted(due):
        lease = state.leases[lease_id]
        lag_s = 0 if state.nodes[lease.node].simulated else HEARTBEAT_LAG_S
        settle(state, lease, to_s, metered_to_s=min(to_s - lag_s, billable_until_s(state, lease)))
        heappush(book.settlements, (to_s + market.settlement_seconds, lease_id))
        touched[lease.bid] = state.bids[lease.bid]
    for bid_id in sorted(book.underfunded):
        bid = state.bids.get(bid_id)
        if bid is not None and is_underfunded(state, bid):
            touched[bid_id] = bid
    book.underfunded.clear()
    exhausted = []
    for bid in touched.values():
        if bid.status in BID_FINAL:
            continue  # under its last notice: what is held pays for it
        if not refill_hold(state, bid):
            exhausted.append(bid)
    for account in dict.fromkeys(bid.account for bid in touched.values()):
        funds.look(state, state.accounts[account])
    return exhausted


def reschedule(state: State, market: Market) -> None:
    """After a change of the settlement interval: every lease is due by the new one."""
    book = state.books[market.id]
    book.settlements.clear()
    for lease in state.leases.values():
        if lease.market == market.id and lease.settled_to_s is not None:
            heappush(book.settlements, (lease.settled_to_s + market.settlement_seconds, lease.id))


def second_of(at_us: int) -> int:
    """Return the billed second that an instant belongs to."""
    return at_us // MICROSECONDS_PER_SECOND
