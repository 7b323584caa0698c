"""The clearing rule, case by case, over the compiled book and over the reference.

Each scenario is a small table: bids in order of arrival as `name: quantity[/minimum] @ limit [holds n]`,
offers as `quantity @ reserve`, and what must come out.
"""

import sys

import numpy as np
import pytest

from matching import book, reference
from matching.types import NONE, Clearing, Reason


class Scenario:
    """A book built from a few words, with its outcomes by name."""

    def __init__(self, module, *, handicap_bps=0, offers=(), bids=()):
        self.book = module.Book(handicap_bps=handicap_bps, level_count=1000)
        self.handles = {}
        self.outcomes = {}
        self.changed = set()
        for gpus, reserve in offers:
            self.book.place_offer(reserve=reserve, gpus=gpus)
        for number, (name, gpus, minimum, limit, *held) in enumerate(bids):
            self.handles[name] = self.book.place_bid(
                limit=limit, gpus=gpus, min_gpus=minimum, arrival_tick=number, arrival_hash=0, seq=number
            )
            if held:
                self.book.set_held(self.handles[name], held[0])

    def clear(self) -> Clearing:
        clearing = self.book.clear()
        names = {handle: name for name, handle in self.handles.items()}
        self.changed = {names[handle] for handle in clearing.handles.tolist()}
        self.outcomes = {name: self.book.explain(handle) for name, handle in self.handles.items()}
        return clearing

    def fills(self):
        return {name: outcome.fill for name, outcome in self.outcomes.items()}


@pytest.fixture(params=[book, reference], ids=["compiled", "reference"])
def module(request):
    return request.param


def test_lowest_price_that_clears_is_paid_by_all(module):
    """Two of three one-GPU bids fit: the price is the best loser's limit, not the winners' own."""
    market = Scenario(module, offers=[(2, 5)], bids=[("a", 1, 1, 30), ("b", 1, 1, 20), ("c", 1, 1, 10)])
    clearing = market.clear()
    assert {"a": 1, "b": 1, "c": 0} == market.fills()
    assert (10, 10, 20) == (clearing.price, clearing.low, clearing.high)
    assert Reason.OUTBID is market.outcomes["c"].reason


def test_without_competition_the_reserve_is_the_price(module):
    market = Scenario(module, offers=[(4, 5), (4, 9)], bids=[("a", 3, 1, 30)])
    clearing = market.clear()
    assert (5, 5, 5) == (clearing.price, clearing.floor, clearing.entry)
    assert 8 == clearing.offered
    assert 1 == clearing.idle_below_price


def test_a_bid_below_every_reserve_gets_nothing(module):
    market = Scenario(module, offers=[(4, 50)], bids=[("a", 3, 1, 30)])
    clearing = market.clear()
    assert (NONE, 0, 50) == (clearing.price, clearing.sold, clearing.entry)
    assert Reason.OUTBID is market.outcomes["a"].reason


def test_an_empty_market_has_no_price_and_no_entry(module):
    clearing = Scenario(module).clear()
    assert (NONE, NONE, 0, 0) == (clearing.price, clearing.entry, clearing.sold, clearing.handles.size)


def test_a_gang_that_does_not_fit_is_skipped_and_the_scan_goes_on(module):
    market = Scenario(module, offers=[(4, 5)], bids=[("gang", 8, 8, 30), ("small", 2, 1, 20)])
    clearing = market.clear()
    assert {"gang": 0, "small": 2} == market.fills()
    assert 5 == clearing.price, "a gang that got nothing never sets the price"
    outcome = market.outcomes["gang"]
    assert (Reason.NO_FIT, 8, 4) == (outcome.reason, outcome.needed, outcome.usable)
    assert 1 == clearing.not_fitted


def test_a_minimum_is_served_in_part_and_then_sets_the_price(module):
    market = Scenario(module, offers=[(6, 5)], bids=[("a", 4, 4, 30), ("b", 4, 2, 20)])
    clearing = market.clear()
    assert {"a": 4, "b": 2} == market.fills()
    assert 20 == clearing.price


def test_price_falls_when_a_gang_blocks_another(module):
    """Not monotone on purpose (RULES.md, "not true, so never asserted")."""
    bids = [("gang", 3, 3, 8), ("divisible", 2, 1, 7)]
    assert 7 == Scenario(module, offers=[(4, 0)], bids=bids).clear().price
    assert 0 == Scenario(module, offers=[(4, 0)], bids=[*bids, ("blocker", 2, 2, 9)]).clear().price


def test_the_case_that_once_broke_a_draft(module):
    market = Scenario(
        module, handicap_bps=2500, offers=[(4, 5)], bids=[("a", 3, 3, 60, 3), ("b", 3, 2, 35, 2)]
    )
    clearing = market.clear()
    assert {"a": 3, "b": 0} == market.fills()
    assert clearing.floor <= clearing.low <= clearing.price <= clearing.high <= clearing.ceil


def test_an_incumbent_is_protected_by_the_handicap(module):
    """A newcomer must outbid by more than h: at h = 10 % a limit of 109 ranks as 99."""
    bids = [("incumbent", 1, 1, 100, 1), ("newcomer", 1, 1, 110)]
    market = Scenario(module, handicap_bps=1000, offers=[(1, 5)], bids=bids)
    clearing = market.clear()
    assert {"incumbent": 1, "newcomer": 0} == market.fills()
    assert Reason.PROTECTED is market.outcomes["newcomer"].reason
    assert 112 == clearing.entry
    assert 100 == clearing.price, "the handicap ranks, it never raises the price above a winner's limit"
    market.book.amend_bid(market.handles["newcomer"], limit=clearing.entry, gpus=1, min_gpus=1)
    market.clear()
    assert {"incumbent": 0, "newcomer": 1} == market.fills()


def test_the_handicap_has_no_effect_where_nobody_is_displaced(module):
    market = Scenario(
        module, handicap_bps=1000, offers=[(2, 5)], bids=[("old", 1, 1, 100, 1), ("new", 1, 1, 6)]
    )
    assert 5 == market.clear().price
    assert {"old": 1, "new": 1} == market.fills()


def test_an_expansion_ranks_as_a_newcomer(module):
    """Holding 2 of 4: the other two compete with everyone else's new bids."""
    market = Scenario(
        module, handicap_bps=1000, offers=[(3, 5)], bids=[("old", 4, 1, 100, 2), ("new", 1, 1, 105)]
    )
    market.clear()
    assert {"old": 2, "new": 1} == market.fills()


def test_earlier_arrival_wins_between_equals(module):
    market = Scenario(module, offers=[(1, 5)], bids=[("first", 1, 1, 20), ("second", 1, 1, 20)])
    market.clear()
    assert {"first": 1, "second": 0} == market.fills()


def test_only_differences_are_reported(module):
    market = Scenario(module, offers=[(2, 5)], bids=[("a", 1, 1, 30), ("b", 1, 1, 20)])
    market.clear()
    assert {"a", "b"} == market.changed
    market.clear()
    assert set() == market.changed
    market.book.cancel_bid(market.handles.pop("a"))
    market.clear()
    assert set() == market.changed
    market.handles["c"] = market.book.place_bid(
        limit=40, gpus=2, min_gpus=1, arrival_tick=9, arrival_hash=0, seq=9
    )
    market.clear()
    assert {"b", "c"} == market.changed
    assert {"b": 0, "c": 2} == market.fills()


def test_probe_answers_without_changing_anything(module):
    market = Scenario(module, offers=[(2, 5)], bids=[("a", 1, 1, 30), ("b", 1, 1, 20)])
    before = market.clear()
    assert (1, 20) == market.book.probe(limit=21, gpus=1, min_gpus=1)
    assert (0, 20) == market.book.probe(limit=20, gpus=1, min_gpus=1)
    after = market.book.clear()
    assert before[:-2] == after[:-2]
    assert after.handles.size == 0


@pytest.mark.parametrize(
    "bid",
    [
        dict(limit=0, gpus=1, min_gpus=1),
        dict(limit=1001, gpus=1, min_gpus=1),
        dict(limit=1, gpus=0, min_gpus=1),
        dict(limit=1, gpus=1_000_001, min_gpus=1),
        dict(limit=1, gpus=1, min_gpus=2),
        dict(limit=1, gpus=1, min_gpus=0),
        dict(limit=-5, gpus=1, min_gpus=1),
    ],
)
def test_bounds_are_checked_at_the_door(module, bid):
    market = Scenario(module)
    with pytest.raises(ValueError, match="is outside"):
        market.book.place_bid(**bid, arrival_tick=0, arrival_hash=0, seq=0)
    assert 0 == market.book.clear().bid_count


def test_unknown_handles_are_refused(module):
    market = Scenario(module, offers=[(1, 1)], bids=[("a", 1, 1, 5)])
    for call in (market.book.cancel_bid, market.book.cancel_offer, lambda h: market.book.set_held(h, 1)):
        with pytest.raises(KeyError):
            call(77)


def test_a_bid_replaced_a_thousand_times_expires_once_and_leaves_nothing_behind(module):
    """A slot that is used again for the same tick must not pile up entries."""
    market = Scenario(module, bids=[("a", 1, 1, 5)])
    handle, size = None, 0
    for number in range(10_000):
        if handle is not None:
            market.book.cancel_bid(handle)
        handle = market.book.place_bid(5, 1, 1, 0, 0, number, valid_until_tick=7)
        if number == 2_000:
            size = sys.getsizeof(market.book)
    assert sys.getsizeof(market.book) - size < 16_384
    assert [] == market.book.expired(7)
    assert [handle] == market.book.expired(8)
    assert [] == market.book.expired(8)


def test_a_column_with_one_bad_row_changes_nothing(module):
    market = Scenario(module, offers=[(4, 1)], bids=[("a", 1, 1, 5)])
    good, bad = (np.array(limits, dtype=np.int32) for limits in ([3, 4], [3, 0]))
    one, hashes = np.ones(2, dtype=np.int32), np.zeros(2, dtype=np.uint32)
    with pytest.raises(ValueError, match="is outside"):
        market.book.place_bids(bad, one, one, hashes, arrival_tick=0, first_seq=5)
    handles = market.book.place_bids(good, one, one, hashes, arrival_tick=0, first_seq=5)
    assert 3 == market.book.clear().bid_count
    if module is book:
        with pytest.raises(KeyError):
            market.book.cancel_bids(np.array([handles[0], handles[0]], dtype=np.int32))
        with pytest.raises(KeyError):
            market.book.cancel_bids(np.array([handles[0], 999], dtype=np.int32))
        assert 3 == market.book.clear().bid_count
    market.book.cancel_bids(handles)
    assert 1 == market.book.clear().bid_count
