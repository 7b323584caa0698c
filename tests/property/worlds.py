"""Living books for the property tests: a list of events, and what every clearing must satisfy.

An event is a tuple of small numbers that always means something in the book it meets, so Hypothesis
can cut any list of them short. `Pair` plays them on the compiled book and on the reference at once.
"""

import itertools
from dataclasses import dataclass

from hypothesis import strategies as st

from matching import book, reference
from matching.types import CHAIN, NONE, Reason

LEVELS = 40


@dataclass(frozen=True)
class Bid:
    """A bid as the test knows it."""

    name: int
    limit: int
    gpus: int
    min_gpus: int
    colocated: bool
    arrival: tuple[int, int]
    held: int = 0


@dataclass(frozen=True)
class Offer:
    reserve: int
    gpus: int
    node: int = NONE
    domain: int = NONE


def make_bid(name, limit, gpus, minimum, colocated, tick, arrival_hash):
    if colocated:
        gpus = minimum = CHAIN[gpus % 6]
    return Bid(name, limit, gpus, max(1, min(minimum, gpus)), colocated, (tick, arrival_hash))


quantities = st.integers(1, 9)
limits = st.integers(1, LEVELS)
free_bids = st.builds(
    make_bid,
    st.just(0),
    limits,
    quantities,
    st.integers(0, 9),
    st.just(False),
    st.integers(0, 3),
    st.integers(0, 3),
)
divisible_bids = st.builds(
    make_bid, st.just(0), limits, quantities, st.just(1), st.just(False), st.integers(0, 3), st.integers(0, 3)
)
any_bids = st.builds(
    make_bid,
    st.just(0),
    limits,
    quantities,
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
)
free_offers = st.builds(Offer, st.integers(0, LEVELS), st.integers(1, 8))
# A node lies in one domain: 0 to 2 in domain 0 or 1, node 3 in none.
node_offers = st.builds(
    lambda reserve, gpus, node: Offer(reserve, gpus, node, node % 2 if node < 3 else NONE),
    st.integers(0, LEVELS),
    st.sampled_from([1, 2, 4, 8, 8, 8]),
    st.integers(0, 3),
)
handicaps = st.sampled_from([0, 0, 100, 1000, 2500, 100_000])

# (what, which, numbers): see `Pair.play`.
events = st.tuples(
    st.sampled_from(
        ["place", "place", "place", "cancel", "amend", "hold", "offer", "withdraw", "reprice", "win"]
    ),
    st.integers(0, 50),
    any_bids,
    node_offers,
)


def book_of(module, bids, offers, *, handicap_bps=0, levels=LEVELS, **settings):
    """A book with these bids and offers; returns (book, {name: handle})."""
    made = module.Book(handicap_bps=handicap_bps, level_count=levels, **settings)
    handles = {}
    for bid in bids:
        handles[bid.name] = made.place_bid(
            bid.limit, bid.gpus, bid.min_gpus, *bid.arrival, bid.name, bid.colocated
        )
        if bid.held:
            made.set_held(handles[bid.name], bid.held)
    for offer in offers:
        made.place_offer(offer.reserve, offer.gpus, offer.node, offer.domain)
    return made, handles


def named(bids):
    """The same bids under the names 0, 1, 2 ..."""
    return [Bid(name, *list(vars(bid).values())[1:]) for name, bid in enumerate(bids)]


def fills_of(made, handles):
    """Every bid's fill after a clearing, by name."""
    return {name: made.explain(handle).fill for name, handle in handles.items()}


class Pair:
    """One market as the compiled book and as the reference, held equal after every event."""

    def __init__(self, handicap_bps, refine_below_bids=0, price_position_bps=None, modules=(book, reference)):
        self.settings = dict(
            handicap_bps=handicap_bps,
            level_count=LEVELS,
            refine_below_bids=refine_below_bids,
            price_position_bps=price_position_bps,
        )
        self.sides = [module.Book(**self.settings) for module in modules]
        self.bids = {}  # name: (Bid, handles)
        self.offers = []  # (Offer, handles)
        self.names = 0
        self.fills = {}
        self.clearing = None

    def both(self, call):
        results = []
        for number, side in enumerate(self.sides):
            results.append(call(side, number))
        return results

    def play(self, event):
        what, which, bid, offer = event
        name = sorted(self.bids)[which % len(self.bids)] if self.bids else None
        place = which % len(self.offers) if self.offers else None
        if what == "place" or (what in ("cancel", "amend", "hold") and name is None):
            self.names += 1
            new = Bid(self.names, *list(vars(bid).values())[1:])
            arguments = (new.limit, new.gpus, new.min_gpus, *new.arrival, new.name, new.colocated)
            self.bids[new.name] = (new, self.both(lambda side, _: side.place_bid(*arguments)))
        elif what == "cancel":
            _, handles = self.bids.pop(name)
            self.fills.pop(name, None)
            self.both(lambda side, i: side.cancel_bid(handles[i]))
        elif what == "amend":
            old, handles = self.bids[name]
            gpus = CHAIN[bid.gpus % 6] if old.colocated else bid.gpus
            minimum = gpus if old.colocated else min(bid.min_gpus, gpus)
            self.both(lambda side, i: side.amend_bid(handles[i], bid.limit, gpus, minimum))
            self.bids[name] = (
                Bid(name, bid.limit, gpus, minimum, old.colocated, old.arrival, old.held), handles
            )  # fmt: skip
        elif what == "hold":
            self.hold(name, bid.gpus - 1)
        elif what == "win":
            for winner, fill in sorted(self.fills.items()):
                self.hold(winner, fill)
        elif what == "offer" or place is None:
            handles = self.both(
                lambda side, _: side.place_offer(offer.reserve, offer.gpus, offer.node, offer.domain)
            )
            self.offers.append((offer, handles))
        elif what == "withdraw":
            _, handles = self.offers.pop(place)
            self.both(lambda side, i: side.cancel_offer(handles[i]))
        else:
            old, handles = self.offers[place]
            self.offers[place] = (Offer(offer.reserve, offer.gpus, old.node, old.domain), handles)
            self.both(lambda side, i: side.amend_offer(handles[i], offer.reserve, offer.gpus))

    def hold(self, name, gpus):
        bid, handles = self.bids[name]
        self.both(lambda side, i: side.set_held(handles[i], gpus))
        self.bids[name] = (Bid(*list(vars(bid).values())[:-1], gpus), handles)

    def clear(self):
        """Clear both sides; they must say the same of everything. Returns the clearing."""
        clearings = self.both(lambda side, _: side.clear())
        changes = []
        for number, clearing in enumerate(clearings):
            names = {handles[number]: name for name, (_, handles) in self.bids.items()}
            fills = zip(clearing.handles.tolist(), clearing.fills.tolist(), strict=True)
            changes.append({names[handle]: fill for handle, fill in fills})
        assert clearings[0][:-2] == clearings[-1][:-2], "I19: one clearing"
        assert changes[0] == changes[-1], "I19: one difference to the last clearing"
        self.fills = {name: self.fills.get(name, 0) for name in self.bids} | changes[0]
        for name, (_, handles) in self.bids.items():
            outcomes = self.both(lambda side, i, handles=handles: side.explain(handles[i]))
            assert outcomes[0] == outcomes[-1], f"I19: one explanation of {name}"
            assert outcomes[0].fill == self.fills[name]
        self.clearing = clearings[0]
        return clearings[0]


def check_state(bids, offers, fills, outcomes, clearing, *, handicap_bps, position_bps=None):
    """I1 to I7 over one clearing; `bids` and `offers` are the test's own."""
    packed = any(bid.colocated and bid.gpus > 1 for bid in bids)
    reserves = sorted(offer.reserve for offer in offers for _ in range(offer.gpus))
    price = clearing.price
    assert sum(fills.values()) == clearing.sold <= len(reserves), "I1"
    assert clearing.value - clearing.cost <= clearing.lp_bound
    if clearing.sold == 0:
        assert price == clearing.low == clearing.high == NONE
    else:
        assert clearing.floor <= clearing.low <= price <= clearing.high <= clearing.ceil, "I3"
        if handicap_bps == 0 and position_bps is None:
            assert price == clearing.low, "I3"
        if not packed:
            assert clearing.floor == reserves[clearing.sold - 1], "I2"
            assert all(reserve >= price for reserve in reserves[clearing.sold :]) or position_bps, "I4"
            assert all(reserve <= price for reserve in reserves[: clearing.sold]), "I4"
    for bid in bids:
        fill, outcome = fills[bid.name], outcomes[bid.name]
        assert outcome.fill == fill
        assert fill == 0 or bid.min_gpus <= fill <= bid.gpus, "I1"
        assert fill == 0 or price <= bid.limit, "I2"
        assert (outcome.reason is Reason.FILLED) == (fill == bid.gpus)
        rank = bid.limit if bid.held else bid.limit * 10_000 // (10_000 + handicap_bps)
        if fill < bid.gpus and bid.min_gpus == 1 and fill == 0 and clearing.sold and position_bps is None:
            assert rank <= price, "I5"
            assert bid.limit <= price or price == clearing.high, "I5"
        if fill == 0 and clearing.sold and rank > price and position_bps is None:
            assert bid.min_gpus > 1 and outcome.reason is Reason.NO_FIT, "I6"
        if outcome.reason is Reason.NO_FIT:
            assert outcome.usable < outcome.needed == bid.min_gpus and bid.limit > price, "I6"
        if outcome.reason is Reason.PROTECTED and position_bps is None:
            assert handicap_bps and bid.limit > price
    newcomers = sorted(
        (bid for bid in bids if bid.min_gpus == 1 and not bid.held), key=lambda bid: -bid.limit
    )
    for better, worse in itertools.pairwise(newcomers):
        ranks = [bid.limit * 10_000 // (10_000 + handicap_bps) for bid in (better, worse)]
        if ranks[0] > ranks[1] and fills[worse.name]:
            assert fills[better.name] == better.gpus, "I7"
