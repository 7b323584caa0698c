"""The socket as an iterator that survives: it connects again and goes on behind the last event it gave."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from fallow.client.errors import AuthError, Problem
from fallow.client.model import Curve, Tick
from fallow.client.transport import Transport, jittered

SILENCE_SECONDS_MAX = 45.0  # the server's heartbeat comes every ten
CLOSE_REFUSED = frozenset({4001, 4003})


class Event(Struct, frozen=True):
    """Something that happened to your account; `seq` is gapless, `data` is the object as it was then."""

    event: str
    seq: int
    at: datetime
    market: str | None
    tick: int | None
    data: dict[str, Any]


class TickWithCurve(Struct, frozen=True, tag_field="type", tag="tick"):
    """A tick with its market's demand and supply right after it."""

    tick: Tick
    curve: Curve


Message = Tick | TickWithCurve | Event

_tick = msgspec.json.Decoder(TickWithCurve)
_event = msgspec.json.Decoder(Event)


class _Kind(Struct, frozen=True):
    type: str
    event: str | None = None
    seq: int | None = None
    session: str = ""
    code: str = ""
    detail: str = ""


_kind = msgspec.json.Decoder(_Kind)


async def follow(
    transport: Transport,
    *,
    markets: Sequence[str],
    account: bool,
    after_seq: int | None,
    curves: bool = False,
) -> AsyncGenerator[Message, None]:
    """Yield messages for ever; raises AuthError where the key is not taken."""
    attempt, seq = 0, after_seq
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.ws_connect(transport.socket_url) as socket:
                    while True:
                        message = await socket.receive(timeout=SILENCE_SECONDS_MAX)
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            _refused(socket.close_code or 0, str(message.extra or ""))
                            break
                        kind = _kind.decode(message.data)
                        if kind.type == "hello":
                            said = transport.proof(kind.session)
                            await _subscribe(socket, said, markets, account=account, after_seq=seq)
                            continue
                        attempt = 0
                        if kind.type == "ack" and kind.seq is not None and account:
                            seq = kind.seq if seq is None else seq
                        elif kind.type == "tick":
                            told = _tick.decode(message.data)
                            yield told if curves else told.tick
                        elif (
                            kind.event is not None
                            and kind.seq is not None
                            and (seq is None or kind.seq > seq)
                        ):
                            seq = kind.seq
                            yield _event.decode(message.data)
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # connect again: nothing is lost
            await asyncio.sleep(jittered(attempt))
            attempt += 1


async def _subscribe(
    socket: aiohttp.ClientWebSocketResponse,
    said: dict[str, str],
    markets: Sequence[str],
    *,
    account: bool,
    after_seq: int | None,
) -> None:
    if account:
        await socket.send_json({"type": "auth"} | said)
        resumed = {} if after_seq is None else {"after_seq": after_seq}
        await socket.send_json({"type": "subscribe", "channels": ["account"]} | resumed)
    if markets:
        await socket.send_json({"type": "subscribe", "channels": [f"market:{name}" for name in markets]})


def _refused(code: int, reason: str) -> None:
    if code in CLOSE_REFUSED:
        status = 401 if code == 4001 else 403
        raise AuthError(Problem("unauthenticated" if code == 4001 else "scope_missing", reason, status))
