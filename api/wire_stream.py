"""The messages of the WebSocket, both ways. See wire.py for the rules that all wire modules follow."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.fields import EventSeq
from api.wire_market import CurveView, TickView

CHANNELS_PER_MESSAGE_MAX = 256

ClientId = int | str | None
Channels = Annotated[
    list[Annotated[str, Meta(max_length=80)]], Meta(min_length=1, max_length=CHANNELS_PER_MESSAGE_MAX)
]


class Auth(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="auth"):
    key: Annotated[str, Meta(max_length=256)]
    id: ClientId = None


class Subscribe(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="subscribe"):
    """`after_seq` resumes the account channel behind that event; left out, it begins with the next one."""

    channels: Channels
    after_seq: EventSeq | None = None
    id: ClientId = None


class Unsubscribe(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="unsubscribe"):
    channels: Channels
    id: ClientId = None


class Ping(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="ping"):
    id: ClientId = None


ClientMessage = Auth | Subscribe | Unsubscribe | Ping


class Hello(Struct, frozen=True, tag_field="type", tag="hello"):
    session: str
    time: str
    heartbeat_seconds: float


class Ack(Struct, frozen=True, tag_field="type", tag="ack"):
    id: ClientId
    channels: list[str]
    seq: int | None


class Error(Struct, frozen=True, tag_field="type", tag="error"):
    id: ClientId
    code: str
    detail: str


class Heartbeat(Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """The last sequence number sent on each channel: a market's is its tick."""

    time: str
    seqs: dict[str, int]


class TickMessage(Struct, frozen=True, tag_field="type", tag="tick"):
    channel: str
    seq: int
    tick: TickView
    curve: CurveView


class EventMessage(Struct, frozen=True):
    """An event of the account: `type` is the first word of `event` and names what `data` is."""

    type: str
    channel: str
    seq: int
    event: str
    at: str
    market: str | None
    tick: int | None
    data: Any
