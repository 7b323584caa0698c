"""Where the database is and how to reach it: the embedded server's socket, or `DATABASE_URL`.

The writer's connection has no command timeout on purpose: a cancelled COMMIT may have happened.
Readers have one, and a bounded pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from sql.embedded import EmbeddedPostgres
from sql.migrate import MigrationError, check_durability, migrate, pending
from sql.scope import ENGINE_ROLE, Pool
from sql.store import PostgresStore

READERS_MAX = 8
READ_TIMEOUT_S = 10.0
ENGINE_STATEMENTS_MAX = 512  # prepared: a transaction is one statement for each set of tables that it writes
CONNECT_TIMEOUT_S = 5.0
DATABASE_NAME = "fallow"


class Database(Struct, frozen=True):
    """How to connect: asyncpg's keyword arguments."""

    arguments: dict[str, Any]

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Open one connection as whoever owns the tables."""
        return await asyncpg.connect(**self.arguments, timeout=CONNECT_TIMEOUT_S)

    async def create_pool(self) -> Pool:
        """Open the readers' pool; what its statements see is told by their scope."""
        connections = await asyncpg.create_pool(
            **self.arguments,
            min_size=1,
            max_size=READERS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=READ_TIMEOUT_S,
            reset=_keep,
        )
        return Pool(connections)

    def store(self) -> PostgresStore:
        return PostgresStore(self._connect_engine)

    async def _connect_engine(self) -> asyncpg.Connection[asyncpg.Record]:
        # The writer looks up and writes by key. A plan made while a table was small would read all of it
        # for as long as the connection lives.
        settings = {"role": ENGINE_ROLE, "enable_seqscan": "off", "jit": "off"}
        return await asyncpg.connect(
            **self.arguments,
            server_settings=settings,
            statement_cache_size=ENGINE_STATEMENTS_MAX,
            timeout=CONNECT_TIMEOUT_S,
        )

    async def prepare(self, *, apply_migrations: bool) -> list[str]:
        """Check the server's settings and the schema; return the migrations applied now.

        Raises MigrationError when migrations are pending and `apply_migrations` is false.
        """
        connection = await self.connect()
        try:
            await check_durability(connection)
            if apply_migrations:
                return await migrate(connection)
            names = await pending(connection)
            if names:
                raise MigrationError(f"pending migrations: {', '.join(names)}; run `fallow migrate`")
            return []
        finally:
            await connection.close()


async def _keep(_: object) -> None:
    """Every use sets its own role and tenant, so there is nothing to reset."""


@asynccontextmanager
async def open_database(*, url: str | None, data_dir: Path) -> AsyncIterator[Database]:
    """Give the server at `url`, or an embedded one in `data_dir` that lives as long as this context."""
    if url is not None:
        yield Database({"dsn": url, "target_session_attrs": "primary"})
        return
    async with EmbeddedPostgres(data_dir) as server:
        arguments = server.connect_arguments()
        connection = await asyncpg.connect(**arguments)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE_NAME):
                await connection.execute(f'CREATE DATABASE "{DATABASE_NAME}"')
        finally:
            await connection.close()
        yield Database({**arguments, "database": DATABASE_NAME})
