"""What an operator does from a shell: prepare, serve, audit, replay, back up, restore.

`audit`, `replay` and `backup` read beside a running server, through its socket; where none runs on the data
directory they start the embedded database themselves and stop it again.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from api.config import Config
from api.keys import mint_key, scopes_of
from auction.clock import SystemClock
from auction.commands import CreateAccount
from auction.core import Core
from auction.errors import Fenced, Rejection
from auction.ids import random_id
from auction.recovery import ReplayReport, verify_replay
from fallow.serve import running_server
from fallow.worker import work
from sql.audit import Finding
from sql.audit import audit as audit_connection
from sql.backup import Report, Scratch, read_backup, write_backup
from sql.embedded import DataDirectoryBusy, connect_arguments
from sql.migrate import pending
from sql.pool import DATABASE_NAME, Database, open_database

OPERATOR_ROLES = ["operator"]


async def migrate(url: str | None, data_dir: Path) -> list[str]:
    """Apply pending migrations; return their names."""
    async with open_database(url=url, data_dir=data_dir) as database:
        return await database.prepare(apply_migrations=True)


async def init(url: str | None, data_dir: Path) -> str:
    """Prepare a database and make its operator. Returns the operator's key, which is stored nowhere.

    Raises Fenced where the database has an operator already.
    """
    async with open_database(url=url, data_dir=data_dir) as database:
        await database.prepare(apply_migrations=True)
        store = database.store()
        await store.acquire()
        try:
            core = Core.restore(await store.load())
            if any("operator" in account.roles for account in core.accounts.values()):
                raise Fenced("this database has an operator already")
            now_us = SystemClock().now_us()
            account = random_id("acct")
            key, text = mint_key(account, "operator", scopes_of(OPERATOR_ROLES), is_live=True, now_us=now_us)
            outcome = core.apply(CreateAccount(account, "operator", OPERATOR_ROLES, key), now_us)
            assert not isinstance(outcome, Rejection)
            await store.commit(core.take_changes())
        finally:
            await store.close()
        return text


async def serve(url: str | None, data_dir: Path, config: Config) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = _stop_signal()
    async with open_database(url=url, data_dir=data_dir) as database:
        await database.prepare(apply_migrations=False)
        async with running_server(database, config) as running:
            print(f"serving {running.url}, metrics at {running.metrics_url}", file=sys.stderr)
            await running.engine.run_until(stop)


async def send_webhooks(url: str | None, data_dir: Path, config: Config) -> None:
    """Send webhooks until SIGINT or SIGTERM, beside a server on the same database.

    Raises FileNotFoundError where the embedded database of `data_dir` has no server.
    """
    stop = _stop_signal()
    async with AsyncExitStack() as stack:
        if url is None:
            database = _embedded(data_dir)  # never started here: its server would find it taken
        else:
            database = await stack.enter_async_context(open_database(url=url, data_dir=data_dir))
        try:
            await database.prepare(apply_migrations=False)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no server runs on {data_dir}") from error
        working = asyncio.create_task(work(database, SystemClock(), config.reach))
        waiting = asyncio.create_task(stop.wait())
        print("working: webhooks", file=sys.stderr)
        try:
            await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def _stop_signal() -> asyncio.Event:
    """Return what SIGINT and SIGTERM set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def audit(url: str | None, data_dir: Path) -> list[Finding]:
    """Check every invariant; see sql/audit.py."""
    async with beside(url, data_dir) as database:
        connection = await database.connect()
        try:
            return await audit_connection(connection)
        finally:
            await connection.close()


async def replay(url: str | None, data_dir: Path, from_snapshot: bool) -> ReplayReport:
    """Replay the journal and compare; see auction/recovery.py."""
    async with beside(url, data_dir) as database:
        store = database.store()
        await store.attach()
        try:
            return await verify_replay(store, from_snapshot=from_snapshot)
        finally:
            await store.close()


async def backup(url: str | None, data_dir: Path, path: Path, report: Report) -> int:
    """Write a backup; return its bytes. Raises BackupError; see sql/backup.py."""
    async with beside(url, data_dir) as database:
        return await write_backup(database, path, report)


async def restore(url: str | None, data_dir: Path, path: Path, report: Report) -> list[str]:
    """Restore into an empty database; return the migrations that it lacks. Raises BackupError."""
    async with open_database(url=url, data_dir=data_dir) as database:
        await read_backup(database, path, report)
        connection = await database.connect()
        try:
            return await pending(connection)
        finally:
            await connection.close()


async def verify(url: str | None, data_dir: Path, path: Path, report: Report) -> list[Finding]:
    """Restore into a scratch database, bring it to this version, audit it, drop it. Raises BackupError."""
    async with beside(url, data_dir) as database, Scratch(database) as scratch:
        await read_backup(scratch, path, report)
        await scratch.prepare(apply_migrations=True)
        report("auditing")
        connection = await scratch.connect()
        try:
            return await audit_connection(connection)
        finally:
            await connection.close()


@asynccontextmanager
async def beside(url: str | None, data_dir: Path) -> AsyncIterator[Database]:
    """Give the database of a running server, or start the embedded one for as long as it is read."""
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(open_database(url=url, data_dir=data_dir))
        except DataDirectoryBusy:
            database = _embedded(data_dir)
        yield database


def _embedded(data_dir: Path) -> Database:
    """Return the embedded database of a server that runs."""
    return Database({**connect_arguments(data_dir), "database": DATABASE_NAME})
