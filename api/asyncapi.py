"""/asyncapi.json, made from the very structs that the socket reads and writes. AsyncAPI 3.0.

Decides nothing: a message that the socket gains is described when it is in one of the two lists below.
"""

import typing
from typing import Any

import msgspec
from msgspec import Struct

from api.events import EVENT_VIEWS
from api.fields import schema_of_field
from api.stream_writer import (
    CLOSE_FORBIDDEN,
    CLOSE_PROTOCOL,
    CLOSE_SLOW,
    CLOSE_TOO_BIG,
    CLOSE_TRY_LATER,
    CLOSE_UNAUTHENTICATED,
)
from api.wire_orders import ClientMessage, OrderAck
from api.wire_stream import Ack, Error, EventMessage, Gap, Goodbye, Heartbeat, Hello, TickMessage

_REF = "#/components/schemas/{name}"
FROM_CLIENT: tuple[type[Struct], ...] = typing.get_args(ClientMessage)
FROM_SERVER: tuple[type[Struct], ...] = (Hello, Ack, Error, Heartbeat, TickMessage, Gap, Goodbye)
ORDER_ACK = "order.ack"
_RESULTS: tuple[type[Struct], ...] = typing.get_args(typing.get_type_hints(OrderAck)["result"])
# Events that no account has: they come as a market's tick.
_EVENT_WORDS = sorted(EVENT_VIEWS.keys() - {"tick"})

CLOSE_CODES = {
    int(CLOSE_TOO_BIG): "a message above its limit",
    1012: "the market restarts: connect again, resume with `after_seq`",
    int(CLOSE_TRY_LATER): "the market has no database now: connect again",
    CLOSE_UNAUTHENTICATED: "no valid key",
    CLOSE_FORBIDDEN: "the key lacks the scope",
    CLOSE_SLOW: "the reader is too slow (256 messages or 1 MiB behind): resume with `after_seq`",
    CLOSE_PROTOCOL: "not a message of this protocol",
}

_SUMMARIES = {
    "subscribe": "Follow `market:<id>`, `markets` or `account`; `after_seq` resumes the account channel.",
    "unsubscribe": "Follow these channels no more.",
    "ping": "Ask for an ack.",
    "bid.place": "Place a bid: POST /v1/bids with an id.",
    "bid.amend": "Change a bid: PATCH /v1/bids/{bid}.",
    "bid.cancel": "Cancel a bid: DELETE /v1/bids/{bid}.",
    "bid.cancel_all": "Cancel the account's bids of one market.",
    "bid.batch": "Up to 1,000 operations, decided in order: POST /v1/bids/batch.",
    "cancel_after": "Dead man's switch: POST /v1/bids/cancel-after.",
    "notice.ack": "Acknowledge a notice; `ready` ends the lease and the bill.",
    "auth": "Say who you are. Everything but public channels needs it.",
    "hello": "The first message of a session.",
    "ack": "Done.",
    "order.ack": "The command is decided and durable; `status` and `result` are what HTTP would answer.",
    "error": "Refused: the problem that HTTP would answer. The session goes on.",
    "heartbeat": "Every ten seconds: the last sequence number sent on each channel.",
    "gap": "Ticks of a market that were not sent: the reader was too slow for them, or away.",
    "goodbye": "The last message before the server closes: the close code, why, and where to resume.",
    "tick": "A market has cleared; with the whole curve, so there is nothing to repair.",
}


def document(version: str) -> dict[str, Any]:
    """Return the AsyncAPI document of the socket."""
    views = [EVENT_VIEWS[word] for word in _EVENT_WORDS]
    types: list[Any] = [*FROM_CLIENT, *FROM_SERVER, EventMessage, *views, *_RESULTS]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=schema_of_field, ref_template=_REF
    )
    references = dict(zip(types, schemas, strict=True))
    messages = {_name(kind): _message(_name(kind), references[kind]) for kind in (*FROM_CLIENT, *FROM_SERVER)}
    components["OrderAck"] = _order_ack(components["Ack"], [references[view] for view in _RESULTS])
    messages[ORDER_ACK] = _message(ORDER_ACK, {"$ref": _REF.format(name="OrderAck")})
    for word in _EVENT_WORDS:
        messages[word] = _event(word, references[EventMessage], references[EVENT_VIEWS[word]])
    sent = {_name(kind) for kind in FROM_CLIENT}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fallow: the socket",
            "version": version,
            "description": "Market ticks, an account's own events and order entry over one WebSocket. "
            "The account channel is lossless: its `seq` has no gaps, and `after_seq` resumes it.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "market": {
                "host": "{host}",
                "protocol": "wss",
                "description": "ws on a machine's own loopback.",
                "variables": {"host": {"default": "127.0.0.1:8080"}},
                "security": [{"$ref": "#/components/securitySchemes/key"}],
            }
        },
        "channels": {
            "session": {
                "address": "/v1/ws",
                "description": "Sub-protocols: fallow.v1.json (text frames), fallow.v1.msgpack (binary).",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "x-channels": {
                    "market:<id>": "ticks of one market; conflated",
                    "markets": "ticks of every market; conflated",
                    "account": "the account's own events; gapless",
                },
                "x-close-codes": {str(code): why for code, why in sorted(CLOSE_CODES.items())},
            }
        },
        "operations": {
            name: {
                "action": "receive" if name in sent else "send",
                "summary": message["summary"],
                "channel": {"$ref": "#/channels/session"},
                "messages": [{"$ref": f"#/channels/session/messages/{name}"}],
            }
            for name, message in messages.items()
        },
        "components": {
            "messages": messages,
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "in the message `auth`, which also takes a signature or a ticket",
                }
            },
        },
    }


def _name(kind: type[Struct]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str), kind
    return tag


def _message(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "title": name, "summary": _SUMMARIES[name], "payload": schema}


def _order_ack(ack: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    """Describe the ack of an order; its result has no tag, so msgspec describes no union of them."""
    own = {"status": {"type": "integer"}, "result": {"anyOf": results}}
    shared = {name: ack["properties"][name] for name in ("type", "id")}
    return {
        "title": "OrderAck",
        "type": "object",
        "properties": shared | own,
        "required": ["type", *OrderAck.__struct_fields__],
    }


def _event(word: str, frame: dict[str, Any], view: dict[str, Any]) -> dict[str, Any]:
    """Describe an event of the account: the frame that all have, with what `data` is."""
    narrowed = {"type": "object", "properties": {"type": {"const": word}, "data": view}}
    return {
        "name": word,
        "title": word,
        "summary": f"Something happened to a {word}: `event` says what, `data` is what it is now.",
        "payload": {"allOf": [frame, narrowed]},
    }
