"""The owner's costs: an example worked by hand, properties over everything allowed, refusals by code."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.economics import (
    INPUTS,
    MONTHS_MAX,
    OwnerCosts,
    ShutDown,
    book_value,
    check_costs,
    cost_of_hours,
    decay_rate_per_month,
    full_cost_market_decay,
    full_cost_straight_line,
    market_depreciation_per_hour,
    market_value,
    recommended_reserve,
    scrap_value,
    short_run_floor,
    shut_down_ages,
    straight_line_depreciation_per_hour,
)
from auction.errors import Rejection
from auction.units import BASIS_POINTS, SECONDS_PER_HOUR, fee_share

# $36,000, worth a quarter after 36 months and half after 18; half of the hours leased, 4 % fee.
EXAMPLE = OwnerCosts(
    purchase_price_per_gpu=36_000_000_000,
    age_months=18,
    useful_life_months=60,
    residual_bps=2_500,
    residual_after_months=36,
    scrap_bps=0,
    load_watts=1_000,
    idle_watts=200,
    pue_bps=12_500,
    energy_price_per_kwh=100_000,
    operations_per_gpu_hour=50_000,
    wear_per_gpu_hour=20_000,
    switch_cost_per_lease=400_000,
    expected_hold_seconds=4 * 3_600,
    recall_odds_bps=100,
    recall_cost_per_gpu=3_000_000,
    fixed_cost_per_gpu_hour=15_000,
    utilisation_bps=5_000,
    cost_of_capital_bps=1_000,
    fee_bps=400,
)


def changed(costs=EXAMPLE, **fields):
    return msgspec.structs.replace(costs, **fields)


def amounts(cost):
    return {term.name: term.amount for term in cost.terms}


def test_the_short_run_floor_by_hand():
    """(1.0 - 0.2) kW x 1.25 x $0.10 = 0.10; switching 0.40 / 4 h; recall 1 % of $3; 0.30 / 0.96 = 0.3125."""
    floor = short_run_floor(EXAMPLE)
    assert amounts(floor) == {
        "extra_energy": 100_000,
        "operations": 50_000,
        "wear": 20_000,
        "switching": 100_000,
        "recall": 30_000,
    }
    assert (floor.net, floor.gross) == (300_000, 312_500)


def test_the_full_cost_in_a_straight_line_by_hand():
    """Goal: every term, per leased hour at a utilisation of one half.

    Book value 36,000 x (1 - 18/60) = 25,200; capital 25,200 x 10 % / 8760 = 0.2876712, twice that
    0.5753425; depreciation 36,000 / (60 x 730) = 0.8219178, twice that 1.6438356; idle
    0.2 x 1.25 x 0.10 + 0.015 = 0.04, twice that 0.08; operations 0.05, twice that 0.10; energy 0.10.
    """
    assert book_value(EXAMPLE, 18) == 25_200_000_000
    cost = full_cost_straight_line(EXAMPLE)
    assert amounts(cost) == {
        "capital": 575_343,
        "depreciation": 1_643_836,
        "idle": 80_000,
        "operations": 100_000,
        "extra_energy": 100_000,
    }
    assert cost.net == 2_499_179
    assert cost.gross == 2_603_312  # 2.499179 / 0.96 = 2.60331146


def test_the_full_cost_by_market_decay_by_hand():
    """Goal: V(18) is half the price, because V(36) is a quarter.

    delta = ln 4 / 36 x 18,000 / 730 = 0.9495167.
    Capital 18,000 x 10 % / 8760 = 0.2054795, twice that 0.4109589; depreciation twice 0.9495167.
    """
    assert abs(market_value(EXAMPLE, 18) - 18_000_000_000) < Fraction(1, 10**20)
    assert abs(market_value(EXAMPLE, 36) - 9_000_000_000) < Fraction(1, 10**20)
    assert round(market_depreciation_per_hour(EXAMPLE, 18)) == 949_517
    cost = full_cost_market_decay(EXAMPLE)
    assert (amounts(cost)["capital"], amounts(cost)["depreciation"]) == (410_959, 1_899_034)
    assert cost.net == 410_959 + 1_899_034 + 80_000 + 100_000 + 100_000
    assert cost.gross == 2_697_910  # 2.589993 / 0.96 = 2.69790938


def test_known_hours_cost_what_the_formula_says_without_a_utilisation():
    """One hour held, half an hour of it leased: the full cost per leased hour, halved."""
    cost = cost_of_hours(
        EXAMPLE,
        value=book_value(EXAMPLE, 18),
        depreciation_per_hour=straight_line_depreciation_per_hour(EXAMPLE, 18),
        held_seconds=SECONDS_PER_HOUR,
        leased_seconds=SECONDS_PER_HOUR // 2,
    )
    # 0.2876712 + 0.8219178 + 0.04 + 0.05 + 0.10 / 2
    assert cost == 1_249_590
    assert abs(2 * cost - full_cost_straight_line(EXAMPLE).net) <= 5


def test_after_its_useful_life_a_machine_is_written_off_to_its_scrap_value():
    old = changed(age_months=61, scrap_bps=1_000)
    assert book_value(old, 61) == scrap_value(old) == 3_600_000_000
    assert straight_line_depreciation_per_hour(old, 60) == 0
    assert straight_line_depreciation_per_hour(old, 59) > 0
    assert market_depreciation_per_hour(old, 61) > 0


def test_the_recommended_reserve_is_the_floor_or_the_better_alternative_on_the_increment():
    assert recommended_reserve(EXAMPLE) == (300_000, 312_500)
    assert recommended_reserve(changed(wear_per_gpu_hour=20_001), increment=100) == (300_100, 312_700)
    # 1.00 / 0.96 = 1.0416667, up to the increment.
    better = changed(alternative_per_gpu_hour=1_000_000)
    assert recommended_reserve(better, increment=100) == (1_000_000, 1_041_700)


def test_shut_down_ages_by_hand():
    """1.26 falls to a quarter, 0.315, in 36 months and below the floor of 0.3125 in the 37th."""
    assert shut_down_ages(EXAMPLE, 1_260_000) == ShutDown(55, 18, 18)
    # 2.75 x 0.96 s = 2.64 s against 2.309993 s + 0.28 with s = e^(-lambda t): even at s = 0.848467, so in
    # the 5th month. Straight-line: 2.540274 against 2.485480 after one month, 2.444325 against 2.471781
    # after two.
    assert shut_down_ages(EXAMPLE, 2_750_000) == ShutDown(75, 20, 23)
    assert shut_down_ages(changed(residual_bps=9_990), 100_000_000).floor is None


def test_terms_show_their_working():
    working = {term.name: term.working for term in short_run_floor(EXAMPLE).terms}
    assert working["extra_energy"] == "(1.000 kW - 0.200 kW) × PUE 1.250 × $0.100000/kWh"
    assert working["switching"] == "$0.400000 / 4.000 h expected hold"
    assert working["recall"] == "1.00 % an hour × $3.000000"


@st.composite
def costs_allowed(draw):
    values = {one.name: draw(st.integers(one.least, one.most)) for one in INPUTS}
    values["residual_bps"] = draw(st.integers(values["scrap_bps"] + 1, 9_999))
    values["idle_watts"] = draw(st.integers(0, values["load_watts"]))
    return OwnerCosts(**values)


@given(costs_allowed(), st.integers(0, 10_000_000))
def test_dearer_energy_never_lowers_a_cost(costs, more):
    check_costs(costs)
    dearer = changed(costs, energy_price_per_kwh=costs.energy_price_per_kwh + more)
    for cost in (short_run_floor, full_cost_straight_line, full_cost_market_decay):
        assert cost(costs).gross <= cost(dearer).gross


@given(costs_allowed())
def test_at_the_gross_price_the_owner_nets_its_cost(costs):
    """Goal: to the microusd, with the very fee that the ledger takes; and the terms add up."""
    for cost in (short_run_floor(costs), full_cost_straight_line(costs), full_cost_market_decay(costs)):
        assert sum(term.amount for term in cost.terms) == cost.net
        assert cost.net <= cost.gross - fee_share(cost.gross, costs.fee_bps) <= cost.net + 1
        assert 0 <= Fraction(cost.gross * (BASIS_POINTS - costs.fee_bps), BASIS_POINTS) - cost.net < 1


@given(costs_allowed(), st.sampled_from([1, 100, 10_000]))
def test_the_recommended_reserve_never_undercuts_the_floor(costs, increment):
    reserve, gross = recommended_reserve(costs, increment=increment)
    floor = short_run_floor(costs)
    assert reserve >= max(floor.net, costs.alternative_per_gpu_hour)
    assert gross >= floor.gross
    assert reserve % increment == gross % increment == 0
    assert reserve - max(floor.net, costs.alternative_per_gpu_hour) < increment


@given(costs_allowed(), st.integers(0, MONTHS_MAX - 1))
def test_the_market_value_falls_towards_scrap_and_meets_the_residual(costs, age):
    scrap = scrap_value(costs)
    assert market_value(costs, 0) == costs.purchase_price_per_gpu
    assert market_value(costs, age) > market_value(costs, age + 1) >= scrap
    assert decay_rate_per_month(costs) > 0
    residual = Fraction(costs.purchase_price_per_gpu * costs.residual_bps, BASIS_POINTS)
    assert abs(market_value(costs, costs.residual_after_months) - residual) < 1


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.name)
def test_an_input_out_of_bounds_is_refused_by_name(one):
    for value in (one.least - 1, one.most + 1, 10**400, -(10**400)):
        with pytest.raises(Rejection) as refused:
            check_costs(changed(**{one.name: value}))
        assert (refused.value.code, refused.value.pointer) == ("cost_out_of_range", f"/{one.name}")
        assert one.unit in refused.value.detail


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"residual_bps": 500, "scrap_bps": 500}, "residual_invalid"),
        ({"residual_bps": 100, "scrap_bps": 500}, "residual_invalid"),
        ({"idle_watts": 1_001, "load_watts": 1_000}, "power_invalid"),
    ],
)
def test_inputs_that_contradict_are_refused(fields, code):
    with pytest.raises(Rejection) as refused:
        check_costs(changed(**fields))
    assert refused.value.code == code


def test_the_bounds_themselves_are_allowed():
    for end in ("least", "most"):
        values = {one.name: getattr(one, end) for one in INPUTS}
        check_costs(OwnerCosts(**values))
