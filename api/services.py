"""What every handler may use, made once per application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from api.auth import Authenticator
from api.browser import Sessions
from api.config import Config
from api.doorway import Doorway
from api.heartbeats import NodeWatch
from api.rate_limits import RateLimiter
from api.reconciliation import Reconciliation
from api.request_metrics import Requests
from api.risk_record import Records
from api.target_runner import TargetRunner
from api.tickets import Tickets
from api.webhook_sender import WebhookSender
from auction.engine import Engine
from auction.errors import Unavailable
from auction.publisher import Subscription
from auction.units import Price
from sql.audit_log import AuditLog
from sql.reads import Reader
from sql.target_store import TargetStore
from sql.webhook_store import WebhookStore


@dataclass(frozen=True, slots=True)
class Services:
    """The engine to ask, the reader to look things up with, and who may do so."""

    engine: Engine
    reader: Reader  # sees what the asking tenant may see
    system: Reader  # sees everybody's rows
    authenticator: Authenticator
    config: Config
    watch: NodeWatch
    sockets: dict[web.WebSocketResponse, asyncio.Task[Any]]  # with what serves them
    webhooks: WebhookStore
    sender: WebhookSender
    records: Records
    reconciliation: Reconciliation
    limiter: RateLimiter
    doorway: Doorway
    targets: TargetStore
    runner: TargetRunner
    audit_log: AuditLog
    registry: CollectorRegistry
    requests: Requests
    browsers: Sessions
    tickets: Tickets
    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)  # every socket is to close
    waits: dict[asyncio.Timeout, None] = field(default_factory=dict)  # in the order in which they began
    # When each market's median price was read, and what it was.
    medians: dict[str, tuple[int, Price | None]] = field(default_factory=dict)
    # All markets at a glance, and when that was read.
    summaries: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    # The newest tick message of each market in each codec: written once, sent to every reader.
    tick_messages: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)

    def listen(self, account: str | None) -> Subscription:
        """Subscribe to what is committed; refuse when too many listen already."""
        try:
            return self.engine.publisher.subscribe(account)
        except OverflowError as error:
            raise Unavailable("inbox_full", str(error)) from error

    @asynccontextmanager
    async def patience(self, seconds: float | None) -> AsyncIterator[None]:
        """Bound a long poll, or (None) a stream; raises TimeoutError when that, or the server, ends."""
        async with asyncio.timeout(seconds) as wait:
            self.waits[wait] = None
            try:
                yield
            finally:
                self.waits.pop(wait, None)

    def end_waits(self) -> None:
        """Let every long poll answer now: the server is stopping."""
        now = asyncio.get_running_loop().time()
        for wait in list(self.waits):
            wait.reschedule(now)


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
