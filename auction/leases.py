"""The life of a lease: pending, starting, running, noticed, ended; and the notices on the way.

Every function here moves one lease along LEASE_TRANSITIONS and keeps what hangs on it true: the bill,
the GPUs of the node, the bid's fill, the notice. No lease ends without a reason, none that runs is
preempted without a notice, and a bid never occupies more GPUs than it asked for.
"""

from collections.abc import Iterable
from heapq import heappush

from auction import billing
from auction.events import EventKind
from auction.ids import derived_id
from auction.listing import relist
from auction.model import (
    BID_FINAL,
    LEASE_BILLED,
    LEASE_ON_NODE,
    LEASE_TRANSITIONS,
    NOTICE_LIVE,
    NOTICE_TRANSITIONS,
    Bid,
    BidStatus,
    EndReason,
    Lease,
    LeaseState,
    NodeHealth,
    Notice,
    NoticeState,
    Offer,
    OfferStatus,
    OnPreempt,
)
from auction.state import State
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price

# Ends that a notice announces.
PREEMPTIONS = frozenset({
    EndReason.OUTBID, EndReason.MOVED, EndReason.FUNDS_EXHAUSTED, EndReason.MAX_SPEND, EndReason.SPEND_CAP,
    EndReason.OFFER_WITHDRAWN,
})  # fmt: skip
ENDED = {
    BidStatus.CANCELLED: EventKind.BID_CANCELLED,
    BidStatus.EXPIRED: EventKind.BID_EXPIRED,
    BidStatus.REJECTED: EventKind.BID_REJECTED,
}
# Ends by which a tenant loses GPUs that it would have kept.
LOSSES = frozenset({EndReason.OUTBID, EndReason.OFFER_WITHDRAWN, EndReason.NODE_LOST})


def award(state: State, bid: Bid, offer: Offer, gpu_count: int) -> Lease:
    """A bid has won GPUs of an offer: a pending lease, started as soon as they are free."""
    market = state.markets[bid.market]
    node = state.nodes[offer.node]
    lease = Lease(
        id=derived_id("lease", market.digest, _number(state)),
        bid=bid.id,
        account=bid.account,
        owner=offer.account,
        market=market.id,
        node=node.id,
        offer=offer.id,
        gpu_count=gpu_count,
        gpus=[],
        state=LeaseState.PENDING,
        awarded_at_us=state.now_us,
        awarded_tick=market.tick,
    )
    state.add_lease(lease)
    _tell(state, EventKind.LEASE_AWARDED, lease)
    return lease


def _number(state: State) -> int:
    """Number the objects that one journal entry creates, across entries: nothing repeats."""
    state.object_number += 1
    return (state.seq << 20) + state.object_number


def start_freed(state: State) -> None:
    """Hand on what ended in this entry: to leases that wait for its nodes, or that are of the same bids."""
    waiting: dict[str, Lease] = {}
    for node_id in state.freed_nodes:
        waiting.update(state.node_leases[node_id])
    for bid_id in state.freed_bids:
        waiting.update(state.bid_leases.get(bid_id, {}))
    state.freed_nodes.clear()
    state.freed_bids.clear()
    start_pending(state, [lease for lease in waiting.values() if lease.state is LeaseState.PENDING])


def start_pending(state: State, waiting: Iterable[Lease]) -> int:
    """Give free GPUs to leases that wait for them, first awarded first. Returns how many GPUs."""
    started = 0
    for lease in sorted(waiting, key=lambda x: (x.awarded_at_us, x.id)):
        bid = state.bids[lease.bid]
        if billing.is_underfunded(state, bid):
            continue  # the next tick decides whether it can still pay
        if bid.filled_gpus + lease.gpu_count > bid.gpus:
            continue  # its old GPUs are still under notice: never more than it asked for
        # The node may have free GPUs that are not this offer's: its owner has taken them back.
        on_offer = sum(
            other.gpu_count
            for other in state.offer_leases[lease.offer].values()
            if other.state in LEASE_ON_NODE
        )
        if on_offer + lease.gpu_count > state.offers[lease.offer].gpus:
            continue
        if state.nodes[lease.node].health is not NodeHealth.OK:
            continue
        free = _free_gpus(state, lease.node)
        if len(free) < lease.gpu_count:
            continue
        lease.gpus = free[: lease.gpu_count]
        provisioning_us = state.markets[lease.market].provisioning_seconds * MICROSECONDS_PER_SECOND
        lease.start_by_us = state.now_us + provisioning_us
        state.deadlines.set(lease.id, lease.start_by_us)
        _move(state, lease, LeaseState.STARTING)
        del state.pending[lease.market][lease.id]
        started += lease.gpu_count
        _tell(state, EventKind.LEASE_STARTING, lease)
        refresh(state, lease)
    return started


def _free_gpus(state: State, node_id: str) -> list[int]:
    used = {
        gpu
        for lease in state.node_leases[node_id].values()
        if lease.state in LEASE_ON_NODE
        for gpu in lease.gpus
    }
    node = state.nodes[node_id]
    return [gpu for gpu in range(node.gpus) if gpu not in used and gpu not in node.fenced]


def report_started(state: State, lease: Lease, connect: dict[str, str]) -> None:
    """The node is ready: the bill starts here."""
    second = billing.second_of(state.now_us)
    lease.started_at_us = state.now_us
    lease.metered_to_s = lease.settled_to_s = second
    lease.connect = connect
    lease.start_by_us = None
    run_seconds = state.bids[lease.bid].max_run_seconds
    if run_seconds is not None:
        lease.ends_at_us = state.now_us + run_seconds * MICROSECONDS_PER_SECOND
        state.deadlines.set(lease.id, lease.ends_at_us)
    _move(state, lease, LeaseState.RUNNING)
    due_s = second + state.markets[lease.market].settlement_seconds
    heappush(state.books[lease.market].settlements, (due_s, lease.id))
    _tell(state, EventKind.LEASE_STARTED, lease)
    refresh(state, lease)


def promised_notice_s(state: State, lease: Lease) -> int:
    """Return the notice that an outbid tenant gets: its market's, or a longer one that the offer promised."""
    return max(state.markets[lease.market].notice_seconds, state.offers[lease.offer].notice_seconds)


def issue_notice(
    state: State,
    lease: Lease,
    reason: EndReason,
    *,
    notice_seconds: int,
    old_price: Price,
    price: Price | None,
    keep_price: Price | None,
) -> Notice:
    """Tell a running tenant that its GPUs pass on at now + notice.

    It goes on paying the price it last won at. R8 says min(old price, limit); a winner's limit is never
    below that price unless it was lowered since, and lowering it on the way out would make the notice
    nearly free and pay the owner less than its reserve.
    """
    assert lease.state is LeaseState.RUNNING
    billing.meter_to_now(state, lease)
    bid = state.bids[lease.bid]
    market = state.markets[lease.market]
    notice = Notice(
        id=derived_id("ntc", market.digest, _number(state)),
        lease=lease.id,
        bid=lease.bid,
        account=lease.account,
        market=lease.market,
        reason=reason,
        state=NoticeState.ISSUED,
        issued_at_us=state.now_us,
        reclaim_at_us=state.now_us + notice_seconds * MICROSECONDS_PER_SECOND,
        tick=market.tick,
        price=price,
        limit=bid.limit,
        keep_price=keep_price,
    )
    lease.notice = notice.id
    lease.notice_price = old_price
    _move(state, lease, LeaseState.NOTICED)
    state.add_notice(notice)
    state.touch(notice)
    _tell(state, EventKind.NOTICE_ISSUED, notice)
    _tell(state, EventKind.LEASE_PREEMPTING, lease)
    refresh(state, lease)
    return notice


def withdraw_notice(state: State, lease: Lease) -> None:
    """The tenant wins again inside its notice: it runs on, at the market's price."""
    assert lease.state is LeaseState.NOTICED and lease.notice is not None
    billing.meter_to_now(state, lease)
    _close_notice(state, state.notices[lease.notice], NoticeState.WITHDRAWN)
    lease.notice = None
    lease.notice_price = None
    _move(state, lease, LeaseState.RUNNING)
    refresh(state, lease)


def acknowledge(state: State, notice: Notice) -> None:
    notice_move(notice, NoticeState.ACKNOWLEDGED)
    state.touch(notice)
    _tell(state, EventKind.NOTICE_ACKNOWLEDGED, notice)


def end(state: State, lease: Lease, reason: EndReason) -> None:
    """End a lease now and settle it to its last second; its GPUs are free from here.

    However late we are, nobody is billed beyond the end that was promised: that is when it ended.
    """
    ended_at_us = max(_promised_end_us(state, lease), lease.started_at_us or lease.awarded_at_us)
    last_charge = Amount(0)
    if lease.state in LEASE_BILLED and reason in PREEMPTIONS and state.nodes[lease.node].alive_until_us:
        reason = EndReason.NODE_LOST  # it fell silent before it could be handed over
    if lease.state in LEASE_BILLED:
        assert lease.metered_to_s is not None
        ended_at_us = max(ended_at_us, lease.metered_to_s * MICROSECONDS_PER_SECOND)
        end_s = billing.second_of(ended_at_us)
        last_charge = billing.settle(state, lease, end_s, metered_to_s=end_s)
    if lease.notice is not None:
        _close_notice(state, state.notices[lease.notice], NoticeState.DONE)
    lease.end_reason = reason
    lease.ended_at_us = ended_at_us
    billing.refund(state, lease, reason, last_charge)
    _move(state, lease, LeaseState.ENDED)
    state.drop_lease(lease)
    state.freed_nodes.add(lease.node)
    state.freed_bids.add(lease.bid)
    bid = state.bids[lease.bid]
    if reason in (EndReason.OFFER_WITHDRAWN, EndReason.NODE_LOST) and lease.started_at_us is not None:
        state.books[lease.market].ranked_once.add(bid.id)
        bid.reclaimed_gpus += lease.gpu_count  # keeps incumbent rank for one tick (R3)
    _tell(state, EventKind.LEASE_ENDED, lease)
    gives_up = bid.on_preempt is OnPreempt.CANCEL and lease.started_at_us is not None
    if reason in LOSSES and (bid.has_lapsed or gives_up):
        state.losses.append((bid.id, lease.gpu_count))
    refresh(state, lease)
    state.books[lease.market].is_dirty = True
    if bid.status not in BID_FINAL and not billing.refill_hold(state, bid):
        state.books[lease.market].underfunded.add(bid.id)
    offer = state.offers[lease.offer]
    if offer.status is OfferStatus.WITHDRAWING and not state.offer_leases[offer.id]:
        offer.status = OfferStatus.WITHDRAWN
        state.drop_offer(offer)
        _tell_account(state, EventKind.OFFER_WITHDRAWN, offer, offer.account, offer.market)
    if bid.status in BID_FINAL and not state.bid_leases[bid.id]:
        billing.adjust_hold(state, bid, Amount(0))
        state.drop_bid(bid)


def _promised_end_us(state: State, lease: Lease) -> int:
    """Return when the lease ends: now, or earlier by its notice, run time, bid's expiry or node."""
    alive_until_us = state.nodes[lease.node].alive_until_us
    reclaim_at_us = None if lease.notice is None else state.notices[lease.notice].reclaim_at_us
    expires_at_us = state.bids[lease.bid].expires_at_us
    ends = (reclaim_at_us, lease.ends_at_us, expires_at_us, alive_until_us, state.now_us)
    return min(at_us for at_us in ends if at_us is not None)


def finish(state: State, bid: Bid, status: BidStatus) -> None:
    """End a bid: its leases end now, its hold goes back to the microdollar."""
    expired = status is BidStatus.EXPIRED
    bid.status = status
    state.touch(bid)
    sync_bid(state, bid)
    remaining = sorted(state.bid_leases[bid.id].values(), key=lambda lease: (lease.awarded_at_us, lease.id))
    for lease in remaining:
        end(state, lease, EndReason.EXPIRED if expired else EndReason.RELEASED)
    if not remaining:
        billing.adjust_hold(state, bid, Amount(0))
        state.drop_bid(bid)
    state.emit(ENDED[status], bid, account=bid.account, market=bid.market)


def split(state: State, lease: Lease, gpu_count: int) -> Lease:
    """Cut `gpu_count` GPUs off a lease; return them as a lease of their own, in the same state.

    A part cut off a lease under notice has no notice: the caller ends it at once.
    """
    assert 0 < gpu_count < lease.gpu_count
    part = Lease(
        id=derived_id("lease", state.markets[lease.market].digest, _number(state)),
        bid=lease.bid,
        account=lease.account,
        owner=lease.owner,
        market=lease.market,
        node=lease.node,
        offer=lease.offer,
        gpu_count=gpu_count,
        gpus=lease.gpus[-gpu_count:],
        state=lease.state,
        awarded_at_us=state.now_us,
        awarded_tick=lease.awarded_tick,
        connect=dict(lease.connect),
        start_by_us=lease.start_by_us,
        ends_at_us=lease.ends_at_us,
    )
    if lease.state in LEASE_BILLED:
        billing.meter_to_now(state, lease)  # what it owes is posted when it is due
        part.started_at_us = state.now_us
        part.notice_price = lease.notice_price
        part.metered_to_s = part.settled_to_s = lease.metered_to_s
    lease.gpus = lease.gpus[:-gpu_count]
    lease.gpu_count -= gpu_count
    lease.version += 1
    state.add_lease(part)
    state.touch(lease)
    _tell(state, EventKind.LEASE_RESIZED, lease)
    _tell(state, EventKind.LEASE_AWARDED, part)
    return part


def shrink_pending(state: State, lease: Lease, gpu_count: int) -> None:
    """A lease that still waits is to have fewer GPUs."""
    assert lease.state is LeaseState.PENDING and 0 < gpu_count < lease.gpu_count
    lease.gpu_count = gpu_count
    lease.version += 1
    state.touch(lease)
    _tell(state, EventKind.LEASE_RESIZED, lease)


def refresh(state: State, lease: Lease) -> None:
    """Derive the fill and status of the lease's bid and offer again, and tell the book."""
    bid = state.bids[lease.bid]
    refresh_bid(state, bid)
    sync_bid(state, bid)
    relist(state, lease.node)
    offer = state.offers[lease.offer]
    if offer.status not in (OfferStatus.WITHDRAWING, OfferStatus.WITHDRAWN):
        leased = sum(
            other.gpu_count for other in state.offer_leases[offer.id].values() if other.state in LEASE_ON_NODE
        )
        status = (
            OfferStatus.LISTED
            if leased == 0
            else OfferStatus.LEASED
            if leased >= offer.gpus
            else OfferStatus.PARTLY_LEASED
        )
        if status is not offer.status:
            offer.status = status
            state.touch(offer)
            if status is OfferStatus.LEASED:
                _tell_account(state, EventKind.OFFER_LEASED, offer, offer.account, offer.market)


def refresh_bid(state: State, bid: Bid) -> None:
    """Derive `filled_gpus` and `status` from the bid's leases."""
    on_node = [lease for lease in state.bid_leases[bid.id].values() if lease.state in LEASE_ON_NODE]
    bid.filled_gpus = sum(lease.gpu_count for lease in on_node)
    state.touch(bid)
    if bid.status in BID_FINAL:
        return
    if any(lease.state is LeaseState.NOTICED for lease in on_node):
        bid.status = BidStatus.PREEMPTING
    elif bid.filled_gpus == 0:
        bid.status = BidStatus.PAUSED if bid.is_paused else BidStatus.OPEN
    elif bid.filled_gpus < bid.gpus:
        bid.status = BidStatus.PARTIAL
    else:
        bid.status = BidStatus.FILLED


def sync_bid(state: State, bid: Bid) -> None:
    """Show the book what this bid asks for now, and with which rank (R3)."""
    gpus = bid.asked_gpus
    state.count_notional(bid)
    if gpus == 0:
        bid.awarded_gpus = 0  # no clearing will speak of it
        state.touch(bid)
    incumbent = sum(
        lease.gpu_count
        for lease in state.bid_leases[bid.id].values()
        if lease.state in LEASE_BILLED  # pending and starting ones rank as newcomers
    )
    state.books[bid.market].set_bid(
        bid.id,
        limit=bid.limit,
        gpus=gpus,
        min_gpus=bid.min_gpus,
        colocated=bid.asks_colocated,
        held=0 if bid.is_newcomer else incumbent + bid.reclaimed_gpus,
        arrival_tick=bid.arrival_tick,
        arrival_hash=bid.arrival_hash,
        seq=bid.seq,
    )


def notice_move(notice: Notice, target: NoticeState) -> None:
    assert target in NOTICE_TRANSITIONS[notice.state], f"{notice.state} -> {target}"
    notice.state = target


def _close_notice(state: State, notice: Notice, target: NoticeState) -> None:
    assert notice.state in NOTICE_LIVE
    notice_move(notice, target)
    notice.closed_at_us = state.now_us
    state.touch(notice)
    del state.notices[notice.id]
    if target is NoticeState.WITHDRAWN:
        _tell(state, EventKind.NOTICE_WITHDRAWN, notice)


def _move(state: State, lease: Lease, target: LeaseState) -> None:
    assert target in LEASE_TRANSITIONS[lease.state], f"{lease.state} -> {target}"
    lease.state = target
    lease.version += 1
    state.touch(lease)


def _tell(state: State, kind: EventKind, entity: Lease | Notice) -> None:
    state.touch(entity)
    state.emit(kind, entity, account=entity.account, market=entity.market)


def _tell_account(state: State, kind: EventKind, entity: Offer, account: str, market: str) -> None:
    state.touch(entity)
    state.emit(kind, entity, account=account, market=market)
