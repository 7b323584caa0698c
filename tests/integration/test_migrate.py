"""Migrations apply once, in order, whoever starts; strange histories and unsafe servers are refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from auction.commands import (
    AmendAccount,
    AmendMarket,
    Command,
    SetAccountState,
    SetAffiliation,
    SetMarketStatus,
    StopKey,
    encode_command,
)
from sql import migrate as module
from sql.migrate import (
    MigrationError,
    UnsafeServerError,
    check_durability,
    load_migrations,
    migrate,
    parse_migrations,
    pending,
)
from tests.integration.test_audit import insert

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {
    "0001_first.sql": b"CREATE TABLE first (id int); INSERT INTO first VALUES (1);",
    "0002_second.sql": b"CREATE TABLE second AS SELECT id + 1 AS id FROM first;",
    "0003_third.sql": b"CREATE TABLE third AS SELECT id + 1 AS id FROM second;",
}
NAMES = ["0001_first", "0002_second", "0003_third"]

VERSIONS = 23  # the migration that gave markets and accounts a version
MARKET_TERMS = {
    "status": "open",
    "tick_seconds": 10,
    "settlement_seconds": 60,
    "price_increment": 100,
    "price_cap": 10_000_000,
}

Connect = Callable[[], Any]


@pytest_asyncio.fixture(loop_scope="module")
async def connect(server: Any) -> AsyncIterator[Connect]:
    """Open connections to a fresh empty database; they are closed with it."""
    maintenance = await asyncpg.connect(**server.postgres.connect_arguments())
    await maintenance.execute("CREATE DATABASE migrate_fresh TEMPLATE template0")
    async with AsyncExitStack() as stack:

        async def open_connection() -> Any:
            connection = await asyncpg.connect(
                **server.postgres.connect_arguments() | {"database": "migrate_fresh"}
            )
            stack.push_async_callback(connection.close)
            return connection

        yield open_connection
    await maintenance.execute("DROP DATABASE migrate_fresh WITH (FORCE)")
    await maintenance.close()


async def test_migrations_apply_in_order_and_only_once(connect: Connect) -> None:
    connection = await connect()
    migrations = parse_migrations(FILES)
    assert await pending(connection, migrations) == NAMES
    assert await migrate(connection, migrations) == NAMES
    assert await connection.fetchval("SELECT id FROM third") == 3
    assert await pending(connection, migrations) == []
    assert await migrate(connection, migrations) == []


async def test_only_what_is_pending_is_applied(connect: Connect) -> None:
    connection = await connect()
    migrations = parse_migrations(FILES)
    await migrate(connection, migrations[:1])
    assert await pending(connection, migrations) == NAMES[1:]
    assert await migrate(connection, migrations) == NAMES[1:]


async def test_listing_what_is_pending_writes_nothing(connect: Connect) -> None:
    connection = await connect()
    await pending(connection)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_the_shipped_migrations_apply_to_an_empty_database(connect: Connect) -> None:
    connection = await connect()
    assert await migrate(connection) == [migration.name for migration in load_migrations()]
    assert await pending(connection) == []
    assert await connection.fetchval("SELECT next_seq FROM shards WHERE shard_id = 0") == 1


async def test_a_failing_migration_leaves_nothing_and_those_before_it_stay(connect: Connect) -> None:
    connection = await connect()
    broken = FILES | {"0002_second.sql": b"CREATE TABLE half (id int); SELECT 1 / 0;"}
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, parse_migrations(broken))
    assert await connection.fetchval(
        "SELECT to_regclass('first') IS NOT NULL AND to_regclass('half') IS NULL"
    )
    assert await migrate(connection, parse_migrations(FILES)) == NAMES[1:]


async def test_an_edited_migration_is_refused_by_name(connect: Connect) -> None:
    connection = await connect()
    await migrate(connection, parse_migrations(FILES))
    edited = parse_migrations(FILES | {"0002_second.sql": FILES["0002_second.sql"] + b" "})
    for attempt in (migrate, pending):
        with pytest.raises(MigrationError, match=r"0002_second was edited.*0002_second"):
            await attempt(connection, edited)


async def test_a_renamed_migration_is_refused(connect: Connect) -> None:
    connection = await connect()
    await migrate(connection, parse_migrations(FILES))
    renamed = dict(FILES)
    renamed["0003_other.sql"] = renamed.pop("0003_third.sql")
    with pytest.raises(MigrationError, match=r"0003_other was edited.*0003_third"):
        await pending(connection, parse_migrations(renamed))


async def test_a_newer_schema_is_refused_with_both_versions(connect: Connect) -> None:
    connection = await connect()
    await migrate(connection, parse_migrations(FILES))
    older = parse_migrations(FILES)[:2]
    for attempt in (migrate, pending):
        with pytest.raises(MigrationError, match=r"schema version 3.*up to version 2"):
            await attempt(connection, older)


async def test_a_hole_in_the_recorded_history_is_refused(connect: Connect) -> None:
    connection = await connect()
    await migrate(connection, parse_migrations(FILES))
    await connection.execute("DELETE FROM schema_migrations WHERE version = 2")
    with pytest.raises(MigrationError, match="schema version 2 is missing"):
        await migrate(connection, parse_migrations(FILES))


async def test_processes_that_start_together_apply_each_migration_once(connect: Connect) -> None:
    """Eight connections migrate at once; what they report adds up to one application of each."""
    connections = [await connect() for _ in range(8)]
    migrations = parse_migrations(FILES)
    applied = await asyncio.gather(*(migrate(connection, migrations) for connection in connections))
    assert sorted(name for names in applied for name in names) == NAMES
    assert await connections[0].fetchval("SELECT count(*) FROM first") == 1


async def test_migrating_waits_for_whoever_holds_the_lock(connect: Connect) -> None:
    holder, waiter = await connect(), await connect()
    async with holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock($1)", module._LOCK_KEY)
        task = asyncio.create_task(migrate(waiter, parse_migrations(FILES)))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while await holder.fetchval(waiting) == 0:
            assert not task.done()
        assert await holder.fetchval("SELECT to_regclass('first') IS NULL")
    assert await task == NAMES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001_first.sql", "0003_third.sql"], "0003_third.sql: expected version 2, found 3"),
        (["0001_first.sql", "0001_twin.sql"], "0001_twin.sql: expected version 2, found 1"),
        (["0002_second.sql"], "0002_second.sql: expected version 1, found 2"),
        (["first.sql"], "first.sql: expected a name like 0001_what.sql"),
        (["0001_First.sql"], "0001_First.sql: expected a name like 0001_what.sql"),
    ],
)
async def test_a_bad_set_of_files_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        parse_migrations(dict.fromkeys(names, b""))


async def test_the_embedded_server_is_durable(connect: Connect) -> None:
    await check_durability(await connect())


async def test_a_session_that_commits_asynchronously_is_refused(connect: Connect) -> None:
    connection = await connect()
    await connection.execute("SET synchronous_commit = off")
    with pytest.raises(UnsafeServerError, match="synchronous_commit is off"):
        await check_durability(connection)


async def test_a_database_set_to_commit_asynchronously_is_refused(connect: Connect) -> None:
    await (await connect()).execute("ALTER DATABASE migrate_fresh SET synchronous_commit = off")
    with pytest.raises(UnsafeServerError, match="synchronous_commit is off"):
        await check_durability(await connect())


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_pages_is_refused(connect: Connect, setting: str) -> None:
    """Shadow the server's view of itself: these settings belong to the whole server, which stays safe."""
    connection = await connect()
    await connection.execute(
        "CREATE FUNCTION public.current_setting(name text) RETURNS text LANGUAGE sql AS $$"
        f" SELECT CASE name WHEN '{setting}' THEN 'off' ELSE pg_catalog.current_setting(name) END $$;"
        " SET search_path = public, pg_catalog"
    )
    with pytest.raises(UnsafeServerError, match=f"{setting} is off"):
        await check_durability(connection)


@pytest.mark.parametrize(("lowest", "highest"), [(1, 14), (90, 99)])
async def test_an_untested_server_version_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, lowest: int, highest: int
) -> None:
    monkeypatch.setattr(module, "SERVER_MAJOR_MIN", lowest)
    monkeypatch.setattr(module, "SERVER_MAJOR_MAX", highest)
    with pytest.raises(UnsafeServerError, match=f"PostgreSQL {lowest} to {highest} is supported"):
        await check_durability(await connect())


async def test_versions_of_a_market_in_use_count_its_past(connect: Connect) -> None:
    """The rows must agree with what a replay of the journal counts, for short ids and for long ones."""
    connection = await connect()
    shipped = load_migrations()
    await migrate(connection, shipped[: VERSIONS - 1])
    long_id = "h100-sxm.a-region-with-quite-a-long-name"
    for market in ("m", long_id, "untouched"):
        await insert(connection, "markets", id=market, kind="gpu", **MARKET_TERMS)
    for number, account in enumerate(("acct_a", "acct_ab"), 1):
        await insert(connection, "accounts", id=account, number=number, state="open")
    past: list[Command] = [
        AmendMarket("m", 10), SetMarketStatus("m", "halted", "x"), AmendMarket(long_id, 10),
        AmendAccount("acct_a", "SetMarketTiming"), SetAccountState("acct_a", "open"),
        SetAffiliation("acct_a", "acct_ab"), AmendAccount("acct_ab", "x"), StopKey("key_x", "acct_a"),
    ]  # fmt: skip
    for seq, command in enumerate(past, 1):
        await insert(connection, "journal", seq=seq, payload=encode_command(command))
    await migrate(connection, shipped)
    assert dict(await connection.fetch("SELECT id, version FROM markets")) == {
        "m": 3,
        long_id: 2,
        "untouched": 1,
    }
    assert dict(await connection.fetch("SELECT id, version FROM accounts")) == {"acct_a": 4, "acct_ab": 2}
