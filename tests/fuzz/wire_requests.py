"""Requests for one sender, whole and broken: what /openapi.json describes, and bytes that it does not.

Remembers the ids that replies have shown, with whose they are, so that a request may name an object of its
own, of somebody else or of nobody. What is sent is for the caller to send.
"""

import json
import random
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgpack

from tests.fuzz.wire_values import Values

IDS_MAX = 200
_ID = re.compile(rb'"(?:id|bid|lease|node|offer|notice|target)":"([a-z]+)_([a-z0-9]{12,40})"')
# By an id's first word; what one account alone may name with success.
PRIVATE_KINDS = frozenset({"bid", "target", "node", "offer", "key", "wh", "notice", "session", "sess"})
FIELD_KINDS = {"webhook": "wh"}
GET = b"GET /v1/bids HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/bids HTTP/1.1\r\nHost: x\r\n"
# Streams would wait, which is no fuzzing.
LEFT_OUT = frozenset({"/v1/stream"})


@dataclass
class Sender:
    """Who asks: a name, a key (None: the public), a canary and the ids that its replies have shown."""

    name: str
    role: str
    key: str | None
    canary: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    ever: set[str] = field(default_factory=set)  # also those that `ids` has forgotten since
    spared: set[str] = field(default_factory=set)  # its own key's id: without it nothing more could be asked

    def learn(self, body: bytes) -> None:
        for kind, rest in _ID.findall(body):
            found = f"{kind.decode()}_{rest.decode()}"
            self.ever.add(found)
            known = self.ids.setdefault(kind.decode(), [])
            if found in self.spared or found in known:
                continue
            known.append(found)
            if len(known) > IDS_MAX:
                known.pop(0)


@dataclass(frozen=True)
class Request:
    sender: Sender
    method: str
    path: str
    data: bytes
    foreign: str | None  # an id in the path that belongs to somebody else alone


class Requests:
    """Makes requests of all routes for a set of senders."""

    def __init__(self, dice: random.Random, document: dict[str, Any], market: str) -> None:
        self._dice = dice
        self._market = market
        self._components = document["components"]["schemas"]
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if path not in LEFT_OUT
        ]
        self._senders: list[Sender] = []

    def add(self, sender: Sender) -> None:
        self._senders.append(sender)

    def structured(self) -> Request:
        """Return a request to one of the routes, by anybody."""
        dice = self._dice
        sender = dice.choice(self._senders)
        method, template, operation = dice.choice(self._operations)
        values = Values(dice, self._components, sender.canary, lambda name: self._known(sender, name))
        foreign: list[str] = []
        path = re.sub(r"\{([a-z_]+)\}", lambda part: self._part(sender, part[1], foreign), template)
        path += self._query(operation, values)
        headers = self._headers(sender)
        body = b""
        if method != "GET":
            body, content_type = self._body(operation, values)
            headers += f"Content-Type: {content_type}\r\n"
        data = f"{method} {path} HTTP/1.1\r\nHost: fuzz\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return Request(
            sender, method, path, data.encode("utf-8", "replace") + body, next(iter(foreign), None)
        )

    def raw(self) -> bytes:
        """Return bytes that a server must survive: hardly HTTP, or HTTP meant to be read two ways."""
        dice = self._dice
        junk = dice.randbytes(dice.randrange(1, 200))
        whole = self.structured().data
        at = dice.randrange(len(whole))
        choices = (
            junk,
            whole[:at],
            whole[:at] + junk + whole[at:],
            whole[:at] + bytes([dice.randrange(256)]) + whole[at + 1 :],
            b"GET /" + quote(junk).encode()[:2_000] + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/bids HTTP/1.1\r\nHost: x\r\nX: "
            + b"a" * dice.choice((100, 9_000, 70_000))
            + b"\r\n\r\n",
            b"GET /v1/bids HTTP/1.1\r\n" + b"X: y\r\n" * dice.choice((10, 300)) + b"\r\n",
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + junk,
            POST + b"Content-Length: -1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + junk,
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        return dice.choice(choices)

    def message(self, sender: Sender, kinds: list[str]) -> str | bytes:
        """Return one message for a socket."""
        dice = self._dice
        values = Values(dice, self._components, sender.canary, lambda name: self._known(sender, name))
        if dice.random() < 0.1:
            return dice.choice((dice.randbytes(40), "{", '{"type":', "[" * 5_000, '"' + "\\ud800" + '"'))
        kind = dice.choice(kinds)
        body: dict[str, Any] = {"type": kind, "id": dice.randrange(10_000)}
        schema = {
            "bid.place": "PlaceBidBody", "bid.amend": "AmendBidBody", "bid.batch": "BatchBody",
            "notice.ack": "AckNoticeBody",
        }.get(kind)  # fmt: skip
        made = {} if schema is None else values.of({"$ref": f"/{schema}"})
        if isinstance(made, dict):
            body = made | body
        if kind in ("bid.amend", "bid.cancel"):
            body["bid"] = self._part(sender, "bid", [])
        if kind in ("subscribe", "unsubscribe"):
            body["channels"] = dice.choice(([f"market:{self._market}"], ["account"], [values.text()], [1]))
        if dice.random() < 0.05:
            body[values.text()] = values.strange()
        return json.dumps(body)

    def _known(self, sender: Sender, name: str) -> str | None:
        if name == "market":
            return self._market
        mine = sender.ids.get(FIELD_KINDS.get(name, name))
        return self._dice.choice(mine) if mine else None

    def _part(self, sender: Sender, name: str, foreign: list[str]) -> str:
        """Return a path's part: an id of its own, of somebody else, or nonsense."""
        dice = self._dice
        if name == "market" and dice.random() < 0.9:
            return self._market
        if name in ("tick", "line", "statement"):
            return dice.choice(("1", "5", "2026-11", "0", "-1", "99999999999999999999", "x"))
        if name == "client_bid_id":
            return f"{dice.choice(self._senders).canary}-{dice.randrange(1_000)}"
        chance = dice.random()
        kind = FIELD_KINDS.get(name, name)
        if chance < 0.1:
            return quote(dice.choice(("..", "%", "\x00", "'", "a" * 300, "é", f"{name}_none")), safe="")
        owner = sender if chance < 0.6 else dice.choice(self._senders)
        known = owner.ids.get(kind)
        if not known:
            return f"{name}_none"
        found = dice.choice(known)
        if owner is not sender and found not in sender.ever and kind in PRIVATE_KINDS:
            foreign.append(found)
        return found

    def _query(self, operation: dict[str, Any], values: Values) -> str:
        dice = self._dice
        pairs = []
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query" or not (parameter.get("required") or dice.random() < 0.3):
                continue
            name = parameter["name"]
            value = values.of(parameter["schema"], name)
            if name == "wait_seconds":
                value = dice.choice((0, -1, "x", 10**9))
            text = json.dumps(value) if isinstance(value, bool | list | dict) else str(value)
            pairs.append(f"{name}={quote(text.encode('utf-8', 'replace')[:300])}")
        if dice.random() < 0.02:
            pairs.append(dice.choice(("x=1", "limit=1&limit=2", "%", "=", "cursor=" + "A" * 200)))
        return "?" + "&".join(pairs) if pairs else ""

    def _headers(self, sender: Sender) -> str:
        dice = self._dice
        headers = ""
        if sender.key is not None:
            headers += f"Authorization: Bearer {sender.key}\r\n"
        if dice.random() < 0.1:
            headers += f"Idempotency-Key: {sender.canary}-{dice.randrange(50)}\r\n"
        if dice.random() < 0.1:
            version = dice.choice(("*", '"1"', '"2"', "x", '"' + "9" * 30 + '"'))
            headers += f"If-Match: {version}\r\n"
        if dice.random() < 0.05:
            accept = ("application/json", "application/msgpack", "text/csv", "x/y", "*/*;q=0", "text/html")
            headers += f"Accept: {dice.choice(accept)}\r\n"
        if dice.random() < 0.02:
            headers += dice.choice(
                ("Content-Encoding: gzip\r\n", "Cookie: fallow_session=x\r\n", "Expect: 100-continue\r\n")
            )
        return headers

    def _body(self, operation: dict[str, Any], values: Values) -> tuple[bytes, str]:
        dice = self._dice
        described = operation.get("requestBody")
        if described is None:
            return (b"", "application/json") if dice.random() < 0.8 else (b"{}", "application/json")
        value = values.of(described["content"]["application/json"]["schema"])
        chance = dice.random()
        if chance < 0.1:
            try:
                return msgpack.packb(value), "application/msgpack"
            except (OverflowError, UnicodeEncodeError, ValueError):
                chance = 1.0
        text = json.dumps(value)
        if chance < 0.13:
            text = dice.choice(
                (text[:-1], text + "}", "", "null", text.replace(":", ":" * 2, 1), '{"a":1,"a":2}')
            )
        if chance < 0.14:
            return text.encode() + dice.randbytes(3), "application/json"
        kind = dice.choice(("text/plain", "application/x-www-form-urlencoded", "x")) if chance > 0.985 else ""
        return text.encode("utf-8", "replace"), kind or "application/json"
