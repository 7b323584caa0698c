"""Limits, the kill switch, affiliations and the second look, over the API."""

from api.services import SERVICES
from auction.units import Price
from sql import query
from sql.limit_reads import PRICED_TICKS_MIN, price_quantile


async def mint(venue, key=None, **fields):
    body = {"name": "bot", "scopes": ["bids:read", "bids:write", "keys:write", "billing:read"]} | fields
    return await venue.ok("POST", "/v1/keys", key or venue.buyer, body)


async def bid(venue, key, **fields):
    body = {"market": "h100-sxm.test", "gpus": 1, "limit_price_per_gpu_hour": "1.00"} | fields
    return await venue.call("POST", "/v1/bids", key, body)


def problem(answered):
    return answered.status, answered.json["code"]


async def test_a_key_is_limited_from_its_first_moment_and_cannot_free_itself(venue):
    made = await mint(venue, limits={"max_price_per_gpu_hour": "2.00", "max_open_notional_per_hour": "3.00"})
    bot, path = made["secret"], f"/v1/keys/{made['id']}"
    placed = await bid(venue, bot, gpus=2)
    assert (placed.status, placed.json["key"]) == (201, made["id"])
    assert problem(await bid(venue, bot, limit_price_per_gpu_hour="2.01")) == (422, "max_price_exceeded")
    refused = await bid(venue, bot, gpus=2)
    assert problem(refused) == (409, "open_notional_exceeded")
    assert (refused.json["required"], refused.json["available"]) == ("2.000000", "1.000000")
    shown = await venue.ok("GET", f"{path}/limits", venue.buyer)
    assert (shown["open_notional_per_hour"], shown["spend_cap_per_day"]) == ("2.000000", None)
    for method, target, body in (
        ("PUT", f"{path}/limits", {}),
        ("POST", f"{path}/resume", None),
        ("POST", "/v1/keys", {"name": "free", "scopes": ["bids:write"]}),
    ):
        assert problem(await venue.call(method, target, bot, body)) == (403, "key_limited")
    freed = await venue.ok("PUT", f"{path}/limits", venue.buyer, {})
    assert freed["max_price_per_gpu_hour"] is None
    assert (await bid(venue, bot, limit_price_per_gpu_hour="2.50")).status == 201


async def test_the_kill_switch_of_a_key(venue):
    made = await mint(venue)
    placed = (await bid(venue, made["secret"])).json
    stopped = await venue.ok("POST", f"/v1/keys/{made['id']}/stop", venue.buyer)
    assert stopped["stopped"] is True
    assert (await venue.ok("GET", f"/v1/bids/{placed['id']}", venue.buyer))["status"] == "cancelled"
    assert problem(await bid(venue, made["secret"])) == (403, "key_stopped")
    itself = await venue.call("POST", f"/v1/keys/{made['id']}/resume", made["secret"])
    assert problem(itself) == (403, "key_limited")
    await venue.ok("POST", f"/v1/keys/{made['id']}/resume", venue.buyer)
    shown = await venue.ok("GET", f"/v1/keys/{made['id']}/limits", venue.buyer)
    assert shown["stopped"] is False
    _, stranger = await venue.open_account("buyer")
    for method, what in (("GET", "limits"), ("PUT", "limits"), ("POST", "stop"), ("POST", "resume")):
        answered = await venue.call(method, f"/v1/keys/{made['id']}/{what}", stranger)
        assert problem(answered) == (404, "not_found")


async def test_the_operator_limits_an_account_and_freezes_it_with_its_bids(venue):
    account, buyer = await venue.open_account("buyer")
    path = f"/v1/operator/accounts/{account}"
    await venue.ok("POST", "/v1/deposits", buyer, {"amount": "100.00"})
    await venue.ok("PUT", f"{path}/limits", venue.operator, {"spend_cap_per_day": "0.10"})
    assert problem(await bid(venue, buyer, gpus=8)) == (409, "spend_cap_reached")
    assert (await bid(venue, buyer)).status == 201
    own = await venue.ok("GET", "/v1/limits", buyer)
    assert own == await venue.ok("GET", f"{path}/limits", venue.operator)
    assert (own["spend_cap_per_day"], own["open_notional_per_hour"]) == ("0.100000", "1.000000")
    assert problem(await venue.call("PUT", f"{path}/limits", buyer, {})) == (403, "scope_missing")
    frozen = await venue.ok("POST", f"{path}/freeze", venue.operator, {"cancel_bids": True})
    assert frozen["state"] == "frozen"
    (ended,) = (await venue.ok("GET", "/v1/bids", buyer))["data"]
    assert ended["status"] == "cancelled"
    missing = await venue.call("PUT", "/v1/operator/accounts/acct_none/limits", venue.operator, {})
    assert problem(missing) == (404, "not_found")
    events = [
        row["kind"] for row in await venue.pool.fetch("SELECT kind FROM events WHERE account = $1", account)
    ]
    assert "bid.cancelled" in events


async def test_accounts_that_belong_together_do_not_trade(venue):
    await venue.offer_node()
    owner = (await venue.ok("GET", "/v1/operator/accounts", venue.operator))["data"]
    owner_id = next(account["id"] for account in owner if account["roles"] == ["owner"])
    buyer_id, buyer = await venue.open_account("buyer")
    await venue.ok("POST", "/v1/deposits", buyer, {"amount": "100.00"})
    for account in (owner_id, buyer_id):
        path = f"/v1/operator/accounts/{account}/affiliation"
        shown = await venue.ok("PUT", path, venue.operator, {"affiliation": "house"})
        assert shown["affiliation"] == "house"
    assert problem(await bid(venue, buyer)) == (409, "self_trade")


async def test_a_limit_far_above_the_median_needs_a_second_word(venue):
    services = venue.client.app[SERVICES]
    assert (await bid(venue, venue.buyer, limit_price_per_gpu_hour="10.00")).status == 201, "no median yet"
    services.medians["h100-sxm.test"] = venue.engine.clock.now_us(), Price(200_000)
    asked = await bid(venue, venue.buyer, limit_price_per_gpu_hour="2.01")
    assert problem(asked) == (422, "confirmation_required")
    assert (asked.json["maximum"], asked.json["errors"][0]["pointer"]) == ("2.000000", "/confirm_limit")
    operations = [
        {"op": "place", "market": "h100-sxm.test", "gpus": 1, "limit_price_per_gpu_hour": price}
        for price in ("2.00", "2.01")
    ]
    batch = await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"operations": operations})
    assert [result["status"] for result in batch["results"]] == [201, 422]
    low = (await bid(venue, venue.buyer)).json["id"]
    raised = await venue.call("PATCH", f"/v1/bids/{low}", venue.buyer, {"limit_price_per_gpu_hour": "2.10"})
    assert problem(raised) == (422, "confirmation_required")
    meant = {"limit_price_per_gpu_hour": "2.10", "confirm_limit": True}
    assert (await venue.ok("PATCH", f"/v1/bids/{low}", venue.buyer, meant))["limit_price_per_gpu_hour"] == (
        "2.100000"
    )
    assert (await bid(venue, venue.buyer, limit_price_per_gpu_hour="2.01", confirm_limit=True)).status == 201
    services.medians["h100-sxm.test"] = venue.engine.clock.now_us(), Price(0)
    assert (await bid(venue, venue.buyer, limit_price_per_gpu_hour="2.01")).status == 201, "all was free"


async def test_the_median_is_of_the_ticks_that_traded(venue):
    reader = venue.client.app[SERVICES].reader
    assert await price_quantile(reader, "h100-sxm.test", 0.5, from_us=0) is None
    await venue.offer_node()
    await venue.place(limit_price_per_gpu_hour="3.00", gpus=8)
    rows = """INSERT INTO ticks SELECT (jsonb_populate_record(NULL::ticks, to_jsonb(t) || jsonb_build_object(
            'tick', t.tick + n, 'market', 'none', 'price', p.paid, 'low', p.paid, 'high', p.paid,
            'digest', n::text, 'previous_digest', (n - 1)::text, 'cleared_at_us', n))).*
        FROM (SELECT * FROM ticks LIMIT 1) t,
            (SELECT n, CASE WHEN n % 2 = 0 THEN n * 10 END AS paid FROM generate_series(1, 22) n) p"""
    await venue.lease_in("running")
    async with venue.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(rows)
        medians = [
            await connection.fetchval(query("price_quantile"), "none", from_us, PRICED_TICKS_MIN, 0.5)
            for from_us in (0, 3, 5)
        ]
        assert medians == [120, 120, None], "11, 10 and 9 ticks with a price"
        await transaction.rollback()
