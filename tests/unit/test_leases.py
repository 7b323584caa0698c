"""The life of one lease, step by step: who gets GPUs, what is told in which order, what an end settles."""

import pytest

from auction import billing, leases
from auction.ids import derived_id
from auction.ledger import TransferCode
from auction.listing import list_offers
from auction.model import (
    BidStatus,
    EndReason,
    LeaseState,
    NodeHealth,
    NodeState,
    NoticeState,
    OfferStatus,
    OnPreempt,
    TimeInForce,
)
from tests.bare_market import A_SECOND, HOLD, MONEY, PRICE, START_S, US, Bare
from tests.simulation.driver import SECOND, START_US


def notice_of(bare, lease, reason=EndReason.OUTBID, *, seconds=30, old_price=PRICE):
    return leases.issue_notice(
        bare.state, lease, reason, notice_seconds=seconds, old_price=old_price, price=PRICE, keep_price=None
    )


def rank(bare, bid):
    """The GPUs with which the book ranks the bid as one that runs (R3)."""
    return bare.state.books[bid.market]._bids[bid.id].held


def test_a_win_is_a_pending_lease_of_which_its_tenant_is_told():
    bare = Bare()
    bid = bare.bid(gpus=2)
    bare.market.tick = 4
    bare.at(3)
    lease = bare.award(bid, 2)
    assert (LeaseState.PENDING, 2, [], 4, START_US + 3 * SECOND) == (
        lease.state, lease.gpu_count, lease.gpus, lease.awarded_tick, lease.awarded_at_us,
    )  # fmt: skip
    assert (bid.id, "acct_b", "acct_owner") == (lease.bid, lease.account, lease.owner)
    state = bare.state
    for index in (state.leases, state.pending[US], state.bid_leases[bid.id], state.changes.leases):
        assert {lease.id: lease} == index
    assert [("lease.awarded", "acct_b")] == bare.told()


def test_the_nth_object_of_an_entry_is_numbered_after_the_entry():
    """A journal that is replayed gives every lease and notice the id that its tenant was shown."""
    bare = Bare()
    bid = bare.bid(gpus=3)
    bare.state.seq, bare.state.object_number = 7, 0
    made = [bare.award(bid).id for _ in range(3)]
    first = 7 * 1_048_576 + 1
    assert [derived_id("lease", bare.market.digest, first + i) for i in range(3)] == made


def a_market_with_gpus_to_spare():
    """Ten GPUs of which eight are offered; a bid for four has won two, which wait."""
    bare = Bare(gpus=10, offered=8)
    bid = bare.bid(gpus=4)
    return bare, bid, bare.award(bid, 2)


def short_of_money(bare, bid, stands):
    bare.state.books[US].underfunded = {bid.id} if stands else set()


def has_what_it_asked_for(bare, bid, stands):
    bid.filled_gpus = 3 if stands else 2


def offer_is_lent(bare, bid, stands):
    """The node has more GPUs, but its owner has not offered them."""
    if stands:
        bare.big = bare.running(bare.bid("big", gpus=7), 7)
    else:
        leases.end(bare.state, leases.split(bare.state, bare.big, 1), EndReason.RELEASED)


def node_is_late(bare, bid, stands):
    bare.node.health = NodeHealth.DEGRADED if stands else NodeHealth.OK


def gpus_are_fenced(bare, bid, stands):
    bare.node.fenced = [0, 1, 2, 3, 4, 5, 6, 7, 9] if stands else [0, 1, 2, 3, 4, 5, 6, 7]


HINDRANCES = [short_of_money, has_what_it_asked_for, offer_is_lent, node_is_late, gpus_are_fenced]


@pytest.mark.parametrize("hindrance", HINDRANCES)
def test_a_win_waits_while_one_thing_hinders_it_and_starts_when_that_is_gone(hindrance):
    bare, bid, lease = a_market_with_gpus_to_spare()
    hindrance(bare, bid, True)
    bare.state.take_changes()
    assert 0 == leases.start_pending(bare.state, [lease])
    assert LeaseState.PENDING is lease.state and lease.id in bare.state.pending[US]
    assert [] == lease.gpus == bare.told()
    hindrance(bare, bid, False)
    assert 2 == leases.start_pending(bare.state, [lease])
    assert LeaseState.STARTING is lease.state


def test_the_longest_waiting_win_gets_the_gpus_and_a_large_one_holds_up_no_small_one():
    bare = Bare(gpus=3)
    bid = bare.bid(gpus=8)
    bare.at(2)
    late = bare.award(bid, 1)
    bare.at(1)
    early, large = bare.award(bid, 2), bare.award(bid, 4)
    assert 3 == leases.start_pending(bare.state, [late, large, early])
    assert ([0, 1], [2], []) == (early.gpus, late.gpus, large.gpus)


def test_a_win_that_starts_takes_free_gpus_and_its_node_has_so_long():
    bare = Bare(provisioning_seconds=45)
    bare.starting(bare.bid("other", gpus=2), 2)
    bid = bare.bid(gpus=3)
    bare.node.fenced = [3]
    lease = bare.award(bid, 3)
    bare.state.take_changes()
    bare.at(7)
    assert 3 == leases.start_pending(bare.state, [lease])
    assert [2, 4, 5] == lease.gpus
    assert START_US + 52 * SECOND == lease.start_by_us
    assert {} == bare.state.pending[US]
    assert [("lease.starting", "acct_b")] == bare.told()
    assert (3, BidStatus.FILLED, 2) == (bid.filled_gpus, bid.status, lease.version)
    assert START_US + 45 * SECOND == bare.state.deadlines.next_at_us(), "the other one's"


def test_the_clock_looks_at_a_lease_that_does_not_start():
    bare = Bare()
    bare.starting(bare.bid())
    assert START_US + 600 * SECOND == bare.state.deadlines.next_at_us()


def test_what_ended_is_handed_on_to_who_waits_for_the_node_or_is_of_the_same_bid():
    bare = Bare(gpus=2)
    _, elsewhere = bare.lend("second", 2, 2)
    bid, rival = bare.bid(gpus=2), bare.bid("rival", gpus=2)
    ends = bare.running(bid, 2)
    of_the_bid, of_the_node = bare.award(bid, 2, elsewhere), bare.award(rival, 2)
    leases.start_freed(bare.state)
    assert LeaseState.PENDING is of_the_bid.state is of_the_node.state, "nothing was freed"
    leases.end(bare.state, ends, EndReason.OUTBID)
    leases.start_freed(bare.state)
    assert ([0, 1], [0, 1]) == (of_the_bid.gpus, of_the_node.gpus)
    assert set() == bare.state.freed_nodes == bare.state.freed_bids


def test_the_bill_begins_in_the_second_in_which_the_node_reports():
    bare = Bare()
    bid = bare.bid(gpus=2)
    lease = bare.starting(bid, 2)
    assert 0 == rank(bare, bid), "it ranks as a newcomer until it runs"
    bare.state.take_changes()
    bare.at(7.5)
    leases.report_started(bare.state, lease, {"ssh": "there"})
    assert START_US + 7_500_000 == lease.started_at_us
    assert START_S + 7 == lease.metered_to_s == lease.settled_to_s
    assert ({"ssh": "there"}, None, None) == (lease.connect, lease.start_by_us, lease.ends_at_us)
    assert (LeaseState.RUNNING, 3) == (lease.state, lease.version)
    assert [(START_S + 67, lease.id)] == bare.state.books[US].settlements
    assert [("lease.started", "acct_b")] == bare.told()
    assert 2 == rank(bare, bid)
    assert None is bare.state.deadlines.next_at_us()


def test_a_run_time_counts_from_the_start_and_the_clock_knows():
    bare = Bare()
    bare.starting(bare.bid("other"))
    bare.at(100)
    lease = bare.starting(bare.bid(max_run_seconds=25))
    bare.at(110)
    leases.report_started(bare.state, lease, {})
    assert START_US + 135 * SECOND == lease.ends_at_us == bare.state.deadlines.next_at_us()


@pytest.mark.parametrize(("of_the_offer", "promised"), [(10, 30), (120, 120)])
def test_a_tenant_is_promised_the_markets_notice_or_a_longer_one_of_the_offer(of_the_offer, promised):
    bare = Bare()
    lease = bare.running(bare.bid())
    bare.offer.notice_seconds = of_the_offer
    assert promised == leases.promised_notice_s(bare.state, lease)


def test_a_notice_freezes_the_price_says_until_when_and_is_told_before_the_lease():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    bare.at(20)
    notice = notice_of(bare, lease, seconds=45, old_price=PRICE // 2)
    assert START_US + 65 * SECOND == notice.reclaim_at_us == bare.state.deadlines.next_at_us()
    assert {notice.id: notice} == bare.state.notices == bare.state.changes.notices
    assert (LeaseState.NOTICED, notice.id, PRICE // 2) == (lease.state, lease.notice, lease.notice_price)
    assert (20 * A_SECOND, BidStatus.PREEMPTING) == (lease.metered, bid.status)
    assert [("notice.issued", "acct_b"), ("lease.preempting", "acct_b")] == bare.told()
    bare.at(30)
    billing.meter_to_now(bare.state, lease)
    assert 25 * A_SECOND == lease.metered


def test_a_withdrawn_notice_lets_the_lease_run_on_at_the_markets_price():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    bare.at(20)
    notice = notice_of(bare, lease, old_price=PRICE // 2)
    bare.price(25, PRICE)
    bare.state.take_changes()
    bare.at(30)
    leases.withdraw_notice(bare.state, lease)
    assert (LeaseState.RUNNING, None, None) == (lease.state, lease.notice, lease.notice_price)
    assert (NoticeState.WITHDRAWN, START_US + 30 * SECOND) == (notice.state, notice.closed_at_us)
    assert ({}, BidStatus.FILLED) == (bare.state.notices, bid.status)
    assert 25 * A_SECOND == lease.metered, "up to here at the price of the notice"
    assert [("notice.withdrawn", "acct_b")] == bare.told()


def test_a_notice_that_is_withdrawn_at_once_is_still_written_down():
    bare = Bare()
    lease = bare.running(bare.bid())
    notice_of(bare, lease)
    bare.state.take_changes()
    leases.withdraw_notice(bare.state, lease)
    assert lease.id in bare.state.changes.leases and lease.bid in bare.state.changes.bids
    assert 5 == lease.version


def test_an_acknowledged_notice_is_told_and_stands():
    bare = Bare()
    notice = notice_of(bare, bare.running(bare.bid()))
    bare.state.take_changes()
    leases.acknowledge(bare.state, notice)
    assert NoticeState.ACKNOWLEDGED is notice.state and notice.id in bare.state.notices
    assert [("notice.acknowledged", "acct_b")] == bare.told()
    assert {notice.id: notice} == bare.state.changes.notices


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
    notice = notice_of(bare, lease)
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
        notice_of(bare, lease, seconds=50)
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
    assert (5 if keeps else 1) == rank(bare, bid)
    bid.is_newcomer = True
    leases.sync_bid(bare.state, bid)
    assert 0 == rank(bare, bid)


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
    notice_of(bare, lease, old_price=PRICE // 2)
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
        notice_of(bare, lease)
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
