"""What an operator watches."""

from tests.api.conftest import serving


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

    async with serving(database, config) as venue:
        await venue.open_market()
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
