"""Placement: the cheapest units are sold, tenants stay where they run, and it never fails."""

from hypothesis import given
from hypothesis import strategies as st

from matching.packing import place, sold_by_offer


def test_cheapest_units_are_sold_first():
    assert {1: 4, 2: 1} == sold_by_offer([(9, 2, 4), (5, 1, 4)], 5, {})


def test_between_equal_reserves_the_occupied_units_are_sold():
    assert {2: 2} == sold_by_offer([(5, 1, 4), (5, 2, 4)], 2, {2: 2})


def test_a_tenant_stays_where_it_runs():
    placed = place([(1, 2), (2, 2)], [(5, 1, 2), (5, 2, 2)], {(2, 1): 2}, {})
    assert {(2, 1): 2, (1, 2): 2} == placed


def test_a_tenant_on_a_unit_that_is_not_sold_is_moved():
    assert {(1, 1): 2} == place([(1, 2)], [(5, 1, 2), (9, 2, 2)], {(1, 2): 2}, {})


def test_a_new_bid_takes_the_smallest_offer_that_holds_it():
    assert {(1, 2): 4, (2, 1): 8} == place([(1, 4), (2, 8)], [(5, 1, 8), (5, 2, 4)], {}, {})


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), min_size=1, max_size=8),
    st.lists(st.integers(1, 6), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 4)), max_size=8),
)
def test_placement_never_fails_and_never_sells_a_unit_twice(offers, fills, held):
    numbered = [(reserve, number, gpus) for number, (reserve, gpus) in enumerate(offers)]
    left = sum(gpus for _, gpus in offers)
    wanted = []
    for bid, gpus in enumerate(fills):
        if gpus <= left:
            wanted.append((bid, gpus))
            left -= gpus
    placed = place(wanted, numbered, {(bid, offer): gpus for bid, offer, gpus in held}, {})
    for bid, gpus in wanted:
        assert gpus == sum(n for (who, _), n in placed.items() if who == bid)
    for _, number, gpus in numbered:
        assert sum(n for (_, offer), n in placed.items() if offer == number) <= gpus
    sold = sum(gpus for _, gpus in wanted)
    units = sorted(reserve for reserve, _, gpus in numbered for _ in range(gpus))
    used = sorted(numbered[offer][0] for (_, offer), n in placed.items() for _ in range(n))
    assert units[:sold] == used
