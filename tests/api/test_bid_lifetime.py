"""Time in force, expiry, run time, spending cap and the dead man's switch, as a buyer sees them."""

import pytest

from api.fields import format_instant


async def shown(venue, bid, status):
    async def read():
        found = await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer)
        return found["status"] == status and found

    return await venue.until(read, f"the bid is {status}")


async def test_a_bid_with_every_end_reads_back_as_it_was_placed(venue):
    expires_at = format_instant(venue.engine.clock.now_us() + 3_600_000_000)
    ends = {"expires_at": expires_at, "max_run_seconds": 7_200, "max_spend": "5.00", "on_preempt": "cancel"}
    bid = await venue.place(client_bid_id="one", valid_until_tick=1_000_000, **ends)
    expected = ends | {"time_in_force": "gtt", "max_spend": "5.000000", "valid_until_tick": 1_000_000}
    assert {name: bid[name] for name in expected} == expected
    repeated = await venue.place(client_bid_id="one", valid_until_tick=1_000_000, **ends)
    assert repeated["id"] == bid["id"]
    other = await venue.call(
        "POST", "/v1/bids", venue.buyer,
        {"market": bid["market"], "gpus": 2, "limit_price_per_gpu_hour": "2.00", "client_bid_id": "one"},
    )  # fmt: skip
    assert (other.status, other.json["code"]) == (409, "client_bid_id_conflict")
    amended = await venue.ok("PATCH", f"/v1/bids/{bid['id']}", venue.buyer, {"max_spend": "6.50"})
    assert (amended["max_spend"], amended["version"]) == ("6.500000", 2)
    shown = await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer)
    assert shown | {"reason": None} == amended | {"reason": None}  # a tick may have said why meanwhile


async def test_a_lease_runs_its_time_and_the_event_feed_says_that_the_bid_expired(venue):
    await venue.offer_node()
    timed = await venue.place(gpus=1, max_run_seconds=1)
    await shown(venue, timed, "cancelled")
    (lease,) = (await venue.ok("GET", "/v1/leases?state=ended", venue.buyer))["data"]
    assert (lease["end_reason"], lease["gpu_seconds"]) == ("expired", 1)
    assert lease["ended_at"] == lease["ends_at"]
    soon = format_instant(venue.engine.clock.now_us() + 1_500_000)
    expiring = await venue.place(gpus=1, expires_at=soon)
    assert expiring["expires_at"] == soon
    final = await shown(venue, expiring, "expired")
    assert final["held"] == "0.000000"
    events = (await venue.ok("GET", f"/v1/bids/{expiring['id']}/events", venue.buyer))["data"]
    assert "bid.expired" in [event["type"] for event in events]


async def test_an_ioc_bid_that_its_tick_does_not_serve_expires(venue):
    bid = await venue.place(time_in_force="ioc")
    assert bid["on_preempt"] == "cancel"
    await shown(venue, bid, "expired")


async def test_the_dead_mans_switch_is_set_cancels_and_is_switched_off(venue):
    bid = await venue.place()
    answered = await venue.ok("POST", "/v1/bids/cancel-after", venue.buyer, {"timeout_seconds": 1})
    assert answered["cancel_at"] is not None
    await shown(venue, bid, "cancelled")
    off = await venue.ok("POST", "/v1/bids/cancel-after", venue.buyer, {"timeout_seconds": 0})
    assert off == {"cancel_at": None, "release": False}


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"time_in_force": "gtt"}, "time_in_force_invalid", "/expires_at"),
        ({"time_in_force": "ioc", "on_preempt": "requeue"}, "time_in_force_invalid", "/time_in_force"),
        ({"time_in_force": "day"}, "invalid_value", "/time_in_force"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at_passed", "/expires_at"),
        ({"max_spend": "0.000001"}, "max_spend_too_small", "/max_spend"),
        ({"max_spend": 5}, "invalid_value", "/max_spend"),
        ({"max_run_seconds": 0}, "invalid_value", "/max_run_seconds"),
        ({"valid_until_tick": -1}, "invalid_value", "/valid_until_tick"),
    ],
)
async def test_ends_that_cannot_be_are_refused_with_the_field(venue, fields, code, pointer):
    body = {"market": "h100-sxm.test", "gpus": 2, "limit_price_per_gpu_hour": "2.00"} | fields
    answered = await venue.call("POST", "/v1/bids", venue.buyer, body)
    assert (answered.status, answered.json["code"]) == (422, code)
    assert answered.json["errors"][0]["pointer"] == pointer
    if code == "max_spend_too_small":
        assert answered.json["minimum"] > "0.000001"
    answered = await venue.call("POST", "/v1/bids/cancel-after", venue.buyer, {"timeout_seconds": 10**6})
    assert answered.json["code"] == "invalid_value"
