"""The WebSocket: public ticks, and an account's own events without a gap.

A session sends straight to its socket and waits for it; what piles up meanwhile is the subscription's
matter: ticks are conflated, account events are bounded, and who falls behind is closed with 4008 and
resumes with `after_seq`. The writer of the market never waits for a reader (auction/publisher.py).
Invariant: account events leave in order, each once, from `after_seq` on.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from api.admit import address_of
from api.auth import Principal
from api.codec import JSON, MSGPACK, Codec
from api.errors import problem_of
from api.events import event_data
from api.fields import format_instant
from api.markets import curve_view
from api.services import SERVICES, Services
from api.wire_market import tick_view
from api.wire_stream import (
    Ack,
    Auth,
    ClientMessage,
    Error,
    EventMessage,
    Heartbeat,
    Hello,
    Ping,
    Subscribe,
    TickMessage,
    Unsubscribe,
)
from auction.errors import Rejection, Unavailable
from auction.ids import random_id
from auction.model import Event, Tick

MESSAGE_BYTES_MAX = 64 * 1024
CATCH_UP_EVENTS = 200
REVOCATION_CHECK_SECONDS = 1.0
CLOSE_SECONDS_MAX = 2.0

CLOSE_UNAUTHENTICATED = 4001
CLOSE_FORBIDDEN = 4003
CLOSE_SLOW = 4008
CLOSE_PROTOCOL = 4010
CLOSE_TRY_LATER = 1013

ACCOUNT = "account"
MARKETS = "markets"
MARKET_PREFIX = "market:"
ACCOUNT_SCOPES = frozenset({"bids:read", "supply:read"})
_CODECS: dict[str | None, Codec] = {"fallow.v1.json": JSON, "fallow.v1.msgpack": MSGPACK, None: JSON}


class Closing(Exception):
    """The session ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def serve_socket(request: web.Request) -> web.WebSocketResponse:
    """Serve one WebSocket from its first message to its close."""
    services = request.app[SERVICES]
    socket = web.WebSocketResponse(
        protocols=("fallow.v1.json", "fallow.v1.msgpack"),
        max_msg_size=MESSAGE_BYTES_MAX,
        heartbeat=services.config.heartbeat_seconds * 3,
        timeout=CLOSE_SECONDS_MAX,
        compress=False,
    )
    if not socket.can_prepare(request).ok:
        raise Rejection("malformed", "expected a WebSocket upgrade")
    await socket.prepare(request)
    services.sockets.add(socket)
    try:
        address = address_of(request, behind_proxy=services.config.behind_proxy)
        await Session(services, socket, address).run()
    finally:
        services.sockets.discard(socket)
    return socket


class Session:
    """One connection: who it speaks for, what it listens to, and how far it has been told."""

    def __init__(self, services: Services, socket: web.WebSocketResponse, address: str) -> None:
        self._services = services
        self._address = address
        self._socket = socket
        self._codec = _CODECS[socket.ws_protocol]
        self._subscription = services.listen(None)
        self._key: str | None = None
        self._principal: Principal | None = None
        self._account_seq: int | None = None  # the last one sent; None: not subscribed
        # Catching up and telling live events must not interleave.
        self._account_lock = asyncio.Lock()
        self._ticks: dict[str, int] = {}

    async def run(self) -> None:
        """Serve until one side ends it."""
        config = self._services.config
        await self._send(Hello(random_id("ws"), format_instant(self._now_us()), config.heartbeat_seconds))
        parts = [
            asyncio.create_task(part())
            for part in (self._read_messages, self._tell, self._beat, self._watch_key)
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        except Closing as closing:
            await self._socket.close(code=closing.code, message=closing.reason.encode()[:120])
        except Unavailable as outage:
            await self._socket.close(code=CLOSE_TRY_LATER, message=outage.code.encode())
        except ConnectionError:
            pass  # the client has gone
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self._services.engine.publisher.unsubscribe(self._subscription)

    # -- from the client ---------------------------------------------------------------------------

    async def _read_messages(self) -> None:
        async for message in self._socket:
            await self._handle(self._decode(message))

    def _decode(self, message: WSMessage) -> ClientMessage | Error:
        is_expected = message.type is (WSMsgType.TEXT if self._codec is JSON else WSMsgType.BINARY)
        if not is_expected:
            raise Closing(CLOSE_PROTOCOL, "text frames carry JSON, binary frames msgpack")
        raw = message.data.encode() if isinstance(message.data, str) else message.data
        try:
            return self._codec.decode(raw, ClientMessage)  # type: ignore[arg-type]
        except msgspec.ValidationError as error:
            problem = problem_of(error, "")
            return Error(None, problem.code, problem.detail)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Closing(CLOSE_PROTOCOL, "not a well-formed message") from None

    async def _handle(self, message: ClientMessage | Error) -> None:
        match message:
            case Auth():
                await self._authenticate(message)
            case Subscribe():
                await self._subscribe(message)
            case Unsubscribe():
                await self._unsubscribe(message)
            case Ping():
                await self._send(Ack(message.id, [], None))
            case Error():
                await self._send(message)

    async def _authenticate(self, message: Auth) -> None:
        try:
            principal = await self._services.authenticator.check(message.key, self._address)
        except Rejection:
            raise Closing(CLOSE_UNAUTHENTICATED, "unauthenticated") from None
        if self._account_seq is not None and principal.account != self._subscription.account:
            raise Closing(CLOSE_PROTOCOL, "one session speaks for one account")
        self._principal, self._key = principal, message.key
        await self._send(Ack(message.id, [], None))

    async def _subscribe(self, message: Subscribe) -> None:
        refused = [channel for channel in message.channels if not self._is_channel(channel)]
        if refused:
            await self._send(Error(message.id, "not_found", f"no channel {refused[0]!r}"))
            return
        if ACCOUNT in message.channels:
            await self._open_account(message)
        for channel in message.channels:
            if channel == MARKETS:
                self._subscription.all_markets = True
            elif channel != ACCOUNT:
                self._subscription.markets.add(channel.removeprefix(MARKET_PREFIX))
        if ACCOUNT not in message.channels:
            await self._send(Ack(message.id, message.channels, None))
        for market in self._markets_of(message.channels):
            tick = await self._services.reader.tick(market, None)
            if tick is not None:
                await self._send_tick(tick)

    async def _open_account(self, message: Subscribe) -> None:
        """Acknowledge, tell what is stored behind `after_seq`, then go on live."""
        if self._principal is None:
            raise Closing(CLOSE_UNAUTHENTICATED, "the account channel needs auth first")
        if not self._principal.scopes & ACCOUNT_SCOPES:
            raise Closing(CLOSE_FORBIDDEN, "the account channel needs bids:read or supply:read")
        account, reader = self._principal.account, self._services.reader
        async with self._account_lock:
            stored = await reader.account(account)
            head = stored.event_seq if stored is not None else 0
            seq = head if message.after_seq is None else message.after_seq
            if seq > head:
                await self._send(Error(message.id, "invalid_value", f"after_seq is beyond {head}"))
                return
            await self._send(Ack(message.id, message.channels, seq))
            self._account_seq = seq
            while await self._tell_stored(account):
                pass
            self._services.engine.publisher.follow(self._subscription, account)
            # What was committed before listening began is in the store, what came after is told live.
            while await self._tell_stored(account):
                pass

    async def _tell_stored(self, account: str) -> bool:
        """Tell one page of stored events; return whether there may be more."""
        assert self._account_seq is not None
        events = await self._services.reader.events_after(account, self._account_seq, CATCH_UP_EVENTS)
        for event in events:
            await self._send_event(event)
        return len(events) == CATCH_UP_EVENTS

    async def _unsubscribe(self, message: Unsubscribe) -> None:
        for channel in message.channels:
            if channel == ACCOUNT:
                self._services.engine.publisher.follow(self._subscription, None)
                self._account_seq = None
            elif channel == MARKETS:
                self._subscription.all_markets = False
            else:
                self._subscription.markets.discard(channel.removeprefix(MARKET_PREFIX))
        await self._send(Ack(message.id, message.channels, None))

    def _is_channel(self, channel: str) -> bool:
        if channel in (ACCOUNT, MARKETS):
            return True
        market = channel.removeprefix(MARKET_PREFIX)
        return channel.startswith(MARKET_PREFIX) and market in self._services.engine.core.markets

    def _markets_of(self, channels: list[str]) -> list[str]:
        if MARKETS in channels:
            return sorted(self._services.engine.core.markets)
        named = {channel.removeprefix(MARKET_PREFIX) for channel in channels if channel != ACCOUNT}
        return sorted(named)

    # -- to the client -----------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            events, ticks = await self._subscription.next()
            if self._subscription.overflowed:
                raise Closing(CLOSE_SLOW, "too slow: resume with after_seq")
            async with self._account_lock:
                for event in events:
                    await self._tell_live(event)
            for tick in ticks:
                await self._send_tick(tick)

    async def _tell_live(self, event: Event) -> None:
        """Tell the next event of the account; what is missing before it comes from the store."""
        if self._account_seq is None or event.account is None:
            return  # unsubscribed in the meantime
        if event.account_seq > self._account_seq + 1:
            while await self._tell_stored(event.account):
                pass
        if event.account_seq == self._account_seq + 1:
            await self._send_event(event)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._services.config.heartbeat_seconds)
            seqs = {f"{MARKET_PREFIX}{market}": tick for market, tick in sorted(self._ticks.items())}
            if self._account_seq is not None:
                seqs[ACCOUNT] = self._account_seq
            await self._send(Heartbeat(format_instant(self._now_us()), seqs))

    async def _watch_key(self) -> None:
        """End the session soon after its key was revoked or expired."""
        while True:
            await asyncio.sleep(REVOCATION_CHECK_SECONDS)
            if self._key is None:
                continue
            with suppress(Unavailable):
                try:
                    await self._services.authenticator.check(self._key, self._address)
                except Rejection:
                    raise Closing(CLOSE_UNAUTHENTICATED, "the key is no longer valid") from None

    async def _send_event(self, event: Event) -> None:
        data = event_data(event, self._services.engine.core)
        await self._send(
            EventMessage(
                type=event.kind.partition(".")[0],
                channel=ACCOUNT,
                seq=event.account_seq,
                event=event.kind,
                at=format_instant(event.at_us),
                market=event.market,
                tick=event.tick,
                data=data,
            )
        )
        self._account_seq = event.account_seq

    async def _send_tick(self, tick: Tick) -> None:
        if tick.tick <= self._ticks.get(tick.market, 0):
            return
        self._ticks[tick.market] = tick.tick
        await self._send_payload(self._tick_payload(tick))

    def _tick_payload(self, tick: Tick) -> bytes:
        cache, name = self._services.tick_messages, (tick.market, self._codec.content_type)
        known = cache.get(name)
        if known is not None and known[0] == tick.tick:
            return known[1]
        curve = curve_view(self._services.engine.core, tick.market)
        channel = f"{MARKET_PREFIX}{tick.market}"
        payload = self._codec.encode(TickMessage(channel, tick.tick, tick_view(tick), curve))
        cache[name] = (tick.tick, payload)
        return payload

    async def _send(self, message: Any) -> None:
        await self._send_payload(self._codec.encode(message))

    async def _send_payload(self, payload: bytes) -> None:
        try:
            async with asyncio.timeout(self._services.config.send_seconds_max):
                if self._codec is JSON:
                    await self._socket.send_str(payload.decode())
                else:
                    await self._socket.send_bytes(payload)
        except TimeoutError:
            raise Closing(CLOSE_SLOW, "too slow: resume with after_seq") from None

    def _now_us(self) -> int:
        return self._services.engine.clock.now_us()
