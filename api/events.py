"""Events as told: one shape for the bid's history, the sockets and, later, the feed and the webhooks.

The stored body is the struct named by the first word of the kind, as it was then; only what the wire
shows of it leaves. Market prices beside it are those of now.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from api.fields import format_instant
from api.wire import BidView, LeaseView, NoticeView, bid_view, lease_view, notice_view
from api.wire_limits import LimitsView, LimitWarningView, limits_view, warning_view
from api.wire_market import MarketView, TickView, market_view, tick_view
from api.wire_money import BalanceView, PayoutView, balance_view, payout_view
from api.wire_supply import NodeView, OfferView, node_view, offer_view
from auction.limits import LimitWarning
from auction.model import Bid, Event, Lease, Limits, Market, Node, Notice, Offer, Tick
from auction.money import Payout
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


class Setting(Protocol):
    """What is told beside an event: the markets as they are now, and what time it is."""

    @property
    def markets(self) -> Mapping[str, Market]: ...

    @property
    def now_us(self) -> int: ...


def _decoder(struct: type[Struct]) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(struct).decode


_SHOWN: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Setting], Struct], type[Struct]]] = {
    "bid": (_decoder(Bid), lambda bid, now: bid_view(bid, now.markets[bid.market], []), BidView),
    "lease": (
        _decoder(Lease),
        lambda lease, now: lease_view(lease, now.markets[lease.market]),
        LeaseView,
    ),
    "notice": (_decoder(Notice), lambda notice, _: notice_view(notice), NoticeView),
    "offer": (_decoder(Offer), lambda offer, _: offer_view(offer), OfferView),
    "node": (_decoder(Node), lambda node, _: node_view(node), NodeView),
    "payout": (_decoder(Payout), lambda payout, _: payout_view(payout), PayoutView),
    "limit": (_decoder(LimitWarning), lambda warning, _: warning_view(warning), LimitWarningView),
    "key": (
        _decoder(Limits),
        lambda limits, now: limits_view(limits, LimitUse(), now.now_us),
        LimitsView,
    ),
    "balance": (_decoder(Balance), lambda balance, _: balance_view(balance, 0), BalanceView),
    "market": (_decoder(Market), lambda market, _: market_view(market), MarketView),
    "tick": (_decoder(Tick), lambda tick, _: tick_view(tick), TickView),
}
EVENT_VIEWS = {
    word: view for word, (_, _, view) in _SHOWN.items()
}  # what `data` is, by an event's first word


def event_data(event: Event, setting: Setting) -> Struct:
    """Show what an event is about."""
    decode, view, _ = _SHOWN[event.kind.partition(".")[0]]
    return view(decode(event.body), setting)


def event_view(event: Event, setting: Setting) -> EventView:
    """Show an event with everything around it."""
    data: dict[str, Any] = msgspec.to_builtins(event_data(event, setting))
    return EventView(
        event.kind, event.account_seq, format_instant(event.at_us), event.market, event.tick, data
    )
