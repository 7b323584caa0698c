"""The odds of being outbid: known answers on hand-made records, and what must hold on any record."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.risk import NO_LIMIT, Outlook, TooShort, keep_prices, median_run_cells, on_grid


def record(*prices: int) -> np.ndarray:
    return np.array(prices, dtype=np.int32)


def test_a_calm_record_leaves_only_the_prior() -> None:
    """64 cells in windows of 4: 60 starts in 15 disjoint stretches, none lost: (0 + 1/2) / (15 + 1)."""
    assert Outlook(record(*[5] * 64), 4).estimate(5) == (0.5 / 16, 15)


def test_a_limit_below_the_price_is_lost() -> None:
    """The windows of one cell, 63 of 63 lost, decide; the samples stay those of the horizon."""
    assert Outlook(record(*[5] * 64), 4).estimate(4) == (63.5 / 64, 15)


def test_the_record_must_reach_beyond_the_horizon() -> None:
    with pytest.raises(TooShort):
        Outlook(record(1, 2, 3, 4), 4)
    with pytest.raises(ValueError, match="at least one cell"):
        Outlook(record(1, 2, 3, 4), 0)


def test_keep_price_falls_back_to_entry_and_then_to_none() -> None:
    assert keep_prices(np.array([7, -1, -1]), np.array([9, 8, -1])).tolist() == [7, 8, NO_LIMIT]


def test_cells_take_their_highest_price_and_gaps_repeat_the_last() -> None:
    grid = on_grid(np.array([0, 4, 30]), record(3, 2, 6), step_us=10, until_us=45)
    assert grid.tolist() == [3, 2, 2, 6, 6]


@pytest.mark.parametrize("cells", [2, 3, 6, 7, 8, 9, 100])
def test_a_run_that_nothing_ends_has_no_median(cells: int) -> None:
    assert median_run_cells(record(*[5] * cells), 5) is None


def test_the_median_run_is_the_time_to_the_rise() -> None:
    """The price is 1 except each eighth cell: runs from there last 7, 6, … 1 cells, their median 4."""
    assert median_run_cells(record(*([9] + [1] * 7) * 64), 1) == 4


@given(
    st.lists(st.integers(0, 50), min_size=34, max_size=200),
    st.integers(1, 32),
    st.integers(1, 32),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_odds_fall_with_the_limit_and_rise_with_the_horizon(
    prices: list[int], one: int, other: int, low: int, high: int
) -> None:
    near, far = sorted((one, other))
    low, high = sorted((low, high))
    soon, late = Outlook(record(*prices), near), Outlook(record(*prices), far)
    assert 0 < soon.estimate(high).probability <= soon.estimate(low).probability < 1
    assert soon.estimate(low).probability <= late.estimate(low).probability
    found = late.limit_for(0.5)
    assert found is None or late.estimate(found).probability <= 0.5
