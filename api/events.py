"""Events as told: one shape for the bid's history, the sockets and, later, the feed and the webhooks.

The stored body is the struct named by the first word of the kind, as it was then; only what the wire
shows of it leaves. Market prices beside it are those of now.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from api.fields import format_instant
from api.wire import BidView, LeaseView, NoticeView, bid_view, lease_view, notice_view
from api.wire_limits import LimitsView, LimitWarningView, limits_view, warning_view
from api.wire_market import MarketView, TickView, market_view, tick_view
from api.wire_money import BalanceView, PayoutView, balance_view, payout_view
from api.wire_supply import NodeView, OfferView, node_view, offer_view
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


_SHOWN: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Core], Struct], type[Struct]]] = {
    "bid": (_decoder(Bid), lambda bid, core: bid_view(bid, core.markets[bid.market], []), BidView),
    "lease": (
        _decoder(Lease),
        lambda lease, core: lease_view(lease, core.markets[lease.market]),
        LeaseView,
    ),
    "notice": (_decoder(Notice), lambda notice, core: notice_view(notice), NoticeView),
    "offer": (_decoder(Offer), lambda offer, core: offer_view(offer), OfferView),
    "node": (_decoder(Node), lambda node, core: node_view(node), NodeView),
    "payout": (_decoder(Payout), lambda payout, core: payout_view(payout), PayoutView),
    "limit": (_decoder(LimitWarning), lambda warning, core: warning_view(warning), LimitWarningView),
    "key": (
        _decoder(Limits),
        lambda limits, core: limits_view(limits, LimitUse(), core.now_us),
        LimitsView,
    ),
    "balance": (_decoder(Balance), lambda balance, core: balance_view(balance, 0), BalanceView),
    "market": (_decoder(Market), lambda market, core: market_view(market), MarketView),
    "tick": (_decoder(Tick), lambda tick, core: tick_view(tick), TickView),
}
EVENT_VIEWS = {
    word: view for word, (_, _, view) in _SHOWN.items()
}  # what `data` is, by an event's first word


def event_data(event: Event, core: Core) -> Struct:
    """Show what an event is about."""
    decode, view, _ = _SHOWN[event.kind.partition(".")[0]]
    return view(decode(event.body), core)


def event_view(event: Event, core: Core) -> EventView:
    """Show an event with everything around it."""
    data: dict[str, Any] = msgspec.to_builtins(event_data(event, core))
    return EventView(
        event.kind, event.account_seq, format_instant(event.at_us), event.market, event.tick, data
    )
