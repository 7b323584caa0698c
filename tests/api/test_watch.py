"""What an operator watches."""

from contextlib import asynccontextmanager

from api.services import SERVICES
from tests.api.conftest import serving


@asynccontextmanager
async def forging(venue):
    """Lend a connection that may change what is append-only."""
    async with venue.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


async def test_the_engine_shows_its_pulse(venue):
    await venue.offer_node()
    await venue.place()
    await venue.lease_in("running")
    shown = await venue.ok("GET", "/v1/operator/engine", venue.operator)
    assert shown["ready"] is True and shown["journal_seq"] == venue.engine.core.seq
    (market,) = shown["markets"]
    assert market["tick"] >= 1 and market["late_seconds"] < 5
    assert (await venue.call("GET", "/v1/operator/engine", venue.buyer)).status == 403


async def test_the_reconciliation_names_what_is_wrong(venue):
    await venue.offer_node()
    await venue.place()
    await venue.lease_in("running")
    shown = await venue.ok("GET", "/v1/operator/reconciliation", venue.operator)
    assert shown["ok"] is True and len(shown["checks"]) >= 35
    assert all(check["checked"] >= 0 and check["claim"] for check in shown["checks"])
    again = await venue.ok("GET", "/v1/operator/reconciliation", venue.operator)
    assert again == shown, "it stands for a minute"


async def test_a_corruption_is_found(database, config):
    """No tick falls in between: it would write the bid's row as it is."""
    async with serving(database, config) as venue:
        await venue.open_market(tick_seconds=600)
        _, venue.buyer = await venue.open_account("buyer")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "10.00"})
        bid = await venue.place(gpus=1, limit_price_per_gpu_hour="1.00")
        async with venue.pool.acquire() as connection:
            await connection.execute("UPDATE bids SET held = held + 1 WHERE id = $1", bid["id"])
        shown = await venue.ok("GET", "/v1/operator/reconciliation", venue.operator)
        bad = [check for check in shown["checks"] if not check["ok"]]
        assert shown["ok"] is False
        assert bad[0]["name"].endswith("bids_held"), bad
        assert bid["id"] in bad[0]["first_bad"]
        async with venue.pool.acquire() as connection:
            await connection.execute("UPDATE bids SET held = held - 1 WHERE id = $1", bid["id"])


async def test_a_tick_is_replayed_to_its_digest_and_a_forged_one_is_not(venue):
    await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    path = f"/v1/operator/ticks/{lease['market']}/1/replay"
    first = await venue.ok("GET", f"/v1/markets/{lease['market']}/ticks/1")
    shown = await venue.ok("POST", path, venue.operator)
    assert (shown["match"], shown["difference"]) == (True, None)
    assert shown["digest"] == shown["replayed_digest"] == first["digest"]
    assert 0 < shown["entries"] < venue.engine.core.seq
    async with forging(venue) as connection:
        before = await connection.fetchrow("SELECT seq, payload FROM journal ORDER BY seq OFFSET 4 LIMIT 1")
        await connection.execute("UPDATE ticks SET digest = repeat('0', 64) WHERE tick = 1")
    forged = await venue.ok("POST", path, venue.operator)
    assert (forged["match"], forged["digest"]) == (False, "0" * 64)
    assert forged["replayed_digest"] == first["digest"]
    async with forging(venue) as connection:
        await connection.execute("UPDATE ticks SET digest = $1 WHERE tick = 1", first["digest"])
        await connection.execute("UPDATE journal SET payload = 'x' WHERE seq = $1", before["seq"])
    broken = await venue.ok("POST", path, venue.operator)
    assert broken["match"] is False and "cannot be read" in broken["difference"]
    async with forging(venue) as connection:
        await connection.execute("UPDATE journal SET payload = $2 WHERE seq = $1", *before)


async def test_a_replay_of_what_never_was_is_refused_and_one_runs_at_a_time(venue):
    for tick in ("999999", "-1", "latest", "9" * 30):
        missing = await venue.call("POST", f"/v1/operator/ticks/h100/{tick}/replay", venue.operator)
        assert missing.status == 404, tick
    await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    path = f"/v1/operator/ticks/{lease['market']}/1/replay"
    async with venue.client.app[SERVICES].replaying:
        busy = await venue.call("POST", path, venue.operator)
    assert (busy.status, busy.json["code"]) == (409, "replay_running")
    assert (await venue.call("POST", path, venue.buyer)).status == 403
