"""How bids and leases end by the clock: expiry, the last tick, run time, the dead man's switch, notices.

Whoever set such an end knows it beforehand, so it needs no notice: it happens at that instant and the bill
ends there.
"""

from auction import admission, delivery, lapses, leases
from auction.bidding import cancel_bid
from auction.commands import CancelAfter
from auction.model import (
    BID_FINAL,
    Account,
    Bid,
    BidStatus,
    EndReason,
    Lease,
    LeaseState,
)
from auction.state import State
from auction.units import MICROSECONDS_PER_SECOND


def sweep(state: State) -> None:
    """Carry out what is due, each at its promised instant."""
    while (due := state.deadlines.take(state.now_us)) is not None:
        _, entity_id = due
        if entity_id in state.notices:
            notice = state.notices[entity_id]
            leases.end(state, state.leases[notice.lease], notice.reason)
        elif entity_id in state.leases:
            lease = state.leases[entity_id]
            if lease.state is LeaseState.STARTING:
                delivery.fail_start(state, lease)
            else:
                _end_run(state, lease)
        elif entity_id in state.bids:
            _expire(state, state.bids[entity_id])
        else:
            _switch_off(state, state.accounts[entity_id])


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
        lapses.want(state, bid, bid.gpus - gpu_count)


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


def _switch_off(state: State, account: Account) -> None:
    """Cancel the bids of an account whose owner has not been heard of."""
    account.cancel_at_us = None
    state.touch(account)
    bids = [bid for bid in state.bids.values() if bid.account == account.id and bid.status not in BID_FINAL]
    for bid in sorted(bids, key=lambda bid: bid.seq):
        cancel_bid(state, bid, release=account.cancel_releases)
