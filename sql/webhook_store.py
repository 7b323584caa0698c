"""Webhook endpoints and their deliveries as a tenant sees and changes them.

Endpoints are no part of the auction: plain rows, changed in one transaction together with the answer
that is kept under the request's idempotency key. Every statement names the account, so what belongs
to another one is not there. Must not know about HTTP or signatures.
Invariants: changes of one account happen one after the other; an account's endpoints are counted under
that lock; a deleted endpoint is invisible at once, its deliveries go in batches (webhook_outbox.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
from msgspec import Struct

from auction.errors import NotFound
from auction.ports import Answer, KeyedRequest
from sql import query
from sql.once import Connection, answering, once
from sql.reads import Key, Slice
from sql.scope import Pool

S = TypeVar("S", bound=Struct)


class Endpoint(Struct, frozen=True):
    """Where an account wants to be told, and with what to sign."""

    id: str
    account: str
    url: str
    types: list[str]  # none: every kind that webhooks carry
    description: str
    state: str  # enabled | disabled; a deleted one is never read
    reason: str | None  # owner | gone, of a disabled one
    secret: bytes
    previous_secret: bytes | None
    previous_until_us: int | None
    enabled_from_us: int  # earlier events are not told
    created_at_us: int
    updated_at_us: int
    consecutive_failures: int = 0
    closed_until_us: int = 0
    version: int = 1


class Delivery(Struct, frozen=True):
    """How far telling one message to one endpoint has come."""

    id: int
    endpoint: str
    message: str
    kind: str
    state: str  # pending | delivered | failed
    at_us: int
    deadline_us: int
    attempts: int
    next_attempt_at_us: int
    last_attempt_at_us: int | None
    last_status: int | None
    last_error: str | None


class NewDelivery(Struct, frozen=True):
    """A message to be told: an event of the outbox, or one with a body of its own."""

    endpoint: str
    message: str
    kind: str
    event: int | None
    body: bytes | None
    is_urgent: bool
    at_us: int
    deadline_us: int
    next_attempt_at_us: int


class StoredEvent(Struct, frozen=True):
    """An event of the outbox that an endpoint wants."""

    event: int
    account: str | None
    account_seq: int
    kind: str
    at_us: int
    endpoint: str
    notice: bytes | None = None  # the body where the kind is a notice's


_ENDPOINT = ", ".join(Endpoint.__struct_fields__)
_DELIVERY = ", ".join(Delivery.__struct_fields__)


class WebhookStore:
    """Endpoints and deliveries, one account's at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def endpoint(self, account: str, endpoint: str) -> Endpoint | None:
        return _one(Endpoint, await self._fetch(_FIND, account, endpoint))

    async def endpoints(self, account: str, *, before: Key, limit: int) -> Slice[Endpoint]:
        """Return an account's endpoints, newest first."""
        statement = f"""SELECT {_ENDPOINT} FROM webhook_endpoints
            WHERE account = $1 AND state <> 'deleted' AND (created_at_us, id) < ($2, $3)
            ORDER BY created_at_us DESC, id DESC LIMIT $4"""
        return Slice.of(_all(Endpoint, await self._fetch(statement, account, *before, limit + 1)), limit)

    async def deliveries(
        self, account: str, endpoint: str, *, state: str | None, before: int, limit: int
    ) -> Slice[Delivery]:
        """Return what was and is to be told to an endpoint, newest first."""
        statement = f"""SELECT {_DELIVERY} FROM webhook_deliveries
            WHERE endpoint = (SELECT id FROM webhook_endpoints WHERE account = $1 AND id = $2)
            AND id < $3 AND ($4::text IS NULL OR state = $4) ORDER BY id DESC LIMIT $5"""
        rows = await self._fetch(statement, account, endpoint, before, state, limit + 1)
        return Slice.of(_all(Delivery, rows), limit)

    async def once(
        self,
        account: str,
        keyed: KeyedRequest | None,
        now_us: int,
        act: Callable[["Editor"], Awaitable[Answer]],
    ) -> tuple[Answer, bool]:
        """Let `act` change things in one transaction that also keeps its answer; return (answer, replayed).

        A request that comes again under its key gets the stored answer, and `act` is not called.
        Raises Rejection (`idempotency_key_reused`) and Unavailable.
        """
        return await once(
            self._pool, account, keyed, now_us, lambda connection: act(Editor(connection, account))
        )

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with answering():
            return await self._pool.fetch(statement, *arguments)


class Editor:
    """What one transaction may do to the endpoints of one account."""

    def __init__(self, connection: Connection, account: str) -> None:
        self._connection = connection
        self._account = account

    async def count(self) -> int:
        """Return how many endpoints the account has."""
        statement = "SELECT count(*) FROM webhook_endpoints WHERE account = $1 AND state <> 'deleted'"
        return int(await self._connection.fetchval(statement, self._account))

    async def find(self, endpoint: str) -> Endpoint:
        """Return an endpoint, locked; raise NotFound when it is absent or another account's."""
        found = _one(Endpoint, await self._connection.fetch(f"{_FIND} FOR UPDATE", self._account, endpoint))
        if found is None:
            raise NotFound("webhook endpoint")
        return found

    async def add(self, endpoint: Endpoint) -> None:
        assert endpoint.account == self._account
        values = ", ".join(f"${number}" for number in range(1, len(Endpoint.__struct_fields__) + 1))
        await self._connection.execute(
            f"INSERT INTO webhook_endpoints ({_ENDPOINT}) VALUES ({values})", *_values(endpoint)
        )

    async def save(self, endpoint: Endpoint) -> None:
        """Write an endpoint that `find` returned, changed."""
        assert endpoint.account == self._account
        names = Endpoint.__struct_fields__
        changes = ", ".join(f"{name} = ${number}" for number, name in enumerate(names, 1) if number > 1)
        await self._connection.execute(
            f"UPDATE webhook_endpoints SET {changes} WHERE id = $1", *_values(endpoint)
        )

    async def delete(self, endpoint: str, now_us: int) -> None:
        """Hide an endpoint for good and forget its secrets; nothing is sent to it from now on."""
        await self._connection.execute(query("delete_webhook"), self._account, endpoint, now_us)

    async def add_message(self, delivery: NewDelivery) -> Delivery:
        """Queue a message that is not an event; return its delivery."""
        insert = query("insert_deliveries")
        rows = await self._connection.fetch(f"{insert} RETURNING {_DELIVERY}", *delivery_arrays([delivery]))
        return _all(Delivery, rows)[0]

    async def find_replayable(
        self,
        endpoint: str,
        *,
        types: Sequence[str],
        after_seq: int,
        from_us: int,
        to_us: int,
        with_delivered: bool,
        limit: int,
    ) -> list[StoredEvent]:
        """Return events in [from_us, to_us] that this endpoint was not told, oldest first."""
        rows = await self._connection.fetch(
            query("replayable_events"),
            self._account, endpoint, list(types), after_seq, from_us, to_us, with_delivered, limit,
        )  # fmt: skip
        return _all(StoredEvent, rows)

    async def replay(self, deliveries: Sequence[NewDelivery]) -> None:
        """Queue events again, whatever became of them before."""
        statement = query("insert_deliveries") + query("restart_deliveries")
        await self._connection.execute(statement, *delivery_arrays(deliveries))


_FIND = f"SELECT {_ENDPOINT} FROM webhook_endpoints WHERE account = $1 AND id = $2 AND state <> 'deleted'"


def delivery_arrays(deliveries: Sequence[NewDelivery]) -> list[list[Any]]:
    """Return the parameters of `insert_deliveries`: one list per column."""
    return [[getattr(row, name) for row in deliveries] for name in NewDelivery.__struct_fields__]


def _values(endpoint: Endpoint) -> list[Any]:
    return [getattr(endpoint, name) for name in Endpoint.__struct_fields__]


def _all(struct: type[S], records: Sequence[asyncpg.Record]) -> list[S]:
    return [struct(*record.values()) for record in records]


def _one(struct: type[S], records: Sequence[asyncpg.Record]) -> S | None:
    return next(iter(_all(struct, records)), None)
