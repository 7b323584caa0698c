"""Order entry over the WebSocket: the HTTP bodies, each with `type`, and an `id` that its answer carries.

Nothing is restated here: a field that HTTP gains, the socket gains. What HTTP has in the path or the
query is a field of its own name. See wire.py for the rules that all wire modules follow.
"""

from msgspec import Struct

from api.fields import IdField
from api.wire import (
    AckNoticeBody,
    AmendBidBody,
    BatchBody,
    BatchView,
    BidView,
    CancelAfterBody,
    CancelAfterView,
    NoticeView,
    PlaceBidBody,
)
from api.wire_stream import Auth, ClientId, Ping, Subscribe, Unsubscribe


class BidPlace(
    PlaceBidBody, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="bid.place"
):
    id: ClientId = None


class BidAmend(
    AmendBidBody, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="bid.amend"
):
    bid: IdField
    version: int | None = None  # as If-Match
    id: ClientId = None


class BidCancel(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="bid.cancel"):
    bid: IdField
    release: bool = True
    version: int | None = None
    id: ClientId = None


class BidCancelAll(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="bid.cancel_all"):
    market: IdField
    release: bool = True
    id: ClientId = None


class BidBatch(
    BatchBody, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="bid.batch"
):
    id: ClientId = None


class CancelAfterMessage(
    CancelAfterBody,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="cancel_after",
):
    id: ClientId = None


class NoticeAck(
    AckNoticeBody, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="notice.ack"
):
    notice: IdField
    id: ClientId = None


OrderMessage = BidPlace | BidAmend | BidCancel | BidCancelAll | BidBatch | CancelAfterMessage | NoticeAck
ClientMessage = Auth | Subscribe | Unsubscribe | Ping | OrderMessage


class OrderAck(Struct, frozen=True, tag_field="type", tag="ack"):
    """The command is decided and durable; `status` and `result` are what HTTP would answer."""

    id: ClientId
    status: int
    result: BidView | BatchView | CancelAfterView | NoticeView
