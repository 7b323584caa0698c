"""What a bid holds, and what there is to hold: windows, caps, refills."""

import pytest

from auction import billing
from auction.commands import Choice
from auction.ledger import TransferCode
from auction.model import Alternative, EndReason
from tests.bare_market import A_SECOND, EU, HOLD, MONEY, PRICE, START_S, US, Bare
from tests.simulation.driver import make_market


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
    bare.leave(bid, spare)
    bare.at(10)
    assert is_enough is billing.refill_hold(bare.state, bid)
    assert held == bid.held
