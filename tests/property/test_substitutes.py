"""X3 and I22, I23: joint clearings over several markets, against the LP and by their own rules."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench import programs
from matching import book, reference
from matching.substitutes import Market, Substitutes, Wish
from matching.types import NONE

LEVELS = 30
MARKETS = 4

own_bids = st.tuples(st.integers(0, MARKETS - 1), st.integers(1, LEVELS), st.integers(1, 5))
offers = st.tuples(st.integers(0, MARKETS - 1), st.integers(0, LEVELS), st.integers(1, 8))
limits = st.lists(
    st.one_of(st.just(NONE), st.integers(1, LEVELS)), min_size=MARKETS, max_size=MARKETS
).filter(lambda row: max(row) != NONE)
# Close limits make ties, which is where a joint clearing is hard.
close = st.builds(
    lambda base, steps: [max(1, base + step) if step is not None else NONE for step in steps],
    st.integers(5, LEVELS - 5),
    st.lists(st.sampled_from([None, -1, 0, 0, 0, 1]), min_size=MARKETS, max_size=MARKETS),
).filter(lambda row: max(row) != NONE)
wishes = st.tuples(st.integers(1, 6), st.booleans(), st.one_of(limits, close))
prices = st.lists(st.integers(0, LEVELS), min_size=MARKETS, max_size=MARKETS)


def group(module, bids, units, handicap_bps=0):
    """The books of all markets and the handles of their own bids."""
    books = [module.Book(handicap_bps=handicap_bps, level_count=LEVELS) for _ in range(MARKETS)]
    for market, reserve, gpus in units:
        books[market].place_offer(reserve, gpus)
    handles = [
        (market, books[market].place_bid(limit, gpus, 1, 0, seq, seq))
        for seq, (market, limit, gpus) in enumerate(bids)
    ]
    return [Market(made, handicap_bps, LEVELS) for made in books], handles


def wish_list(rows, *, gangs):
    return [
        Wish(gpus, gpus if is_gang and gangs else 1, tuple(row), (1, seq, seq))
        for seq, (gpus, is_gang, row) in enumerate(rows)
    ]


def optimum(bids, units, asked, *, whole):
    """The same markets as one program, solved by HiGHS."""
    if not units or not (bids or asked):
        return 0
    everyone = [(gpus, 1, [(market, limit)]) for market, limit, gpus in bids]
    everyone += [
        (wish.gpus, wish.min_gpus, [(k, limit) for k, limit in enumerate(wish.limits) if limit != NONE])
        for wish in asked
    ]
    rows = [(i, k, limit) for i, (_, _, places) in enumerate(everyone) for k, limit in places]
    columns = [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)]
    alternatives = programs.Alternatives(
        np.array([gpus for gpus, _, _ in everyone]),
        np.array([minimum for _, minimum, _ in everyone]),
        *columns,
    )
    machines = programs.Offers(
        np.array([reserve for _, reserve, _ in units]), np.array([gpus for _, _, gpus in units]),
        np.full(len(units), NONE),
    )  # fmt: skip
    program = programs.substitutes(alternatives, machines, np.array([k for k, _, _ in units]), whole=whole)
    return round(programs.solve(program, time_limit_s=20).value)


def check_fills(asked, joint):
    for wish, fills in zip(asked, joint.fills, strict=True):
        assert sum(fills.values()) <= wish.gpus, "I23"
        if wish.min_gpus > 1:
            assert len(fills) <= 1 and sum(fills.values()) in (0, wish.gpus), "I23: one market per gang"
        for market, gpus in fills.items():
            assert gpus > 0 and wish.limits[market] >= joint.clearings[market].price, "I2"


def welfare(joint):
    return sum(clearing.value - clearing.cost for clearing in joint.clearings)


books = (st.lists(own_bids, max_size=10), st.lists(offers, max_size=8), st.lists(wishes, max_size=8))


@settings(max_examples=200, deadline=None)
@given(*books, prices)
def test_i23_divisible_substitutes_reach_the_lp_from_any_start(bids, units, rows, start):
    markets, _ = group(book, bids, units)
    asked = wish_list(rows, gangs=False)
    joined = Substitutes(markets)
    joined.prices = list(start)
    joint = joined.clear(asked)
    check_fills(asked, joint)
    assert welfare(joint) == optimum(bids, units, asked, whole=False)


@settings(max_examples=100, deadline=None)
@given(*books)
def test_substitutes_with_gangs_stay_below_the_milp(bids, units, rows):
    markets, _ = group(book, bids, units)
    asked = wish_list(rows, gangs=True)
    joint = Substitutes(markets).clear(asked)
    check_fills(asked, joint)
    assert welfare(joint) <= optimum(bids, units, asked, whole=True)


@settings(max_examples=100, deadline=None)
# One round takes a GPU from the resting bid, the next gives it back.
@example([(2, 20, 1)], [(2, 0, 1)], [(1, False, [NONE, 1, 21, NONE])], 2500)
@given(*books, st.sampled_from([0, 1000, 2500]))
def test_joint_clearing_is_the_same_on_the_reference(bids, units, rows, handicap_bps):
    results = []
    for module in (book, reference):
        markets, _ = group(module, bids, units, handicap_bps)
        asked = wish_list(rows, gangs=True)
        joined = Substitutes(markets)
        first, second = joined.clear(asked), joined.clear(asked)
        assert first.fills == second.fills, "an unchanged group repeats its decision"
        for before, after in zip(first.changes, second.changes, strict=True):
            assert all(before.get(handle, 0) == fill for handle, fill in after.items())
        results.append((first.fills, [clearing[:-2] for clearing in first.clearings], joined.prices))
    assert results[0] == results[1]


@settings(max_examples=100, deadline=None)
@given(*books, own_bids)
def test_i22_markets_without_shared_wishes_are_independent(bids, units, rows, event):
    """Without substitutes a market clears as if it were alone, whatever happens in another."""
    del rows
    together, handles = group(book, bids, units)
    alone, _ = group(book, bids, units)
    where, limit, gpus = event
    together[where].book.place_bid(limit, gpus, 1, 5, 5, 500)
    joint = Substitutes(together).clear([])
    for market in range(MARKETS):
        if market != where:
            assert joint.clearings[market][:-2] == alone[market].book.clear()[:-2]
    fills = {}
    for market, handle in handles:
        fills.setdefault(market, {})[handle] = together[market].book.explain(handle).fill
    for market, changed in enumerate(joint.changes):
        known = fills.get(market, {})
        assert {handle: fill for handle, fill in changed.items() if handle in known} == {
            handle: fill for handle, fill in known.items() if fill
        }


def test_a_loser_takes_its_second_choice():
    """Two gangs want the same market; the one that loses there is served in the other."""
    markets, _ = group(book, [], [(0, 5, 4), (1, 5, 4)])
    asked = [
        Wish(4, 4, (20, 15, NONE, NONE), (0, 0, 0)),
        Wish(4, 4, (18, 17, NONE, NONE), (0, 1, 1)),
    ]
    joint = Substitutes(markets).clear(asked)
    assert joint.fills == [{0: 4}, {1: 4}]


def test_a_wish_stays_where_it_runs_unless_moving_pays_more_than_the_handicap():
    markets, _ = group(book, [], [(0, 5, 4), (1, 5, 4)], handicap_bps=1000)
    asked = [Wish(4, 1, (20, 21, NONE, NONE), (0, 0, 0), held_in=0, held=4)]
    assert Substitutes(markets).clear(asked).fills == [{0: 4}]
    asked = [Wish(4, 1, (20, 25, NONE, NONE), (0, 0, 0), held_in=0, held=4)]
    assert Substitutes(markets).clear(asked).fills == [{1: 4}]
