"""Which of its markets a bid with alternatives takes part in (RULES.md X3).

Before markets clear, the bids that could be in more than one of them are lifted out of their books, and a
trial clears the markets jointly with them: the least dual prices, who joins which market, and up to three
rounds for those who lose (matching/substitutes.py). A bid that wins somewhere is sent there; the others stay
where they are. Then every market clears by its own rules and knows nothing of this.

A bid is sent only while it has no lease. So whoever runs is never interrupted because another market has
become cheaper, and a bid never has GPUs in two markets. Markets are weighed against each other when they
clear at the same instant; one that clears alone takes the bids that win in it.
"""

from collections.abc import Sequence

from auction import billing, leases
from auction.commands import RouteBids
from auction.model import Alternative, Bid, BidStatus, Market, MarketStatus
from auction.state import State
from matching.substitutes import Substitutes, Wish
from matching.types import MARKETS_MAX, NONE

ROUTED_BIDS_MAX = 2_000  # of one group of markets at one instant; those with lower limits stay where they are


def groups(state: State, due: Sequence[Market], at_us: int) -> list[list[str]]:
    """Return the markets to be weighed together, in order: sets of at most MARKETS_MAX that share bids.

    A bid's own markets are never torn apart; two groups may share a market where more are linked.
    """
    if not state.choosers:
        return []
    open_ids = {market.id for market in due if _is_due(market, at_us)}
    named = {
        frozenset(one.market for one in bid.alternatives if one.market in open_ids)
        for bid in state.choosers.values()
        if _is_free(state, bid)
    }
    found: list[set[str]] = []
    for names in sorted(named, key=lambda names: (-len(names), sorted(names))):
        home = next((group for group in found if group & names and len(group | names) <= MARKETS_MAX), None)
        if home is not None:
            home |= names
        elif names:
            found.append(set(names))
    return [sorted(group) for group in found if _choosers(state, sorted(group), at_us)]


def route(state: State, command: RouteBids) -> int:
    """Send the bids that these markets share to where they would win; return how many were sent."""
    books = [state.books[name] for name in command.markets]
    bids = _choosers(state, command.markets, state.now_us)
    wishes = [_wish(state, bid, command.markets) for bid in bids]
    for bid in bids:
        if bid.market in command.markets:
            state.books[bid.market].lift(bid.id)
    joint = Substitutes([book.for_trial() for book in books]).clear(wishes)
    for book, changes in zip(books, joint.changes, strict=True):
        book.stir(changes)
    sent = 0
    for bid, fills in zip(bids, joint.fills, strict=True):
        best = max(sorted(fills), key=fills.__getitem__, default=None)
        if best is not None and command.markets[best] != bid.market:
            _send(state, bid, command.markets[best])
            sent += 1
        leases.sync_bid(state, bid)
    return sent


def _choosers(state: State, markets: Sequence[str], at_us: int) -> list[Bid]:
    """The bids that these markets decide on: all that they could be in at this instant is among them."""
    found = []
    for bid in state.choosers.values():
        if not _is_free(state, bid):
            continue
        due = [one.market for one in bid.alternatives if _is_due(state.markets[one.market], at_us)]
        if set(due) <= set(markets) and due not in ([], [bid.market]):
            found.append(bid)
    return sorted(found, key=lambda bid: (-bid.top_limit, bid.seq))[:ROUTED_BIDS_MAX]


def _is_due(market: Market, at_us: int) -> bool:
    return market.next_tick_at_us <= at_us and market.status is not MarketStatus.HALTED


def _is_free(state: State, bid: Bid) -> bool:
    """Whether it may go elsewhere: it wants something, has nothing, and its hold is whole."""
    return (
        bid.status is BidStatus.OPEN
        and bid.asked_gpus > 0
        and not bid.has_lapsed
        and not state.bid_leases[bid.id]
        and not billing.is_underfunded(state, bid)
    )


def _wish(state: State, bid: Bid, markets: Sequence[str]) -> Wish:
    limits, arrivals = [NONE] * len(markets), [(0, 0, 0)] * len(markets)
    for one in bid.alternatives:
        if one.market in markets:
            k = markets.index(one.market)
            limits[k] = one.limit // state.markets[one.market].price_increment
            arrivals[k] = _arrival(one, bid)
    held = 0 if bid.is_newcomer or bid.market not in markets else bid.reclaimed_gpus
    return Wish(
        gpus=bid.gpus,
        min_gpus=bid.min_gpus,
        limits=tuple(limits),
        arrival=(0, 0, bid.seq),
        held_in=markets.index(bid.market) if held else NONE,
        held=held,
        colocated=bid.asks_colocated,
        arrivals=tuple(arrivals),
    )


def _arrival(alternative: Alternative, bid: Bid) -> tuple[int, int, int]:
    return alternative.arrival_tick, alternative.arrival_hash >> 31, bid.seq


def _send(state: State, bid: Bid, market_id: str) -> None:
    """From here on the bid is in another market, a newcomer there."""
    book = state.books[bid.market]
    if book.has_bid(bid.id):  # a market that does not clear now kept it
        book.lift(bid.id)
        book.is_dirty = True
    book.ranked_once.discard(bid.id)
    bid.reclaimed_gpus, bid.is_newcomer = 0, False
    bid.awaits_outcome, bid.awarded_gpus = True, 0
    state.move_bid(bid, next(one for one in bid.alternatives if one.market == market_id))
