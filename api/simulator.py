"""The agents of simulated nodes, played by the server on demo markets.

Decides when a simulated node is ready and when it has drained, and says so through the very command
that a real agent's report becomes. What it may do is therefore exactly what an agent may. It acts on
states, not on messages alone: at its start it looks for leases that already wait.
Invariant: one task per report, all of them ended by `stop`.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from auction.commands import ReportLease
from auction.engine import Engine
from auction.errors import Rejection, Unavailable
from auction.events import EventKind
from auction.model import Event, Lease, LeaseState, Notice
from auction.publisher import Subscription

RETRY_SECONDS = 0.5
ATTEMPTS_MAX = 20

_logger = logging.getLogger("fallow.simulator")
_lease_of = msgspec.msgpack.Decoder(Lease).decode
_notice_of = msgspec.msgpack.Decoder(Notice).decode


class Simulator:
    """Reports `started` a moment after a lease is won and `drained` a moment after a notice."""

    def __init__(self, engine: Engine, *, start_seconds: float, drain_seconds: float) -> None:
        self._engine = engine
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._subscription: Subscription | None = None
        self._reports: dict[asyncio.Task[None], None] = {}
        self._listener: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen from now on, and take up what already waits."""
        assert self._listener is None, "started once"
        self._subscription = self._engine.publisher.subscribe(None, all_accounts=True)
        self._take_up_waiting()
        self._listener = asyncio.create_task(self._listen(self._subscription))

    def _take_up_waiting(self) -> None:
        for lease in self._engine.core.leases.values():
            if lease.state is LeaseState.STARTING:
                self._ready_soon(lease.id)

    async def stop(self) -> None:
        """End every task of this simulator."""
        tasks = [*self._reports, *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        if self._subscription is not None:
            self._engine.publisher.unsubscribe(self._subscription)

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            events, _ = await subscription.next()
            if subscription.overflowed:
                subscription.overflowed = False
                self._take_up_waiting()
            for event in events:
                self._react(event)

    def _react(self, event: Event) -> None:
        if event.kind == EventKind.LEASE_STARTING:
            self._ready_soon(_lease_of(event.body).id)
        elif event.kind == EventKind.NOTICE_ISSUED:
            self._drained_soon(_notice_of(event.body).lease)

    def _ready_soon(self, lease_id: str) -> None:
        connect = {"host": "127.0.0.1", "note": "simulated"}
        self._spawn(self._report_later(lease_id, "started", connect, self._start_seconds))

    def _drained_soon(self, lease_id: str) -> None:
        self._spawn(self._report_later(lease_id, "drained", {}, self._drain_seconds))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._reports[task] = None
        task.add_done_callback(self._reports.pop)

    async def _report_later(self, lease_id: str, state: str, connect: dict[str, str], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for _ in range(ATTEMPTS_MAX):
            lease = self._engine.core.leases.get(lease_id)
            if lease is None or not self._engine.core.nodes[lease.node].simulated:
                return
            if state == "started" and lease.state is not LeaseState.STARTING:
                return
            try:
                await self._engine.execute(ReportLease(lease_id, lease.owner, state, connect))
                return
            except Rejection as rejection:
                # The lease moved on in the meantime: there is nothing left to tell.
                _logger.debug("report %s of %s: %s", state, lease_id, rejection.code)
                return
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
        _logger.warning("report %s of %s was never taken", state, lease_id)
