"""What charging running leases costs: as one aggregate, and as the market does it, a charge for each lease.

The aggregate is one statement on the market's own transfers and balances: a million leases of 9,999 payers
are summed up by payer, one transfer for each moves the sum from its held money to the owner, and the trigger
moves the balances and refuses an overdraft. It writes no usage and no lease: it is what such a settlement
could cost, not what the market does. Beside it a transfer for each lease, for a tenth of them.

The market's own way is measured on a market of its own, from when the settlement falls due: usage, charge,
fee and refilled hold for each lease, its row and its bid's, in one transaction. Both are with fsync.
"""

import asyncio
from collections.abc import Awaitable
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg
from rich.progress import Progress

from auction import ledger
from auction.ports import Changes
from bench.http_ledger import ACCOUNTS, fund
from bench.preemption_world import CENT, GPUS_PER_NODE, TICK_SECONDS, Venue
from sql.migrate import migrate
from sql.pool import Database
from sql.store import PostgresStore

LEASES = 1_000_000
MARKET_LEASES = 10_000
BUYERS = 100
INTERVAL_S = 60
SETTLEMENT_S = 600  # of the market's
SETTLED_SECONDS_MAX = 300.0
PAYEE = ledger.ledger_account(ACCOUNTS, ledger.EARNING)

_LEASES = f"""CREATE TABLE running AS
    SELECT n AS id, (1 + n % {ACCOUNTS - 1}) * {ledger.CODES_PER_ACCOUNT} + {ledger.HELD} AS payer,
        1000000 + n * 7919 % 3000000 AS price, 1 + n % 8 AS gpu_count
    FROM generate_series(1::bigint, {{leases}}) AS n;
    ANALYZE running"""
_OWED = f"price * gpu_count * {INTERVAL_S}"
_INSERT = """INSERT INTO transfers (shard_id, journal_seq, at_us, idx, code, debit_account, credit_account,
    amount, reference, interval_end_s)
    SELECT 0, $1::bigint, $1, row_number() OVER (), 'charge', payer, $2::bigint, amount, reference, $1 FROM"""
_AGGREGATED = f"""{_INSERT} (SELECT payer, 'payer_' || payer AS reference,
    div(sum({_OWED}), 3600)::bigint AS amount FROM running GROUP BY payer) AS owed"""
_EACH = f"""{_INSERT} (SELECT payer, 'lease_' || id AS reference, {_OWED} / 3600 AS amount
    FROM running WHERE id <= $3) AS owed"""
_EXPECTED = (
    f"SELECT sum(div(owed, 3600)) FROM (SELECT sum({_OWED}) AS owed FROM running GROUP BY payer) AS payers"
)


async def settlement(
    facts: dict[str, Any],
    rounds: int,
    progress: Progress,
    *,
    leases: int = LEASES,
    market_leases: int = MARKET_LEASES,
) -> dict[str, Any]:
    """Return seconds of each way, round by round."""
    task = progress.add_task("settlement", total=rounds + 2)
    where = {"host": facts["socket"], "port": facts["pg_port"], "user": facts["user"]}
    connection = await _fresh(where, "settlement_bench")
    await migrate(connection)
    await fund(connection)
    await connection.execute(_LEASES.format(leases=leases))
    progress.advance(task)
    aggregated = []
    for number in range(rounds):
        aggregated.append(await _timed(connection, _AGGREGATED, number + 10, PAYEE))
        progress.advance(task)
    moved = await connection.fetchval("SELECT sum(amount) FROM transfers WHERE code = 'charge'")
    expected = rounds * await connection.fetchval(_EXPECTED)
    each = await _timed(connection, _EACH, rounds + 10, PAYEE, leases // 10)
    await connection.close()
    if moved != expected:
        raise RuntimeError(f"{moved} microdollars were charged, {expected} are owed")
    await (await _fresh(where, "settlement_market")).close()
    market = await in_market(Database({**where, "database": "settlement_market"}), market_leases)
    progress.advance(task)
    return {
        "leases": leases, "aggregated_s": aggregated, "median_s": median(aggregated),
        "each_leases": leases // 10, "each_s": each, "market": market,
    }  # fmt: skip


def rows(found: dict[str, Any], target: str) -> list[list[str]]:
    """Return the table's rows."""
    market = found["market"]
    each_us = found["each_s"] / found["each_leases"] * 1e6
    ours_us = market["settled_s"] / market["leases"] * 1e6
    decided_us = market["decided_s"] / market["leases"] * 1e6
    return [
        [f"settlement, {found['leases']:,} leases aggregated", "–", f"{found['median_s']:.2f}", target],
        [
            f"settlement, {found['each_leases']:,} transfers",
            f"{1e6 / each_us:,.0f}/s",
            f"{each_us:.0f}",
            "µs each",
        ],
        [
            f"settlement, {market['leases']:,} leases in the market",
            f"{1e6 / ours_us:,.0f}/s",
            f"{ours_us:.0f}",
            f"µs each, {decided_us:.0f} of them the engine's",
        ],
    ]


class _TimedStore(PostgresStore):
    """Remembers when the commit with the most usage began and ended, and what it wrote."""

    began_s = ended_s = 0.0
    wrote: dict[str, int] | None = None

    def commit(self, changes: Changes) -> Awaitable[None]:
        return self._timed(changes, perf_counter(), super().commit(changes))

    async def _timed(self, changes: Changes, began_s: float, writing: Awaitable[None]) -> None:
        await writing
        if changes.usage and (self.wrote is None or len(changes.usage) > self.wrote["usage"]):
            self.began_s, self.ended_s = began_s, perf_counter()
            names = ("usage", "transfers", "leases", "bids", "events")
            self.wrote = {name: len(getattr(changes, name)) for name in names}


async def in_market(database: Database, leases: int) -> dict[str, Any]:
    """Run so many one-GPU leases for a settlement's interval; return what settling them took, and wrote."""
    stores: list[_TimedStore] = []

    def make_store() -> _TimedStore:
        stores.append(_TimedStore(database._connect_engine))
        return stores[-1]

    await database.prepare(apply_migrations=True)
    venue = Venue(database, make_store)
    await venue.start()
    await venue.open(nodes=leases // GPUS_PER_NODE)
    buyers = await venue.open_buyers(BUYERS)
    await venue.place(list(buyers), leases // BUYERS, 100 * CENT)
    venue.clock.advance(TICK_SECONDS)
    await venue.settle()
    started = await venue.start_leases()
    store = stores[-1]
    began_s = perf_counter()
    venue.clock.advance(SETTLEMENT_S)
    async with asyncio.timeout(SETTLED_SECONDS_MAX):
        while store.wrote is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await venue.stop()
    if not started == leases == store.wrote["usage"]:
        raise RuntimeError(f"{leases} leases were to be settled: {started} ran, {store.wrote} was written")
    return {
        "leases": leases,
        "decided_s": store.began_s - began_s,
        "settled_s": store.ended_s - began_s,
        "wrote": store.wrote,
    }


async def _timed(connection: asyncpg.Connection, statement: str, *arguments: int) -> float:
    began_s = perf_counter()
    await connection.execute(statement, *arguments)
    return perf_counter() - began_s


async def _fresh(where: dict[str, Any], name: str) -> asyncpg.Connection:
    """Make a database and connect to it."""
    admin = await asyncpg.connect(**where, database="postgres")
    await admin.execute(f'CREATE DATABASE "{name}"')
    await admin.close()
    return await asyncpg.connect(**where, database=name)
