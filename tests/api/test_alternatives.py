"""Bids over several markets, as a buyer sees them: placed, sent, shown, changed, previewed, refused (X3)."""

from decimal import Decimal

import pytest

from fallow import AsyncClient
from tests.api.conftest import MARKET

OTHER = "h100-sxm.other"
BOTH = [
    {"market": MARKET, "limit_price_per_gpu_hour": "2.00"},
    {"market": OTHER, "limit_price_per_gpu_hour": "3.00"},
]


async def lend(venue, market, gpus=8, reserve="1.00"):
    node = await venue.ok(
        "POST", "/v1/nodes", venue.owner,
        {"name": f"of {market}", "market": market, "gpus": gpus, "simulated": True},
    )  # fmt: skip
    offer = {"node": node["id"], "gpus": gpus, "reserve_price_per_gpu_hour": reserve}
    await venue.ok("POST", "/v1/offers", venue.owner, offer)


async def running(venue, bid_id):
    async def read():
        bid = await venue.ok("GET", f"/v1/bids/{bid_id}", venue.buyer)
        return bid["status"] == "filled" and bid

    return await venue.until(read, "the bid runs")


async def test_a_bid_is_sent_to_the_market_where_it_gains_most_and_billed_there(venue):
    await venue.open_market(OTHER)
    await lend(venue, MARKET)
    await lend(venue, OTHER)
    preview = await venue.ok("POST", "/v1/bids/preview", venue.buyer, {"gpus": 2, "alternatives": BOTH})
    assert (preview["market"], preview["fill_gpus"]) == (OTHER, 2)
    bid = await venue.ok("POST", "/v1/bids", venue.buyer, {"gpus": 2, "alternatives": BOTH})
    assert (bid["market"], bid["limit_price_per_gpu_hour"]) == (MARKET, "2.000000")
    assert bid["worst_cost_per_hour"] == preview["worst_cost_per_hour"] == "6.000000"
    assert bid["held"] == preview["hold"]

    shown = await running(venue, bid["id"])
    assert (shown["market"], shown["limit_price_per_gpu_hour"]) == (OTHER, "3.000000")
    assert [one["market"] for one in shown["alternatives"]] == [MARKET, OTHER]
    lease = await venue.lease_in("running")
    assert lease["market"] == OTHER
    await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
    balance = await venue.ok("GET", "/v1/balance", venue.buyer)
    assert balance["held"] == "0.000000"
    found = await venue.ok("GET", "/v1/operator/reconciliation", venue.operator)
    assert found["status"] == "ok" if "status" in found else all(c["ok"] for c in found["checks"])


async def test_one_limit_is_changed_by_its_market(venue):
    await venue.open_market(OTHER)
    bid = await venue.ok("POST", "/v1/bids", venue.buyer, {"gpus": 1, "alternatives": BOTH})
    path = f"/v1/bids/{bid['id']}"
    refused = await venue.call("PATCH", path, venue.buyer, {"limit_price_per_gpu_hour": "2.50"})
    assert (refused.status, refused.json["code"]) == (422, "market_required")
    body = {"market": OTHER, "limit_price_per_gpu_hour": "2.50"}
    amended = await venue.ok("PATCH", path, venue.buyer, body)
    assert [one["limit_price_per_gpu_hour"] for one in amended["alternatives"]] == ["2.000000", "2.500000"]


async def test_a_repeat_under_its_own_id_is_the_same_bid_and_other_limits_conflict(venue):
    await venue.open_market(OTHER)
    body = {"gpus": 1, "alternatives": BOTH, "client_bid_id": "mine"}
    first = await venue.call("POST", "/v1/bids", venue.buyer, body)
    again = await venue.call("POST", "/v1/bids", venue.buyer, body)
    assert (first.status, again.status, first.json["id"]) == (201, 200, again.json["id"])
    for other in ([BOTH[0]], [*reversed(BOTH)], [BOTH[0], {**BOTH[1], "limit_price_per_gpu_hour": "3.01"}]):
        refused = await venue.call("POST", "/v1/bids", venue.buyer, {**body, "alternatives": other})
        assert (refused.status, refused.json["code"]) == (409, "client_bid_id_conflict")


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({}, "missing_field", "/market"),
        ({"market": MARKET}, "missing_field", "/limit_price_per_gpu_hour"),
        ({"alternatives": BOTH, "market": MARKET}, "alternatives_invalid", "/alternatives"),
        ({"alternatives": []}, "invalid_value", "/alternatives"),
        ({"alternatives": [BOTH[0]] * 9}, "invalid_value", "/alternatives"),
        ({"alternatives": [BOTH[0]] * 2}, "alternatives_invalid", "/alternatives"),
        ({"alternatives": [BOTH[0], {"market": OTHER}]}, "missing_field",
         "/alternatives/1/limit_price_per_gpu_hour"),
        ({"alternatives": BOTH, "time_in_force": "ioc"}, "alternatives_invalid", "/alternatives"),
        ({"alternatives": BOTH}, "market_not_found", "/alternatives/1/market"),
    ],
)  # fmt: skip
async def test_what_names_no_market_or_the_wrong_ones_is_refused(venue, fields, code, pointer):
    refused = await venue.call("POST", "/v1/bids", venue.buyer, {"gpus": 1, **fields})
    assert (refused.json["code"], refused.json["errors"][0]["pointer"]) == (code, pointer)
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []


async def test_clients_batches_and_atomic_batches_take_alternatives(venue):
    await venue.open_market(OTHER)
    limits = {MARKET: Decimal("1.00"), OTHER: Decimal("1.50")}
    async with AsyncClient(str(venue.client.make_url("/")), key=venue.buyer) as client:
        bid = await client.place_bid(gpus=1, alternatives=limits)
        assert {one.market: one.limit_price_per_gpu_hour for one in bid.alternatives} == limits
        preview = await client.preview_bid(gpus=1, alternatives=limits)
        assert preview.hold == bid.held
        place = {"op": "place", "gpus": 1, "alternatives": limits}
        for atomic in (False, True):
            results = await client.batch([place, place], atomic=atomic)
            assert [len(result.done().alternatives) for result in results] == [2, 2]
        amended = await client.amend_bid(bid.id, market=OTHER, limit_price_per_gpu_hour=Decimal("2.00"))
        assert amended.alternatives[1].limit_price_per_gpu_hour == 2


async def test_an_owner_cannot_bid_on_its_own_market_by_an_alternative(venue):
    await venue.open_market(OTHER)
    account, both = await venue.open_account("buyer", "owner")
    await venue.ok("POST", "/v1/deposits", both, {"amount": "100.00"})
    await venue.ok("POST", "/v1/bids", both, {"gpus": 1, "alternatives": BOTH})
    node = await venue.ok(
        "POST", "/v1/nodes", both, {"name": "mine", "market": OTHER, "gpus": 1, "simulated": True}
    )
    offer = {"node": node["id"], "gpus": 1, "reserve_price_per_gpu_hour": "1.00"}
    refused = await venue.call("POST", "/v1/offers", both, offer)
    assert refused.json["code"] == "self_trade", account
