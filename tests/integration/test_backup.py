"""`fallow backup` and `restore` with a real server: whole or not at all, and the same market afterwards."""

import asyncio
import subprocess

import pytest

from auction.core import Core
from auction.recovery import verify_replay
from sql.audit import audit
from sql.backup import BackupError, _connection_of, find_tools, write_backup
from tests.integration.test_cli import fallow, url_of
from tests.simulation.driver import Crowd

TABLES = """SELECT c.relname, c.relrowsecurity, c.relacl::text, array(
    SELECT polname || ':' || polroles::regrole[]::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1)
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1"""


async def run(*arguments, database):
    return await asyncio.to_thread(fallow, *arguments, url=url_of(database))


async def contents(database):
    """Return every table's rights and the digest of its rows."""
    connection = await database.connect()
    try:
        found = {}
        for name, *rights in await connection.fetch(TABLES):
            digest = f"SELECT count(*), md5(string_agg(t::text, '' ORDER BY t::text)) FROM {name} t"
            found[name] = (rights, tuple(await connection.fetchrow(digest)))
        return found
    finally:
        await connection.close()


async def databases(database):
    connection = await database.connect()
    try:
        return {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
    finally:
        await connection.close()


@pytest.fixture
async def market(server):
    """A database with a crowd's bids, leases, notices and money in it."""
    database = await server.new_database()
    store = database.store()
    await store.acquire()
    crowd = Crowd(Core.restore(await store.load()), 5)
    for _ in range(60):
        crowd.step()
        await store.commit(crowd.core.take_changes())
    await store.close()
    return database


async def test_a_backup_becomes_the_same_market_in_an_empty_database(server, market, tmp_path):
    """Rows, rights and policies are the same; the audit and the replay hold; a second restore is refused."""
    file = tmp_path / "market.dump"
    done = await run("backup", file, database=market)
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [file]
    empty = await server.new_database(migrated=False)
    done = await run("restore", file, database=empty)
    assert (done.returncode, done.stdout) == (0, f"restored {file}\n"), done.stderr
    before = await contents(market)
    assert await contents(empty) == before and before["journal"][1][0] > 60
    connection = await empty.connect()
    assert all(finding.bad == 0 for finding in await audit(connection))
    await connection.close()
    store = empty.store()
    await store.attach()
    assert (await verify_replay(store)).is_match
    await store.close()

    again = await run("restore", file, database=empty)
    assert again.returncode == 1 and "is not empty (" in again.stderr
    assert await contents(empty) == before


async def test_verify_rehearses_and_leaves_nothing(market, tmp_path):
    file, known = tmp_path / "market.dump", await databases(market)
    assert (await run("backup", file, database=market)).returncode == 0
    done = await run("restore", "--verify", file, database=market)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("all ")
    assert await databases(market) == known


async def test_verify_finds_books_that_do_not_hold(market, tmp_path):
    connection = await market.connect()
    await connection.execute("ALTER TABLE ledger_balances DISABLE TRIGGER USER")
    await connection.execute(
        """UPDATE ledger_balances SET debits = debits + 1
           WHERE ledger_account = (SELECT min(ledger_account) FROM ledger_balances)"""
    )
    await connection.close()
    file, known = tmp_path / "market.dump", await databases(market)
    assert (await run("backup", file, database=market)).returncode == 0
    done = await run("restore", "--verify", file, database=market)
    assert done.returncode == 1 and "sum to zero" in done.stdout
    assert await databases(market) == known


async def test_what_is_no_backup_changes_nothing(server, market, tmp_path):
    """A file that is none, a cut one, another program's dump, a name that is taken, no market at all."""
    file, empty = tmp_path / "market.dump", await server.new_database(migrated=False)
    refused = await run("backup", file, database=empty)
    assert refused.returncode == 1 and "holds no market" in refused.stderr and not file.exists()
    assert (await run("backup", file, database=market)).returncode == 0
    whole = file.read_bytes()
    refused = await run("backup", file, database=market)
    assert refused.returncode == 1 and "overwrites nothing" in refused.stderr and file.read_bytes() == whole

    half, words, strange = tmp_path / "half", tmp_path / "words", tmp_path / "strange"
    half.write_bytes(whole[: len(whole) // 2])
    words.write_text("not a dump")
    connection = await empty.connect()
    await connection.execute("CREATE TABLE theirs (n int)")
    tools = find_tools(connection.get_server_version().major)
    arguments = empty.arguments
    dump = [tools.folder / "pg_dump", "-Fc", "-f", strange, "-h", arguments["host"], "-U", "postgres"]
    dump += ["-p", str(arguments["port"]), arguments["database"]]
    await asyncio.to_thread(subprocess.run, dump, check=True)
    await connection.execute("DROP TABLE theirs")
    await connection.close()
    for path, why in ((half, "pg_restore"), (words, "no backup"), (strange, "not of a market")):
        refused = await run("restore", path, database=empty)
        assert refused.returncode == 1 and why in refused.stderr, (path, refused.stderr)
        assert "Traceback" not in refused.stderr
        assert await contents(empty) == {}
    assert (await run("restore", tmp_path / "absent", database=empty)).returncode == 2
    assert (await run("restore", file, database=empty)).returncode == 0, "and now it can be restored"


async def test_a_login_or_database_that_is_not_there_is_one_line(server, tmp_path):
    database = await server.new_database(migrated=False)
    url = url_of(database)
    for wrong in (url.replace("/test_", "/no_test_"), url.replace("postgres@", "nobody_known@")):
        done = await asyncio.to_thread(fallow, "backup", tmp_path / "x", url=wrong)
        assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s%40crt@db.example:5433/market?sslmode=require",
        "postgresql://ann@db.example:5433/market?sslmode=require&password=s%40crt",
    ],
)
def test_a_password_is_no_argument(url, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    target, variables = _connection_of({"dsn": url})
    assert target == "postgresql://ann@db.example:5433/market?sslmode=require"
    assert variables["PGPASSWORD"] == "s@crt"
    assert _connection_of({"dsn": url, "database": "a b"})[0].split("?")[0].endswith("/a%20b")


async def test_the_steps_are_named_as_they_come(market, tmp_path):
    steps = []
    byte_count = await write_backup(market, tmp_path / "market.dump", steps.append)
    assert byte_count == (tmp_path / "market.dump").stat().st_size
    assert "dumping contents of table public.journal" in [step.replace('"', "") for step in steps]


def test_programs_older_than_the_server_are_not_used():
    with pytest.raises(BackupError, match="postgresql-client-99"):
        find_tools(99)
    assert find_tools(15).major >= 15
