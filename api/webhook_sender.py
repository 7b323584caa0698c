"""The background part that turns committed events into webhooks and sends them.

It follows the outbox by its position, so a crash or a restart loses nothing: what was committed is
told, perhaps twice, always under the same `webhook-id`. The publisher only rings its bell, and away from
the engine's process it looks every LOOK_US; the market never waits for it. Who is slow, down or hostile
takes its own slots (webhook_schedule.py) and nobody else's. Invariant: a delivery is under way at most
once here, and each outcome is written down.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import ClientConnectorDNSError, ClientError, ClientOSError, ClientResponse, ClientSession
from msgspec import Struct
from yarl import URL

from api.egress import ForbiddenAddress
from api.events import Setting
from api.months import last_final, window
from api.webhook_messages import (
    WEBHOOK_TYPES,
    delivery_of,
    event_message,
    own_delivery,
    own_message,
    signed_headers,
)
from api.webhook_schedule import ENDPOINT_SENDS_MAX, Draw, Slots, next_notice_us, next_ordinary_us
from auction.clock import Clock
from auction.errors import Unavailable
from auction.ids import derived_id, random_below, random_id
from auction.model import Event
from auction.publisher import Publisher, Subscription
from auction.units import MICROSECONDS_PER_SECOND
from sql.webhook_outbox import PAGE_DELIVERIES_MAX, Breaker, DueDelivery, Result, WebhookOutbox

FOLLOW_EVENTS_MAX = 10_000
REPLY_BYTES_MAX = 4 * 1024
REPLY_SECONDS_MAX = 1.0  # for the rest of a reply whose status is known
ROUND_SECONDS_MIN = 0.02  # after finding nothing to send: a busy market rings all the time
LOOK_US = MICROSECONDS_PER_SECOND // 5
SWEEP_US = 10 * MICROSECONDS_PER_SECOND
PAUSE_SECONDS = 1.0  # after an outage, or a fault of ours
STOP_SECONDS_MAX = 2.0  # for what is under way; it is sent again after the restart
BREAKER = Breaker(failures=5, first_us=MICROSECONDS_PER_SECOND, most_us=5 * 60 * MICROSECONDS_PER_SECOND)
STATUS_GONE = 410

_logger = logging.getLogger("fallow.webhooks")


class Outcome(Struct, frozen=True):
    """What the receiver answered, or why it could not be asked."""

    status: int | None
    error: str | None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSender:
    """Sends what endpoints want to be told; `open_client` makes the guarded client of egress.py.

    `setting` gives what is shown beside an event. Without a publisher it asks the database for news.
    """

    def __init__(
        self,
        clock: Clock,
        outbox: WebhookOutbox,
        open_client: Callable[[], ClientSession],
        setting: Callable[[], Awaitable[Setting]],
        *,
        publisher: Publisher | None = None,
        draw: Draw = random_below,
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._setting = setting
        self._outbox = outbox
        self._open_client = open_client
        self._client: ClientSession | None = None
        self._draw = draw
        self._bell = asyncio.Event()
        self._watched: frozenset[str] = frozenset()
        self._knows_watched = False
        self._position: int | None = None
        self._saved_position = 0
        self._sweep_at_us = 0
        self._statement_told = ""
        self._slots = Slots()
        self._sends: dict[int, asyncio.Task[None]] = {}
        self._subscription: Subscription | None = None
        self._parts: list[asyncio.Task[None]] = []

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Go on where the last sender on this database stopped."""
        assert not self._parts, "started once"
        self._client = self._open_client()
        self._parts = [asyncio.create_task(self._run())]
        if self._publisher is not None:
            self._subscription = self._publisher.subscribe(None, all_accounts=True)
            self._parts.append(asyncio.create_task(self._listen(self._subscription)))

    async def stop(self) -> None:
        """Let what is under way end, briefly; close every connection."""
        if self._publisher is not None and self._subscription is not None:
            self._publisher.unsubscribe(self._subscription)
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)
        sends = list(self._sends.values())
        if sends:
            await asyncio.wait(sends, timeout=STOP_SECONDS_MAX)
        for send in sends:
            send.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def look_again(self) -> None:
        """Take notice of endpoints and deliveries that a request has just changed."""
        self._knows_watched = False
        self._bell.set()

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            events, _ = await subscription.next()
            if subscription.overflowed or any(self._concerns(event) for event in events):
                subscription.overflowed = False
                self._bell.set()

    def _concerns(self, event: Event) -> bool:
        """Say whether anybody may want this: most accounts have no endpoint, and cost nothing."""
        if event.account is None:
            return bool(self._watched) and event.kind in WEBHOOK_TYPES
        return event.account in self._watched

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Unavailable as outage:
                _logger.warning("webhooks wait: %s", outage.detail)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                # The market must not stop for this, and one bad row must not stop it for good.
                _logger.exception("webhooks stumbled")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _round(self) -> None:
        """Read what is new, send what is due, wait for more."""
        self._bell.clear()
        if not self._knows_watched:
            # Before reading: a change that comes meanwhile is looked at in the next round.
            self._knows_watched = True
            self._watched = await self._outbox.watched()
        is_sweep = self._clock.now_us() >= self._sweep_at_us
        await self._follow(is_sweep=is_sweep)
        if is_sweep:
            await self._outbox.sweep(self._clock.now_us())
            await self._tell_statement()
            self._sweep_at_us = self._clock.now_us() + SWEEP_US
            self._knows_watched = False  # another process may have changed endpoints
        # The time from before looking: what falls due between the two questions is in one of the answers.
        now_us = self._clock.now_us()
        started = await self._send_due()
        next_us = await self._outbox.next_due_us(now_us, list(self._sends))
        if not started:
            await asyncio.sleep(ROUND_SECONDS_MIN)
        look_us = self._sweep_at_us if self._publisher is not None else now_us + LOOK_US
        await self._clock.wait(self._bell, min(self._sweep_at_us, look_us, next_us or self._sweep_at_us))

    # -- from events to deliveries -----------------------------------------------------------------

    async def _follow(self, *, is_sweep: bool) -> None:
        if self._position is None:
            self._position = self._saved_position = await self._outbox.position()
        head = await self._outbox.head()
        is_told = False
        while self._position < head:
            upto = min(head, self._position + FOLLOW_EVENTS_MAX)
            is_told |= await self._queue(self._position, upto)
            self._position = upto
        if self._position > self._saved_position and (is_told or is_sweep):
            await self._outbox.save_position(self._position)
            self._saved_position = self._position

    async def _queue(self, after: int, upto: int) -> bool:
        """Make the deliveries of the events in (after, upto]; return whether there were any."""
        page_start = (after + 1, "")
        while True:
            wanted = await self._outbox.wanted(page_start, upto, WEBHOOK_TYPES)
            if wanted:
                await self._outbox.add([delivery_of(stored) for stored in wanted])
                page_start = (wanted[-1].event, wanted[-1].endpoint)
            if len(wanted) < PAGE_DELIVERIES_MAX:
                return bool(wanted) or page_start[1] != ""

    async def _tell_statement(self) -> None:
        """A month is over and cannot change any more: tell whoever wants to fetch its statement."""
        now_us = self._clock.now_us()
        month = last_final(now_us)
        if month == self._statement_told:
            return
        message_id = derived_id("evt", "statement.final", int(month.replace("-", "")))
        data = {"statement": month, "path": f"/v1/statements/{month}"}
        body = own_message(message_id, "statement.final", now_us, data)
        news = own_delivery("", message_id, "statement.final", now_us, body)
        await self._outbox.tell_statement(month, window(month)[1], news)
        self._statement_told = month

    # -- sending -----------------------------------------------------------------------------------

    async def _send_due(self) -> int:
        """Start everything that is due and has a slot; return how many that was."""
        count, last = 0, 1
        while last and self._slots.free:
            due = await self._outbox.due(
                self._clock.now_us(),
                in_flight=list(self._sends),
                full_endpoints=self._slots.full_endpoints(),
                full_for_ordinary=self._slots.full_for_ordinary(),
                full_accounts=self._slots.full_accounts(),
                urgent_only=self._slots.only_urgent,
                per_endpoint=ENDPOINT_SENDS_MAX,
                limit=self._slots.free,
            )
            setting = await self._setting()  # of after the events, so their markets are in it
            last = sum(self._start(delivery, setting) for delivery in due)
            count += last
        return count

    def _start(self, delivery: DueDelivery, setting: Setting) -> bool:
        # It may have been started, and even ended, while the list was on its way.
        if delivery.id in self._sends:
            return False
        if not self._slots.take(delivery.account, delivery.endpoint, is_urgent=delivery.is_urgent):
            return False
        self._sends[delivery.id] = asyncio.create_task(self._send(delivery, setting))
        return True

    async def _send(self, delivery: DueDelivery, setting: Setting) -> None:
        try:
            attempted_us = self._clock.now_us()
            outcome = await self._attempt(delivery, setting, attempted_us)
            if outcome.status == STATUS_GONE:
                await self._disable(delivery)
            await self._outbox.record(delivery, self._result(delivery, attempted_us, outcome), BREAKER)
        except Unavailable as outage:
            # Not written down, so it is sent again under the same id when the database is back.
            _logger.warning("webhook %s: %s", delivery.message, outage.detail)
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._slots.give_back(delivery.account, delivery.endpoint, is_urgent=delivery.is_urgent)
            del self._sends[delivery.id]
            self._bell.set()

    async def _attempt(self, delivery: DueDelivery, setting: Setting, now_us: int) -> Outcome:
        try:
            body = _body(delivery, setting)
        except Exception:
            # A fault of ours in one message must cost no other one its turn: it backs off like the rest.
            _logger.exception("webhook %s could not be made", delivery.message)
            return Outcome(None, "internal_error")
        if body is None:
            return Outcome(None, "event_forgotten")
        secrets = [delivery.secret]
        if delivery.previous_secret is not None and (delivery.previous_until_us or 0) > now_us:
            secrets.append(delivery.previous_secret)
        headers = signed_headers(delivery.message, now_us // MICROSECONDS_PER_SECOND, body, secrets)
        assert self._client is not None, "sends are started by start()"
        try:
            async with self._client.post(
                URL(delivery.url), data=body, headers=headers, allow_redirects=False
            ) as response:
                await _drain(response)
                status = response.status
                return Outcome(status, None if 200 <= status < 300 else f"status_{status}")
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            return Outcome(None, _error_word(error))

    def _result(self, delivery: DueDelivery, attempted_us: int, outcome: Outcome) -> Result:
        now_us = self._clock.now_us()
        next_us: int | None = None
        if not outcome.is_delivered and outcome.status != STATUS_GONE and outcome.error != "event_forgotten":
            if delivery.is_urgent:
                next_us = next_notice_us(delivery.at_us, now_us, delivery.deadline_us)
            else:
                next_us = next_ordinary_us(delivery.attempts + 1, now_us, delivery.deadline_us, self._draw)
        state = "delivered" if outcome.is_delivered else "failed" if next_us is None else "pending"
        return Result(state, next_us or now_us, attempted_us, outcome.status, outcome.error)

    async def _disable(self, delivery: DueDelivery) -> None:
        """The receiver says that it is gone (410): stop, and tell the account's other endpoints."""
        now_us, message_id = self._clock.now_us(), random_id("evt")
        data = {"endpoint": delivery.endpoint, "url": delivery.url, "reason": "gone"}
        body = own_message(message_id, "webhook.disabled", now_us, data)
        news = own_delivery("", message_id, "webhook.disabled", now_us, body)
        if await self._outbox.disable(delivery.endpoint, now_us, news):
            _logger.info("webhook endpoint %s is gone and was disabled", delivery.endpoint)
            self.look_again()


def _body(delivery: DueDelivery, setting: Setting) -> bytes | None:
    if delivery.event is None:
        return delivery.body
    return event_message(delivery.message, delivery.event, setting)


async def _drain(response: ClientResponse) -> None:
    """Read a short reply, so that its connection can be used again; drop a long or slow one unread."""
    with suppress(ClientError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(REPLY_SECONDS_MAX):
            await response.content.readexactly(REPLY_BYTES_MAX)
            response.close()
            return
    if not response.content.at_eof():
        response.close()


def _error_word(error: BaseException) -> str:
    """Name a failure in one stable word; nothing that the receiver sent is repeated."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ClientConnectorDNSError):
        return "name_not_found"
    cause = error.os_error if hasattr(error, "os_error") else error.__cause__
    if isinstance(cause, ForbiddenAddress):
        return "address_forbidden"
    if isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        return "tls_failed"
    return "connection_failed" if isinstance(error, ClientOSError | OSError) else "no_http_answer"
