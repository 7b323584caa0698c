"""How bids and leases end by the clock: expiry, the last tick, run time, the dead man's switch, notices.

Whoever set such an end knows it beforehand, so it needs no notice: it happens at that instant and the bill
ends there. A bid that does not queue again gives up what it loses; that is done here too, after the
command that took it, so that nobody changes a bid under whoever is working through its leases.
"""

from heapq import heappop

from auction import admission, billing, leases
from auction.bidding import cancel_bid
from auction.commands import CancelAfter
from auction.model import (
    BID_FINAL,
    LEASE_ON_NODE,
    Account,
    Bid,
    BidStatus,
    EndReason,
    Lease,
    Market,
)
from auction.state import State
from auction.units import MICROSECONDS_PER_SECOND, Amount


def sweep(state: State) -> None:
    """Carry out what is due, each at its promised instant; hand the GPUs on."""
    markets: set[str] = set()
    while (due := state.deadlines.take(state.now_us)) is not None:
        _, entity_id = due
        if entity_id in state.notices:
            notice = state.notices[entity_id]
            leases.end(state, state.leases[notice.lease], notice.reason)
            markets.add(notice.market)
        elif entity_id in state.leases:
            lease = state.leases[entity_id]
            _end_run(state, lease)
            markets.add(lease.market)
        elif entity_id in state.bids:
            bid = state.bids[entity_id]
            _expire(state, bid)
            markets.add(bid.market)
        else:
            markets |= _switch_off(state, state.accounts[entity_id])
    give_up_losses(state)
    for market_id in sorted(markets):
        leases.start_pending(state, market_id)


def _expire(state: State, bid: Bid) -> None:
    bid.version += 1
    bid.updated_at_us = state.now_us
    if bid.status not in BID_FINAL:
        leases.finish(state, bid, BidStatus.EXPIRED)
        return
    for lease in sorted(state.bid_leases[bid.id].values(), key=lambda lease: lease.id):
        leases.end(state, lease, EndReason.EXPIRED)  # it was under its last notice


def _end_run(state: State, lease: Lease) -> None:
    """A lease has run as long as its bid wished; the bid wants that much less."""
    bid, gpu_count = state.bids[lease.bid], lease.gpu_count
    leases.end(state, lease, EndReason.EXPIRED)
    if bid.status not in BID_FINAL:
        _want(state, bid, bid.gpus - gpu_count)


def cancel_after(state: State, command: CancelAfter) -> Account:
    """Set the account's dead man's switch, or switch it off."""
    account = admission.open_account(state, command.account, "buyer")
    account.cancel_at_us = None
    if command.timeout_seconds:
        account.cancel_at_us = state.now_us + command.timeout_seconds * MICROSECONDS_PER_SECOND
    account.cancel_releases = command.release
    state.touch(account)
    state.deadlines.set(account.id, account.cancel_at_us)
    return account


def _switch_off(state: State, account: Account) -> set[str]:
    """Cancel the bids of an account whose owner has not been heard of; return their markets."""
    account.cancel_at_us = None
    state.touch(account)
    bids = [bid for bid in state.bids.values() if bid.account == account.id and bid.status not in BID_FINAL]
    for bid in sorted(bids, key=lambda bid: bid.seq):
        cancel_bid(state, bid, release=account.cancel_releases)
    return {bid.market for bid in bids}


def lapse_bids(state: State, market: Market) -> None:
    """Bids whose last tick has been cleared keep what they have won and win nothing more."""
    last_ticks = state.books[market.id].last_ticks
    while last_ticks and last_ticks[0][0] <= market.tick:
        bid = state.bids.get(heappop(last_ticks)[1])
        if bid is not None and bid.status not in BID_FINAL:
            bid.has_lapsed = True
            state.touch(bid)
            state.losses.append((bid.id, 0))


def give_up_losses(state: State) -> None:
    """Let bids that do not queue again want that much less than what they lost."""
    losses, state.losses = state.losses, []
    for bid_id, gpu_count in losses:
        bid = state.bids.get(bid_id)
        if bid is None or bid.status in BID_FINAL:
            continue
        kept = min(bid.gpus, sum(lease.gpu_count for lease in state.bid_leases[bid.id].values()))
        # What it has won elsewhere meanwhile it has not lost.
        _want(state, bid, kept if bid.has_lapsed else max(kept, bid.gpus - gpu_count))


def _want(state: State, bid: Bid, gpus: int) -> None:
    """Lower a bid to `gpus`; below its minimum it ends, with whatever leases are left."""
    if gpus == bid.gpus:
        return
    bid.version += 1
    bid.updated_at_us = state.now_us
    state.books[bid.market].is_dirty = True
    if gpus < max(1, bid.min_gpus):
        on_node = any(lease.state in LEASE_ON_NODE for lease in state.bid_leases[bid.id].values())
        leases.finish(state, bid, BidStatus.CANCELLED if on_node or not bid.has_lapsed else BidStatus.EXPIRED)
        return
    bid.gpus = gpus
    safe = billing.safe_hold(state, bid, bid.limit, gpus)
    billing.adjust_hold(state, bid, Amount(min(bid.held, safe)))
    leases.refresh_bid(state, bid)
    leases.sync_bid(state, bid)
