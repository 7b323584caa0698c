"""Row-level security: what each role can see and do, whatever a query forgot to ask."""

import asyncpg
import pytest

from auction.core import Core
from sql.pool import Database
from sql.scope import AUDITOR, EVERYBODY, PUBLIC, acting, tenant
from tests.simulation.driver import Crowd

# No row of these is anybody's own.
PUBLIC_TABLES = {"curves", "markets", "ticks"}
SYSTEM_TABLES = {"journal", "shards", "snapshots", "webhook_outbox", "schema_migrations"}
# A column of one of these names says whose a row is, or leads to one that does.
OF_TENANTS = {"account", "owner", "lease", "endpoint", "ledger_account", "debit_account"}


@pytest.fixture
async def database(server):
    """A database with a crowd's accounts, bids, leases, notices and money in it."""
    database = await server.new_database()
    store = database.store()
    await store.acquire()
    crowd = Crowd(Core.restore(await store.load()), 3)
    for _ in range(120):
        crowd.step()
        await store.commit(crowd.core.take_changes())
    await store.close()
    return database


@pytest.fixture
async def pool(database):
    pool = await database.create_pool()
    yield pool
    await pool.close()


@pytest.fixture
async def owner_of_tables(database):
    connection = await database.connect()
    yield connection
    await connection.close()


async def tables(connection):
    rows = await connection.fetch(
        """SELECT c.relname AS name, c.relrowsecurity AS is_secured,
            array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0) AS columns,
            array(SELECT polname::text FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
        FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"""
    )
    return {row["name"]: row for row in rows}


async def test_every_table_with_a_tenant_has_its_policies(owner_of_tables):
    found = await tables(owner_of_tables)
    for name, table in found.items():
        if name in PUBLIC_TABLES | SYSTEM_TABLES:
            assert not OF_TENANTS & set(table["columns"]), f"{name} has a tenant: give it policies"
            continue
        assert table["is_secured"], f"{name} has no row-level security"
        assert set(table["policies"]) == {"tenant", "everybody", "auditor"}, name
    assert PUBLIC_TABLES | SYSTEM_TABLES <= set(found)


async def test_what_may_be_read_without_being_anybody(pool, owner_of_tables):
    with acting(PUBLIC):
        for name in await tables(owner_of_tables):
            if name in SYSTEM_TABLES:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await pool.fetch(f"SELECT * FROM {name}")
                continue
            rows = await pool.fetch(f"SELECT * FROM {name}")
            if name == "events":
                assert all(row["account"] is None for row in rows)
            elif name not in PUBLIC_TABLES:
                assert rows == [], name


WHOSE = {
    "accounts": "id",
    "api_keys": "account",
    "nodes": "account",
    "offers": "account",
    "bids": "account",
    "payouts": "account",
    "limits": "account",
    "idempotency_keys": "account",
}


async def test_a_tenant_sees_all_of_its_own_rows_and_no_others(pool, owner_of_tables):
    accounts = [row["id"] for row in await owner_of_tables.fetch("SELECT id FROM accounts ORDER BY id")]
    assert len(accounts) > 3
    seen_leases = 0
    for account in accounts:
        number = await owner_of_tables.fetchval("SELECT number FROM accounts WHERE id = $1", account)
        with acting(tenant(account)):
            for name, column in WHOSE.items():
                mine = f"SELECT * FROM {name} WHERE {column} = $1"
                shown = await pool.fetch(f"SELECT * FROM {name}")
                assert sorted(map(str, shown)) == sorted(map(str, await owner_of_tables.fetch(mine, account)))
            leases = await pool.fetch("SELECT account, owner, id FROM leases")
            assert all(account in (row["account"], row["owner"]) for row in leases)
            seen_leases += len(leases)
            visible = {row["id"] for row in leases}
            for name in ("usage", "gpu_slots", "notices"):
                rows = await pool.fetch(f"SELECT lease FROM {name}")
                count = await owner_of_tables.fetchval(
                    f"SELECT count(*) FROM {name} WHERE lease = ANY($1)", list(visible)
                )
                assert {row["lease"] for row in rows} <= visible and len(rows) == count, name
            balances = await pool.fetch("SELECT ledger_account FROM ledger_balances ORDER BY 1")
            assert {row["ledger_account"] // 8 for row in balances} == {number}
            for row in await pool.fetch("SELECT debit_account, credit_account, reference FROM transfers"):
                legs = {row["debit_account"] // 8, row["credit_account"] // 8}
                assert number in legs or row["reference"] in visible
    assert seen_leases == 2 * await owner_of_tables.fetchval("SELECT count(*) FROM leases")


async def test_a_tenant_writes_nothing_of_the_market_and_nothing_for_others(pool, owner_of_tables):
    mine, other = [
        row["account"]
        for row in await owner_of_tables.fetch("SELECT DISTINCT account FROM bids ORDER BY account LIMIT 2")
    ]
    with acting(tenant(mine)):
        for statement in (
            "UPDATE bids SET limit_price = 1",
            "UPDATE accounts SET state = 'open'",
            "UPDATE ledger_balances SET credits = 0",
            "DELETE FROM leases",
            "INSERT INTO transfers (shard_id) VALUES (0)",
            "UPDATE markets SET fee_bps = 0",
            "TRUNCATE ticks",
            "DROP TABLE bids",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(statement)
        insert = """INSERT INTO idempotency_keys
            (account, key, request_hash, status, content_type, body, created_at_us)
            VALUES ($1, 'k', '', 200, '', '', 0)"""
        await pool.execute(insert, mine)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await pool.execute(insert, other)


async def test_the_engine_adds_to_what_is_append_only_and_the_auditor_changes_nothing(pool, owner_of_tables):
    everything = await owner_of_tables.fetchval("SELECT count(*) FROM bids")
    for scope in (EVERYBODY, AUDITOR):
        with acting(scope):
            assert (await pool.fetch("SELECT count(*) FROM bids"))[0]["count"] == everything
            for name in ("journal", "transfers", "ticks", "events", "usage", "workloads"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await pool.execute(f"DELETE FROM {name}")
    for name in await tables(owner_of_tables):
        for statement in (f"DELETE FROM {name}", f"INSERT INTO {name} DEFAULT VALUES"):
            with acting(AUDITOR), pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(statement)


async def test_a_connection_never_keeps_its_last_tenant(pool):
    with acting(tenant("acct_a")):
        assert (await pool.fetch("SELECT tenant() AS t"))[0]["t"] == "acct_a"
    with acting(PUBLIC):
        assert (await pool.fetch("SELECT tenant() AS t"))[0]["t"] is None
    assert (await pool.fixed(EVERYBODY).fetch("SELECT current_user AS u"))[0]["u"] == "fallow_engine"


async def test_the_writer_is_the_engines_role(database, owner_of_tables):
    store = database.store()
    await store.acquire()
    rows = await owner_of_tables.fetch("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")
    assert len(rows) == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await store._writer().execute("DELETE FROM journal")
    await store.close()


async def test_an_ordinary_login_that_may_create_roles_can_run_the_market(server):
    await server.new_database()  # the roles are there, and another login's
    database = await server.new_database(migrated=False)
    admin = await database.connect()
    name = database.arguments["database"]
    await admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE; ALTER DATABASE {name} OWNER TO {name}")
    await admin.execute(f"GRANT ALL ON SCHEMA public TO {name}")
    ordinary = Database({**database.arguments, "user": name})
    if await admin.fetchval("SELECT current_setting('server_version_num')::int") >= 160_000:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="GRANT fallow_api TO"):
            await ordinary.prepare(apply_migrations=True)
    await admin.execute(f"GRANT fallow_api, fallow_engine, fallow_auditor TO {name}")
    await admin.close()
    await ordinary.prepare(apply_migrations=True)
    store = ordinary.store()
    await store.acquire()
    crowd = Crowd(Core.restore(await store.load()), 1)
    for _ in range(20):
        crowd.step()
        await store.commit(crowd.core.take_changes())
    await store.close()
    pool = await ordinary.create_pool()
    assert await pool.fetch("SELECT id FROM bids") == []
    assert len(await pool.fixed(AUDITOR).fetch("SELECT id FROM bids")) > 0
    await pool.close()
