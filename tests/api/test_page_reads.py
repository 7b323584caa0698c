"""Reads that the page asks for: who is on one's nodes, what stayed unsold, how ticks and odds are."""

from tests.api.conftest import MARKET
from tests.api.test_risk import recorded

__all__ = ["recorded"]


async def test_an_owner_sees_the_leases_on_its_nodes_and_nobody_elses(venue):
    node, _ = await venue.offer_node()
    await venue.place(gpus=2)
    lease = await venue.lease_in("running")
    (shown,) = (await venue.ok("GET", "/v1/owner/leases", venue.owner))["data"]
    assert (lease["id"], node["id"]) == (shown["id"], shown["node"])
    _, stranger = await venue.open_account("owner")
    assert [] == (await venue.ok("GET", "/v1/owner/leases", stranger))["data"]
    assert 403 == (await venue.call("GET", "/v1/owner/leases", venue.buyer)).status


async def test_to_look_at_a_recall_is_no_act_and_to_recall_is_one(venue):
    node, _ = await venue.offer_node()
    path = f"/v1/nodes/{node['id']}/recall"

    async def written():
        acts = (await venue.ok("GET", "/v1/operator/audit-log?limit=100", venue.operator))["data"]
        return sum(act["path"] == path for act in acts)

    await venue.ok("POST", path, venue.owner, {"preview": True})
    assert 0 == await written()
    await venue.ok("POST", path, venue.owner, {})
    assert 1 == await written()


async def test_what_stayed_unsold_is_held_against_lower_reserves(venue):
    """The price is the reserve of the cheap node; the dear one's sells only when it comes down to it."""
    await venue.offer_node(reserve="1.00")
    await venue.place(gpus=2)
    await venue.lease_in("running")
    await venue.offer_node(reserve="1.90")

    async def some_time():
        shown = await venue.ok("GET", f"/v1/owner/unsold?market={MARKET}", venue.owner)
        return shown if any(rung["sold_bps"] for rung in shown["rungs"]) else None

    shown = await venue.until(some_time, "a record")
    by_reserve = {rung["reserve_price_per_gpu_hour"]: rung for rung in shown["rungs"]}
    assert {"1.000000", "1.900000"} == {price for price, rung in by_reserve.items() if rung["is_own"]}
    assert 0 == by_reserve["1.900000"]["sold_bps"]
    assert by_reserve["1.900000"]["unsold_hours_per_gpu"] == shown["hours"]
    assert 0 < by_reserve["0.950000"]["sold_bps"] == by_reserve["1.000000"]["sold_bps"]
    assert 404 == (await venue.call("GET", "/v1/owner/unsold?market=none", venue.owner)).status


async def test_ticks_are_timed_by_phase_and_fees_add_up(venue):
    path = f"/v1/operator/markets/{MARKET}"
    await venue.ok("PATCH", path, venue.operator, {"settlement_seconds": 1}, If_Match='"1"')
    await venue.offer_node()
    await venue.place(gpus=8)
    await venue.lease_in("running")

    async def earned():
        shown = await venue.ok("GET", "/v1/operator/engine", venue.operator)
        return shown if shown["fees"] != "0.000000" else None

    shown = await venue.until(earned, "a fee")
    assert ["late", "clear", "commit", "tell"] == [phase["phase"] for phase in shown["phases"]]
    for phase in shown["phases"]:
        assert phase["ticks"] >= 1
        assert 0 <= phase["p50_ms"] <= phase["p99_ms"] <= phase["worst_ms"] < 20_000
    by_phase = {phase["phase"]: phase for phase in shown["phases"]}
    assert by_phase["commit"]["worst_ms"] > 0, "a commit takes time"

    async def booked():  # what the engine has decided may be a commit ahead of what is stored
        fees = await venue.pool.fetchval("SELECT sum(amount) FROM transfers WHERE code = 'fee'")
        return (fees or 0) >= int(shown["fees"].replace(".", ""))

    await venue.until(booked, "the fees as transfers")


async def test_a_suggested_limit_says_on_how_many_samples_it_is_judged(recorded):
    quote = await recorded.ok("GET", f"/v1/markets/{MARKET}/quote?gpus=1")
    assert quote["suggested_limits"] != []
    for suggestion in quote["suggested_limits"]:
        limit = suggestion["limit"]
        odds = await recorded.ok(
            "GET", f"/v1/markets/{MARKET}/interruptions?limit_price_per_gpu_hour={limit}&horizon_seconds=3600"
        )
        assert odds["samples"] == suggestion["samples"] > 0
