"""How a lease ends or is cut, what that settles and tells, and what bids and offers are then."""

import pytest

from auction import billing, leases
from auction.ledger import TransferCode
from auction.listing import list_offers
from auction.model import (
    BidStatus,
    EndReason,
    LeaseState,
    NodeState,
    NoticeState,
    OfferStatus,
    OnPreempt,
    TimeInForce,
)
from tests.bare_market import A_SECOND, HOLD, MONEY, PRICE, START_S, US, Bare
from tests.simulation.driver import SECOND, START_US


def test_an_end_settles_to_the_second_frees_the_gpus_and_is_told():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    book = bare.state.books[US]
    book.is_dirty = False
    bare.at(20)
    leases.end(bare.state, lease, EndReason.OUTBID)
    assert (LeaseState.ENDED, EndReason.OUTBID, START_US + 20 * SECOND) == (
        lease.state, lease.end_reason, lease.ended_at_us,
    )  # fmt: skip
    assert 20 * A_SECOND == lease.settled == bid.spent
    assert HOLD == bid.held, "refilled"
    assert (0, BidStatus.OPEN) == (bid.filled_gpus, bid.status)
    state = bare.state
    for index in (state.leases, state.bid_leases[bid.id], state.node_leases["node"]):
        assert {} == index
    assert ({"node"}, {bid.id}) == (state.freed_nodes, state.freed_bids)
    assert [("lease.ended", "acct_b")] == bare.told()
    assert book.is_dirty and not book.underfunded and not book.ranked_once


def test_the_notice_of_a_lease_is_done_with_it_and_no_more_is_said_of_it():
    bare = Bare()
    lease = bare.running(bare.bid())
    notice = bare.notice(lease)
    bare.state.take_changes()
    bare.at(30)
    leases.end(bare.state, lease, EndReason.OUTBID)
    assert (NoticeState.DONE, START_US + 30 * SECOND) == (notice.state, notice.closed_at_us)
    assert {notice.id: notice} == bare.state.changes.notices
    assert ["lease.ended"] == bare.kinds()
    assert {} == bare.state.notices


@pytest.mark.parametrize("promise", ["notice", "run time", "expiry", "heartbeat", "nothing"])
def test_however_late_it_is_carried_out_a_lease_ends_when_it_was_promised(promise):
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    promised_us = START_US + 50 * SECOND
    if promise == "notice":
        bare.notice(lease, seconds=50)
    elif promise == "run time":
        lease.ends_at_us = promised_us
    elif promise == "expiry":
        bid.expires_at_us = promised_us
    elif promise == "heartbeat":
        bare.node.alive_until_us = promised_us
    bare.at(90)
    leases.end(bare.state, lease, EndReason.RELEASED)
    second = 90 if promise == "nothing" else 50
    assert START_US + second * SECOND == lease.ended_at_us
    assert second * A_SECOND == lease.settled


def test_nothing_ends_before_it_began_or_before_what_was_metered():
    bare = Bare()
    bid = bare.bid(gpus=3)
    bare.at(30)
    waiting, running = bare.award(bid), bare.starting(bid)
    bare.at(40)
    leases.report_started(bare.state, running, {})
    metered = bare.running(bid)
    bid.expires_at_us = START_US + 20 * SECOND
    billing.meter(bare.state, metered, START_S + 60)
    bare.at(90)
    for lease in (waiting, running, metered):
        leases.end(bare.state, lease, EndReason.EXPIRED)
    ends = [(lease.ended_at_us - START_US) // SECOND for lease in (waiting, running, metered)]
    assert [30, 40, 60] == ends
    assert (0, 20 * A_SECOND) == (running.settled, metered.settled)


@pytest.mark.parametrize(
    ("runs", "silent", "reason", "told"),
    [
        (True, True, EndReason.OUTBID, EndReason.NODE_LOST),
        (True, True, EndReason.OFFER_WITHDRAWN, EndReason.NODE_LOST),
        (True, True, EndReason.RELEASED, EndReason.RELEASED),
        (True, False, EndReason.OUTBID, EndReason.OUTBID),
        (False, True, EndReason.OUTBID, EndReason.OUTBID),
    ],
)
def test_a_node_that_fell_silent_before_the_hand_over_has_lost_the_lease(runs, silent, reason, told):
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid) if runs else bare.award(bid)
    bare.node.alive_until_us = START_US + 5 * SECOND if silent else None
    bare.at(10)
    leases.end(bare.state, lease, reason)
    assert told is lease.end_reason


def test_a_young_lease_that_its_node_loses_is_given_back_what_it_paid():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    bare.at(20)
    leases.end(bare.state, lease, EndReason.NODE_LOST)
    assert 20 * A_SECOND == lease.refunded
    assert MONEY == bare.state.available(bid.account) + bid.held


def test_a_lost_node_forfeits_what_was_charged_at_the_end():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    billing.settle(bare.state, lease, START_S + 690, metered_to_s=START_S + 690)
    bare.at(700)
    leases.end(bare.state, lease, EndReason.NODE_LOST)
    assert 10 * A_SECOND == lease.refunded


@pytest.mark.parametrize(
    ("reason", "runs", "keeps"),
    [
        (EndReason.OFFER_WITHDRAWN, True, True), (EndReason.NODE_LOST, True, True),
        (EndReason.OUTBID, True, False), (EndReason.NODE_LOST, False, False),
    ],
)  # fmt: skip
def test_what_the_owner_takes_or_the_node_loses_keeps_its_rank_for_one_tick(reason, runs, keeps):
    bare = Bare()
    bid = bare.bid(gpus=6)
    bare.running(bid, 1)
    for _ in range(2):
        leases.end(bare.state, bare.running(bid, 2) if runs else bare.starting(bid, 2), reason)
    assert (4 if keeps else 0) == bid.reclaimed_gpus
    assert keeps is (bid.id in bare.state.books[US].ranked_once)
    leases.sync_bid(bare.state, bid)
    assert (5 if keeps else 1) == bare.rank(bid)
    bid.is_newcomer = True
    leases.sync_bid(bare.state, bid)
    assert 0 == bare.rank(bid)


@pytest.mark.parametrize(
    ("reason", "runs", "on_preempt", "has_lapsed", "is_lost"),
    [
        (EndReason.OUTBID, True, OnPreempt.CANCEL, False, True),
        (EndReason.NODE_LOST, True, OnPreempt.CANCEL, False, True),
        (EndReason.OUTBID, True, OnPreempt.REQUEUE, False, False),
        (EndReason.OUTBID, False, OnPreempt.CANCEL, False, False),
        (EndReason.OUTBID, True, OnPreempt.REQUEUE, True, True),
        (EndReason.OUTBID, False, OnPreempt.REQUEUE, True, True),
        (EndReason.RELEASED, True, OnPreempt.CANCEL, True, False),
        (EndReason.MOVED, True, OnPreempt.CANCEL, False, False),
    ],
)
def test_a_loss_is_not_bid_for_again_by_who_gives_up_or_has_had_its_last_tick(
    reason, runs, on_preempt, has_lapsed, is_lost
):
    bare = Bare()
    bid = bare.bid(gpus=3, on_preempt=on_preempt)
    bid.has_lapsed = has_lapsed
    lease = bare.running(bid, 2) if runs else bare.starting(bid, 2)
    leases.end(bare.state, lease, reason)
    assert ([(bid.id, 2)] if is_lost else []) == bare.state.losses


@pytest.mark.parametrize(
    ("money", "status", "is_short"),
    [(HOLD + 20_000, None, False), (HOLD, None, True), (HOLD, BidStatus.EXHAUSTED, False)],
)
def test_a_bid_whose_hold_an_end_could_not_refill_is_looked_at_at_the_tick(money, status, is_short):
    bare = Bare()
    bid = bare.bid(money=money)
    lease = bare.running(bid)
    bid.status = status or bid.status
    bare.at(20)
    leases.end(bare.state, lease, EndReason.OUTBID)
    assert is_short is (bid.id in bare.state.books[US].underfunded)


def test_an_offer_that_is_being_withdrawn_is_gone_with_its_last_lease():
    bare = Bare()
    bid = bare.bid(gpus=3)
    one, other, third = (bare.running(bid) for _ in range(3))
    leases.end(bare.state, third, EndReason.OUTBID)
    assert OfferStatus.PARTLY_LEASED is bare.offer.status, "nobody withdraws it"
    bare.offer.status = OfferStatus.WITHDRAWING
    leases.end(bare.state, one, EndReason.OUTBID)
    assert OfferStatus.WITHDRAWING is bare.offer.status
    bare.state.take_changes()
    leases.end(bare.state, other, EndReason.OUTBID)
    assert OfferStatus.WITHDRAWN is bare.offer.status and {} == bare.state.offers
    assert [("lease.ended", "acct_b"), ("offer.withdrawn", "acct_owner")] == bare.told()
    assert {bare.offer.id: bare.offer} == bare.state.changes.offers


def test_an_offer_without_leases_that_nobody_withdraws_stays():
    bare = Bare()
    leases.end(bare.state, bare.running(bare.bid()), EndReason.OUTBID)
    assert OfferStatus.LISTED is bare.offer.status and {bare.offer.id: bare.offer} == bare.state.offers


def test_a_bid_that_is_over_is_dropped_with_its_last_lease_and_its_hold_goes_back():
    bare = Bare()
    bid = bare.bid(gpus=2)
    one, other = bare.running(bid), bare.running(bid)
    bid.status = BidStatus.EXHAUSTED
    leases.end(bare.state, one, EndReason.FUNDS_EXHAUSTED)
    assert bid.id in bare.state.bids and 2 * HOLD == bid.held
    leases.end(bare.state, other, EndReason.FUNDS_EXHAUSTED)
    assert {} == bare.state.bids and 0 == bid.held
    assert [(TransferCode.RELEASE, 2 * HOLD)] == bare.transfers()
    assert MONEY == bare.state.available(bid.account)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (BidStatus.CANCELLED, EndReason.RELEASED, "bid.cancelled"),
        (BidStatus.EXPIRED, EndReason.EXPIRED, "bid.expired"),
    ],
)
def test_a_finished_bids_leases_end_oldest_first_and_then_it_is_told(status, reason, kind):
    bare = Bare()
    bid = bare.bid(gpus=3)
    bare.at(2)
    late = bare.running(bid)
    bare.at(1)
    early = bare.running(bid, 2)
    bare.at(5)
    leases.finish(bare.state, bid, status)
    assert [early.id, late.id] == list(bare.state.changes.leases)
    assert {reason} == {early.end_reason, late.end_reason}
    assert [("lease.ended", "acct_b")] * 2 + [(kind, "acct_b")] == bare.told()
    assert ({}, 0, status) == (bare.state.bids, bid.held, bid.status)


def test_a_finished_bid_without_leases_leaves_the_book_and_gets_its_hold_back():
    bare = Bare()
    bid = bare.bid()
    leases.finish(bare.state, bid, BidStatus.CANCELLED)
    assert not bare.state.books[US].has_bid(bid.id)
    assert ({}, MONEY) == (bare.state.bids, bare.state.available(bid.account))
    assert [("bid.cancelled", "acct_b")] == bare.told()
    assert {bid.id: bid} == bare.state.changes.bids


def test_a_part_cut_off_a_running_lease_has_the_last_gpus_and_a_bill_of_its_own():
    bare = Bare()
    lease = bare.running(bare.bid(gpus=4), 4)
    bare.at(20)
    part = leases.split(bare.state, lease, 1)
    assert ([0, 1, 2], 3, [3], 1) == (lease.gpus, lease.gpu_count, part.gpus, part.gpu_count)
    assert 4 * 20 * A_SECOND == lease.metered and 0 == part.metered
    assert START_S + 20 == part.metered_to_s == part.settled_to_s == lease.metered_to_s
    assert (LeaseState.RUNNING, START_US + 20 * SECOND, 4) == (part.state, part.started_at_us, lease.version)
    assert [("lease.resized", "acct_b"), ("lease.awarded", "acct_b")] == bare.told()
    assert {lease.id, part.id} == set(bare.state.changes.leases) == set(bare.state.leases)


def test_a_part_cut_off_a_lease_under_notice_goes_on_at_its_price():
    bare = Bare()
    lease = bare.running(bare.bid(gpus=2), 2)
    bare.notice(lease, old_price=PRICE // 2)
    part = leases.split(bare.state, lease, 1)
    assert (LeaseState.NOTICED, PRICE // 2, None) == (part.state, part.notice_price, part.notice)


def test_a_part_cut_off_before_the_start_has_no_bill_yet():
    bare = Bare()
    lease = bare.starting(bare.bid(gpus=2), 2)
    part = leases.split(bare.state, lease, 1)
    assert (None, None, lease.start_by_us) == (part.started_at_us, part.metered_to_s, part.start_by_us)


def test_a_win_that_waits_may_become_smaller():
    bare = Bare()
    lease = bare.award(bare.bid(gpus=4), 4)
    bare.state.take_changes()
    leases.shrink_pending(bare.state, lease, 1)
    assert (1, 2, {lease.id: lease}) == (lease.gpu_count, lease.version, bare.state.changes.leases)
    assert [("lease.resized", "acct_b")] == bare.told()


def test_an_offer_is_listed_partly_leased_or_leased_and_its_owner_told_when_all_is_lent():
    bare = Bare(gpus=2)
    bid = bare.bid(gpus=3)
    bare.award(bid)
    found = []
    one = bare.award(bid)
    leases.start_pending(bare.state, [one])
    found.append((bare.offer.status, bare.kinds().count("offer.leased"), len(bare.state.changes.offers)))
    bare.state.take_changes()
    other = bare.award(bid)
    leases.start_pending(bare.state, [other])
    found.append((bare.offer.status, bare.told().count(("offer.leased", "acct_owner"))))
    leases.report_started(bare.state, other, {})
    leases.end(bare.state, one, EndReason.RELEASED)
    found.append((bare.offer.status, bare.kinds().count("offer.leased")))
    leases.end(bare.state, other, EndReason.RELEASED)
    found.append((bare.offer.status, bare.kinds().count("offer.leased")))
    assert [
        (OfferStatus.PARTLY_LEASED, 0, 1), (OfferStatus.LEASED, 1),
        (OfferStatus.PARTLY_LEASED, 1), (OfferStatus.LISTED, 1),
    ] == found  # fmt: skip


def test_what_a_cordoned_node_lends_shrinks_with_its_leases():
    bare = Bare()
    lease = bare.running(bare.bid(gpus=2), 2)
    bare.node.state = NodeState.CORDONED
    list_offers(bare.state, bare.node)
    book = bare.state.books[US]
    assert 2 == book.offered_gpus(bare.offer.id)
    leases.end(bare.state, lease, EndReason.RELEASED)
    assert not book.has_offer(bare.offer.id)


@pytest.mark.parametrize(
    ("gpus", "filled", "noticed", "paused", "status"),
    [
        (2, 0, False, False, BidStatus.OPEN), (2, 0, False, True, BidStatus.PAUSED),
        (2, 1, False, False, BidStatus.PARTIAL), (2, 2, False, False, BidStatus.FILLED),
        (1, 2, False, False, BidStatus.FILLED), (2, 1, True, False, BidStatus.PREEMPTING),
        (2, 2, True, True, BidStatus.PREEMPTING), (2, 1, False, True, BidStatus.PARTIAL),
    ],
)  # fmt: skip
def test_a_bids_status_follows_from_its_leases(gpus, filled, noticed, paused, status):
    bare = Bare()
    bid = bare.bid(gpus=5)
    for _ in range(filled):
        lease = bare.running(bid)
    bare.award(bid)  # what waits fills nothing
    if noticed:
        bare.notice(lease)
    bare.state.take_changes()
    bid.gpus, bid.is_paused = gpus, paused
    leases.refresh_bid(bare.state, bid)
    assert (status, filled, {bid.id: bid}) == (bid.status, bid.filled_gpus, bare.state.changes.bids)


def test_a_bid_that_is_over_stays_over():
    bare = Bare()
    bid = bare.bid()
    bid.status = BidStatus.EXHAUSTED
    leases.refresh_bid(bare.state, bid)
    assert BidStatus.EXHAUSTED is bid.status


@pytest.mark.parametrize(("is_paused", "awarded"), [(True, 0), (False, 1)])
def test_a_bid_that_asks_for_nothing_leaves_the_book_and_has_been_awarded_nothing(is_paused, awarded):
    bare = Bare()
    bid = bare.bid()
    bid.is_paused, bid.awarded_gpus = is_paused, 1
    leases.sync_bid(bare.state, bid)
    assert awarded == bid.awarded_gpus
    assert is_paused is not bare.state.books[US].has_bid(bid.id)
    assert is_paused is (bid.id in bare.state.changes.bids)


def test_limits_count_what_a_bid_asks_for_now():
    bare = Bare()
    bid = bare.bid(gpus=2)
    bare.limited(bid, max_open_notional=MONEY)
    bid.gpus = 5
    leases.sync_bid(bare.state, bid)
    assert 5 * PRICE == bare.state.limit_uses[bid.account].notional


def test_a_lease_of_a_bid_that_expires_ends_with_it_though_its_run_time_is_longer():
    bare = Bare()
    expires_at_us = START_US + 50 * SECOND
    bid = bare.bid(time_in_force=TimeInForce.GTT, expires_at_us=expires_at_us, max_run_seconds=70)
    lease = bare.running(bid)
    bare.at(90)
    leases.finish(bare.state, bid, BidStatus.EXPIRED)
    assert (expires_at_us, 50 * A_SECOND) == (lease.ended_at_us, lease.settled)
