"""Whose rows a statement may see: the role and the tenant that a connection takes on before it.

The queries filter by account; PostgreSQL's row-level security (0015_roles.sql) does it once more, so that a
forgotten condition shows nothing instead of somebody else's rows. A request's tenant travels in its context.
What has to see everybody's rows, the workers and the operator's routes, says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

_TAKE_ON = "SELECT set_config('role', $1, false), set_config('fallow.account', $2, false)"
ENGINE_ROLE = "fallow_engine"


class Scope(NamedTuple):
    """A role, and the account that its row-level security lets through."""

    role: str
    account: str = ""


PUBLIC = Scope("fallow_api")  # nobody's: markets and ticks
EVERYBODY = Scope(ENGINE_ROLE)
AUDITOR = Scope("fallow_auditor")

_current: ContextVar[Scope] = ContextVar("scope", default=PUBLIC)


def tenant(account: str) -> Scope:
    """Return the scope of one account."""
    return Scope("fallow_api", account)


@contextmanager
def acting(scope: Scope) -> Iterator[None]:
    """Let the statements of this context, and of the tasks that it starts, see what `scope` may see."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)


class Pool:
    """Connections that see what the context's scope may see, or always a fixed one."""

    def __init__(self, connections: asyncpg.Pool[asyncpg.Record], fixed: Scope | None = None) -> None:
        """`connections` must not reset roles and settings: every use sets its own."""
        self._connections = connections
        self._fixed = fixed

    def fixed(self, scope: Scope) -> Pool:
        """Return the same connections for statements of one scope, whoever runs them."""
        return Pool(self._connections, scope)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Lend a connection that has taken the scope on."""
        async with self._connections.acquire() as connection:
            await connection.fetchval(_TAKE_ON, *(self._fixed or _current.get()))
            yield connection

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement; return its rows."""
        async with self.acquire() as connection:
            return await connection.fetch(statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Run one statement; return its command tag."""
        async with self.acquire() as connection:
            return await connection.execute(statement, *arguments)

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()
