"""RULES.md's invariants that compare two clearings, by number, on the compiled book."""

import itertools

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from matching import book
from matching.types import NONE
from tests.property.worlds import (
    LEVELS,
    Bid,
    Offer,
    any_bids,
    book_of,
    divisible_bids,
    fills_of,
    free_bids,
    free_offers,
    handicaps,
    named,
    node_offers,
)

free_books = (st.lists(free_bids, max_size=12), st.lists(free_offers, max_size=6))
packed_books = (st.lists(any_bids, max_size=12), st.lists(node_offers, max_size=6))
divisible_books = (st.lists(divisible_bids, max_size=10), st.lists(free_offers, max_size=6))


def changed(bid, **values):
    return Bid(**{**vars(bid), **values})


def with_held(bids, dice):
    return [changed(bid, held=held % (bid.gpus + 1)) for bid, held in zip(bids, dice, strict=False)]


held = st.lists(st.integers(0, 8), min_size=12, max_size=12)


@settings(max_examples=300, deadline=None)
@given(handicaps, *packed_books, held, st.randoms(use_true_random=False))
def test_i8_order_of_entry_does_not_matter(handicap_bps, bids, offers, dice, random):
    bids = with_held(named(bids), dice)
    one, handles = book_of(book, bids, offers, handicap_bps=handicap_bps)
    shuffled = random.sample(bids, len(bids))
    other, others = book_of(book, shuffled, offers[::-1], handicap_bps=handicap_bps)
    assert one.clear()[:-2] == other.clear()[:-2]
    assert fills_of(one, handles) == fills_of(other, others)


@settings(max_examples=300, deadline=None)
@given(handicaps, *packed_books, held, st.integers(0, 11), st.integers(1, 9))
def test_i9_raising_the_limit_of_a_served_bid_never_reduces_its_fill(
    handicap_bps, bids, offers, dice, which, more
):
    assume(bids)
    bids = with_held(named(bids), dice)
    made, handles = book_of(book, bids, offers, handicap_bps=handicap_bps)
    made.clear()
    bid = bids[which % len(bids)]
    before = made.explain(handles[bid.name]).fill
    made.amend_bid(handles[bid.name], min(LEVELS, bid.limit + more), bid.gpus, bid.min_gpus)
    made.clear()
    assert made.explain(handles[bid.name]).fill >= before


@settings(max_examples=300, deadline=None)
@given(handicaps, *packed_books)
def test_i10_winners_as_incumbents_change_nothing(handicap_bps, bids, offers):
    made, handles = book_of(book, named(bids), offers, handicap_bps=handicap_bps)
    made.clear()
    fills = fills_of(made, handles)
    for name, handle in handles.items():
        made.set_held(handle, fills[name])
    assert made.clear().handles.size == 0
    assert fills == fills_of(made, handles)


@settings(max_examples=300, deadline=None)
@given(handicaps, st.lists(free_bids, max_size=12), st.lists(free_offers, min_size=1, max_size=6))
def test_i11_entry_is_exact(handicap_bps, bids, offers):
    """One GPU at the entry price wins next tick, one level lower it does not.

    "If nothing else changes" includes that this tick's winners have started: they are incumbents then.
    """
    made, handles = book_of(book, named(bids), offers, handicap_bps=handicap_bps)
    made.clear()
    for handle in handles.values():
        made.set_held(handle, made.explain(handle).fill)
    entry = made.clear().entry
    if entry != NONE:
        assert made.probe(entry, 1, 1)[0] == 1
    below = LEVELS if entry == NONE else entry - 1
    if below >= 1:
        assert made.probe(below, 1, 1)[0] == 0


def price_of(bids, offers):
    """The price; with nothing sold, what the next GPU would cost or the best wish, whichever is less."""
    made, _ = book_of(book, bids, offers)
    return made.clear()


@settings(max_examples=300, deadline=None)
@given(*divisible_books, divisible_bids, free_offers)
def test_i12_divisible_markets_are_monotone_and_optimal(bids, offers, more_demand, more_supply):
    bids = named(bids)
    clearing = price_of(bids, offers)
    assert clearing.value - clearing.cost == clearing.lp_bound == lp_optimum(bids, offers)
    assume(clearing.sold)
    dearer = price_of([*bids, changed(more_demand, name=99)], offers)
    assert dearer.price >= clearing.price
    cheaper = price_of(bids, [*offers, more_supply])
    assert cheaper.price <= clearing.price


def lp_optimum(bids, offers):
    wishes = sorted((bid.limit for bid in bids for _ in range(bid.gpus)), reverse=True)
    units = sorted(offer.reserve for offer in offers for _ in range(offer.gpus))
    return sum(max(0, limit - reserve) for limit, reserve in zip(wishes, units, strict=False))


@settings(max_examples=300, deadline=None)
@given(*packed_books, st.integers(1, 20))
def test_i13_a_constant_added_to_all_shifts_the_price(bids, offers, constant):
    bids = named(bids)
    one, handles = book_of(book, bids, offers, levels=LEVELS * 2)
    moved_offers = [Offer(offer.reserve + constant, *list(vars(offer).values())[1:]) for offer in offers]
    other, others = book_of(
        book, [changed(bid, limit=bid.limit + constant) for bid in bids], moved_offers, levels=LEVELS * 2
    )
    before, after = one.clear(), other.clear()
    assert fills_of(one, handles) == fills_of(other, others)
    assert after.price == (NONE if before.price == NONE else before.price + constant)


@settings(max_examples=300, deadline=None)
@given(handicaps, *packed_books, held)
def test_i14_removing_an_unserved_bid_below_the_floor_changes_nothing(handicap_bps, bids, offers, dice):
    made, handles = book_of(book, with_held(named(bids), dice), offers, handicap_bps=handicap_bps)
    clearing = made.clear()
    for bid in named(bids):
        if bid.limit < clearing.floor and made.explain(handles[bid.name]).fill == 0:
            made.cancel_bid(handles.pop(bid.name))
            again = made.clear()
            assert again.handles.size == 0
            assert again[:6] == clearing[:6]


@settings(max_examples=200, deadline=None)
@given(st.lists(free_bids, max_size=8), st.lists(free_offers, max_size=5))
def test_i15_welfare_is_bounded_by_milp_lp_and_the_certificate(bids, offers):
    """welfare <= MILP <= LP <= welfare + certificate, with the integer optimum by brute force."""
    bids = named(bids)
    made, _ = book_of(book, bids, offers)
    clearing = made.clear()
    welfare = clearing.value - clearing.cost
    assert welfare <= milp_optimum(bids, offers) <= clearing.lp_bound == lp_optimum(bids, offers)
    assert clearing.lp_bound <= welfare + certificate(bids, offers)


def milp_optimum(bids, offers):
    """The best over which bids with a minimum are in: those get it for sure, the rest is divisible."""
    best = 0
    units = sorted(offer.reserve for offer in offers for _ in range(offer.gpus))
    gangs = [bid for bid in bids if bid.min_gpus > 1]
    for chosen in itertools.product([False, True], repeat=len(gangs)):
        inside = [gang for gang, is_in in zip(gangs, chosen, strict=True) if is_in]
        sure = [gang.limit for gang in inside for _ in range(gang.min_gpus)]
        if len(sure) > len(units):
            continue
        rest = [bid.limit for bid in bids if bid.min_gpus == 1 for _ in range(bid.gpus)]
        rest += [gang.limit for gang in inside for _ in range(gang.gpus - gang.min_gpus)]
        free = units[len(sure) :]
        welfare = sum(sure) - sum(units[: len(sure)])
        pairs = zip(sorted(rest, reverse=True), free, strict=False)
        best = max(best, welfare + sum(max(0, limit - reserve) for limit, reserve in pairs))
    return best


def certificate(bids, offers):
    """RULES.md: what the units are worth that the first skipped gang left free."""
    units = sorted(offer.reserve for offer in offers for _ in range(offer.gpus))
    sold = 0
    for bid in sorted(bids, key=lambda bid: (-bid.limit, bid.arrival, bid.name)):
        usable = sum(reserve <= bid.limit for reserve in units) - sold
        fill = min(bid.gpus, usable)
        if fill < bid.min_gpus:
            if bid.min_gpus > 1:
                return sum(bid.limit - reserve for reserve in units[sold:] if reserve <= bid.limit)
            continue
        sold += fill
        if fill < bid.gpus:
            return 0
    return 0


@settings(max_examples=200, deadline=None)
@given(*divisible_books, st.integers(1, LEVELS), st.integers(1, LEVELS))
def test_i16_a_buyer_of_one_gpu_cannot_gain_by_misstating_its_limit(bids, offers, value, told):
    def gain(limit):
        own = Bid(50, limit, 1, 1, False, (9, 9))
        made, handles = book_of(book, [*named(bids), own], offers)
        clearing = made.clear()
        return value - clearing.price if made.explain(handles[50]).fill else 0

    assert gain(told) <= gain(value)


@settings(max_examples=300, deadline=None)
@given(st.lists(free_bids, max_size=12), st.lists(free_offers, max_size=6), held)
def test_i21_a_huge_handicap_never_displaces_an_incumbent_by_a_newcomer(bids, offers, dice):
    """With h = 1,000 % and limits under ten to one, newcomers only take what incumbents leave."""
    bids = [changed(bid, limit=max(bid.limit, LEVELS // 10 + 1)) for bid in with_held(named(bids), dice)]
    everyone, handles = book_of(book, bids, offers, handicap_bps=100_000)
    everyone.clear()
    alone, others = book_of(
        book,
        [changed(bid, gpus=max(bid.held, bid.min_gpus)) for bid in bids if bid.held],
        offers,
        handicap_bps=100_000,
    )
    alone.clear()
    for name, handle in others.items():
        assert everyone.explain(handles[name]).fill >= alone.explain(handle).fill


@settings(max_examples=200, deadline=None)
@given(handicaps, *packed_books)
def test_x7_refinement_never_lowers_welfare(handicap_bps, bids, offers):
    plain, _ = book_of(book, named(bids), offers, handicap_bps=handicap_bps)
    refined, _ = book_of(book, named(bids), offers, handicap_bps=handicap_bps, refine_below_bids=200)
    base, better = plain.clear(), refined.clear()
    assert better.value - better.cost >= base.value - base.cost
    if better.sold:
        assert better.floor <= better.low <= better.price <= better.high <= better.ceil


def test_i24_the_largest_admissible_numbers_do_not_overflow():
    """Every quantity and price at its bound, on both sides of the book."""
    from matching import reference
    from matching.types import GPU_COUNT_MAX, HASH_MAX, LEVEL_COUNT_MAX, SEQ_MAX, TICK_MAX

    made = book.Book(handicap_bps=100_000, level_count=LEVEL_COUNT_MAX)
    for number in range(500):
        made.place_bid(LEVEL_COUNT_MAX, GPU_COUNT_MAX, 1, TICK_MAX, HASH_MAX, SEQ_MAX - number)
        made.place_offer(LEVEL_COUNT_MAX - 1, GPU_COUNT_MAX)
    clearing = made.clear()
    assert clearing.sold == 500 * GPU_COUNT_MAX
    assert clearing.value == clearing.sold * LEVEL_COUNT_MAX
    assert clearing.value - clearing.cost == clearing.sold == clearing.lp_bound
    small = reference.Book(handicap_bps=0, level_count=LEVEL_COUNT_MAX)
    small.place_bid(LEVEL_COUNT_MAX, 1, 1, TICK_MAX, HASH_MAX, SEQ_MAX)
    small.place_offer(0, 1)
    assert small.clear().value == LEVEL_COUNT_MAX
