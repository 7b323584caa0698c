"""The WebSocket: orders in, public ticks and an account's own events out, without a gap.

A session reads messages in order and tells what its subscription brings; stream_orders.py has the orders
decided, stream_writer.py writes. The writer of the market never waits for a reader (auction/publisher.py):
ticks are conflated, account events that it missed are read from the store, and who does not read is closed
with 4008 and resumes with `after_seq`. Invariant: account events leave in order, each once, from there on.
"""

import asyncio
from base64 import b64decode
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from aiohttp import WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from api.account_feed import AccountFeed
from api.admit import address_of
from api.auth import Principal
from api.browser import refuse_other_origin, token_of
from api.codec import JSON, MSGPACK, Codec
from api.errors import problem_of
from api.events import event_data
from api.fields import format_instant
from api.services import SERVICES, Services
from api.stream_orders import OrderEntry
from api.stream_writer import (
    CLOSE_FORBIDDEN,
    CLOSE_PROTOCOL,
    CLOSE_RESTART,
    CLOSE_SECONDS_MAX,
    CLOSE_SLOW,
    CLOSE_TOO_BIG,
    CLOSE_TRY_LATER,
    CLOSE_UNAUTHENTICATED,
    Closing,
    Writer,
    close_socket,
)
from api.tick_messages import MARKET_PREFIX, tick_message
from api.wire_orders import ClientMessage
from api.wire_stream import (
    Ack,
    Auth,
    ClientId,
    Error,
    EventMessage,
    Gap,
    Goodbye,
    Heartbeat,
    Hello,
    Named,
    Ping,
    Subscribe,
    Unsubscribe,
    error_of,
)
from auction.errors import NotFound, Rejection, Unavailable
from auction.ids import random_id
from auction.model import Event
from sql.scope import acting, tenant

MESSAGE_BYTES_MAX = 64 * 1024  # before authentication; then a batch may be as large as over HTTP
REVOCATION_CHECK_SECONDS = 1.0

ACCOUNT = "account"
MARKETS = "markets"
ACCOUNT_SCOPES = frozenset({"bids:read", "supply:read"})
_CODECS: dict[str | None, Codec] = {"fallow.v1.json": JSON, "fallow.v1.msgpack": MSGPACK, None: JSON}


async def serve_socket(request: web.Request) -> web.WebSocketResponse:
    """Serve one WebSocket from its first message to its close."""
    services = request.app[SERVICES]
    if token_of(request, services.config) is not None:
        refuse_other_origin(request, services.config)
    socket = web.WebSocketResponse(
        protocols=("fallow.v1.json", "fallow.v1.msgpack"),
        max_msg_size=services.config.batch_body_bytes_max,
        heartbeat=services.config.heartbeat_seconds * 3,
        timeout=CLOSE_SECONDS_MAX,
        compress=False,
    )
    if not socket.can_prepare(request).ok:
        raise Rejection("malformed", "expected a WebSocket upgrade")
    line = await socket.prepare(request)
    assert line is not None, "the socket is opened once"
    serving = asyncio.current_task()
    assert serving is not None
    services.sockets[socket] = serving
    try:
        address = address_of(request, behind_proxy=services.config.behind_proxy)
        await Session(services, socket, line, request.transport, address).run()
    finally:
        del services.sockets[socket]
    return socket


class Session:
    """One connection: who it speaks for, what it listens to, and how far it has been told."""

    def __init__(
        self,
        services: Services,
        socket: web.WebSocketResponse,
        line: AbstractStreamWriter,
        transport: asyncio.Transport | None,
        address: str,
    ) -> None:
        self._services = services
        self._address = address
        self._socket = socket
        self._transport = transport
        self._codec = _CODECS[socket.ws_protocol]
        self._id = random_id("ws")
        self._subscription = services.listen(None)
        self._writer = Writer(
            socket,
            line,
            is_text=self._codec is JSON,
            send_seconds_max=services.config.send_seconds_max,
            write_tick=partial(tick_message, services, self._codec),
            write_gap=self._write_gap,
            write_heartbeat=self._write_heartbeat,
        )
        self._orders = OrderEntry(services, self._codec, self._writer, self._id, address)
        self._auth: Auth | None = None
        self._principal: Principal | None = None
        self._feed: AccountFeed | None = None
        # Catching up and telling live events must not interleave.
        self._account_lock = asyncio.Lock()

    async def run(self) -> None:
        """Serve until one side ends it."""
        config = self._services.config
        await self._tell(Hello(self._id, format_instant(self._now_us()), config.heartbeat_seconds))
        writing = asyncio.create_task(self._writer.run())
        others = [
            asyncio.create_task(part())
            for part in (self._read_messages, self._tell_committed, self._beat, self._watch_key, self._leave)
        ]
        try:
            done, _ = await asyncio.wait([writing, *others], return_when=asyncio.FIRST_COMPLETED)
            for part in [writing, *others]:  # in this order: where several end at once the first one says why
                if part in done:
                    part.result()
        except Closing as closing:
            await self._close(others, closing.code, str(closing))
        except Unavailable as outage:
            await self._close(others, CLOSE_TRY_LATER, outage.code)
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._services.engine.publisher.unsubscribe(self._subscription)
            await _end([writing, *others])
            await self._end_orders()

    async def _close(self, others: list[asyncio.Task[None]], code: int, reason: str) -> None:
        """Stop reading and telling; let a client that reads have what it was told before the close."""
        await _end(others)
        await self._end_orders()
        if code != CLOSE_SLOW:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await self._writer.flush()
                    await self._tell(Goodbye(code, reason, self._seqs(self._writer.seqs)))
                    await self._writer.flush()
        await close_socket(self._socket, self._transport, code, reason)

    async def _end_orders(self) -> None:
        auth = self._auth
        await self._orders.end(
            None if self._principal is None else self._principal.account,
            cancels=auth is not None and auth.cancel_on_disconnect,
            releases=auth is not None and auth.release_on_disconnect,
        )

    # -- from the client ---------------------------------------------------------------------------

    async def _read_messages(self) -> None:
        async for message in self._socket:
            await self._handle(self._decode(message))

    def _decode(self, message: WSMessage) -> ClientMessage | Error:
        is_expected = message.type is (WSMsgType.TEXT if self._codec is JSON else WSMsgType.BINARY)
        if not is_expected:
            raise Closing(CLOSE_PROTOCOL, "text frames carry JSON, binary frames msgpack")
        raw = message.data.encode() if isinstance(message.data, str) else message.data
        if self._principal is None and len(raw) > MESSAGE_BYTES_MAX:
            raise Closing(CLOSE_TOO_BIG, f"over {MESSAGE_BYTES_MAX} bytes before auth")
        try:
            return self._codec.decode(raw, ClientMessage)  # type: ignore[arg-type]
        except msgspec.ValidationError as error:
            return error_of(problem_of(error, self._id), self._name_of(raw))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Closing(CLOSE_PROTOCOL, "not a well-formed message") from None

    def _name_of(self, raw: bytes) -> ClientId:
        """Return the id of a message that is otherwise wrong, so that its sender knows which one."""
        try:
            return self._codec.decode(raw, Named).id
        except (msgspec.DecodeError, RecursionError):
            return None

    async def _handle(self, message: ClientMessage | Error) -> None:
        match message:
            case Auth():
                await self._authenticate(message)
            case Subscribe():
                await self._subscribe(message)
            case Unsubscribe():
                await self._unsubscribe(message)
            case Ping():
                await self._tell(Ack(message.id, [], None))
            case Error():
                await self._tell(message)
            case _:
                if self._principal is None:
                    raise Closing(CLOSE_UNAUTHENTICATED, "orders need auth first")
                await self._orders.submit(self._principal, message)

    async def _authenticate(self, message: Auth) -> None:
        try:
            principal = await self._principal_of(message)
        except Rejection as refusal:
            raise Closing(CLOSE_UNAUTHENTICATED, refusal.code) from None
        if self._principal is not None and principal.account != self._principal.account:
            raise Closing(CLOSE_PROTOCOL, "one session speaks for one account")
        self._principal, self._auth = principal, message
        await self._tell(Ack(message.id, [], None))

    async def _principal_of(self, message: Auth) -> Principal:
        authenticator = self._services.authenticator
        match message:
            case Auth(key=None, public_id=None, signature=None, ticket=str(ticket)):
                holder = self._services.tickets.take(ticket, self._now_us())
                return await authenticator.recheck(holder, self._address)
            case Auth(ticket=str()):
                raise Rejection("unauthenticated", "expected a ticket alone")
            case Auth(key=str(key), public_id=None, signature=None):
                return await authenticator.check(key, self._address)
            case Auth(key=None, public_id=str(public_id), signature=str(signature)):
                return await authenticator.check_socket(
                    public_id, b64decode(signature), self._id, self._address
                )
            case _:
                raise Rejection("unauthenticated", "expected a key, a ticket, or a public_id and a signature")

    async def _subscribe(self, message: Subscribe) -> None:
        refused = [channel for channel in message.channels if not self._is_channel(channel)]
        if refused:
            await self._refuse(message.id, NotFound(f"channel {refused[0]!r}"))
            return
        if ACCOUNT in message.channels:
            await self._open_account(message)
        for channel in message.channels:
            if channel == MARKETS:
                self._subscription.all_markets = True
            elif channel != ACCOUNT:
                self._subscription.markets.add(channel.removeprefix(MARKET_PREFIX))
        if ACCOUNT not in message.channels:
            await self._tell(Ack(message.id, message.channels, None))
        for market in self._markets_of(message.channels):
            tick = await self._services.reader.tick(market, None)
            if tick is not None:
                self._writer.tick(tick)

    async def _open_account(self, message: Subscribe) -> None:
        """Acknowledge, tell what is stored behind `after_seq`, then go on live."""
        if self._principal is None:
            raise Closing(CLOSE_UNAUTHENTICATED, "the account channel needs auth first")
        if not self._principal.scopes & ACCOUNT_SCOPES:
            raise Closing(CLOSE_FORBIDDEN, "the account channel needs bids:read or supply:read")
        account, reader = self._principal.account, self._services.reader
        async with self._account_lock:
            with acting(tenant(account)):
                stored = await reader.account(account)
            head = stored.event_seq if stored is not None else 0
            seq = head if message.after_seq is None else message.after_seq
            if seq > head:
                beyond = Rejection("invalid_value", f"after_seq is beyond {head}", pointer="/after_seq")
                await self._refuse(message.id, beyond)
                return
            await self._tell(Ack(message.id, message.channels, seq), ACCOUNT, seq)
            self._feed = feed = AccountFeed(reader, account, seq, self._tell_event)
            await feed.catch_up()
            self._services.engine.publisher.follow(self._subscription, account)
            # What was committed before listening began is in the store, what came after is told live.
            await feed.catch_up()

    async def _unsubscribe(self, message: Unsubscribe) -> None:
        for channel in message.channels:
            if channel == ACCOUNT:
                self._services.engine.publisher.follow(self._subscription, None)
                self._feed = None
            elif channel == MARKETS:
                self._subscription.all_markets = False
            else:
                self._subscription.markets.discard(channel.removeprefix(MARKET_PREFIX))
        await self._tell(Ack(message.id, message.channels, None))

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

    async def _tell_committed(self) -> None:
        while True:
            events, ticks = await self._subscription.next()
            for tick in ticks:
                self._writer.tick(tick)
            if not events and not self._subscription.overflowed:
                continue  # a tick alone goes to every socket at once: each wait counts a thousand times
            async with self._account_lock:
                if self._subscription.overflowed:
                    self._subscription.overflowed = False
                    if self._feed is not None:
                        await self._feed.catch_up()
                for event in events:
                    if self._feed is not None:
                        await self._feed.tell(event)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._services.config.heartbeat_seconds)
            self._writer.beat()

    def _write_heartbeat(self, sent: dict[str, int]) -> bytes:
        return self._codec.encode(Heartbeat(format_instant(self._now_us()), self._seqs(sent)))

    def _write_gap(self, channel: str, after: int, before: int) -> bytes:
        return self._codec.encode(Gap(channel, after, before))

    def _seqs(self, sent: dict[str, int]) -> dict[str, int]:
        seqs = {channel: sent[channel] for channel in sorted(sent)}
        if self._feed is None:
            seqs.pop(ACCOUNT, None)
        return seqs

    async def _leave(self) -> None:
        await self._services.leaving.wait()
        raise Closing(CLOSE_RESTART, "the server restarts")

    async def _watch_key(self) -> None:
        """End the session soon after its key was revoked or expired."""
        while True:
            await asyncio.sleep(REVOCATION_CHECK_SECONDS)
            if self._principal is None:
                continue
            with suppress(Unavailable):
                try:
                    await self._services.authenticator.recheck(self._principal, self._address)
                except Rejection:
                    raise Closing(CLOSE_UNAUTHENTICATED, "the key is no longer valid") from None

    async def _tell_event(self, event: Event) -> None:
        data = event_data(event, self._services.engine.core)
        shown = EventMessage(
            type=event.kind.partition(".")[0],
            channel=ACCOUNT,
            seq=event.account_seq,
            event=event.kind,
            at=format_instant(event.at_us),
            market=event.market,
            tick=event.tick,
            data=data,
        )
        await self._tell(shown, ACCOUNT, event.account_seq)

    async def _refuse(self, client_id: ClientId, refusal: Rejection) -> None:
        await self._tell(error_of(problem_of(refusal, self._id), client_id))

    async def _tell(self, message: Any, channel: str | None = None, seq: int = 0) -> None:
        await self._writer.tell(self._codec.encode(message), channel, seq)

    def _now_us(self) -> int:
        return self._services.engine.clock.now_us()


async def _end(parts: list[asyncio.Task[None]]) -> None:
    for part in parts:
        part.cancel()
    await asyncio.gather(*parts, return_exceptions=True)
