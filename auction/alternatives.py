"""What a bid over several markets may name, and what changing one of its limits means (X3). Pure.

Where such a bid goes is decided in routing.py.
"""

from msgspec import structs

from auction.commands import AmendBid, PlaceBid
from auction.errors import Rejection
from auction.model import Alternative, Bid, TimeInForce
from auction.units import Price
from matching.types import MARKETS_MAX


def check(command: PlaceBid) -> None:
    """Refuse too many alternatives, one market twice, and ends that count one market's ticks."""
    named = [choice.market for choice in command.alternatives]
    if len(named) > MARKETS_MAX or len(set(named)) < len(named):
        raise Rejection(
            "alternatives_invalid", f"expected up to {MARKETS_MAX} different markets", pointer="/alternatives"
        )
    if command.time_in_force is TimeInForce.IOC or command.valid_until_tick is not None:
        raise Rejection(
            "alternatives_invalid",
            "every market counts its own ticks: a bid with alternatives ends by expires_at, "
            "not by valid_until_tick and not as ioc",
            pointer="/alternatives",
        )


def amended_limit(bid: Bid, command: AmendBid) -> Price:
    """Return the limit that an amendment is about; a bid with alternatives has one in each market."""
    named = {one.market: one.limit for one in bid.alternatives} or {bid.market: bid.limit}
    if command.market is None:
        if bid.alternatives and command.limit is not None:
            raise Rejection(
                "market_required",
                f"the bid has a limit in each of {', '.join(named)}: say in which market it changes",
                pointer="/market",
            )
        return bid.limit
    if command.market not in named:
        raise Rejection("market_not_found", f"the bid does not name {command.market!r}", pointer="/market")
    return named[command.market]


def amended(bid: Bid, command: AmendBid) -> tuple[Price, list[Alternative]]:
    """Return the limit where the bid is, and its alternatives, as an amendment leaves them."""
    if command.limit is None:
        return bid.limit, bid.alternatives
    named = bid.market if command.market is None else command.market
    changed = [
        structs.replace(one, limit=command.limit) if one.market == named else one for one in bid.alternatives
    ]
    return command.limit if named == bid.market else bid.limit, changed
