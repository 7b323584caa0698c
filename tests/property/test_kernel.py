"""The compiled book equals the plain one after every single event (I19), and I1 to I7 hold there.

`pytest -m long tests/property` runs 100,000 books and more; the default run a few thousand events.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching import book, reference
from tests.property.worlds import Pair, any_bids, check_state, events, handicaps, node_offers

refinements = st.sampled_from([0, 0, 200])
positions = st.sampled_from([None, None, None, 0, 5_000, 10_000])


def play(handicap_bps, refine_below_bids, position_bps, script, modules=(book, reference)):
    pair = Pair(handicap_bps, refine_below_bids, position_bps, modules)
    for event in script:
        pair.play(event)
        clearing = pair.clear()
        bids = [bid for bid, _ in pair.bids.values()]
        outcomes = {name: pair.sides[0].explain(handles[0]) for name, (_, handles) in pair.bids.items()}
        offers = [offer for offer, _ in pair.offers]
        if refine_below_bids == 0:
            check_state(
                bids, offers, pair.fills, outcomes, clearing,
                handicap_bps=handicap_bps, position_bps=position_bps,
            )  # fmt: skip
    return pair


@settings(max_examples=400, deadline=None)
@given(handicaps, refinements, positions, st.lists(events, max_size=25))
def test_book_equals_reference_after_every_event(handicap_bps, refine_below_bids, position_bps, script):
    play(handicap_bps, refine_below_bids, position_bps, script)


@pytest.mark.long
@pytest.mark.timeout(0)
@settings(max_examples=100_000, deadline=None, database=None)
@given(handicaps, refinements, positions, st.lists(events, max_size=12))
def test_book_equals_reference_after_every_event_long(handicap_bps, refine_below_bids, position_bps, script):
    play(handicap_bps, refine_below_bids, position_bps, script)


@settings(max_examples=150, deadline=None)
@given(handicaps, st.lists(events, max_size=20), any_bids)
def test_probe_and_winning_limit_equal_the_reference_and_change_nothing(handicap_bps, script, bid):
    pair = play(handicap_bps, 0, None, script)
    offer = (bid.limit, bid.gpus, bid.min_gpus, bid.colocated)
    assert pair.sides[0].probe(*offer) == pair.sides[1].probe(*offer)
    for _, handles in list(pair.bids.values())[:3]:
        assert pair.sides[0].would_win(handles[0]) == pair.sides[1].would_win(handles[1])
    again = pair.clear()
    assert again.handles.size == 0


@settings(max_examples=150, deadline=None)
@given(handicaps, st.lists(any_bids, max_size=30), st.lists(node_offers, max_size=6), st.integers(0, 30))
def test_columns_do_what_single_calls_do(handicap_bps, bids, offers, cancelled):
    """place_bids, set_held_many, cancel_bids and expired, on both sides."""
    import numpy as np

    def column(values, dtype=np.int32):
        return np.array(list(values), dtype=dtype)

    results = []
    for module in (book, reference):
        one = module.Book(handicap_bps=handicap_bps, level_count=40)
        many = module.Book(handicap_bps=handicap_bps, level_count=40)
        singles = [
            one.place_bid(bid.limit, bid.gpus, bid.min_gpus, 5, bid.arrival[1], i, bid.colocated, i, i % 3)
            for i, bid in enumerate(bids)
        ]
        columns = many.place_bids(
            column(bid.limit for bid in bids), column(bid.gpus for bid in bids),
            column(bid.min_gpus for bid in bids), column((bid.arrival[1] for bid in bids), np.uint32),
            arrival_tick=5, first_seq=0, accounts=column(range(len(bids))),
            valid_until_ticks=column(i % 3 for i in range(len(bids))),
            colocated=column((bid.colocated for bid in bids), np.uint8),
        )  # fmt: skip
        for offer in offers:
            for side in (one, many):
                side.place_offer(offer.reserve, offer.gpus, offer.node, offer.domain)
        for handle in singles[1::2]:
            one.set_held(handle, 2)
        many.set_held_many(columns[1::2].copy(), np.full(len(columns[1::2]), 2, dtype=np.int32))
        for handle in singles[:cancelled]:
            one.cancel_bid(handle)
        many.cancel_bids(columns[:cancelled].copy())
        assert one.clear()[:-2] == many.clear()[:-2]
        results.append([many.explain(handle) for handle in columns[cancelled:].tolist()])
        assert results[-1] == [one.explain(handle) for handle in singles[cancelled:]]
        expired = sorted(singles.index(handle) for handle in one.expired(2))
        assert expired == [i for i in range(cancelled, len(bids)) if i % 3 == 1]
        assert one.expired(2) == [], "each is told once"
    assert results[0] == results[1]
