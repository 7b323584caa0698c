"""Events as told: one shape for the bid's history, the sockets and, later, the feed and the webhooks.

The stored body is the struct named by the first word of the kind, as it was then; only what the wire
shows of it leaves. Market prices beside it are those of now.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from api.fields import format_instant
from api.wire import bid_view, lease_view, notice_view
from api.wire_limits import limits_view, warning_view
from api.wire_market import market_view, tick_view
from api.wire_money import balance_view, payout_view
from api.wire_supply import node_view, offer_view
from auction.core import Core
from auction.limits import LimitWarning
from auction.model import Bid, Event, Lease, Limits, Market, Node, Notice, Offer, Payout, Tick
from auction.state import Balance
from sql.limit_reads import LimitUse


class EventView(Struct, frozen=True):
    """`seq` is gapless per account; `data` is the object as it was when this happened."""

    type: str
    seq: int
    at: str
    market: str | None
    tick: int | None
    data: dict[str, Any]


def _decoder(struct: type[Struct]) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(struct).decode


_SHOWN: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Core], Struct]]] = {
    "bid": (_decoder(Bid), lambda bid, core: bid_view(bid, core.markets[bid.market], [])),
    "lease": (_decoder(Lease), lambda lease, core: lease_view(lease, core.markets[lease.market])),
    "notice": (_decoder(Notice), lambda notice, core: notice_view(notice)),
    "offer": (_decoder(Offer), lambda offer, core: offer_view(offer)),
    "node": (_decoder(Node), lambda node, core: node_view(node)),
    "payout": (_decoder(Payout), lambda payout, core: payout_view(payout)),
    "limit": (_decoder(LimitWarning), lambda warning, core: warning_view(warning)),
    "key": (_decoder(Limits), lambda limits, core: limits_view(limits, LimitUse(), core.now_us)),
    "balance": (_decoder(Balance), lambda balance, core: balance_view(balance, 0)),
    "market": (_decoder(Market), lambda market, core: market_view(market)),
    "tick": (_decoder(Tick), lambda tick, core: tick_view(tick)),
}


def event_data(event: Event, core: Core) -> Struct:
    """Show what an event is about."""
    decode, view = _SHOWN[event.kind.partition(".")[0]]
    return view(decode(event.body), core)


def event_view(event: Event, core: Core) -> EventView:
    """Show an event with everything around it."""
    data: dict[str, Any] = msgspec.to_builtins(event_data(event, core))
    return EventView(
        event.kind, event.account_seq, format_instant(event.at_us), event.market, event.tick, data
    )
