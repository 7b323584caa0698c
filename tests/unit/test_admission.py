"""Admission at its edges: the last value that enters and the first that does not, each with its code."""

import pytest

from auction import admission, ledger
from auction.commands import AmendNode, CreateNode, CreateOffer, PlaceBid
from auction.errors import Rejection
from auction.model import Colocate, OnPreempt, TimeInForce
from auction.units import AMOUNT_MAX, GPU_COUNT_MAX, LEVEL_COUNT_MAX, PRICE_MAX
from tests.simulation.driver import SECOND, START_US, make_market
from tests.small_market import Market

PRICE = 1_000_000


def refusal(call, *arguments, **named):
    """Return the code with which a call is refused, None if it is not."""
    try:
        call(*arguments, **named)
    except Rejection as rejection:
        return rejection.code
    return None


def decided(market, command):
    """Return the code with which a market refuses a command, None if it does not."""
    outcome = market.core.apply(command, market.at_us)
    return outcome.code if isinstance(outcome, Rejection) else None


@pytest.mark.parametrize(
    ("gpus", "minimum", "code"),
    [
        (1, 1, None), (GPU_COUNT_MAX, GPU_COUNT_MAX, None), (3, 3, None),
        (0, 0, "gpus_out_of_range"), (GPU_COUNT_MAX + 1, 1, "gpus_out_of_range"),
        (3, 0, "min_gpus_out_of_range"), (3, 4, "min_gpus_out_of_range"),
    ],
)  # fmt: skip
def test_quantities(gpus, minimum, code):
    assert code == refusal(admission.quantities, gpus, minimum)


@pytest.mark.parametrize(
    ("colocate", "gpus", "minimum", "code"),
    [
        (Colocate.NONE, 3, 1, None), (Colocate.NODE, 1, 1, None), (Colocate.NODE, 8, 8, None),
        (Colocate.FABRIC, 16, 16, None), (Colocate.FABRIC, 64, 64, None),
        (Colocate.NODE, 16, 16, "colocate_invalid"), (Colocate.NODE, 3, 3, "colocate_invalid"),
        (Colocate.NODE, 8, 4, "colocate_invalid"), (Colocate.FABRIC, 128, 128, "colocate_invalid"),
    ],
)  # fmt: skip
def test_colocation(colocate, gpus, minimum, code):
    assert code == refusal(admission.colocation, colocate, gpus, minimum)


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({}, None),
        ({"time_in_force": TimeInForce.GTT}, "time_in_force_invalid"),
        ({"expires_at_us": START_US + 100 * SECOND}, "time_in_force_invalid"),
        ({"time_in_force": TimeInForce.GTT, "expires_at_us": START_US + 100 * SECOND}, None),
        ({"time_in_force": TimeInForce.GTT, "expires_at_us": START_US}, "expires_at_passed"),
        ({"time_in_force": TimeInForce.GTT, "expires_at_us": START_US + 1}, None),
        ({"time_in_force": TimeInForce.IOC, "on_preempt": OnPreempt.CANCEL}, None),
        ({"time_in_force": TimeInForce.IOC, "on_preempt": OnPreempt.REQUEUE}, "time_in_force_invalid"),
        (
            {"time_in_force": TimeInForce.IOC, "on_preempt": OnPreempt.CANCEL, "valid_until_tick": 5},
            "time_in_force_invalid",
        ),
        ({"valid_until_tick": 0}, "valid_until_tick_passed"),
        ({"valid_until_tick": 1}, None),
    ],
)
def test_lifetimes_that_contradict_themselves_or_are_over(named, code):
    market = Market()
    market.fund("ada")
    venue = market.core.markets["h100.us"]
    command = PlaceBid("bid", "acct_ada", "h100.us", 1, PRICE, **named)
    state = market.core._state
    assert (0, START_US) == (venue.tick, state.now_us)
    assert code == refusal(admission.lifetime, state, venue, command)


@pytest.mark.parametrize(
    ("cap", "needed", "code"),
    [(None, 10, None), (10, 10, None), (9, 10, "max_spend_too_small")],
)
def test_a_cap_pays_for_what_is_held(cap, needed, code):
    assert code == refusal(admission.spending_cap, cap, needed)


@pytest.mark.parametrize(
    ("limit", "most", "code"),
    [(5, None, None), (5, 5, None), (6, 5, "confirmation_required")],
)
def test_a_limit_far_above_the_market_is_asked_twice(limit, most, code):
    assert code == refusal(admission.confirmed, limit, most)


@pytest.mark.parametrize(
    ("price", "minimum", "code"),
    [
        (10_000, 10_000, None), (10_000_000, 10_000, None), (0, 0, None),
        (0, 10_000, "price_out_of_range"), (10_010_000, 0, "price_out_of_range"),
        (10_001, 10_000, "price_not_on_increment"),
    ],
)  # fmt: skip
def test_prices_lie_on_the_grid_and_within_the_cap(price, minimum, code):
    assert code == refusal(admission.price_on_grid, make_market(), price, "/p", minimum=minimum)


def test_a_price_off_the_grid_is_told_its_neighbours():
    with pytest.raises(Rejection) as refused:
        admission.price_on_grid(make_market(), 10_001, "/p", minimum=0)
    assert {"below": 10_000, "above": 20_000} == refused.value.extras


@pytest.mark.parametrize(
    ("amount", "code"),
    [(1, None), (AMOUNT_MAX, None), (0, "amount_out_of_range"), (AMOUNT_MAX + 1, "amount_out_of_range")],
)
def test_amounts(amount, code):
    assert code == refusal(admission.amount, amount)


@pytest.mark.parametrize(
    ("gpus", "code"),
    [(1, None), (admission.NODE_GPUS_MAX, None), (0, "gpus_out_of_range"), (1_025, "gpus_out_of_range")],
)
def test_nodes_have_gpus_and_not_too_many(gpus, code):
    market = Market()
    assert code == decided(market, CreateNode("new", "acct_owner", "h100.us", "other", gpus, True))


def test_a_nodes_name_is_its_owners_once_and_may_stay():
    market = Market()
    assert "node_name_taken" == decided(market, CreateNode("b", "acct_owner", "h100.us", "n", 2, True))
    assert None is decided(market, CreateNode("c", "acct_owner", "h100.us", "m", 2, True))
    assert None is decided(market, AmendNode("node", "acct_owner", name="n"))
    assert "node_name_taken" == decided(market, AmendNode("node", "acct_owner", name="m"))


def test_what_is_offered_keeps_the_shape_of_its_node():
    market = Market()
    assert None is decided(market, AmendNode("node", "acct_owner", gpus=3))
    assert "gpus_out_of_range" == decided(market, AmendNode("node", "acct_owner", gpus=2))
    assert None is decided(market, AmendNode("node", "acct_owner", fabric="f"))
    market.do(CreateOffer("off", "acct_owner", "node", 1, PRICE))
    assert "node_in_use" == decided(market, AmendNode("node", "acct_owner", gpus=4))
    assert "node_in_use" == decided(market, AmendNode("node", "acct_owner", fabric="g"))
    assert None is decided(market, AmendNode("node", "acct_owner", gpus=3, fabric="f"))


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({}, None),
        ({"gpus": 2}, None),
        ({"gpus": 3}, "node_gpus_exceeded"),
        ({"gpus": 0}, "node_gpus_exceeded"),
        ({"reserve": 0}, None),
        ({"reserve": 9_700_000}, None),
        ({"reserve": 9_710_000}, "price_out_of_range"),
        ({"notice_seconds": 29}, "notice_seconds_out_of_range"),
        ({"notice_seconds": 30}, None),
        ({"notice_seconds": admission.NOTICE_SECONDS_MAX}, None),
        ({"notice_seconds": admission.NOTICE_SECONDS_MAX + 1}, "notice_seconds_out_of_range"),
        ({"available_until_us": START_US}, "window_invalid"),
        ({"available_until_us": START_US + 1}, None),
        ({"available_from_us": START_US + 5, "available_until_us": START_US + 5}, "window_invalid"),
        ({"available_from_us": START_US + 5, "available_until_us": START_US + 6}, None),
    ],
)
def test_an_offer_fits_its_node_its_market_and_its_time(named, code):
    market = Market()
    fields = {"gpus": 1, "reserve": PRICE} | named
    assert code == decided(market, CreateOffer("off", "acct_owner", "node", **fields))


def test_two_offers_share_a_nodes_gpus():
    market = Market()
    market.do(CreateOffer("one", "acct_owner", "node", 1, PRICE))
    assert "node_gpus_exceeded" == decided(market, CreateOffer("two", "acct_owner", "node", 2, PRICE))
    assert None is decided(market, CreateOffer("two", "acct_owner", "node", 1, PRICE))


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({}, None),
        ({"price_cap": 10_000}, None),
        ({"price_cap": 10_001}, "price_out_of_range"),
        ({"price_increment": 1, "price_cap": 9_999}, None),
        ({"price_increment": 1, "price_cap": LEVEL_COUNT_MAX}, None),
        ({"price_increment": 1, "price_cap": LEVEL_COUNT_MAX + 1}, "price_out_of_range"),
        ({"price_increment": 0}, "price_out_of_range"),
        ({"price_cap": 0}, "price_out_of_range"),
        ({"price_cap": PRICE_MAX, "price_increment": PRICE_MAX // 100}, None),
        ({"price_cap": PRICE_MAX + 10_000_000, "price_increment": 10_000_000}, "price_out_of_range"),
    ],
)
def test_a_markets_grid_is_bounded(named, code):
    market = Market()
    assert code == refusal(admission.new_market, market.core._state, make_market("new.us", **named))


@pytest.mark.parametrize(
    ("setting", "low", "high", "code"),
    [
        ("handicap_bps", 0, 100_000, "market_invalid"),
        ("fee_bps", 0, 5_000, "market_invalid"),
        ("refine_below_bids", 0, 10_000, "market_invalid"),
        ("price_position_bps", 0, 10_000, "market_invalid"),
        ("stagger_share_bps", 1, 10_000, "market_invalid"),
        ("tick_seconds", 1, 3_600, "timing_invalid"),
        ("notice_seconds", 0, 1_800, "timing_invalid"),
        ("settlement_seconds", 1, 1_800, "timing_invalid"),
    ],
)
def test_a_markets_settings_are_bounded(setting, low, high, code):
    state = Market().core._state
    found = [
        refusal(admission.new_market, state, make_market("new.us", **{setting: value}))
        for value in (low - 1, low, high, high + 1)
    ]
    assert [code, None, None, code] == found


def test_a_markets_name_is_taken_once():
    market = Market()
    assert "market_exists" == refusal(admission.new_market, market.core._state, make_market())


@pytest.mark.parametrize(("expected", "code"), [(None, None), (3, None), (2, "version_mismatch")])
def test_versions(expected, code):
    assert code == refusal(admission.version, 3, expected)


def test_the_ledgers_accounts_and_their_floors():
    assert 8 * 5 + 1 == ledger.ledger_account(5, ledger.HELD)
    assert not ledger.is_floored(ledger.CASH_ACCOUNT)
    assert ledger.is_floored(ledger.FEES_ACCOUNT) and ledger.is_floored(ledger.ledger_account(5, 0))


def test_every_plan_moves_the_amount_from_one_account_to_the_other():
    """Each act's debit, credit and interval: a swapped pair is money made or lost."""
    plans = {
        "deposit": ledger.plan_deposit(5, 7, "r"),
        "up": ledger.plan_adjustment(5, ledger.EARNING, 7, "r"),
        "down": ledger.plan_adjustment(5, ledger.EARNING, -7, "r"),
        "payout": ledger.plan_payout(5, 7, "r"),
        "paid": ledger.plan_payout_end(5, 7, "r", is_paid=True),
        "failed": ledger.plan_payout_end(5, 7, "r", is_paid=False),
        "hold": ledger.plan_hold(5, 7, "r"),
        "release": ledger.plan_release(5, 7, "r"),
    }
    available, held, earning, payable, cash = 40, 41, 42, 43, 4
    assert {
        "deposit": (cash, available), "up": (cash, earning), "down": (earning, cash),
        "payout": (earning, payable), "paid": (payable, cash), "failed": (payable, earning),
        "hold": (available, held), "release": (held, available),
    } == {name: (plan.debit, plan.credit) for name, plan in plans.items()}  # fmt: skip
    assert {(7, "r", 0)} == {(plan.amount, plan.reference, plan.interval_end_s) for plan in plans.values()}
