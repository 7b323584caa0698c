"""Changes outside the auction, each once: plain rows, changed together with the answer that was given.

Webhook endpoints and targets are no part of the auction's state, so their changes pass no engine. One
transaction does what a request asks and keeps its answer under the request's idempotency key.
Invariant: such changes of one account happen one after the other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from auction.engine import STATUSES_NOT_STORED
from auction.errors import Rejection, Unavailable
from auction.ports import Answer, KeyedRequest
from sql import query
from sql.reads import READ_SECONDS_MAX
from sql.scope import Pool
from sql.store import CONNECTION_ERRORS

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    _Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

Connection: TypeAlias = "_Connection"

_LOCK_CLASS = 0x0FA111  # beside sql/store.py's: one such change per account at a time


async def once(
    pool: Pool,
    account: str,
    keyed: KeyedRequest | None,
    now_us: int,
    act: Callable[[Connection], Awaitable[Answer]],
) -> tuple[Answer, bool]:
    """Let `act` change things in one transaction that also keeps its answer; return (answer, replayed).

    A request that comes again under its key gets the stored answer, and `act` is not called.
    Raises Rejection (`idempotency_key_reused`) and Unavailable.
    """
    async with answering(), pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, account)
        if keyed is not None:
            rows = await connection.fetch(query("find_answers"), [keyed.account], [keyed.key])
            if rows:
                if rows[0]["request_hash"] != keyed.request_hash:
                    raise Rejection("idempotency_key_reused", "this key was used with another request")
                return Answer(rows[0]["status"], rows[0]["content_type"], rows[0]["body"]), True
        answer = await act(connection)
        if keyed is not None and answer.status not in STATUSES_NOT_STORED:
            await connection.execute(
                query("insert_answers"),
                [keyed.account],
                [keyed.key],
                [keyed.request_hash],
                [answer.status],
                [answer.content_type],
                [answer.body],
                [now_us],
            )
        return answer, False


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Bound the wait for the database, and say that it is away in our own words."""
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            yield
    except (*CONNECTION_ERRORS, asyncpg.OperatorInterventionError) as error:
        raise Unavailable("storage_unavailable", "the database does not answer") from error
