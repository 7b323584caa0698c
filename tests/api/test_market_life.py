"""The life of a bid through the HTTP door, on the real engine and a real PostgreSQL."""

import asyncio
from decimal import Decimal

from api.services import SERVICES
from tests.api.conftest import MARKET


async def test_a_bid_is_placed_filled_billed_and_cancelled(venue):
    """Goal: every stage of a bid is visible to its buyer, and what it cost is in the ledger."""
    await venue.offer_node()
    placed = await venue.call(
        "POST",
        "/v1/bids",
        venue.buyer,
        {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00", "labels": {"team": "é"}},
    )
    assert placed.status == 201
    assert placed.headers["ETag"] == '"1"'
    bid = placed.json
    assert bid["status"] == "open"
    assert bid["limit_price_per_gpu_hour"] == "2.000000"
    assert bid["worst_cost_per_hour"] == "4.000000"
    assert bid["resting_gpus"] == 2
    assert bid["effective_tick"] >= 1
    lease = await venue.lease_in("running")
    assert lease["bid"] == bid["id"]
    assert lease["gpus"] == len(lease["gpu_indices"]) == 2
    assert lease["connect"]["host"] == "127.0.0.1"

    async def charged():
        found = await venue.ok("GET", "/v1/usage?group_by=lease", venue.buyer)
        return found["data"]

    shown = await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer)
    assert shown["status"] == "filled"
    assert shown["leases"] == [lease["id"]]
    assert shown["current_price"] == lease["price"]

    async def some_seconds():
        return (await venue.ok("GET", f"/v1/markets/{MARKET}/ticks/latest"))["tick"] >= 3

    await venue.until(some_seconds, "three ticks")
    cancelled = await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
    assert cancelled["status"] == "cancelled"
    usage = await venue.until(charged, "usage")
    assert usage[0]["group"] == lease["id"]
    ended = await venue.ok("GET", f"/v1/leases/{lease['id']}", venue.buyer)
    assert (ended["state"], ended["end_reason"]) == ("ended", "released")
    assert ended["cost"] == usage[0]["amount"]
    assert (await venue.call("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)).json["code"] == "bid_final"
    released = await venue.call("POST", f"/v1/leases/{lease['id']}/release", venue.buyer)
    assert released.json["code"] == "lease_ended"
    events = await venue.ok("GET", f"/v1/bids/{bid['id']}/events", venue.buyer)
    kinds = [event["type"] for event in reversed(events["data"])]
    assert kinds[0] == "bid.accepted"
    assert "lease.started" in kinds
    assert kinds[-1] == "bid.cancelled"
    await assert_ledger_adds_up(venue)


async def assert_ledger_adds_up(venue):
    """Walk the ledger in small pages: each line's balance is the one below it plus its amount."""
    entries, cursor = [], ""
    while True:
        page = await venue.ok("GET", f"/v1/ledger/entries?limit=2{cursor}", venue.buyer)
        entries += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    balances = {}
    for entry in reversed(entries):
        name = entry["ledger_account"]
        balances[name] = balances.get(name, 0) + micro(entry["amount"])
        assert micro(entry["balance"]) == balances[name]
    shown = await venue.ok("GET", "/v1/balance", venue.buyer)
    assert {name: micro(shown[name]) for name in balances} == balances
    assert entries[-1]["code"] == "deposit"


def micro(text):
    return int(text.replace(".", ""))


async def test_a_batch_answers_each_operation(venue):
    await venue.offer_node()
    first = await venue.place(client_bid_id="mine")
    operations = [
        {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.50"},
        {"op": "amend", "id": first["id"], "limit_price_per_gpu_hour": "2.50"},
        {"op": "amend", "id": first["id"], "gpus": 3, "version": 1},
        {"op": "cancel", "id": first["id"]},
        {"op": "cancel", "id": "bid_unknown"},
        {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00005"},
    ]
    answered = await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"operations": operations})
    results = answered["results"]
    assert [result["status"] for result in results] == [201, 200, 412, 200, 404, 422]
    assert results[1]["bid"]["limit_price_per_gpu_hour"] == "2.500000"
    refused = results[5]["problem"]
    assert refused["code"] == "price_not_on_increment"
    assert (refused["below"], refused["above"]) == ("1.000000", "1.000100")
    remaining = await venue.ok("DELETE", f"/v1/bids?market={MARKET}", venue.buyer)
    assert [result["bid"]["status"] for result in remaining["results"]] == ["cancelled"]
    listed = await venue.ok("GET", "/v1/bids?limit=1", venue.buyer)
    second = await venue.ok("GET", f"/v1/bids?limit=1&cursor={listed['next_cursor']}", venue.buyer)
    assert listed["data"][0]["id"] == results[0]["bid"]["id"]
    assert second["data"][0]["id"] == first["id"]
    assert second["next_cursor"] is None
    by_name = await venue.ok("GET", "/v1/bids/by-client-id/mine", venue.buyer)
    assert by_name["id"] == first["id"]


async def test_an_atomic_batch_happens_whole_or_not_at_all(venue):
    """Goal: two legs that make sense together only; and a replacement that its own cancel pays for."""
    first = await venue.place(client_bid_id="leg")
    place = {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.50"}
    wrong = place | {"limit_price_per_gpu_hour": "1.00005"}
    before = await venue.ok("GET", "/v1/balance", venue.buyer)
    refused = await venue.ok(
        "POST",
        "/v1/bids/batch",
        venue.buyer,
        {"atomic": True, "operations": [place, {"op": "cancel", "id": first["id"]}, wrong]},
    )
    problems = [(result["status"], result["problem"]["code"]) for result in refused["results"]]
    assert problems == [(409, "batch_aborted"), (409, "batch_aborted"), (422, "price_not_on_increment")]
    assert "operation 2 was refused" in refused["results"][0]["problem"]["detail"]
    assert await venue.ok("GET", "/v1/balance", venue.buyer) == before
    bids = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    assert [(bid["id"], bid["version"]) for bid in bids] == [(first["id"], 1)]

    # All the money there is, once more: only after the cancel is there room for it.
    free = Decimal(before["available"]) + Decimal(before["held"])
    held_per_gpu = Decimal(before["held"]) / (first["gpus"] * Decimal(first["limit_price_per_gpu_hour"]))
    gpus = int(free * Decimal("0.9") / (held_per_gpu * 2))
    large = place | {"gpus": gpus, "limit_price_per_gpu_hour": "2.00", "client_bid_id": "leg 2"}
    operations = [{"op": "cancel", "id": first["id"]}, large, large]
    done = await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"atomic": True, "operations": operations})
    assert [result["status"] for result in done["results"]] == [200, 201, 200]
    alone = await venue.call("POST", "/v1/bids", venue.buyer, {k: large[k] for k in large if k != "op"})
    assert alone.status == 200, "the same client_bid_id again"


async def test_a_repeated_client_bid_id_is_the_first_bid_or_a_conflict(venue):
    body = {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00", "client_bid_id": "x"}
    first = await venue.call("POST", "/v1/bids", venue.buyer, body)
    again = await venue.call("POST", "/v1/bids", venue.buyer, body)
    other = await venue.call("POST", "/v1/bids", venue.buyer, body | {"gpus": 3})
    assert (first.status, again.status, other.status) == (201, 200, 409)
    assert again.json["id"] == first.json["id"]
    assert other.json["code"] == "client_bid_id_conflict"


async def test_preview_and_quote_store_nothing(venue):
    await venue.offer_node(gpus=4, reserve="1.00")
    body = {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00"}
    preview = await venue.ok("POST", "/v1/bids/preview", venue.buyer, body)
    assert preview["fill_gpus"] == 2
    assert preview["worst_cost_per_hour"] == "4.000000"
    quote = await venue.ok("GET", f"/v1/markets/{MARKET}/quote?gpus=2")
    assert quote["price_to_fill"] is not None
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []
    curve = await venue.ok("GET", f"/v1/markets/{MARKET}/curve")
    assert curve["demand"] == []
    assert curve["supply"][0][1] == 4


async def _ended_bids(venue):
    (bid,) = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    return bid["status"] not in ("accepted", "pending", "queued") and bid["filled_gpus"] == 2


async def test_the_curve_of_a_past_tick_is_what_it_cleared(venue):
    """Goal: supply and demand cross where that tick's price was, whatever happened since."""
    await venue.offer_node(gpus=4, reserve="1.00")
    body = {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00", "time_in_force": "ioc"}
    await venue.ok("POST", "/v1/bids", venue.buyer, body)
    await venue.until(lambda: _ended_bids(venue), "the bid's tick")
    after = await venue.ok("GET", f"/v1/markets/{MARKET}/curve")
    ticks = (await venue.ok("GET", f"/v1/markets/{MARKET}/ticks"))["data"]
    tick = next(row["tick"] for row in ticks if row["bids"] == 1)
    cleared = await venue.ok("GET", f"/v1/markets/{MARKET}/curve?tick={tick}")
    assert (cleared["tick"], cleared["demand"]) == (tick, [["2.000000", 2]])
    assert cleared["supply"] == after["supply"] and cleared["supply"][0][1] == 4
    unknown = await venue.call("GET", f"/v1/markets/{MARKET}/curve?tick=999999")
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")


async def test_a_recall_gives_notice_and_an_acknowledgement_ends_the_lease(venue):
    """Goal: the notice reaches a waiting buyer, and acking it ready stops the bill."""
    node, _ = await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    cordoned = await venue.ok("POST", f"/v1/nodes/{node['id']}/cordon", venue.owner)
    assert cordoned["state"] == "cordoned"
    recalled = await venue.ok("POST", f"/v1/nodes/{node['id']}/recall", venue.owner, {"notice_seconds": 60})
    assert [notice["lease"] for notice in recalled["notices"]] == [lease["id"]]
    waited = await venue.ok("GET", "/v1/notices?state=issued", venue.buyer)
    notice = waited["data"][0]
    assert notice["reason"] == "offer_withdrawn"
    assert notice["notice_seconds"] == 60
    acked = await venue.ok("POST", f"/v1/notices/{notice['id']}/ack", venue.buyer, {"ready": True})
    assert acked["state"] == "done"
    again = await venue.call("POST", f"/v1/notices/{notice['id']}/ack", venue.buyer, {"ready": True})
    assert again.json["code"] == "notice_closed"
    assert (await venue.ok("GET", f"/v1/leases/{lease['id']}", venue.buyer))["state"] == "ended"
    nothing = await venue.ok("GET", f"/v1/notices?after={notice['id']}&wait_seconds=1", venue.buyer)
    assert nothing["data"] == []


async def test_a_real_agent_enrols_reads_its_desired_state_and_reports(venue):
    node, _ = await venue.offer_node(simulated=False)
    assert node["state"] == "enrolling"
    enrolled = await venue.ok("POST", "/v1/agent/enrol", venue.owner, {"node": node["id"]})
    assert enrolled["state"] == "online"
    await venue.place()
    idle = await venue.ok("GET", f"/v1/agent/desired?node={node['id']}", venue.owner)
    desired = idle
    while not desired["nodes"][0]["leases"]:
        desired = await venue.ok(
            "GET", f"/v1/agent/desired?revision={desired['revision']}&wait_seconds=5", venue.owner
        )
    lease = desired["nodes"][0]["leases"][0]
    assert lease["state"] == "starting"
    path = f"/v1/agent/leases/{lease['id']}/report"
    started = await venue.ok("POST", path, venue.owner, {"state": "started", "connect": {"ssh": "host"}})
    assert started["state"] == "running"
    assert (await venue.lease_in("running"))["connect"] == {"ssh": "host"}
    assert (await venue.call("POST", path, venue.buyer, {"state": "stopped"})).status == 403
    stopped = await venue.ok("POST", path, venue.owner, {"state": "stopped"})
    assert stopped["state"] == "ended"
    late = await venue.call("POST", path, venue.owner, {"state": "stopped"})
    assert late.json["code"] == "lease_ended"


async def test_offers_are_amended_and_withdrawn_under_their_etag(venue):
    node, offer = await venue.offer_node(gpus=4)
    path = f"/v1/offers/{offer['id']}"
    change = {"reserve_price_per_gpu_hour": "1.20"}
    assert (await venue.call("PATCH", path, venue.owner, change)).status == 428
    stale = await venue.call("PATCH", path, venue.owner, change, If_Match='"7"')
    assert (stale.status, stale.json["code"], stale.json["current"]) == (412, "version_mismatch", 1)
    amended = await venue.call("PATCH", path, venue.owner, change, If_Match='"1"')
    assert (amended.status, amended.headers["ETag"]) == (200, '"2"')
    batch = {"offers": [{"node": node["id"], "gpus": 9, "reserve_price_per_gpu_hour": "1"}]}
    refused = await venue.ok("POST", "/v1/offers/batch", venue.owner, batch)
    assert refused["results"][0]["problem"]["code"] == "node_gpus_exceeded"
    withdrawn = await venue.ok("DELETE", path, venue.owner, If_Match='"2"')
    assert withdrawn["status"] == "withdrawn"
    again = await venue.call("DELETE", path, venue.owner, If_Match='"3"')
    assert again.json["code"] == "offer_final"


async def test_a_halted_market_refuses_bids_and_serves_cancels(venue):
    bid = await venue.place()
    halted = await venue.ok(
        "POST", f"/v1/operator/markets/{MARKET}/halt", venue.operator, {"reason": "maintenance"}
    )
    assert (halted["status"], halted["status_reason"]) == ("halted", "maintenance")
    body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    refused = await venue.call("POST", "/v1/bids", venue.buyer, body)
    assert (refused.status, refused.json["code"]) == (503, "market_halted")
    assert refused.json["retryable"] is True
    assert int(refused.headers["Retry-After"]) >= 1
    await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
    resumed = await venue.ok("POST", f"/v1/operator/markets/{MARKET}/resume", venue.operator)
    assert resumed["status"] == "open"
    await venue.place()


async def test_a_stopping_server_answers_long_polls_and_closes_sockets(venue):
    """Goal: nobody who waits holds the server up: 200 with nothing new, and close code 1012."""
    async with venue.client.ws_connect("/v1/ws") as socket:
        await socket.receive(timeout=5)
        polls = [
            asyncio.create_task(venue.call("GET", "/v1/notices?wait_seconds=60", venue.buyer)),
            asyncio.create_task(venue.call("GET", await agent_poll(venue), venue.owner)),
        ]
        services = venue.client.app[SERVICES]

        async def both_wait():
            return len(services.waits) == 2

        await venue.until(both_wait, "two long polls")
        async with asyncio.timeout(10):
            closing = asyncio.create_task(venue.client.server.close())
            while not socket.closed:
                await socket.receive()
            answers = await asyncio.gather(*polls)
            await closing
        assert [answer.status for answer in answers] == [200, 200]
        assert socket.close_code == 1012


async def agent_poll(venue):
    revision = (await venue.ok("GET", "/v1/agent/desired", venue.owner))["revision"]
    return f"/v1/agent/desired?revision={revision}&wait_seconds=60"


async def test_a_new_notice_wakes_a_waiting_buyer(venue):
    node, _ = await venue.offer_node()
    await venue.place()
    await venue.lease_in("running")
    poll = asyncio.create_task(venue.ok("GET", "/v1/notices?wait_seconds=30", venue.buyer))
    services = venue.client.app[SERVICES]

    async def waits():
        return services.waits

    await venue.until(waits, "the long poll")
    await venue.ok("POST", f"/v1/nodes/{node['id']}/recall", venue.owner)
    async with asyncio.timeout(5):
        assert [notice["reason"] for notice in (await poll)["data"]] == ["offer_withdrawn"]


async def test_lists_of_markets_ticks_and_accounts(venue):
    made = await venue.open_market("a100.test", tick_seconds=3600)
    assert (made["tick"], made["fee_bps"]) == (0, 500)
    twice = await venue.call(
        "POST",
        "/v1/operator/markets",
        venue.operator,
        {
            "id": "a100.test",
            "gpu_model": "A100",
            "gpu_memory_gib": 80,
            "gpus_per_node": 8,
            "interconnect": "sxm",
            "region": "test",
        },
    )
    assert (twice.status, twice.json["code"]) == (409, "market_exists")
    none = await venue.call("GET", "/v1/markets/a100.test/ticks/latest")
    assert none.status == 404

    async def four_ticks():
        return (await venue.ok("GET", f"/v1/markets/{MARKET}"))["tick"] >= 4

    await venue.until(four_ticks, "four ticks")
    path = f"/v1/markets/{MARKET}/ticks"
    first = await venue.ok("GET", f"{path}?limit=2&to=3")
    assert [tick["tick"] for tick in first["data"]] == [3, 2]
    rest = await venue.ok("GET", f"{path}?limit=2&to=3&cursor={first['next_cursor']}")
    assert [tick["tick"] for tick in rest["data"]] == [1]
    assert first["data"][1]["previous_digest"] == rest["data"][0]["digest"]
    since = first["data"][0]["cleared_at"]
    later = await venue.ok("GET", f"{path}?from={since}&to=3")
    assert [tick["tick"] for tick in later["data"]] == [3]
    accounts = await venue.ok("GET", "/v1/operator/accounts?limit=2", venue.operator)
    assert len(accounts["data"]) == 2
    assert accounts["next_cursor"] is not None
    assert (await venue.call("GET", "/v1/operator/accounts", venue.buyer)).status == 403
