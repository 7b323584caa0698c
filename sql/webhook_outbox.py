"""The webhook sender's side of the database: from events to deliveries, and what became of each.

The position in `events` may be written late: an event is one delivery per endpoint by its unique key,
so reading a part of the outbox twice changes nothing. The single writer's fence orders the ids of
`events` by commit, so what is behind the highest one is complete.
Invariant: every statement is bounded by a page, a batch, or the number of endpoints.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
from msgspec import Struct

from auction.errors import Unavailable
from auction.model import Event
from sql import query
from sql.scope import Pool
from sql.store import CONNECTION_ERRORS
from sql.webhook_store import NewDelivery, StoredEvent, delivery_arrays

PAGE_DELIVERIES_MAX = 1_000
SWEEP_ROWS_MAX = 5_000
DELIVERIES_KEPT_US = 30 * 24 * 3_600 * 1_000_000
PENDING_PER_ENDPOINT_MAX = 10_000


class DueDelivery(Struct, frozen=True):
    """All that one attempt needs."""

    id: int
    endpoint: str
    account: str
    url: str
    secret: bytes
    previous_secret: bytes | None
    previous_until_us: int | None
    message: str
    kind: str
    is_urgent: bool
    at_us: int
    deadline_us: int
    attempts: int
    body: bytes | None  # of a message that is not an event
    event: Event | None


class Result(Struct, frozen=True):
    """What one attempt came to. `error` is a short stable word; the receiver's reply is not kept."""

    state: str
    next_attempt_at_us: int
    attempted_at_us: int
    status: int | None
    error: str | None


class Breaker(Struct, frozen=True):
    """After `failures` in a row an endpoint gets only notices for a while that doubles, up to `most_us`."""

    failures: int
    first_us: int
    most_us: int


class WebhookOutbox:
    """What the sender reads and writes. Every method raises Unavailable when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def watched(self) -> frozenset[str]:
        """Return the accounts that have an enabled endpoint."""
        statement = "SELECT DISTINCT account FROM webhook_endpoints WHERE state = 'enabled'"
        return frozenset(row["account"] for row in await self._fetch(statement))

    async def position(self) -> int:
        """Return the last event that was turned into deliveries."""
        return int((await self._fetch("SELECT position FROM webhook_outbox"))[0]["position"])

    async def save_position(self, position: int) -> None:
        await self._fetch("UPDATE webhook_outbox SET position = greatest(position, $1)", position)

    async def head(self) -> int:
        """Return the newest event's number, 0 without any."""
        return int((await self._fetch("SELECT coalesce(max(id), 0) AS head FROM events"))[0]["head"])

    async def wanted(self, after: tuple[int, str], upto: int, types: Sequence[str]) -> list[StoredEvent]:
        """Return one page of (event, endpoint) pairs after `after`, up to event `upto`, in that order."""
        rows = await self._fetch(query("wanted_events"), *after, upto, list(types), PAGE_DELIVERIES_MAX)
        return [StoredEvent(*row.values()) for row in rows]

    async def add(self, deliveries: Sequence[NewDelivery]) -> None:
        """Queue deliveries; those that are there already stay as they are."""
        statement = query("insert_deliveries") + "ON CONFLICT DO NOTHING"
        await self._fetch(statement, *delivery_arrays(deliveries))

    async def due(
        self,
        now_us: int,
        *,
        in_flight: Sequence[int],
        full_endpoints: Sequence[str],
        full_for_ordinary: Sequence[str],
        full_accounts: Sequence[str],
        urgent_only: bool,
        per_endpoint: int,
        limit: int,
    ) -> list[DueDelivery]:
        """Return what may be sent now: notices first, then every endpoint's first before anyone's second."""
        rows = await self._fetch(
            query("due_deliveries"),
            now_us,
            list(in_flight),
            list(full_endpoints),
            list(full_for_ordinary),
            list(full_accounts),
            urgent_only,
            per_endpoint,
            limit,
        )
        return [_due(row) for row in rows]

    async def next_due_us(self, now_us: int, in_flight: Sequence[int]) -> int | None:
        """Return when the next delivery that is not due yet will be."""
        rows = await self._fetch(query("next_delivery"), now_us, list(in_flight))
        due_us: int | None = rows[0]["due_us"]
        return due_us

    async def record(self, delivery: DueDelivery, result: Result, breaker: Breaker) -> None:
        """Write down an attempt, and what it says of its endpoint, in one statement."""
        await self._fetch(
            query("record_attempt"),
            delivery.id,
            result.state,
            result.next_attempt_at_us,
            result.attempted_at_us,
            result.status,
            result.error,
            breaker.failures,
            breaker.first_us,
            breaker.most_us,
        )

    async def disable(self, endpoint: str, now_us: int, notification: NewDelivery) -> bool:
        """Disable an endpoint that says it is gone and tell its account's others; False: it was already.

        `notification` is the message, its endpoint ignored.
        """
        rows = await self._fetch(
            query("disable_webhook"),
            endpoint,
            now_us,
            notification.message,
            notification.kind,
            notification.body,
            notification.deadline_us,
        )
        return bool(rows[0]["disabled"])

    async def tell_statement(self, month: str, month_end_us: int, news: NewDelivery) -> None:
        """Tell every endpoint that wants it that the month's statement is final; once, whoever asks again.

        `news` is the message, its endpoint ignored.
        """
        await self._fetch(
            query("tell_statement"),
            month,
            news.at_us,
            news.kind,
            news.body,
            news.deadline_us,
            news.message,
            month_end_us,
        )

    async def sweep(self, now_us: int) -> None:
        """Give up what is too late or too much, forget what is old; one bounded batch of each."""
        await self._fetch(query("sweep_expired"), now_us, SWEEP_ROWS_MAX)
        await self._fetch(query("sweep_backlog"), PENDING_PER_ENDPOINT_MAX, SWEEP_ROWS_MAX)
        await self._fetch(query("sweep_old"), now_us - DELIVERIES_KEPT_US, SWEEP_ROWS_MAX)
        await self._fetch(query("sweep_deleted"), SWEEP_ROWS_MAX)
        await self._fetch(query("sweep_endpoints"))
        await self._fetch(query("sweep_secrets"), now_us)

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            return await self._pool.fetch(statement, *arguments)
        except (*CONNECTION_ERRORS, asyncpg.OperatorInterventionError) as error:
            raise Unavailable("storage_unavailable", "the database does not answer") from error


def _due(row: asyncpg.Record) -> DueDelivery:
    values = list(row.values())
    own = len(DueDelivery.__struct_fields__) - 1
    event = None if row["event_kind"] is None else Event(*values[own:])
    return DueDelivery(*[*values[:own], event])
