"""A ladder of reserves against recorded prices, worked by hand; and why the floor is the best of them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from auction.price_history import EVEN_STEPS, PriceShare, even_reserves, mean_price, offered_us, sell

HOUR_US = 3_600_000_000
# An hour at 1.00, two at 2.00, one in which nothing traded; 5 % fee.
SHARES = [PriceShare(None, HOUR_US), PriceShare(1_000_000, HOUR_US), PriceShare(2_000_000, 2 * HOUR_US)]
TERMS = {"fee_bps": 500, "increment": 100}


def rungs(*reserves):
    found = sell(SHARES, reserves, floor_net=300_000, **TERMS)
    return [(r.sold_us // HOUR_US, r.sold_bps, r.gross_per_offered_hour, r.net_per_offered_hour,
             r.margin_per_offered_hour) for r in found]  # fmt: skip


def test_a_ladder_by_hand():
    """Four hours offered; the floor is 0.30 net.

    0.95 is 1.00 gross: sold 3 h for 1 + 2 + 2 = 5, less 5 % 4.75, less 3 x 0.30 3.85; each over 4.
    0.96 is 1.0106 gross: sold 2 h for 4, less 5 % 3.80, less 0.60 3.20. 1.91 is above 2.00 gross.
    """
    assert rungs(950_000, 960_000, 1_910_000) == [
        (3, 7_500, 1_250_000, 1_187_500, 962_500),
        (2, 5_000, 1_000_000, 950_000, 800_000),
        (0, 0, 0, 0, 0),
    ]
    assert rungs(1_900_000) == rungs(960_000), "2.00 gross sells at a price of 2.00"
    assert mean_price(SHARES) == 1_666_666
    assert offered_us(SHARES) == 4 * HOUR_US


def test_below_its_floor_an_offer_loses():
    dear = sell(SHARES, [950_000], floor_net=2_000_000, **TERMS)[0]
    assert dear.margin_per_offered_hour == -312_500  # (4.75 - 3 x 2.00) / 4


def test_nothing_recorded_is_nothing_sold():
    assert sell([], [1], floor_net=0, **TERMS) == []
    assert even_reserves([], **TERMS) == []
    assert mean_price([PriceShare(None, HOUR_US)]) is None
    assert even_reserves([PriceShare(None, HOUR_US)], **TERMS) == []
    quiet = sell([PriceShare(None, HOUR_US)], [0], floor_net=0, **TERMS)
    assert [(rung.sold_us, rung.net_per_offered_hour) for rung in quiet] == [(0, 0)]


def test_even_steps_run_from_the_lowest_price_to_the_highest():
    steps = even_reserves(SHARES, **TERMS)
    assert (len(steps), steps[0], steps[-1]) == (EVEN_STEPS, 950_000, 1_900_000)
    assert [rung.gross_reserve for rung in sell(SHARES, [steps[0], steps[-1]], floor_net=0, **TERMS)] == [
        1_000_000,
        2_000_000,
    ]
    assert even_reserves(SHARES[:2], **TERMS) == [950_000]


shares_strategy = st.lists(
    st.builds(
        PriceShare,
        st.none() | st.integers(1, 100_000).map(lambda level: level * 100),
        st.integers(1, 10 * HOUR_US),
    ),
    min_size=1,
    max_size=20,
)


@given(shares_strategy, st.integers(0, 10_000_000), st.integers(0, 100_000), st.integers(0, 5_000))
def test_no_reserve_beats_the_floor_for_an_owner_who_takes_the_price(shares, floor_net, level, fee_bps):
    """Goal: why the floor is the recommended reserve. Every hour it sells more than another pays its cost."""
    other = level * 100
    terms = {"fee_bps": fee_bps, "increment": 100, "floor_net": floor_net}
    at_floor = sell(shares, [floor_net], **terms)[0]
    elsewhere = sell(shares, [other], **terms)[0]
    assert at_floor.margin_per_offered_hour + 1 >= elsewhere.margin_per_offered_hour
    assert at_floor.margin_per_offered_hour >= 0


@given(shares_strategy, st.lists(st.integers(0, 10_000_000), min_size=2, max_size=10))
def test_a_higher_reserve_never_sells_more_hours_or_earns_more_revenue(shares, reserves):
    found = sell(shares, reserves, floor_net=0, **TERMS)
    for lower, higher in pairwise(found):
        assert lower.reserve < higher.reserve
        assert lower.sold_us >= higher.sold_us
        assert lower.net_per_offered_hour >= higher.net_per_offered_hour
