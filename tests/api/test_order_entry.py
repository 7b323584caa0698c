"""Order entry over the WebSocket, as a bot sees it."""

from dataclasses import replace

import pytest

from api.services import SERVICES
from tests.api.conftest import MARKET, serving
from tests.api.test_stream import connected, silent

PLACE = {"type": "bid.place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "0.50"}


async def trading(client, venue, **flags):
    """Authenticate a session."""
    await client.send(type="auth", id="auth", key=venue.buyer, **flags)
    await client.until(type="ack", id="auth")


async def live_bids(venue):
    bids = (await venue.ok("GET", "/v1/bids?limit=500", venue.buyer))["data"]
    return [bid["id"] for bid in bids if bid["status"] != "cancelled"]


async def test_each_order_is_answered_as_over_http(venue):
    for protocol in ("fallow.v1.json", "fallow.v1.msgpack"):
        async with connected(venue, protocol) as client:
            await trading(client, venue)
            await client.send(**PLACE, id=1, client_bid_id=protocol, labels={"a": "b"})
            placed = await client.until(type="ack", id=1)
            bid = placed["result"]
            assert (placed["status"], bid["limit_price_per_gpu_hour"]) == (201, "0.500000")
            await client.send(**PLACE, id=2, client_bid_id=protocol, labels={"a": "b"})
            repeat = await client.until(type="ack", id=2)
            assert (repeat["status"], repeat["result"]["id"]) == (200, bid["id"])
            await client.send(type="bid.amend", id=3, bid=bid["id"], limit_price_per_gpu_hour="0.60")
            amended = (await client.until(type="ack", id=3))["result"]
            stored = await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer)
            assert amended["limit_price_per_gpu_hour"] == stored["limit_price_per_gpu_hour"] == "0.600000"
            await client.send(type="bid.cancel", id=4, bid=bid["id"], version=bid["version"])
            assert (await client.until(type="error", id=4))["code"] == "version_mismatch"
            await client.send(type="bid.cancel", id=5, bid=bid["id"])
            assert (await client.until(type="ack", id=5))["result"]["status"] == "cancelled"
            await client.send(type="bid.cancel", id=6, bid=bid["id"])
            assert (await client.until(type="error", id=6))["code"] == "bid_final"
            await client.send(type="cancel_after", id=7, timeout_seconds=60)
            assert (await client.until(type="ack", id=7))["result"]["cancel_at"] is not None
            operations = [PLACE | {"op": "place"}, {"op": "cancel", "id": "bid_none"}]
            del operations[0]["type"]
            await client.send(type="bid.batch", id=8, operations=operations)
            results = (await client.until(type="ack", id=8))["result"]["results"]
            assert [result["status"] for result in results] == [201, 404]


async def test_a_notice_is_acknowledged(venue):
    await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    async with connected(venue) as client:
        await trading(client, venue)
        notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        await client.send(type="notice.ack", id="n", notice=notice["id"], ready=True)
        assert (await client.until(type="ack", id="n"))["result"]["state"] in ("acknowledged", "done")
        await client.send(type="notice.ack", id="m", notice=notice["id"])
        assert (await client.until(type="error", id="m"))["code"] == "notice_closed"


async def test_a_thousand_pipelined_places_are_applied_in_the_order_sent(venue):
    names = [f"bid-{number}" for number in range(1_000)]
    async with connected(venue) as client:
        await trading(client, venue)
        for name in names:
            await client.send(**PLACE, id=name, client_bid_id=name)
        acked = set()
        while len(acked) < len(names):
            message = await client.next()
            assert message["type"] in ("ack", "heartbeat"), message
            if message["type"] == "ack":
                assert message["status"] == 201
                acked.add(message["id"])
    rows = await venue.pool.fetch("SELECT client_bid_id FROM bids ORDER BY seq")
    assert [row["client_bid_id"] for row in rows] == names


async def test_orders_sent_together_are_answered_each_for_itself(venue):
    """Goal: what is decided and written in one go mixes nothing up: refusals, batches, long answers."""
    operation = {name: value for name, value in PLACE.items() if name != "type"} | {"op": "place"}
    async with connected(venue) as client:
        await trading(client, venue)
        await client.send(**PLACE, id="ended")
        ended = (await client.until(type="ack", id="ended"))["result"]["id"]
        await venue.ok("DELETE", f"/v1/bids/{ended}", venue.buyer)
        places = {number: PLACE | {"gpus": 1 + number} for number in range(150)}
        orders = places | {
            "never was": {"type": "bid.cancel", "bid": "bid_none"},
            "is over": {"type": "bid.cancel", "bid": ended},
            "long": {"type": "bid.batch", "operations": [operation] * 200},
            "nowhere": PLACE | {"market": "nowhere"},
            "atomic": {
                "type": "bid.batch",
                "atomic": True,
                "operations": [operation, operation | {"gpus": 7}],
            },
            "last": PLACE | {"gpus": 999},
        }
        for name, order in orders.items():
            await client.send(**order, id=name)
        answers = []
        while len(answers) < len(orders):
            message = await client.next()
            if message["type"] in ("ack", "error"):
                answers.append(message)
        by_id = {answer["id"]: answer for answer in answers}
        assert by_id.keys() == orders.keys()
        assert [name for name in by_id if name in places] == list(places), "answered in the order sent"
        assert [by_id[name]["result"]["gpus"] for name in places] == [
            place["gpus"] for place in places.values()
        ]
        refused = {name: by_id[name]["code"] for name in ("never was", "is over", "nowhere")}
        assert refused == {"never was": "not_found", "is over": "bid_final", "nowhere": "market_not_found"}
        assert [one["status"] for one in by_id["long"]["result"]["results"]] == [201] * 200
        assert [one["bid"]["gpus"] for one in by_id["atomic"]["result"]["results"]] == [1, 7]
        assert by_id["last"]["result"]["gpus"] == 999
    rows = await venue.pool.fetch("SELECT gpus FROM bids ORDER BY seq")
    assert [row["gpus"] for row in rows] == [1, *range(1, 151), *[1] * 200, 1, 7, 999]


async def test_cancel_all_takes_what_was_sent_before_it(venue):
    """Goal: a cancel of everything leaves nothing behind, though the places are still on their way."""
    async with connected(venue) as client:
        await trading(client, venue)
        for number in range(20):
            await client.send(**PLACE, id=number)
        await client.send(type="bid.cancel_all", id="out", market=MARKET)
        done = await client.until(type="ack", id="out")
        assert {result["bid"]["status"] for result in done["result"]["results"]} == {"cancelled"}
        await client.send(type="bid.cancel_all", id="none", market="nowhere")
        assert (await client.until(type="error", id="none"))["code"] == "market_not_found"
    assert await live_bids(venue) == []


async def test_a_wrong_order_is_an_error_with_its_id_and_the_session_lives(venue):
    async with connected(venue) as client:
        await trading(client, venue)
        wrong = [
            ({"gpus": 0}, "invalid_value"),
            ({"gpus": "many"}, "invalid_value"),
            ({"limit_price_per_gpu_hour": "0.0000001"}, "invalid_value"),
            ({"colour": "red"}, "unknown_field"),
            ({"market": "nowhere"}, "market_not_found"),
            ({"limit_price_per_gpu_hour": "0.500001"}, "price_not_on_increment"),
        ]
        for number, (fields, code) in enumerate(wrong):
            await client.send(**PLACE | fields, id=number)
            error = await client.until(type="error", id=number)
            assert (error["code"], error["retryable"]) == (code, False), fields
        await client.send(type="bid.amend", id="a", bid="bid_none")
        assert (await client.until(type="error", id="a"))["code"] == "nothing_to_change"
        for name in (1 << 70, "x" * 200, [1]):
            await client.send(type="ping", id=name)
            assert (await client.until(type="error", id=None))["code"] == "invalid_value"
        await client.send(**PLACE, id="good")
        assert (await client.until(type="ack", id="good"))["status"] == 201


async def test_orders_need_a_key_with_its_scope_and_limits(venue):
    async with connected(venue) as client:
        await client.send(**PLACE)
        assert await client.close_code() == 4001
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:read"]})
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(**PLACE, id=1)
        error = await client.until(type="error", id=1)
        assert (error["code"], error["scope"]) == ("scope_missing", "bids:write")
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:write"]})
    limit = {"max_price_per_gpu_hour": "0.40"}
    await venue.ok("PUT", f"/v1/keys/{made['id']}/limits", venue.buyer, limit)
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(**PLACE, id=1)
        assert (await client.until(type="error", id=1))["maximum"] == "0.400000"


async def test_a_revoked_key_places_nothing_more(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:write"]})
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(**PLACE, id=1)
        await client.until(type="ack", id=1)
        await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
        await client.send(**PLACE, id=2)
        assert await client.close_code() == 4001
        assert [message for message in client.seen if message.get("id") == 2] == []
    assert len(await live_bids(venue)) == 1


async def test_a_session_speaks_for_one_account(venue):
    async with connected(venue) as client:
        await trading(client, venue)
        await client.send(type="auth", key=venue.owner)
        assert await client.close_code() == 4010


async def test_a_dropped_session_cancels_what_it_placed(venue):
    """Goal: also bids that were still being decided when the line broke; nobody else's, no lease."""
    other = await venue.place(limit_price_per_gpu_hour="0.40")
    async with connected(venue) as client:
        await trading(client, venue, cancel_on_disconnect=True)
        await client.send(**PLACE, id=1)
        await client.until(type="ack", id=1)
        for number in range(50):
            await client.send(**PLACE, id=number)
        client.socket._response.connection.transport.abort()

    async def only_the_other_is_left():
        return await live_bids(venue) == [other["id"]]

    await venue.until(only_the_other_is_left, "the session's bids are cancelled")


async def test_without_the_flag_bids_outlive_their_session(venue):
    async with connected(venue) as client:
        await trading(client, venue)
        await client.send(**PLACE, id=1)
        await client.until(type="ack", id=1)

    async def is_closed():
        return not venue.client.app[SERVICES].sockets

    await venue.until(is_closed, "the session has ended")
    assert len(await live_bids(venue)) == 1


async def test_a_session_closed_for_being_slow_cancels_too(database, config):
    async with serving(database, replace(config, send_seconds_max=0.5, heartbeat_seconds=30)) as venue:
        await venue.open_market()
        _, venue.buyer = await venue.open_account("buyer")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        async with connected(venue) as client:
            await trading(client, venue, cancel_on_disconnect=True)
            await client.send(**PLACE, id=1)
            await client.until(type="ack", id=1)
            assert len(await live_bids(venue)) == 1

            async def none_is_left():
                return await live_bids(venue) == []

            async with silent(client):
                await venue.until(none_is_left, "the session's bids are cancelled")
            assert await client.close_code() == 4008


@pytest.mark.parametrize("releases", [False, True])
async def test_a_session_that_closes_cancels_and_releases_only_if_it_said_so(venue, releases):
    await venue.offer_node()
    async with connected(venue) as client:
        await trading(client, venue, cancel_on_disconnect=True, release_on_disconnect=releases)
        await client.send(**(PLACE | {"limit_price_per_gpu_hour": "3.00"}), id=1)
        bid = (await client.until(type="ack", id=1))["result"]["id"]
        # A client that does not read answers no ping, and its session ends.
        await client.send(type="subscribe", channels=["account"], after_seq=0)
        lease = (await client.until(event="lease.started"))["data"]

    async def settled():
        shown = await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer)
        return shown["on_preempt"] == "cancel" or shown["status"] == "cancelled"

    await venue.until(settled, "the session's bid is cancelled")
    state = (await venue.ok("GET", f"/v1/leases/{lease['id']}", venue.buyer))["state"]
    assert state == ("ended" if releases else "running")


async def test_a_slow_session_does_not_linger(venue):
    async with connected(venue) as client:
        await trading(client, venue)
        await client.send(type="subscribe", channels=["account"])
        await client.until(type="ack", channels=["account"])
        operation = {name: value for name, value in PLACE.items() if name != "type"} | {"op": "place"}
        await client.send(type="bid.batch", id="all", operations=[operation] * 300)

        async def is_gone():
            return not venue.client.app[SERVICES].sockets

        await venue.until(is_gone, "its end, though it never reads")
