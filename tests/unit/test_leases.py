"""How a lease begins and is interrupted: who gets GPUs, when the bill begins, what is told in which order."""

import pytest

from auction import billing, leases
from auction.ids import derived_id
from auction.model import (
    BidStatus,
    EndReason,
    LeaseState,
    NodeHealth,
    NoticeState,
)
from tests.bare_market import A_SECOND, PRICE, START_S, US, Bare
from tests.simulation.driver import SECOND, START_US


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
    """It fell short, and is no longer hindered when what is held is enough again."""
    bare.state.books[US].underfunded = {bid.id}
    needed = billing.needed_hold(bare.state, bid, bid.limit, bid.gpus)
    bid.held = needed - 1 if stands else needed


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
    assert 0 == bare.rank(bid), "it ranks as a newcomer until it runs"
    bare.state.take_changes()
    bare.at(7.5)
    leases.report_started(bare.state, lease, {"ssh": "there"})
    assert START_US + 7_500_000 == lease.started_at_us
    assert START_S + 7 == lease.metered_to_s == lease.settled_to_s
    assert ({"ssh": "there"}, None, None) == (lease.connect, lease.start_by_us, lease.ends_at_us)
    assert (LeaseState.RUNNING, 3) == (lease.state, lease.version)
    assert [(START_S + 67, lease.id)] == bare.state.books[US].settlements
    assert [("lease.started", "acct_b")] == bare.told()
    assert 2 == bare.rank(bid)
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
    notice = bare.notice(lease, seconds=45, old_price=PRICE // 2)
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
    notice = bare.notice(lease, old_price=PRICE // 2)
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
    bare.notice(lease)
    bare.state.take_changes()
    leases.withdraw_notice(bare.state, lease)
    assert lease.id in bare.state.changes.leases and lease.bid in bare.state.changes.bids
    assert 5 == lease.version


def test_an_acknowledged_notice_is_told_and_stands():
    bare = Bare()
    notice = bare.notice(bare.running(bare.bid()))
    bare.state.take_changes()
    leases.acknowledge(bare.state, notice)
    assert NoticeState.ACKNOWLEDGED is notice.state and notice.id in bare.state.notices
    assert [("notice.acknowledged", "acct_b")] == bare.told()
    assert {notice.id: notice} == bare.state.changes.notices
