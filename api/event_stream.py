"""GET /v1/stream: ticks, and with a key an account's events, as Server-Sent Events for simple readers.

One task writes one line of messages and waits for its reader; what piles up meanwhile is bounded as on
the WebSocket: ticks are conflated, events are read from the store later. Who does not read is cut off;
EventSource connects again with Last-Event-ID. A stream with account events gives ids to these alone, because
a client keeps only the last id; nothing is lost on ticks, of which the newest always comes first.
"""

import asyncio
import re
from contextlib import suppress
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from api.account_feed import AccountFeed
from api.admit import STANDING, address_of, admit
from api.auth import Principal
from api.call import REQUEST_ID
from api.codec import JSON
from api.events import event_view
from api.fields import format_instant
from api.middleware import REQUEST_ID_HEADER
from api.services import SERVICES, Services
from api.tick_messages import tick_message
from auction.errors import Rejection, Unavailable
from auction.model import Event, Tick
from auction.publisher import Subscription
from sql.scope import acting, tenant

MARKETS_MAX = 256
RETRY_MILLISECONDS = 1_000  # when a client cut off may come again
KEY_CHECK_SECONDS = 1.0
READ_SCOPE = "bids:read or supply:read"

_LAST_SEQ = re.compile(r"[0-9]{1,18}", re.ASCII)
_LAST_TICK = re.compile(r"[A-Za-z0-9_.\-]{1,64}:[0-9]{1,18}", re.ASCII)


class StreamQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`markets` are ids between commas; left out, all of them. `account=true` needs a key."""

    markets: Annotated[str, Meta(max_length=65 * MARKETS_MAX)] | None = None
    account: bool = False


async def serve_stream(request: web.Request) -> web.StreamResponse:
    """Serve one stream until a side ends it; refusals come before its first byte."""
    services = request.app[SERVICES]
    query = msgspec.convert(dict(request.query), StreamQuery, strict=False)
    markets = _markets_of(services, query)
    last = request.headers.get("Last-Event-ID")
    account = None
    principal = await admit(request, services, "requests" if query.account else None)
    if principal is not None:
        principal.require(READ_SCOPE)
        account = principal.account
    after = await _position(services, account, last)
    subscription = services.listen(None)
    try:
        stream = EventStream(services, request, subscription, principal, after)
        subscription.markets |= set(markets)
        subscription.all_markets = query.markets is None
        await stream.open()
        # The server's end, a key that was revoked and a reader that has gone or is too slow all end it.
        with suppress(TimeoutError, ConnectionError, Rejection, Unavailable):
            async with services.patience(None):
                await stream.run(markets)
    finally:
        services.engine.publisher.unsubscribe(subscription)
    return stream.response


class EventStream:
    """One open stream."""

    def __init__(
        self,
        services: Services,
        request: web.Request,
        subscription: Subscription,
        principal: Principal | None,
        after: int,
    ) -> None:
        self.response = web.StreamResponse()
        self._services = services
        self._request = request
        self._principal = principal
        self._address = address_of(request, behind_proxy=services.config.behind_proxy)
        self._subscription = subscription
        self._ticks: dict[str, int] = {}
        self._feed: AccountFeed | None = None
        if principal is not None:
            self._feed = AccountFeed(services.reader, principal.account, after, self._write_event)

    async def open(self) -> None:
        """Send the head, and where the account's events begin."""
        self.response.content_type = "text/event-stream"
        self.response.headers["Cache-Control"] = "no-store"
        self.response.headers["X-Accel-Buffering"] = "no"
        self.response.headers[REQUEST_ID_HEADER] = self._request[REQUEST_ID]
        self.response.headers.update(self._request[STANDING].headers)
        await self.response.prepare(self._request)

    async def run(self, markets: list[str]) -> None:
        """Write until something ends it; raises TimeoutError when the reader is too slow."""
        services, feed = self._services, self._feed
        begin = f"retry: {RETRY_MILLISECONDS}\n"
        # An id without data is remembered too: who is cut off before the first event misses nothing.
        await self._write(begin + (f"id: {feed.seq}\n\n" if feed is not None else "\n"))
        for market in markets:
            tick = await services.reader.tick(market, None)
            if tick is not None:
                await self._write_tick(tick)
        if feed is not None:
            await feed.catch_up()
            services.engine.publisher.follow(self._subscription, feed.account)
            # What was committed before listening began is in the store, what came after is told live.
            await feed.catch_up()
        await self._follow()

    async def _follow(self) -> None:
        """Tell what is committed; between that, look at the key and show that the line is alive."""
        heartbeat_seconds = self._services.config.heartbeat_seconds
        beat_at = self._now() + heartbeat_seconds
        check_at = self._now() + KEY_CHECK_SECONDS
        while True:
            events: list[Event] = []
            ticks: list[Tick] = []
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(beat_at, check_at)):
                    events, ticks = await self._subscription.next()
            if self._subscription.overflowed:
                self._subscription.overflowed = False
                if self._feed is not None:
                    await self._feed.catch_up()
            for event in events:
                if self._feed is not None:
                    await self._feed.tell(event)
            for tick in ticks:
                await self._write_tick(tick)
            if self._now() >= check_at:
                check_at = self._now() + KEY_CHECK_SECONDS
                if self._principal is not None:
                    await self._services.authenticator.recheck(self._principal, self._address)
            if self._now() >= beat_at:
                beat_at = self._now() + heartbeat_seconds
                now = format_instant(self._services.engine.clock.now_us())
                await self._write(f": heartbeat {now}\n\n")

    async def _write_event(self, event: Event) -> None:
        view = event_view(event, self._services.engine.core)
        word = event.kind.partition(".")[0]
        await self._write(f"id: {event.account_seq}\nevent: {word}\ndata: {JSON.encode(view).decode()}\n\n")

    async def _write_tick(self, tick: Tick) -> None:
        if tick.tick <= self._ticks.get(tick.market, 0):
            return
        self._ticks[tick.market] = tick.tick
        _, payload = tick_message(self._services, JSON, tick)
        name = f"id: {tick.market}:{tick.tick}\n" if self._feed is None else ""
        await self._write(f"{name}event: tick\ndata: {payload.decode()}\n\n")

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._services.config.send_seconds_max):
                await self.response.write(text.encode())
        except TimeoutError:
            # What it has not read is dropped with the line: the stream must not outlive its bound.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _markets_of(services: Services, query: StreamQuery) -> list[str]:
    """Return the markets asked for; raises Rejection (`market_not_found`)."""
    known = services.engine.core.markets
    if query.markets is None:
        return sorted(known)
    named = sorted(set(query.markets.split(",")))
    if len(named) > MARKETS_MAX:
        raise Rejection("invalid_value", f"expected at most {MARKETS_MAX} markets", pointer="/markets")
    if not known.keys() >= set(named):
        raise Rejection("market_not_found", "no such market")
    return named


async def _position(services: Services, account: str | None, last: str | None) -> int:
    """Return the sequence number behind which events are told: from Last-Event-ID, or from now on."""
    if last is not None and not (
        _LAST_SEQ.fullmatch(last) or (account is None and _LAST_TICK.fullmatch(last))
    ):
        raise Rejection("malformed_header", "Last-Event-ID: expected the id of an event of this stream")
    if account is None:
        return 0  # ticks are conflated: whoever comes back gets the newest ones
    with acting(tenant(account)):
        stored = await services.reader.account(account)
    head = stored.event_seq if stored is not None else 0
    after = head if last is None else int(last)
    if after > head:
        raise Rejection("invalid_value", f"Last-Event-ID: expected at most {head}")
    return after
