"""Bids over several markets on the real database: written, read back, audited, and corruptions named."""

import asyncpg
import pytest

from auction.commands import AmendBid, decode_command
from auction.core import Core
from sql.audit import audit
from tests.simulation.travellers import Travellers
from tests.support import assert_audit_passes


async def travelled(database, seed, steps=120):
    """Drive a crowd and write every step; return the core."""
    store = database.store()
    await store.acquire()
    crowd = Travellers(seed)
    for _ in range(steps):
        crowd.step()
        await store.commit(crowd.core.take_changes())
    restored = Core.restore(await store.load())
    await store.close()
    assert restored.state_hash() == crowd.core.state_hash()


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_history_over_several_markets_is_read_back_and_audited(server, seed):
    database = await server.new_database()
    await travelled(database, seed)
    connection = await database.connect()
    went_on = await connection.fetchval(
        "SELECT count(*) FROM leases l JOIN bids b ON b.id = l.bid WHERE l.market <> b.market"
    )
    await connection.close()
    assert went_on > 0, "some bid had GPUs in one market and is in another now"
    await assert_audit_passes(database)


async def test_a_price_above_the_limit_of_the_leases_own_market_is_named(server):
    """Its limit elsewhere is no excuse."""
    database = await server.new_database()
    await travelled(database, 3)
    connection = await database.connect()
    amended = await connection.fetch(
        "SELECT payload FROM journal WHERE position('AmendBid'::bytea IN payload) > 0"
    )
    commands = [decode_command(row["payload"]) for row in amended]
    told = {(one.bid, one.market) for one in commands if isinstance(one, AmendBid) and one.limit is not None}
    rows = await connection.fetch(
        """SELECT DISTINCT l.bid, l.market FROM usage u JOIN leases l ON l.id = u.lease
        JOIN bids b ON b.id = l.bid
        WHERE b.alternatives <> '[]' AND u.price > 0 AND l.market <> b.market ORDER BY 1, 2"""
    )
    bid, market = next(tuple(row) for row in rows if tuple(row) not in told)
    await connection.execute(
        """UPDATE bids SET alternatives = (
            SELECT jsonb_agg(CASE WHEN a ->> 'market' = $2 THEN a || '{"limit": 1}' ELSE a END)
            FROM jsonb_array_elements(alternatives) a
        ) WHERE id = $1""",
        bid, market,
    )  # fmt: skip
    bad = [finding.name for finding in await audit(connection) if not finding.is_ok]
    with pytest.raises(asyncpg.CheckViolationError, match="bids_alternatives_named"):
        await connection.execute("UPDATE bids SET alternatives = '[{}]' WHERE id = $1", bid)
    await connection.close()
    assert bad == ["16_limits"]
