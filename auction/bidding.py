"""What a tenant does: place, amend, cancel, release, acknowledge. Check first, then change."""

from msgspec import Struct

from auction import admission, alternatives, billing, leases, limits
from auction.commands import (
    AckNotice,
    AmendBid,
    CancelBid,
    Choice,
    PlaceBid,
    RejectBid,
    ReleaseLease,
    TestNotice,
)
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.ids import arrival_hash
from auction.model import (
    LEASE_ON_NODE,
    NOTICE_LIVE,
    Alternative,
    Bid,
    BidStatus,
    Colocate,
    EndReason,
    Lease,
    LeaseState,
    Notice,
    NoticeState,
    OnPreempt,
    TimeInForce,
)
from auction.state import State
from auction.units import Amount, Price
from auction.workloads import digest_of

# What a bid takes over as it was asked.
PLACED_FIELDS = (
    "gpus", "min_gpus", "colocate", "labels", "time_in_force", "expires_at_us", "max_run_seconds",
    "max_spend", "on_preempt",
)  # fmt: skip


class PlacedBid(Struct, frozen=True):
    """The bid, and whether it is an earlier one with the same client_bid_id and content."""

    bid: Bid
    is_repeat: bool


def is_same_bid(bid: Bid, command: PlaceBid) -> bool:
    """Say whether a bid with this client_bid_id was placed with the same words.

    A bid that was amended since differs in its version; what it was placed with is not kept, so only
    the market, which never changes, is compared then.
    """
    asked = command.alternatives or [Choice(command.market, command.limit)]
    if bid.markets != [choice.market for choice in asked] or bid.workload != _digest(command):
        return False
    if command.time_in_force is not TimeInForce.IOC and bid.valid_until_tick != command.valid_until_tick:
        return False
    limits = [one.limit for one in bid.alternatives] or [bid.limit]
    return bid.version > 1 or (
        limits == [choice.limit for choice in asked]
        and bool(bid.alternatives) == bool(command.alternatives)
        and all(getattr(bid, name) == getattr(command, name) for name in PLACED_FIELDS)
    )


def repeat_of(bid: Bid, command: PlaceBid) -> PlacedBid:
    """Answer a second bid under one client_bid_id: the first one, or a conflict."""
    if is_same_bid(bid, command):
        return PlacedBid(bid, True)
    raise Rejection(
        "client_bid_id_conflict", f"client_bid_id {command.client_bid_id!r} names another bid", bid=bid.id
    )


def _digest(command: PlaceBid) -> str | None:
    return None if command.workload is None else digest_of(command.workload)


def place(state: State, command: PlaceBid) -> PlacedBid:
    market, hold = admission.place_bid(state, command)
    is_ioc = command.time_in_force is TimeInForce.IOC
    bid = Bid(
        id=command.bid,
        account=command.account,
        market=market.id,
        limit=command.limit,
        status=BidStatus.OPEN,
        seq=state.next_bid_seq,
        arrival_tick=market.tick + 1,
        arrival_hash=arrival_hash(market.digest, command.bid),
        created_at_us=state.now_us,
        updated_at_us=state.now_us,
        client_bid_id=command.client_bid_id,
        key=command.key,
        workload=_digest(command),
        valid_until_tick=market.tick + 1 if is_ioc else command.valid_until_tick,
        alternatives=[
            _alternative(state, choice.market, choice.limit, command.bid) for choice in command.alternatives
        ],
        **{name: getattr(command, name) for name in PLACED_FIELDS},
    )
    state.next_bid_seq += 1
    state.add_bid(bid)
    if command.workload is not None and bid.workload is not None:
        state.changes.workloads[bid.account, bid.workload] = command.workload
    held = billing.adjust_hold(state, bid, hold)
    assert held, "admission has checked the funds"
    leases.sync_bid(state, bid)
    limits.warn_notional(state, bid)
    state.emit(EventKind.BID_ACCEPTED, bid, account=bid.account, market=bid.market)
    return PlacedBid(bid, False)


def _alternative(state: State, market_id: str, limit: Price, bid_id: str) -> Alternative:
    market = state.markets[market_id]
    return Alternative(market_id, limit, market.tick + 1, arrival_hash(market.digest, bid_id))


def amend(state: State, command: AmendBid) -> Bid:
    bid, market = admission.amend_bid(state, command)
    limit, choices = alternatives.amended(bid, command)
    gpus = bid.gpus if command.gpus is None else command.gpus
    book = state.books[market.id]
    hold = billing.safe_hold(state, bid, limit, gpus, choices)
    raises_hold = (command.limit or 0) > alternatives.amended_limit(bid, command) or gpus > bid.gpus
    admission.spending_cap(
        bid.max_spend if command.max_spend is None else command.max_spend,
        bid.spent + (hold if raises_hold else min(hold, bid.held)),
    )
    if raises_hold or command.paused is False:
        top = max([limit, *(one.limit for one in choices)])
        limits.admit(
            state,
            limits.binding(state, bid.account, bid.key, command.key),
            limit=top,
            more_notional=top * gpus - bid.top_limit * bid.asked_gpus,
            more_held=hold - bid.held,
        )
    if raises_hold:
        admission.funds(state, bid.account, Amount(hold - bid.held))
    else:
        hold = Amount(min(hold, bid.held))
    for name in ("expires_at_us", "max_run_seconds", "max_spend", "on_preempt"):
        if getattr(command, name) is not None:
            setattr(bid, name, getattr(command, name))
    state.deadlines.set(bid.id, bid.expires_at_us)
    billing.adjust_hold(state, bid, hold)

    if limit < bid.limit and bid.filled_gpus:
        bid.is_newcomer = True
        book.ranked_once.add(bid.id)
    bid.limit, bid.alternatives = limit, choices
    bid.gpus = gpus
    if bid.colocate is not Colocate.NONE:
        bid.min_gpus = gpus  # all or nothing
    else:
        bid.min_gpus = min(bid.min_gpus, gpus) if command.min_gpus is None else command.min_gpus
    bid.awaits_outcome = True
    bid.is_paused = bid.is_paused if command.paused is None else command.paused
    _shrink(state, bid)
    if market.price is not None and limit < market.price:
        # What has not started was won at a price that the tenant no longer accepts.
        for lease in _leases_of(state, bid):
            if lease.state in (LeaseState.PENDING, LeaseState.STARTING):
                leases.end(state, lease, EndReason.RELEASED)
    bid.version += 1
    bid.updated_at_us = state.now_us
    leases.refresh_bid(state, bid)
    leases.sync_bid(state, bid)
    book.is_dirty = True
    book.expect_outcome(bid.id)
    limits.warn_notional(state, bid)
    state.emit(EventKind.BID_AMENDED, bid, account=bid.account, market=bid.market)
    return bid


def _leases_of(state: State, bid: Bid) -> list[Lease]:
    return sorted(state.bid_leases[bid.id].values(), key=lambda lease: (lease.awarded_at_us, lease.id))


def _shrink(state: State, bid: Bid) -> None:
    """The tenant wants fewer GPUs than it has: the newest leases give way at once, as released."""
    for lease in reversed(_leases_of(state, bid)):
        if lease.state is LeaseState.PENDING:
            continue  # planned again at the next tick
        excess = bid.filled_gpus - bid.gpus
        if excess <= 0:
            break
        given = leases.split(state, lease, excess) if lease.gpu_count > excess else lease
        leases.end(state, given, EndReason.RELEASED)
    for lease in _leases_of(state, bid):
        if lease.state is LeaseState.PENDING and lease.gpu_count > bid.gpus:
            leases.end(state, lease, EndReason.RELEASED)


def cancel(state: State, command: CancelBid) -> Bid:
    bid = admission.own_bid(state, command.bid, command.account, command.expected_version)
    cancel_bid(state, bid, release=command.release)
    return bid


def cancel_bid(state: State, bid: Bid, *, release: bool) -> None:
    """Take a bid out of the book: its leases end now, or without `release` run on while they win."""
    bid.version += 1
    bid.updated_at_us = state.now_us
    waiting = [lease for lease in _leases_of(state, bid) if lease.state is LeaseState.PENDING]
    if release or bid.filled_gpus == 0:
        leases.finish(state, bid, BidStatus.CANCELLED)
    else:
        for lease in waiting:
            leases.end(state, lease, EndReason.RELEASED)
        bid.gpus = bid.filled_gpus
        bid.min_gpus = min(bid.min_gpus, bid.gpus)
        bid.colocate = Colocate.NONE  # what it has stays where it is, whole or not
        bid.on_preempt = OnPreempt.CANCEL  # what it loses from here on it does not bid for again
        safe = billing.safe_hold(state, bid, bid.limit, bid.gpus)
        billing.adjust_hold(state, bid, Amount(min(bid.held, safe)))
        leases.refresh_bid(state, bid)
        leases.sync_bid(state, bid)
    state.books[bid.market].is_dirty = True


def reject(state: State, command: RejectBid) -> Bid:
    """Take a bid out that the market cannot clear with; its tenant is told why."""
    bid = state.bids.get(command.bid)
    if bid is None:
        raise NotFound("bid")
    bid.version += 1
    bid.updated_at_us = state.now_us
    bid.reason_code, bid.reason_price, bid.reason_needed, bid.reason_usable = "engine_error", None, None, None
    leases.finish(state, bid, BidStatus.REJECTED)
    state.books[bid.market].is_dirty = True
    return bid


def release(state: State, command: ReleaseLease) -> Lease:
    """Give a lease back: it ends now, and its bid asks for that much less."""
    lease = admission.own_lease(state, command.lease, command.account)
    give_back(state, lease)
    return lease


def give_back(state: State, lease: Lease) -> None:
    """End a lease that its tenant needs no longer."""
    bid = state.bids[lease.bid]
    if bid.status is not BidStatus.EXHAUSTED:
        left = bid.gpus - lease.gpu_count
        if left < max(1, bid.min_gpus):
            bid.version += 1
            bid.updated_at_us = state.now_us
            leases.finish(state, bid, BidStatus.CANCELLED)
        else:
            bid.gpus = left
            bid.version += 1
            leases.end(state, lease, EndReason.RELEASED)
            _shrink(state, bid)
            safe = billing.safe_hold(state, bid, bid.limit, bid.gpus)
            billing.adjust_hold(state, bid, Amount(min(bid.held, safe)))
            leases.refresh_bid(state, bid)
            leases.sync_bid(state, bid)
    else:
        leases.end(state, lease, EndReason.RELEASED)


def test_notice(state: State, command: TestNotice) -> Notice:
    """Give a running lease a notice at its tenant's wish; its bid queues again as after any other."""
    lease = admission.own_lease(state, command.lease, command.account)
    if lease.state is not LeaseState.RUNNING:
        raise Rejection("invalid_transition", f"a {lease.state.value} lease cannot be given a notice")
    market = state.markets[lease.market]
    notice = leases.issue_notice(
        state,
        lease,
        EndReason.TEST,
        notice_seconds=leases.promised_notice_s(state, lease),
        old_price=state.books[market.id].prices[-1][1],
        price=market.price,
        keep_price=None,
    )
    state.books[market.id].is_dirty = True
    return notice


def acknowledge(state: State, command: AckNotice) -> Notice:
    notice = state.notices.get(command.notice)
    if notice is None or notice.account != command.account:
        raise NotFound("notice")
    assert notice.state in NOTICE_LIVE
    if notice.state is NoticeState.ISSUED:
        leases.acknowledge(state, notice)
    if command.ready:
        lease = state.leases[notice.lease]
        assert lease.state in LEASE_ON_NODE
        leases.end(state, lease, notice.reason)
    return notice
