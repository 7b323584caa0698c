"""The bill's rules one by one: what is held, what is metered, what is charged and what is given back."""

import pytest

from auction import billing, leases
from auction.commands import Choice
from auction.ledger import TransferCode
from auction.model import Alternative, BidStatus, EndReason, Lease, LeaseState
from auction.money import Usage
from auction.units import charge
from tests.bare_market import A_SECOND, EU, HOLD, MONEY, PRICE, START_S, US, Bare
from tests.simulation.driver import SECOND, START_US, make_market

ALL_OF_IT = 600  # seconds that a lease may be young


def test_a_bid_is_funded_for_an_interval_a_notice_two_ticks_and_a_margin():
    market = make_market(settlement_seconds=60, notice_seconds=30, tick_seconds=10)
    assert 120 == billing.hold_window_s(market)
    assert 2 * HOLD == billing.required_hold(market, PRICE, 2)


@pytest.mark.parametrize(
    ("limit", "gpus", "others", "hold"),
    [
        (PRICE, 1, None, HOLD), (PRICE, 2, None, 2 * HOLD), (2 * PRICE, 1, None, 2 * HOLD),
        (PRICE // 2, 1, None, HOLD),  # its own alternative at PRICE still asks for that
        (PRICE // 2, 1, [], HOLD // 2),
        (PRICE // 2, 1, [(EU, PRICE)], 180 * A_SECOND),  # the other market's notice is a minute longer
        (PRICE, 1, [(EU, PRICE // 2)], HOLD),
    ],
)  # fmt: skip
def test_a_bid_holds_what_the_dearest_of_its_markets_needs(limit, gpus, others, hold):
    bare = Bare()
    bare.open_market(EU, notice_seconds=90)
    bid = bare.bid(alternatives=[Choice(US, PRICE), Choice(EU, PRICE // 2)])
    named = None if others is None else [Alternative(market, price, 1, 1) for market, price in others]
    assert hold == billing.needed_hold(bare.state, bid, limit, gpus, named)


@pytest.mark.parametrize(
    ("max_spend", "spent", "of_the_day", "room"),
    [
        (None, 0, None, MONEY - HOLD),
        (200_000, 30_000, None, 200_000 - 30_000 - HOLD),
        (150_000, 30_000, None, 0), (150_000, 40_000, None, 0),
        (None, 0, HOLD + 5, 5), (None, 0, HOLD - 5, 0),
        (HOLD + 1, 0, HOLD + 5, 1), (HOLD + 9, 0, HOLD + 5, 5),
    ],
)  # fmt: skip
def test_a_hold_may_grow_by_the_least_of_money_cap_and_day(max_spend, spent, of_the_day, room):
    bare = Bare()
    bid = bare.bid()
    bid.max_spend, bid.spent = max_spend, spent
    if of_the_day is not None:
        bare.limited(bid, spend_cap_per_day=of_the_day)
    assert room == billing.room(bare.state, bid)


@pytest.mark.parametrize(
    ("max_spend", "spent", "of_the_day", "reason"),
    [
        (None, 0, None, EndReason.FUNDS_EXHAUSTED),
        (HOLD, 0, None, EndReason.FUNDS_EXHAUSTED),
        (HOLD - 1, 0, None, EndReason.MAX_SPEND),
        (HOLD + 10, 11, None, EndReason.MAX_SPEND),
        (None, 0, HOLD, EndReason.FUNDS_EXHAUSTED),
        (None, 0, HOLD - 1, EndReason.SPEND_CAP),
        (HOLD - 1, 0, HOLD - 1, EndReason.MAX_SPEND),
    ],
)
def test_what_leaves_a_bid_without_its_hold_is_its_cap_then_the_day_then_the_money(
    max_spend, spent, of_the_day, reason
):
    bare = Bare()
    bid = bare.bid()
    bid.max_spend, bid.spent, bid.held = max_spend, spent, HOLD - 20
    if of_the_day is not None:
        bare.limited(bid, spend_cap_per_day=of_the_day)
    assert reason is billing.why_exhausted(bare.state, bid)


def test_a_hold_grows_to_the_accounts_last_microdollar_and_not_beyond():
    bare = Bare()
    bid = bare.bid(money=HOLD + 500)
    assert billing.adjust_hold(bare.state, bid, HOLD + 501) is False
    assert (HOLD, 500, []) == (bid.held, bare.state.available(bid.account), bare.transfers())
    assert billing.adjust_hold(bare.state, bid, HOLD + 500) is True
    assert (HOLD + 500, 0) == (bid.held, bare.state.available(bid.account))
    assert [(TransferCode.HOLD, 500)] == bare.transfers()
    assert bid.id in bare.state.changes.bids


def test_a_hold_that_shrinks_gives_back_and_one_that_stays_moves_nothing():
    bare = Bare()
    bid = bare.bid()
    assert billing.adjust_hold(bare.state, bid, HOLD) is True
    assert [] == bare.transfers()
    assert billing.adjust_hold(bare.state, bid, 20_000) is True
    assert [(TransferCode.RELEASE, HOLD - 20_000)] == bare.transfers()
    assert (20_000, MONEY - 20_000) == (bid.held, bare.state.available(bid.account))


def test_the_limits_of_an_account_count_what_its_bids_hold():
    bare = Bare()
    bid = bare.bid()
    bare.limited(bid, spend_cap_per_day=MONEY)
    for target in (HOLD + 7, HOLD - 7):
        billing.adjust_hold(bare.state, bid, target)
        assert target == bare.state.limit_uses[bid.account].held


def test_a_bid_that_only_waits_needs_its_exposure_whatever_the_price():
    bare = Bare()
    bid = bare.bid(gpus=2)
    bare.award(bid, 2)
    bare.price(5, 2 * PRICE)
    bare.at(20)
    assert HOLD == billing.safe_hold(bare.state, bid, PRICE // 2, 2)


@pytest.mark.parametrize(
    ("limit", "notice_price", "owed", "above"),
    [
        # At PRICE for ten seconds and at half of it for ten; `above` is for a notice and two ticks.
        (PRICE, None, 15 * A_SECOND, 0),
        (PRICE // 2, None, 15 * A_SECOND, 0),
        (PRICE // 4, None, 15 * A_SECOND, 50 * A_SECOND // 4),
        (PRICE, 2 * PRICE, 40 * A_SECOND, 50 * A_SECOND),
        (PRICE // 4, PRICE // 4, 5 * A_SECOND, 50 * A_SECOND // 4),
    ],
)
def test_a_changed_bid_holds_its_exposure_its_debt_and_what_a_notice_costs_above_its_limit(
    limit, notice_price, owed, above
):
    bare = Bare()
    bid = bare.bid(gpus=2)
    both = [bare.running(bid), bare.running(bid)]
    for lease in both:
        lease.notice_price = notice_price
    bare.price(10, PRICE // 2)
    bare.at(20)
    exposure = 2 * HOLD * limit // PRICE
    assert exposure + 2 * (owed + above) == billing.safe_hold(bare.state, bid, limit, 2)


def test_a_lease_owes_what_is_metered_and_what_is_not_yet():
    bare = Bare()
    lease = bare.running(bare.bid(gpus=2), 2)
    bare.at(12)
    billing.settle(bare.state, lease, START_S + 5, metered_to_s=START_S + 5)
    billing.meter(bare.state, lease, START_S + 8)
    assert 2 * 7 * A_SECOND == billing.owed_of(bare.state, lease)


def test_a_lease_that_has_not_started_owes_nothing():
    bare = Bare()
    lease = bare.starting(bare.bid())
    bare.at(30)
    assert 0 == billing.owed_of(bare.state, lease)


@pytest.mark.parametrize(
    ("spare", "before", "is_enough", "held"),
    [
        (10_000, HOLD, True, HOLD + 10_000),  # with the debt of ten seconds: safe
        (9_999, HOLD, True, HOLD),  # not safe, but its whole window is held
        (4_999, HOLD + 5_000, True, HOLD + 5_000),  # and what is more is not given away
        (9_999, HOLD - 10_000, False, HOLD - 10_000),
        (10_000, HOLD - 10_000, True, HOLD),
        (25_000, HOLD - 10_000, True, HOLD + 10_000),
        (0, HOLD + 30_000, True, HOLD + 10_000),
    ],
)
def test_a_hold_is_refilled_to_the_safe_one_or_at_least_to_the_whole_window(spare, before, is_enough, held):
    bare = Bare()
    bid = bare.bid()
    bare.running(bid)
    billing.adjust_hold(bare.state, bid, before)
    take(bare, bid, bare.state.available(bid.account) - spare)
    bare.at(10)
    assert is_enough is billing.refill_hold(bare.state, bid)
    assert held == bid.held


def take(bare, bid, amount):
    """Let the account have that much less."""
    bare.state.balances[8 * bare.state.accounts[bid.account].number] -= amount


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
    take(bare, bid, bare.state.available(bid.account) - spare)
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
