"""What a buyer and an owner see of the auction's finer rules: X1, X4, X7, X8, and why a bid lost (R7)."""

from tests.api.conftest import MARKET


async def add_node(venue, name, *steps, fabric=None, gpus=8):
    """A simulated node with one offer per (GPUs, reserve): a reserve curve (X4)."""
    node = await venue.ok(
        "POST", "/v1/nodes", venue.owner,
        {"name": name, "market": MARKET, "gpus": gpus, "fabric": fabric, "simulated": True},
    )  # fmt: skip
    answered = await venue.ok(
        "POST", "/v1/offers/batch", venue.owner,
        {"offers": [
            {"node": node["id"], "gpus": count, "reserve_price_per_gpu_hour": reserve}
            for count, reserve in steps
        ]},
    )  # fmt: skip
    assert [result["status"] for result in answered["results"]] == [201] * len(steps)
    return node


async def running(venue, bid_id, gpus):
    """Wait until the bid runs on this many GPUs; return its leases."""

    async def read():
        bid = await venue.ok("GET", f"/v1/bids/{bid_id}", venue.buyer)
        return bid["filled_gpus"] == gpus and bid

    await venue.until(read, "the bid runs")
    leases = await venue.ok("GET", "/v1/leases", venue.buyer)
    return [lease for lease in leases["data"] if lease["bid"] == bid_id]


async def test_a_co_located_bid_runs_on_one_node_across_the_steps_of_its_reserve_curve(venue):
    await add_node(venue, "half", (4, "0.50"))
    node = await add_node(venue, "curve", (4, "1.00"), (4, "1.20"))
    bid = await venue.place(gpus=8, colocate="node")
    assert (bid["colocate"], bid["min_gpus"]) == ("node", 8)
    leases = await running(venue, bid["id"], 8)
    assert {lease["node"] for lease in leases} == {node["id"]}
    assert sum(lease["gpus"] for lease in leases) == 8
    tick = await venue.ok("GET", f"/v1/markets/{MARKET}/ticks/latest")
    assert tick["idle_gpus"] == {"reserve": 0, "unfit": 0, "fragmented": 4}, "4 GPUs are too few for it"
    # Both steps with the fee: 5 % of 1.20 on top; the owner nets at least its reserve.
    assert tick["price"] == "1.263200"
    assert tick["welfare_per_hour"] != tick["welfare_bound_per_hour"]


async def test_a_gang_of_sixteen_takes_whole_nodes_of_one_fabric(venue):
    for number in range(2):
        await add_node(venue, f"east {number}", (8, "1.00"), fabric="east")
    await add_node(venue, "west", (8, "0.50"), fabric="west")
    await add_node(venue, "alone", (8, "0.50"))
    bid = await venue.place(gpus=16, colocate="fabric")
    leases = await running(venue, bid["id"], 16)
    nodes = {node["id"]: node for node in (await venue.ok("GET", "/v1/nodes", venue.owner))["data"]}
    assert [nodes[lease["node"]]["fabric"] for lease in leases] == ["east", "east"]


async def test_co_location_is_refused_outside_the_chain(venue):
    for fields in ({"gpus": 6}, {"gpus": 16}, {"gpus": 8, "min_gpus": 4}):
        body = {"market": MARKET, "gpus": 8, "limit_price_per_gpu_hour": "2.00", "colocate": "node"} | fields
        answered = await venue.call("POST", "/v1/bids", venue.buyer, body)
        assert (answered.status, answered.json["code"]) == (422, "colocate_invalid")
    bid = await venue.place(gpus=8, colocate="node")
    answered = await venue.call("PATCH", f"/v1/bids/{bid['id']}", venue.buyer, {"gpus": 5})
    assert answered.json["code"] == "colocate_invalid"
    amended = await venue.ok("PATCH", f"/v1/bids/{bid['id']}", venue.buyer, {"gpus": 4})
    assert (amended["gpus"], amended["min_gpus"]) == (4, 4)
    answered = await venue.call("POST", "/v1/bids", venue.buyer, {**body, "colocate": "rack"})
    assert answered.status == 422


async def test_a_loser_learns_why_what_it_met_and_what_would_have_won(venue):
    await venue.offer_node(gpus=4, reserve="1.00")
    winner = await venue.place(gpus=4, limit_price_per_gpu_hour="3.00")
    await running(venue, winner["id"], 4)
    loser = await venue.place(gpus=2, limit_price_per_gpu_hour="1.50")
    gang = await venue.place(gpus=8, min_gpus=8, limit_price_per_gpu_hour="3.50")
    protected = await venue.place(gpus=1, limit_price_per_gpu_hour="3.10")

    async def explained():
        found = [
            await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer) for bid in (loser, gang, protected)
        ]
        return all(bid["reason"] is not None for bid in found) and [bid["reason"] for bid in found]

    outbid, no_fit, shielded = await venue.until(explained, "every loser has its reason")
    assert (outbid["code"], no_fit["code"], shielded["code"]) == ("outbid", "no_fit", "protected")
    assert (no_fit["needed"], no_fit["usable"], no_fit["winning_price"]) == (8, 4, None)
    # The incumbent at 3.00 is displaced by a limit whose rank is above it: 10 % of handicap.
    assert shielded["winning_price"] == shielded["price"] == "3.300200"
    assert outbid["price"] == "3.000000"
    raised = await venue.ok(
        "PATCH", f"/v1/bids/{protected['id']}", venue.buyer,
        {"limit_price_per_gpu_hour": shielded["winning_price"]},
    )  # fmt: skip
    assert raised["reason"] is not None

    async def displaced():
        notices = (await venue.ok("GET", "/v1/notices", venue.buyer))["data"]
        return notices and notices[0]

    notice = await venue.until(displaced, "one GPU of the incumbent is under notice")
    assert (notice["bid"], notice["reason"]) == (winner["id"], "outbid")


async def test_a_market_may_place_its_price_and_refine_thin_books(venue):
    market = await venue.open_market("a100.test", refine_below_bids=50, price_position_bps=10_000)
    assert (market["refine_below_bids"], market["price_position_bps"]) == (50, 10_000)
    default = await venue.ok("GET", f"/v1/markets/{MARKET}")
    assert (default["refine_below_bids"], default["price_position_bps"]) == (200, None)
    node = await venue.ok(
        "POST", "/v1/nodes", venue.owner, {"name": "n", "market": "a100.test", "gpus": 4, "simulated": True}
    )
    await venue.ok(
        "POST", "/v1/offers", venue.owner,
        {"node": node["id"], "gpus": 4, "reserve_price_per_gpu_hour": "1.00"},
    )  # fmt: skip
    await venue.place(market="a100.test", gpus=4, limit_price_per_gpu_hour="2.00")

    async def traded():
        answered = await venue.call("GET", "/v1/markets/a100.test/ticks/latest")
        return answered.status == 200 and answered.json["price"] and answered.json

    tick = await venue.until(traded, "the market trades")
    assert tick["price"] == tick["high"] == "2.000000", "at the top of the interval, as the market was set"
    assert tick["low"] == "1.052700"
