"""Heartbeats, lost nodes, fenced GPUs and reliability, as an owner's agent and a tenant see them."""

from dataclasses import replace

import pytest

from api.heartbeats import NodeWatch
from auction.model import NodeHealth
from tests.api.conftest import MARKET, serving


@pytest.fixture
async def impatient(database, config):
    """A venue that misses a heartbeat after half a second and gives a node up after one and a half."""
    patience = {"node_degraded_seconds": 0.5, "node_offline_seconds": 1.5}
    async with serving(database, replace(config, **patience)) as venue:
        await venue.open_market()
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


async def start_node(venue, gpus=2):
    node, _ = await venue.offer_node(gpus=gpus, simulated=False)
    await venue.ok("POST", "/v1/agent/enrol", venue.owner, {"node": node["id"]})
    return node["id"]


async def health(venue, node, expected, beat=False):
    async def read():
        if beat:
            await venue.ok("POST", "/v1/agent/heartbeat", venue.owner, {"node": node})
        found = await venue.ok("GET", f"/v1/nodes/{node}", venue.owner)
        return found["health"] == expected and found

    return await venue.until(read, f"the node is {expected}")


async def test_a_node_that_falls_silent_is_degraded_then_lost_and_comes_back(impatient):
    venue = impatient
    node = await start_node(venue)
    bid = await venue.place()

    async def started():
        await venue.ok("POST", "/v1/agent/heartbeat", venue.owner, {"node": node})
        desired = await venue.ok("GET", f"/v1/agent/desired?node={node}", venue.owner)
        return desired["nodes"][0]["leases"]

    (told,) = await venue.until(started, "the agent is told of the lease")
    await venue.ok("POST", f"/v1/agent/leases/{told['id']}/report", venue.owner, {"state": "started"})
    degraded = await health(venue, node, "degraded")
    assert degraded["alive_until"] is not None
    await health(venue, node, "offline")
    lease = await venue.ok("GET", f"/v1/leases/{told['id']}", venue.buyer)
    assert (lease["state"], lease["end_reason"]) == ("ended", "node_lost")
    assert lease["ended_at"] <= max(degraded["alive_until"], lease["started_at"])
    back = await health(venue, node, "ok", beat=True)
    assert back["alive_until"] is None
    reliability = {"started": 1, "failed_to_start": 0, "lost": 1}
    assert back["reliability_30d"] == reliability
    events = await venue.pool.fetch("SELECT kind FROM events WHERE kind LIKE 'node.%' ORDER BY id")
    told = [event["kind"].removeprefix("node.") for event in events]
    assert told == ["online", "degraded", "offline", "online"]
    assert (await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer))["status"] in ("open", "filled")


async def test_fenced_gpus_are_not_offered_and_only_their_owner_fences(venue):
    node = await start_node(venue)
    shown = await venue.ok("PUT", "/v1/agent/inventory", venue.owner, {"node": node, "fenced_gpus": [1]})
    assert shown["fenced_gpus"] == [1]

    async def offered():
        tick = await venue.call("GET", f"/v1/markets/{MARKET}/ticks/latest")
        return tick.status == 200 and tick.json["offered_gpus"] == 1

    await venue.until(offered, "one GPU is left on offer")
    _, other = await venue.open_account("owner")
    for method, path, body in (
        ("PUT", "/v1/agent/inventory", {"node": node, "fenced_gpus": []}),
        ("POST", "/v1/agent/heartbeat", {"node": node}),
    ):
        answered = await venue.call(method, path, other, body)
        assert (answered.status, answered.json["code"]) == (404, "not_found")
    beyond = await venue.call("PUT", "/v1/agent/inventory", venue.owner, {"node": node, "fenced_gpus": [2]})
    assert (beyond.status, beyond.json["code"]) == (422, "gpus_out_of_range")


async def test_a_step_of_the_wall_clock_loses_no_node(venue):
    """F14: ages are monotonic; the node was heard ten seconds ago whatever the calendar says."""
    node = await start_node(venue)
    monotonic = [0.0]
    watch = NodeWatch(venue.engine, degraded_seconds=15, offline_seconds=60, monotonic=lambda: monotonic[0])
    watch.hear(venue.engine.core.nodes[node])
    monotonic[0] = 14.0
    await watch.look()
    assert venue.engine.core.nodes[node].health is NodeHealth.OK
    monotonic[0] = 15.0
    await watch.look()
    found = venue.engine.core.nodes[node]
    assert found.health is NodeHealth.DEGRADED
    assert 14_000_000 < venue.engine.clock.now_us() - found.alive_until_us < 17_000_000
    watch.hear(found)
    await watch.look()
    assert found.health is NodeHealth.OK
