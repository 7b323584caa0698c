"""Random books: the compiled kernel equals the reference, and the invariants of RULES.md hold.

Cited by number: I1 to I10 where they are stated to hold always, I11 (entry is exact) and I21.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from matching import book, reference
from matching.types import NONE, Reason

LEVELS = 60

bids = st.tuples(
    st.integers(1, LEVELS),  # limit
    st.integers(1, 8),  # gpus
    st.integers(0, 8),  # minimum, folded into 1..gpus
    st.integers(0, 8),  # held
    st.integers(0, 3),  # arrival tick
    st.integers(0, 3),  # hash
)
offers = st.tuples(st.integers(0, LEVELS), st.integers(1, 6))
handicaps = st.sampled_from([0, 0, 100, 1000, 2500, 100_000])


class Market:
    """One book with its bids by sequence number, so that two implementations can be compared."""

    def __init__(self, module, handicap_bps, bids, offers):
        self.book = module.Book(handicap_bps=handicap_bps, level_count=LEVELS)
        self.bids = {}
        self.offers = list(offers)
        self.names = {}
        self.results = {}
        for reserve, gpus in offers:
            self.book.place_offer(reserve=reserve, gpus=gpus)
        for seq, bid in enumerate(bids):
            self.place(seq, bid)

    def place(self, seq, bid):
        limit, gpus, minimum, held, tick, arrival_hash = bid
        minimum = max(1, min(minimum, gpus))
        held = min(held, gpus)
        handle = self.book.place_bid(
            limit=limit, gpus=gpus, min_gpus=minimum, arrival_tick=tick, arrival_hash=arrival_hash, seq=seq
        )
        if held:
            self.book.set_held(handle, held)
        self.names[handle] = seq
        self.bids[seq] = (handle, limit, gpus, minimum, held)

    def clear(self):
        clearing = self.book.clear()
        for outcome in clearing.changes:
            self.results[self.names[outcome.handle]] = outcome[1:]
        changes = sorted((self.names[o.handle], *o[1:]) for o in clearing.changes)
        return clearing._replace(changes=changes)


@settings(max_examples=400, deadline=None)
@given(handicaps, st.lists(bids, max_size=14), st.lists(offers, max_size=6))
def test_compiled_book_equals_reference(handicap_bps, bids, offers):
    """I8 and I19: equal results on a fresh book, and again after changes to a living one."""
    markets = [Market(module, handicap_bps, bids, offers) for module in (book, reference)]
    assert markets[0].clear() == markets[1].clear()
    for market in markets:
        for seq, (handle, limit, gpus, minimum, _) in sorted(market.bids.items()):
            if seq % 3 == 0:
                market.book.cancel_bid(handle)
                del market.bids[seq]
            elif seq % 3 == 1:
                market.book.amend_bid(
                    handle, limit=LEVELS + 1 - limit, gpus=gpus + 1, min_gpus=min(minimum, gpus + 1)
                )
            else:
                market.book.set_held(handle, market.results[seq][0])
        market.place(100, (7, 3, 2, 0, 5, 1))
    assert markets[0].clear() == markets[1].clear()
    assert markets[0].book.probe(limit=9, gpus=2, min_gpus=2) == markets[1].book.probe(
        limit=9, gpus=2, min_gpus=2
    )


@settings(max_examples=400, deadline=None)
@given(handicaps, st.lists(bids, max_size=14), st.lists(offers, max_size=6))
def test_invariants_hold(handicap_bps, bids, offers):
    market = Market(book, handicap_bps, bids, offers)
    clearing = market.clear()
    fills = {seq: result[0] for seq, result in market.results.items()}
    reserves = sorted(r for r, g in offers for _ in range(g))
    price = clearing.price

    assert sum(fills.values()) == clearing.sold <= len(reserves), "I1"
    for seq, (_, limit, gpus, minimum, held) in market.bids.items():
        fill, reason, needed, usable = market.results[seq]
        assert fill == 0 or minimum <= fill <= gpus or (held and fill >= min(minimum, gpus)), "I1"
        if fill:
            assert price <= limit, "I2"
        if fill < gpus:
            assert reason is not Reason.FILLED
            if reason is Reason.NO_FIT:
                assert minimum > 1 and usable < needed and limit > price, "I6"
            if minimum == 1 or fill:
                assert limit <= price or price == clearing.high or fill == 0, "I5"
    if clearing.sold:
        assert clearing.floor == reserves[clearing.sold - 1] <= price, "I2"
        assert clearing.floor <= clearing.low <= price <= clearing.high <= clearing.ceil, "I3"
        if handicap_bps == 0:
            assert price == clearing.low, "I3"
        assert all(r <= price for r in reserves[: clearing.sold])
        assert all(r >= price for r in reserves[clearing.sold :]), "I4"
    else:
        assert price == NONE


@settings(max_examples=300, deadline=None)
@given(
    handicaps, st.lists(bids, max_size=12), st.lists(offers, max_size=6), st.randoms(use_true_random=False)
)
def test_order_of_entry_does_not_matter(handicap_bps, bids, offers, random):
    """I8: permuting the inputs gives identical output."""
    one = Market(book, handicap_bps, bids, offers)
    other = Market(book, handicap_bps, [], sorted(offers, reverse=True))
    order = list(enumerate(bids))
    random.shuffle(order)
    for seq, bid in order:
        other.place(seq, bid)
    assert one.clear() == other.clear()


@settings(max_examples=300, deadline=None)
@given(handicaps, st.lists(bids, max_size=12), st.lists(offers, max_size=6))
def test_winners_as_incumbents_change_nothing(handicap_bps, bids, offers):
    """I10: an unchanged book repeats its decision."""
    market = Market(book, handicap_bps, [(*bid[:3], 0, *bid[4:]) for bid in bids], offers)
    market.clear()
    fills = {seq: result[0] for seq, result in market.results.items()}
    for seq, (handle, *_) in market.bids.items():
        market.book.set_held(handle, fills[seq])
    market.clear()
    assert fills == {seq: result[0] for seq, result in market.results.items()}


@settings(max_examples=300, deadline=None)
@given(handicaps, st.lists(bids, max_size=12), st.lists(offers, min_size=1, max_size=6))
def test_entry_is_exact(handicap_bps, bids, offers):
    """I11: one GPU at the entry price wins next tick, one level lower it does not.

    "If nothing else changes" includes that this tick's winners have started: they are incumbents then.
    """
    market = Market(book, handicap_bps, [(*bid[:3], 0, *bid[4:]) for bid in bids], offers)
    market.clear()
    for seq, (handle, *_) in market.bids.items():
        market.book.set_held(handle, market.results[seq][0])
    entry = market.clear().entry
    if entry != NONE:
        assert market.book.probe(limit=entry, gpus=1, min_gpus=1)[0] == 1
    below = LEVELS if entry == NONE else entry - 1
    if below >= 1:
        assert market.book.probe(limit=below, gpus=1, min_gpus=1)[0] == 0


@settings(max_examples=300, deadline=None)
@given(handicaps, st.lists(bids, min_size=1, max_size=12), st.lists(offers, max_size=6), st.integers(0, 11))
def test_raising_the_limit_of_a_served_bid_never_reduces_its_fill(handicap_bps, bids, offers, which):
    """I9."""
    market = Market(book, handicap_bps, bids, offers)
    market.clear()
    handle, limit, gpus, minimum, _ = market.bids[which % len(bids)]
    before = market.results[which % len(bids)][0]
    market.book.amend_bid(handle, limit=min(LEVELS, limit + 5), gpus=gpus, min_gpus=minimum)
    market.clear()
    assert market.results[which % len(bids)][0] >= before


@settings(max_examples=300, deadline=None)
@given(st.lists(bids, max_size=12), st.lists(offers, max_size=6))
def test_a_huge_handicap_never_displaces_an_incumbent_by_a_newcomer(bids, offers):
    """I21: with h = 1,000 % and limits under ten to one, newcomers only take what incumbents leave."""
    incumbents = [(seq, bid) for seq, bid in enumerate(bids) if bid[3] > 0]
    capped = [(max(bid[0], LEVELS // 10 + 1), *bid[1:]) for bid in bids]
    everyone = Market(book, 100_000, capped, offers)
    everyone.clear()
    alone = Market(book, 100_000, [], offers)
    for seq, _ in incumbents:
        limit, gpus, minimum, held, tick, arrival_hash = capped[seq]
        base = min(max(min(held, gpus), max(1, min(minimum, gpus))), gpus)
        alone.place(seq, (limit, base, minimum, held, tick, arrival_hash))
    alone.clear()
    for seq, _ in incumbents:
        assert everyone.results[seq][0] >= alone.results[seq][0]
