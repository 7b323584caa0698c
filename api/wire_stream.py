"""The messages of the WebSocket, both ways. See wire.py for the rules that all wire modules follow."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.fields import EventSeq
from api.signing import SIGNATURE_FORM
from api.wire import ErrorItem, ProblemView
from api.wire_market import CurveView, TickView

CHANNELS_PER_MESSAGE_MAX = 256

CLIENT_ID_CHARACTERS_MAX = 128
CLIENT_ID_NUMBER_MAX = (1 << 53) - 1  # every JSON reader keeps it whole

ClientId = (
    Annotated[int, Meta(ge=-CLIENT_ID_NUMBER_MAX, le=CLIENT_ID_NUMBER_MAX)]
    | Annotated[str, Meta(max_length=CLIENT_ID_CHARACTERS_MAX)]
    | None
)
Channels = Annotated[
    list[Annotated[str, Meta(max_length=80)]], Meta(min_length=1, max_length=CHANNELS_PER_MESSAGE_MAX)
]


class Auth(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="auth"):
    """With `cancel_on_disconnect` the live bids that this session placed are cancelled when it ends.

    Their leases run on while they win, unless `release_on_disconnect`. A market that is stopping or without
    its database then cannot cancel them; `cancel_after` works without the session.

    With an ed25519 key, send its `public_id` and a `signature` (base64) in place of `key`: of the three
    lines `fallow-ed25519-socket-v1`, the public id and `hello`'s `session`, joined by line feeds. A browser
    sends a `ticket` alone (`POST /v1/ws-tickets`).
    """

    key: Annotated[str, Meta(max_length=256)] | None = None
    public_id: Annotated[str, Meta(max_length=10)] | None = None
    signature: Annotated[str, Meta(pattern=f"^{SIGNATURE_FORM}$")] | None = None
    ticket: Annotated[str, Meta(max_length=64)] | None = None
    cancel_on_disconnect: bool = False
    release_on_disconnect: bool = False
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


class Named(Struct, frozen=True):
    """Any message: only what it wants to be called."""

    id: ClientId = None


class Hello(Struct, frozen=True, tag_field="type", tag="hello"):
    session: str
    time: str
    heartbeat_seconds: float


class Ack(Struct, frozen=True, tag_field="type", tag="ack"):
    id: ClientId
    channels: list[str]
    seq: int | None


class Error(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """A refusal: the problem that HTTP would answer, with its extras."""

    id: ClientId
    code: str
    detail: str
    status: int
    retryable: bool
    errors: list[ErrorItem] = []
    required: str | None = None
    available: str | None = None
    below: str | None = None
    above: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    current: int | None = None
    scope: str | None = None
    accepted: dict[str, str | int] = {}


class Heartbeat(Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """The last sequence number sent on each channel: a market's is its tick."""

    time: str
    seqs: dict[str, int]


class Gap(Struct, frozen=True, tag_field="type", tag="gap"):
    """The ticks between `after` and `before` were not sent: this reader was too slow for them, or away.

    The newest tick follows; `GET /v1/markets/{m}/ticks` has the ones between. The account channel has none.
    """

    channel: str
    after: int
    before: int


class Goodbye(Struct, frozen=True, tag_field="type", tag="goodbye"):
    """The last message before the server closes, where the client still reads: the close code and why.

    `seqs` is the last number sent on each channel; the account channel resumes behind its own.
    """

    close_code: int
    reason: str
    seqs: dict[str, int]


class TickMessage(Struct, frozen=True, tag_field="type", tag="tick"):
    """`audit_log_hash` is the newest of the audit log: who keeps it can tell a log that was rewritten."""

    channel: str
    seq: int
    tick: TickView
    curve: CurveView
    audit_log_hash: str | None


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


def error_of(problem: ProblemView, client_id: ClientId) -> Error:
    """Show a problem as the answer to the message with this id."""
    known = {name: getattr(problem, name) for name in Error.__struct_fields__ if name != "id"}
    return Error(id=client_id, **known)
