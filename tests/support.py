"""A whole market for a test: an embedded server a session, a fresh database a test.

`running_market` is the real thing from the engine down: real PostgreSQL, real writer, real clock.
Every user of it ends with the audit, and with the journal replayed to the same state.
"""

import asyncio
import itertools
import os
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from aiohttp.web_app import _cached_build_middleware

from auction.clock import Clock, SystemClock
from auction.engine import Engine
from auction.recovery import verify_replay
from sql.audit import audit, render
from sql.embedded import EmbeddedPostgres
from sql.pool import Database

_numbers = itertools.count()


class Server:
    """An embedded server that outlives event loops: it has a thread and a loop of its own."""

    def __init__(self, data_dir: Path, bin_dir: Path | None = None) -> None:
        self.postgres = EmbeddedPostgres(data_dir, bin_dir=bin_dir)
        self._template: str | None = None
        self._loop = asyncio.new_event_loop()
        # The server dies with the thread that spawned it, so it is spawned here, on the main thread.
        self._loop.run_until_complete(self.postgres.start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.postgres.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def new_database(self, *, migrated: bool = True) -> Database:
        """Create a database: an empty one, or a copy of the one that was migrated first."""
        if not migrated:
            return await self._create()
        if self._template is None:
            database = await self._create()
            await database.prepare(apply_migrations=True)
            self._template = database.arguments["database"]
        return await self._create(f'TEMPLATE "{self._template}"')

    async def _create(self, options: str = "") -> Database:
        arguments = self.postgres.connect_arguments()
        name = f"test_{os.getpid()}_{next(_numbers)}"
        connection = await asyncpg.connect(**arguments)
        await connection.execute(f'CREATE DATABASE "{name}" {options}')
        await connection.close()
        return Database({**arguments, "database": name})


def forget_applications() -> None:
    """Drop the applications that aiohttp keeps, up to 1,024 handlers of them, each with its whole market.

    A server has one application for life; a test run has hundreds, and grew to 6 GB with them.
    """
    _cached_build_middleware.cache_clear()


@asynccontextmanager
async def running_market(database: Database, *, clock: Clock | None = None):
    """A started engine on this database; stopped and audited at the end."""
    engine = Engine(database.store(), clock or SystemClock())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
    await assert_audit_passes(database)


async def assert_audit_passes(database: Database) -> None:
    connection = await database.connect()
    try:
        report = await audit(connection)
    finally:
        await connection.close()
    assert all(check.is_ok for check in report), render(report)
    store = database.store()
    await store.attach()
    for from_snapshot in (False, True):
        replay = await verify_replay(store, from_snapshot=from_snapshot)
        assert replay.is_match, replay
    await store.close()
