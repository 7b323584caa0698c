"""W(R, M) is what was published, and our adapters trade on it exactly what its book of reference does."""

from functools import partial

import pytest

import matching.book
import matching.reference
from bench import fallow_adapter, peer_adapters, peers
from bench.workload import CANCEL, CHECKS, CROSS, NO_TARGET, PLACE, FifoBook, Trades, generate

BOOKS = {"compiled": matching.book.Book, "reference": matching.reference.Book}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small workload and what its file holds."""
    workload = generate(300, 1_500)
    path = tmp_path_factory.mktemp("workload") / "small"
    workload.save(path)
    return workload, peer_adapters.load(str(path))


def test_the_published_check_value_comes_out():
    """The generator asserts it too: seed, order of draws and the book of reference are all right."""
    assert CHECKS[10_000, 1_000_000] == generate(10_000, 1_000_000).trades


def test_the_same_seed_gives_the_same_workload_and_another_does_not():
    assert generate(50, 200) == generate(50, 200)
    assert generate(50, 200, seed=2).trades != generate(50, 200).trades


def test_cancels_name_bids_that_have_arrived_and_each_at_most_once(small):
    workload, _ = small
    number, named = workload.resting, []
    for kind, target in zip(workload.kinds, workload.targets, strict=True):
        assert (target == NO_TARGET) == (kind != CANCEL)
        number += kind == PLACE
        if kind == CANCEL:
            assert 0 <= target < number
            named.append(target)
    assert len(set(named)) == len(named) > 0


def test_the_quantity_sold_is_the_quantity_crossed(small):
    workload, _ = small
    crossed = sum(q for kind, q in zip(workload.kinds, workload.quantities, strict=True) if kind == CROSS)
    assert crossed == workload.trades.quantity


def test_the_book_of_reference_serves_price_then_time():
    """Two at 7, one at 9: selling 5 takes the 9 whole, then the older 7 in part; the rest keeps its place."""
    book = FifoBook()
    for limit, quantity in ((7, 3), (7, 2), (9, 3)):
        book.place(limit, quantity)
    book.cross(5)
    assert Trades(fills=2, quantity=5, value=3 * 9 + 2 * 7, live=2) == book.trades()
    book.remove(1)
    book.cross(1)
    assert Trades(fills=3, quantity=6, value=3 * 9 + 3 * 7, live=0) == book.trades()


def test_a_cross_that_the_book_cannot_take_is_refused():
    with pytest.raises(AssertionError, match="cannot take"):
        FifoBook().cross(1)


@pytest.mark.parametrize("name", BOOKS)
def test_our_book_order_by_order_trades_what_the_reference_does(small, name):
    workload, content = small
    new_book = partial(BOOKS[name], handicap_bps=0, level_count=1_000)
    figures = fallow_adapter.run_ours("mixed", content, 1, new_book)
    peers.check(peers.OURS, figures, workload.trades)
    assert {"fills", "quantity", "value", "live"} <= set(figures)


@pytest.mark.parametrize("name", BOOKS)
def test_our_book_in_ticks_sells_as_much(small, name):
    workload, content = small
    new_book = partial(BOOKS[name], handicap_bps=0, level_count=1_000)
    figures = fallow_adapter.run_ours("array", content, 1, new_book)
    peers.check(peers.ARRAYS, figures, workload.trades)
    assert figures["operations"] == len(workload.kinds)


def test_a_run_that_trades_otherwise_is_refused(small):
    workload, _ = small
    with pytest.raises(AssertionError, match="quantity"):
        peers.check(peers.ARRAYS, {"quantity": workload.trades.quantity + 1}, workload.trades)


def test_cpptrader_is_scaled_by_the_peer_of_the_same_run():
    rates = {peers.FAST: [417_000.0 * 2, 417_000.0 * 2]}
    scaled = {row["source"]: row["scaled"] for row in peers.scaled_cpptrader(rates)}
    assert [2_700_000.0, 2_700_000.0] == pytest.approx(scaled["medians of separate runs"])


def test_targets_are_held_against_the_best_peer():
    """5 x one and 3 x the other miss 4 x the best; without matching-engine there is no answer."""
    place = {"rates": {}, "ratios": {"fallow to limit-order-book": 5.0, "fallow to nanobook": 3.0}}
    rates = {peers.FAST: [417_000.0], peers.ARRAYS: [1_350_000.0 * 2.5]}
    cases = [{"name": f"place_{label}", **place} for label in ("10k", "1m")]
    cases += [{"name": f"mixed_{label}", "rates": rates, "ratios": {}} for label in ("10k", "1m")]
    answers = peers.answers(cases)
    assert {"measured": "3.00 x nanobook", "is_met": False} == answers["place_10k"]
    assert "mixed_1m" not in answers
    assert answers["array_1m"]["is_met"]
