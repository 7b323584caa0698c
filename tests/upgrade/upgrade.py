"""A market of every earlier schema, brought to the newest one: nothing is lost, and it audits the same.

A small market lives on today's schema: a deposit, holds, a lease that is outbid with its notice, bills. For
each earlier version its rows, cut to the tables and columns of that version, fill a database of that
version, with every CHECK of that version in force; then it is migrated. The code of that version is not
run: what an old engine would have written differently into columns of the same name is not seen here.
"""

from dataclasses import dataclass
from typing import Any

from auction.commands import CreateOffer
from auction.core import Core
from auction.recovery import verify_replay
from sql.audit import audit
from sql.migrate import MigrationError, load_migrations, migrate
from sql.pool import Database
from tests.small_market import Market
from tests.support import Server

SECONDS_BETWEEN_BIDS = 60
# Schema 1 did not know whether a bid had been told its outcome. 0002 takes it that it had not: its bids are
# told once more, and a replay under today's rules, which tells them once, ends in another state.
REPLAYED_FROM_VERSION = 2
_COLUMNS = """
SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'schema_migrations'
    AND is_generated = 'NEVER'
GROUP BY table_name ORDER BY table_name
"""


@dataclass(frozen=True)
class Upgraded:
    """What one version became."""

    version: int
    tables: int
    rows: int
    differs: list[str]  # tables whose rows are not what they were
    failed_checks: list[str]
    is_replayed: bool
    newer_is_refused: bool

    @property
    def is_sound(self) -> bool:
        must_replay = self.version >= REPLAYED_FROM_VERSION
        is_whole = not self.differs and not self.failed_checks
        return is_whole and self.newer_is_refused and (self.is_replayed or not must_replay)


async def live(database: Database) -> None:
    """Fill a database of today's schema with a market's life."""
    store = database.store()
    await store.acquire()
    market = Market(Core.restore(await store.load()))
    market.do(CreateOffer("off", "acct_owner", "node", 2, 500_000))
    for number, (name, limit) in enumerate(
        [("ada", 900_000), ("bob", 1_000_000), ("cy", 1_500_000), ("dee", 2_000_000), ("eve", 2_100_000)]
    ):
        market.bid(name, limit)
        market.until((number + 1) * SECONDS_BETWEEN_BIDS)
        await store.commit(market.core.take_changes())
    on_node = market.on_node()
    assert on_node == ["bid_dee", "bid_eve"], f"the others were outbid, with their notices: {on_node}"
    await store.close()


async def upgrade(server: Server, source: Database, version: int) -> Upgraded:
    """Make the market as `version` would hold it, migrate it, and look."""
    database = await server.new_database(migrated=False)
    known = load_migrations()
    old, new = await database.connect(), await source.connect()
    try:
        await migrate(old, known[:version])
        before = dict(await old.fetch(_COLUMNS))
        there = dict(await new.fetch(_COLUMNS))
        rows = 0
        # The rows are whole as they are: no trigger may book them a second time.
        await old.execute("SET session_replication_role = replica")
        for name, columns in before.items():
            assert name in there and set(columns) <= set(there[name]), (
                f"version {version} lost part of {name}"
            )
            copied = await new.fetch(f"SELECT {_listed(columns)} FROM {name}")
            await old.execute(f"DELETE FROM {name}")
            if copied:
                await old.copy_records_to_table(name, records=copied, columns=columns)
            rows += len(copied)
        await old.execute("RESET session_replication_role")
        await migrate(old)
        differs = [name for name, columns in before.items() if await _differs(old, new, name, columns)]
        failed = [finding.name for finding in await audit(old) if not finding.is_ok]
        try:
            await migrate(old, known[:-1])
            newer_is_refused = False
        except MigrationError as refusal:
            newer_is_refused = f"schema version {len(known)}" in str(refusal)
    finally:
        await old.close()
        await new.close()
    store = database.store()
    await store.attach()
    is_replayed = (await verify_replay(store)).is_match
    await store.close()
    return Upgraded(version, len(before), rows, differs, failed, is_replayed, newer_is_refused)


async def upgrade_all(server: Server, versions: list[int] | None = None) -> list[Upgraded]:
    """Upgrade every earlier version, or some."""
    source = await server.new_database()
    await live(source)
    chosen = versions or list(range(1, len(load_migrations())))
    return [await upgrade(server, source, version) for version in chosen]


async def _differs(old: Any, new: Any, name: str, columns: list[str]) -> bool:
    rows = f"(SELECT {_listed(columns)} FROM {name}) t"
    digest = f"SELECT count(*), md5(string_agg(t::text, '' ORDER BY t::text)) FROM {rows}"
    return tuple(await old.fetchrow(digest)) != tuple(await new.fetchrow(digest))


def _listed(columns: list[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
