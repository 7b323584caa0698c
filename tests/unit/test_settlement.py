"""Seconds metered, charges posted, refunds, and what is due when."""

import pytest

from auction import billing, leases
from auction.ledger import TransferCode
from auction.model import BidStatus, EndReason, Lease, LeaseState
from auction.money import Usage
from auction.units import charge
from tests.bare_market import A_SECOND, EU, HOLD, MONEY, PRICE, START_S, US, Bare
from tests.simulation.driver import SECOND, START_US

ALL_OF_IT = 600  # seconds that a lease may be young


@pytest.mark.parametrize(
    ("metered_to", "heartbeat", "second"),
    [(0, None, 30), (0, 20, 20), (0, 20.9, 20), (0, 50, 30), (25, 20, 25)],
)
def test_a_late_nodes_seconds_are_billed_up_to_its_last_heartbeat(metered_to, heartbeat, second):
    bare = Bare()
    lease = bare.running(bare.bid())
    lease.metered_to_s = START_S + metered_to
    bare.node.alive_until_us = None if heartbeat is None else START_US + int(heartbeat * SECOND)
    bare.at(30.5)
    assert START_S + second == billing.billable_until_s(bare.state, lease)


def test_each_price_has_a_usage_row_and_the_remainder_goes_from_row_to_row():
    bare = Bare()
    bare.price(0, 10_000)
    bare.price(1, 20_000)
    bid = bare.bid(gpus=2)
    lease = bare.running(bid, 2)
    billing.meter(bare.state, lease, START_S + 3)
    first = Usage(lease.id, START_S, START_S + 1, 2, 10_000, 0, 2_000, 5, True)
    second = Usage(lease.id, START_S + 1, START_S + 3, 2, 20_000, 2_000, 2_800, 22, False)
    assert [first, second] == bare.state.changes.usage
    assert (27, 2_800, 6, START_S + 3) == (
        lease.metered, lease.carry, lease.gpu_seconds, lease.metered_to_s,
    )  # fmt: skip
    assert lease.id in bare.state.changes.leases
    assert 2 * HOLD == bid.held


def test_a_lease_under_notice_goes_on_at_the_price_of_its_notice():
    bare = Bare()
    lease = bare.running(bare.bid())
    lease.notice_price = PRICE // 2
    bare.price(3, 2 * PRICE)
    billing.meter(bare.state, lease, START_S + 10)
    assert [(0, 10, PRICE // 2)] == bare.usage()


def test_what_is_metered_beyond_the_hold_is_held_first_and_no_more_than_that():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    for second, held in ((119, HOLD), (120, HOLD), (130, 130 * A_SECOND), (145, 145 * A_SECOND)):
        billing.meter(bare.state, lease, START_S + second)
        assert (held, second * A_SECOND) == (bid.held, lease.metered)


def test_seconds_that_nobody_can_pay_are_metered_at_nothing():
    bare = Bare()
    bid = bare.bid(money=HOLD + 20_900)
    lease = bare.running(bid)
    bare.price(100, 2 * PRICE)
    billing.meter(bare.state, lease, START_S + 50)
    billing.meter(bare.state, lease, START_S + 130)
    assert [(0, 50, PRICE), (50, 100, PRICE), (100, 120, 2 * PRICE), (120, 130, 0)] == bare.usage()
    assert (140 * A_SECOND, HOLD + 20_900) == (lease.metered, bid.held)


@pytest.mark.parametrize("settles", [True, False])
def test_what_another_lease_of_the_bid_owes_or_has_paid_is_not_there_to_pay_with(settles):
    bare = Bare()
    bid = bare.bid(gpus=2, money=2 * HOLD)
    one, other = bare.running(bid), bare.running(bid)
    billing.meter(bare.state, one, START_S + 100)
    if settles:
        billing.settle(bare.state, one, START_S + 100, metered_to_s=START_S + 100)
    billing.meter(bare.state, other, START_S + 150)
    assert 140 * A_SECOND == other.metered


def test_what_a_silent_node_may_have_delivered_is_nobodys_to_charge():
    bare = Bare(simulated=False)
    lease = bare.running(bare.bid())
    bare.node.alive_until_us = START_US + 20 * SECOND
    bare.at(30)
    billing.meter_to_now(bare.state, lease)
    billing.meter_to_now(bare.state, lease)
    assert [(0, 20, PRICE), (20, 30, 0)] == bare.usage()


@pytest.mark.parametrize("budget", [0, 1, 2, 1_000, 12_345])
@pytest.mark.parametrize(
    ("carry", "price", "gpus"), [(0, 1, 1), (3_599, 1, 1), (17, 10_000, 3), (0, PRICE, 8)]
)
def test_affordable_is_the_last_second_whose_charge_stays_within_the_budget(budget, carry, price, gpus):
    seconds = billing._affordable_seconds(carry, price, gpus, budget)
    assert charge(carry, price, gpus, seconds)[0] <= budget
    assert charge(carry, price, gpus, seconds + 1)[0] > budget


def test_a_debt_affords_nothing_and_a_price_of_zero_everything():
    assert 0 == billing._affordable_seconds(0, PRICE, 1, -5)
    assert billing._affordable_seconds(0, 0, 1, 0) >= 100 * 365 * 86_400


def test_a_settlement_pays_owner_and_operator_out_of_the_hold():
    bare = Bare()
    bid = bare.bid()
    limits = bare.limited(bid, spend_cap_per_day=MONEY)
    lease = bare.running(bid)
    bare.at(60)
    amount = billing.settle(bare.state, lease, START_S + 60, metered_to_s=START_S + 60)
    assert 60 * A_SECOND == amount == lease.settled == lease.metered == bid.spent
    assert HOLD - 60 * A_SECOND == bid.held == bare.state.limit_uses[bid.account].held
    assert [(TransferCode.CHARGE, 58_200), (TransferCode.FEE, 1_800)] == bare.transfers()
    assert {START_S + 60} == {transfer.interval_end_s for transfer in bare.state.changes.transfers}
    assert START_S + 60 == lease.settled_to_s
    assert amount == limits.spent_today
    assert bid.id in bare.state.changes.bids


def test_a_settlement_of_nothing_begins_the_next_interval_and_posts_nothing():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    assert 0 == billing.settle(bare.state, lease, START_S + 60, metered_to_s=START_S)
    assert ([], []) == (bare.transfers(), bare.usage())
    assert START_S + 60 == lease.settled_to_s
    assert lease.id in bare.state.changes.leases and bid.id not in bare.state.changes.bids


def test_one_microdollar_is_charged_too():
    bare = Bare()
    bare.price(0, 3_600)
    lease = bare.running(bare.bid())
    assert 1 == billing.settle(bare.state, lease, START_S + 1, metered_to_s=START_S + 1)
    assert [(TransferCode.CHARGE, 1)] == bare.transfers()


def test_a_settlement_up_to_an_earlier_second_charges_what_was_metered_since():
    bare = Bare(simulated=False)
    lease = bare.running(bare.bid())
    lease.notice_price = PRICE
    billing.meter(bare.state, lease, START_S + 30)
    assert 30 * A_SECOND == billing.settle(bare.state, lease, START_S + 40, metered_to_s=START_S + 20)
    assert START_S + 30 == lease.metered_to_s


@pytest.mark.parametrize(("heard_of", "is_behind"), [(80, False), (79, True)])
def test_a_lease_settled_without_its_last_seconds_is_behind(heard_of, is_behind):
    bare = Bare(simulated=False)
    lease = bare.running(bare.bid())
    billing.settle(bare.state, lease, START_S + 100, metered_to_s=START_S + heard_of)
    assert is_behind is (lease.id in bare.state.books[US].behind)
    assert is_behind is billing.is_behind(lease)


@pytest.mark.parametrize(
    ("metered_to", "settled_to", "state"),
    [
        (None, 100, LeaseState.RUNNING), (0, None, LeaseState.RUNNING), (0, 100, LeaseState.ENDED),
        (0, 20, LeaseState.NOTICED),
    ],
)  # fmt: skip
def test_what_has_no_seconds_to_come_is_not_behind(metered_to, settled_to, state):
    lease = Lease("l", "b", "a", "o", US, "n", "f", 1, [0], state, 0, 0)
    lease.metered_to_s, lease.settled_to_s = metered_to, settled_to
    assert billing.is_behind(lease) is False


@pytest.mark.parametrize(
    ("metered_to", "settled_to", "needed"),
    [(500, 1_000, 500), (900, 1_000, 820), (500, 510, 820), (None, None, 820)],
)
def test_prices_are_known_for_two_minutes_and_an_interval_and_longer_for_who_is_behind(
    metered_to, settled_to, needed
):
    bare = Bare()
    book = bare.state.books[US]
    book.behind.add("lease_gone")
    if metered_to is not None:
        lease = bare.running(bare.bid())
        lease.metered_to_s, lease.settled_to_s = START_S + metered_to, START_S + settled_to
        book.behind.add(lease.id)
    bare.at(1_000)
    assert START_S + needed == billing.prices_needed_from_s(bare.state, bare.market)
    assert len(book.behind) == (metered_to is not None and settled_to - metered_to > 20)


@pytest.mark.parametrize(
    ("reason", "ran_us", "last_charge", "refunded"),
    [
        (EndReason.NODE_LOST, ALL_OF_IT * SECOND - 1, 25_000, 60_000),
        (EndReason.NODE_LOST, ALL_OF_IT * SECOND, 25_000, 25_000),
        (EndReason.NODE_LOST, ALL_OF_IT * SECOND, 1, 1),
        (EndReason.NODE_LOST, ALL_OF_IT * SECOND, 0, 0),
        (EndReason.OFFER_WITHDRAWN, ALL_OF_IT * SECOND - 1, 25_000, 60_000),
        (EndReason.OFFER_WITHDRAWN, ALL_OF_IT * SECOND, 25_000, 0),
        (EndReason.OUTBID, SECOND, 25_000, 0),
        (EndReason.RELEASED, SECOND, 25_000, 0),
    ],
)  # fmt: skip
def test_a_broken_promise_costs_who_broke_it(reason, ran_us, last_charge, refunded):
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    billing.settle(bare.state, lease, START_S + 60, metered_to_s=START_S + 60)
    bare.state.take_changes()
    lease.ended_at_us = lease.started_at_us + ran_us
    before = bare.state.available(bid.account)
    billing.refund(bare.state, lease, reason, last_charge)
    assert refunded == lease.refunded == bare.state.available(bid.account) - before
    assert refunded == sum(amount for _, amount in bare.transfers())
    assert bool(refunded) is (lease.id in bare.state.changes.leases)


def test_what_never_started_has_nothing_to_give_back():
    bare = Bare()
    lease = bare.starting(bare.bid())
    lease.ended_at_us = START_US
    billing.refund(bare.state, lease, EndReason.NODE_LOST, 5)
    assert [] == bare.transfers()


def due(bare, second):
    bare.at(second)
    return billing.settle_due(bare.state, bare.market, START_S + second)


def test_a_lease_is_settled_when_its_interval_is_over_and_again_after_the_next():
    bare = Bare()
    bid = bare.bid()
    lease = bare.running(bid)
    found = []
    for second in (59, 60, 119, 120):
        assert [] == due(bare, second)
        found.append(lease.settled // A_SECOND)
    assert [0, 60, 60, 120] == found
    assert HOLD == bid.held, "refilled each time"
    assert [(START_S + 180, lease.id)] == bare.state.books[US].settlements


def test_a_lease_that_was_settled_meanwhile_is_due_an_interval_after_that():
    bare = Bare()
    lease = bare.running(bare.bid())
    billing.settle(bare.state, lease, START_S + 50, metered_to_s=START_S + 50)
    found = []
    for second in (60, 109, 110):
        due(bare, second)
        found.append(lease.settled // A_SECOND)
    assert [50, 50, 110] == found


@pytest.mark.parametrize(
    ("simulated", "heartbeat", "settled"), [(True, None, 60), (False, None, 40), (False, 30, 30)]
)
def test_a_real_nodes_seconds_are_settled_once_it_was_heard_of_since(simulated, heartbeat, settled):
    bare = Bare(simulated=simulated)
    lease = bare.running(bare.bid())
    bare.node.alive_until_us = None if heartbeat is None else START_US + heartbeat * SECOND
    due(bare, 60)
    assert settled * A_SECOND == lease.settled


def test_a_lease_that_has_ended_was_settled_then():
    bare = Bare()
    bid = bare.bid(gpus=2)
    gone, stays = bare.running(bid), bare.running(bid)
    bare.at(10)
    leases.end(bare.state, gone, EndReason.RELEASED)
    due(bare, 60)
    assert (10 * A_SECOND, 60 * A_SECOND) == (gone.settled, stays.settled)
    assert [(START_S + 120, stays.id)] == bare.state.books[US].settlements


@pytest.mark.parametrize(
    ("spare", "status", "is_exhausted"),
    [(60_000, None, False), (59_999, None, True), (0, BidStatus.EXHAUSTED, False)],
)
def test_a_bid_whose_hold_cannot_be_refilled_is_exhausted(spare, status, is_exhausted):
    bare = Bare()
    bid = bare.bid(money=HOLD + spare)
    bare.running(bid)
    bid.status = status or bid.status
    assert ([bid] if is_exhausted else []) == due(bare, 60)


@pytest.mark.parametrize(("spare", "is_exhausted"), [(5_000, False), (4_999, True)])
def test_a_bid_that_was_short_is_looked_at_once_more_at_the_tick(spare, is_exhausted):
    bare = Bare()
    bid = bare.bid()
    book = bare.state.books[US]
    billing.adjust_hold(bare.state, bid, HOLD - 5_000)
    bare.leave(bid, spare)
    book.underfunded |= {bid.id, "bid_gone"}
    assert ([bid] if is_exhausted else []) == due(bare, 10)
    assert set() == book.underfunded


def test_a_settlement_that_leaves_little_is_told():
    bare = Bare()
    bid = bare.bid(money=3 * HOLD)
    bare.running(bid)
    due(bare, 60)
    assert [("balance.low", bid.account)] == bare.told()


def test_after_a_change_of_the_interval_every_lease_of_the_market_is_due_by_the_new_one():
    bare = Bare()
    bare.open_market(EU)
    _, offer = bare.lend("other", 8, 8, market=EU)
    lease = bare.running(bare.bid(gpus=2))
    bare.starting(bare.state.bids["bid_b"])
    elsewhere = bare.running(bare.bid("eu", market=EU), offer=offer)
    bare.market.settlement_seconds = 90
    billing.reschedule(bare.state, bare.market)
    assert [(START_S + 90, lease.id)] == bare.state.books[US].settlements
    assert [(START_S + 60, elsewhere.id)] == bare.state.books[EU].settlements


def test_an_instant_belongs_to_the_second_that_it_lies_in():
    assert [5, 5, 6] == [billing.second_of(at_us) for at_us in (5_000_000, 5_999_999, 6_000_000)]
