"""Supply and demand of a market: cumulative GPUs by price, anonymous, the best levels only."""

from auction.model import Curve, Market
from auction.state import State
from auction.units import Price

CURVE_LEVELS_MAX = 50


def curve_of(state: State, market: Market) -> Curve:
    """Return the market's curve as its book stands: at most CURVE_LEVELS_MAX prices a side."""
    book = state.books[market.id]
    demand = book.demand_by_limit()
    supply: dict[Price, int] = {}
    for offer in state.market_offers[market.id].values():
        if book.has_offer(offer.id):
            supply[offer.gross_reserve] = supply.get(offer.gross_reserve, 0) + book.offered_gpus(offer.id)
    return Curve(
        market.id,
        market.tick,
        _cumulate(demand, sorted(demand, reverse=True)[:CURVE_LEVELS_MAX]),
        _cumulate(supply, sorted(supply)[:CURVE_LEVELS_MAX]),
    )


def _cumulate(amounts: dict[Price, int], prices: list[Price]) -> list[tuple[Price, int]]:
    total = 0
    steps = []
    for price in prices:
        total += amounts[price]
        steps.append((price, total))
    return steps
