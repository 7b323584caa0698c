"""What a bid gives up: after its last tick, and by what it loses if it does not queue again.

It is done after the command that took the GPUs, so that nobody changes a bid under whoever is working
through its leases.
"""

from heapq import heappop

from auction import billing, leases
from auction.model import BID_FINAL, LEASE_ON_NODE, Bid, BidStatus, Market
from auction.state import State
from auction.units import Amount


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
        want(state, bid, kept if bid.has_lapsed else max(kept, bid.gpus - gpu_count))


def want(state: State, bid: Bid, gpus: int) -> None:
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
