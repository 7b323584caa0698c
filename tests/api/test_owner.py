"""An owner's economics through the HTTP door: the calculator, its refusals, and the summary of a fleet."""

import asyncio
import csv
import io

import pytest

from api.problems import PROBLEMS
from tests.api.conftest import MARKET
from tests.api.test_requests import state_of

CALCULATOR = "/v1/owner/reserve-calculator"
SUMMARY = "/v1/owner/summary"
COSTS = {
    "purchase_price_per_gpu": "36000",
    "age_months": 18,
    "load_watts": 1_000,
    "idle_watts": 200,
    "pue_bps": 12_500,
    "energy_price_per_kwh": "0.10",
    "operations_per_gpu_hour": "0.05",
}


def micro(text):
    return int(text.replace(".", ""))


async def test_the_calculator_shows_what_an_hour_costs_and_changes_nothing(venue):
    before = await state_of(venue)
    shown = await venue.ok("POST", CALCULATOR, venue.owner, COSTS | {"price_per_gpu_hour": "1.00"})
    floor = shown["short_run_floor"]
    assert [(term["name"], term["per_gpu_hour"]) for term in floor["terms"][:2]] == [
        ("extra_energy", "0.100000"),
        ("operations", "0.050000"),
    ]
    # 0.15 / 0.95 = 0.15789474
    assert (floor["net_per_gpu_hour"], floor["gross_per_gpu_hour"]) == ("0.150000", "0.157895")
    assert floor["fee_per_gpu_hour"] == "0.007895"
    assert shown["recommended"] == {
        "reserve_price_per_gpu_hour": "0.150000",
        "gross_reserve_price_per_gpu_hour": "0.157895",
        "basis": "short_run_floor",
    }
    assert shown["inputs"]["useful_life_months"] == 60, "what was left out is shown"
    assert shown["inputs"]["fee_bps"] == 500
    assert (shown["market_price"], shown["verdict"]) == ("1.000000", "covers_floor")
    assert shown["shut_down_age_months"]["full_cost_market_decay"] == 18
    assert shown["history"] is None
    assert await state_of(venue) == before


async def test_the_calculator_holds_reserves_against_a_markets_history(venue):
    await venue.offer_node(gpus=2, reserve="1.00")
    await venue.place(gpus=2)
    await venue.lease_in("running")

    async def some_ticks():
        return (await venue.ok("GET", f"/v1/markets/{MARKET}"))["tick"] >= 4

    await venue.until(some_ticks, "four ticks")
    body = COSTS | {"market": MARKET, "reserves": ["0.50", "1000"]}
    shown = await venue.ok("POST", CALCULATOR, venue.owner, body)
    history = shown["history"]
    assert history["market"] == MARKET
    assert history["ticks"] >= 4
    ladder = {rung["reserve_price_per_gpu_hour"]: rung for rung in history["ladder"]}
    recommended = ladder[shown["recommended"]["reserve_price_per_gpu_hour"]]
    assert recommended["names"] == ["short_run_floor", "recommended"]
    assert recommended["sold_seconds"] > 0
    assert ladder["1000.000000"]["sold_seconds"] == 0
    best = max(history["ladder"], key=lambda rung: micro(rung["margin_per_offered_gpu_hour"]))
    assert micro(best["margin_per_offered_gpu_hour"]) == micro(recommended["margin_per_offered_gpu_hour"])
    assert shown["market_price"] == history["mean_price"]
    even = await venue.ok("POST", CALCULATOR, venue.owner, COSTS | {"market": MARKET})
    assert even["history"]["ladder"]


@pytest.mark.parametrize("accept", ["application/msgpack"])
async def test_the_calculator_speaks_msgpack(venue, accept):
    answered = await venue.call("POST", CALCULATOR, venue.owner, COSTS, Accept=accept)
    assert (answered.status, answered.headers["Content-Type"]) == (200, accept)


BAD_BODIES = {
    "no price paid": ({"purchase_price_per_gpu": None}, "invalid_value"),
    "zero price": ({"purchase_price_per_gpu": "0"}, "invalid_value"),
    "number for money": ({"energy_price_per_kwh": 0.1}, "invalid_value"),
    "negative money": ({"energy_price_per_kwh": "-1"}, "invalid_value"),
    "dear energy": ({"energy_price_per_kwh": "100.000001"}, "cost_out_of_range"),
    "a float": ({"pue_bps": 1.58}, "invalid_value"),
    "pue below one": ({"pue_bps": 9_999}, "cost_out_of_range"),
    "text for a number": ({"age_months": "18"}, "invalid_value"),
    "a large number": ({"age_months": 10**30}, "cost_out_of_range"),
    "a large age": ({"age_months": 241}, "cost_out_of_range"),
    "never used": ({"utilisation_bps": 0}, "cost_out_of_range"),
    "a whole fee": ({"fee_bps": 10_000}, "cost_out_of_range"),
    "no decay": ({"residual_bps": 500, "scrap_bps": 500}, "residual_invalid"),
    "idle above load": ({"idle_watts": 2_000}, "power_invalid"),
    "an unknown field": ({"colour": "red"}, "unknown_field"),
    "no such market": ({"market": "nowhere"}, "market_not_found"),
    "a bad market": ({"market": "a b"}, "invalid_value"),
    "no days": ({"market": MARKET, "days": 0}, "invalid_value"),
    "many days": ({"market": MARKET, "days": 91}, "invalid_value"),
    "many reserves": ({"market": MARKET, "reserves": ["1"] * 21}, "invalid_value"),
    "a reserve off the increment": ({"market": MARKET, "reserves": ["1.00005"]}, "price_not_on_increment"),
    "reserves without a market": ({"reserves": ["1"]}, "missing_field"),
}


async def test_bad_costs_are_refused_with_a_stable_code(venue):
    before = await state_of(venue)
    for name, (fields, code) in BAD_BODIES.items():
        answered = await venue.call("POST", CALCULATOR, venue.owner, COSTS | fields)
        assert (answered.json["code"], answered.status) == (code, PROBLEMS[code].status), name
        assert answered.json["errors"], name
    missing = await venue.call("POST", CALCULATOR, venue.owner, {})
    assert missing.json["code"] == "missing_field"
    assert (await venue.call("POST", CALCULATOR, venue.buyer, COSTS)).status == 403
    assert (await venue.call("POST", CALCULATOR, None, COSTS)).status == 401
    assert await state_of(venue) == before


async def test_bad_summary_queries_are_refused(venue):
    for query, code in {
        "from=yesterday": "invalid_value",
        "from=2999-01-01T00:00:00Z": "invalid_value",
        "from=2020-01-01T00:00:00Z": "invalid_value",
        "from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z": "invalid_value",
        "group_by=gpu": "invalid_value",
        "limit=0": "invalid_value",
        "cursor=zzz": "invalid_value",
        "node=%00": "invalid_value",
        "age_months=18": "missing_field",
        "purchase_price_per_gpu=1e3": "invalid_value",
        "purchase_price_per_gpu=100&pue_bps=1": "cost_out_of_range",
        "colour=red": "unknown_field",
    }.items():
        answered = await venue.call("GET", f"{SUMMARY}?{query}", venue.owner)
        assert (answered.json["code"], answered.status) == (code, 422), query
    assert (await venue.call("GET", SUMMARY, venue.buyer)).status == 403


async def test_the_summary_is_the_ledger_to_the_microdollar(venue):
    """Goal: after leases on two nodes, settled every second, the summary's money is that of the owner's and
    the buyer's ledgers, its GPU-seconds are those metered, and its parts add up to its totals."""
    fast = "a100.test"
    await venue.open_market(fast, gpu_model="A100", settlement_seconds=1, fee_bps=700)
    nodes = [await open_node(venue, fast, reserve) for reserve in ("1.00", "1.10")]
    bids = [await venue.place(market=fast, gpus=gpus) for gpus in (2, 3)]
    await venue.place(market=fast, gpus=2, limit_price_per_gpu_hour="1.30")

    async def earned():
        running = (await venue.ok("GET", "/v1/leases?state=running", venue.buyer))["data"]
        return (
            len(running) >= 2 and micro((await venue.ok("GET", "/v1/balance", venue.owner))["earning"]) > 500
        )

    await venue.until(earned, "some earnings")
    await venue.ok("DELETE", f"/v1/bids/{bids[0]['id']}", venue.buyer)
    await venue.ok("DELETE", f"/v1/bids?market={fast}", venue.buyer)

    async def all_ended():
        leases = (await venue.ok("GET", "/v1/leases", venue.buyer))["data"]
        return all(lease["state"] == "ended" for lease in leases)

    await venue.until(all_ended, "the end of every lease")
    await asyncio.sleep(1.1)  # a window ends with the last whole second
    summary = await venue.ok("GET", SUMMARY, venue.owner)
    totals = summary["totals"]
    entries = (await venue.ok("GET", "/v1/ledger/entries?limit=500", venue.owner))["data"]
    assert {entry["code"] for entry in entries} == {"charge"}
    assert micro(totals["net"]) == sum(micro(entry["amount"]) for entry in entries) > 500
    assert totals["net"] == (await venue.ok("GET", "/v1/balance", venue.owner))["earning"]
    used = (await venue.ok("GET", "/v1/usage?group_by=market", venue.buyer))["data"]
    assert [(row["group"], row["amount"]) for row in used] == [(fast, totals["revenue"])]
    assert totals["leased_gpu_seconds"] == used[0]["gpu_seconds"]
    assert micro(totals["fee"]) == micro(totals["revenue"]) - micro(totals["net"]) > 0
    held_against = await venue.ok("GET", f"{SUMMARY}?purchase_price_per_gpu=100&load_watts=0&idle_watts=0"
                                  "&operations_per_gpu_hour=0.93", venue.owner)  # fmt: skip
    assert held_against["short_run_floor"]["gross_per_gpu_hour"] == "1.000000", "with the market's 7 %"
    await assert_parts_add_up(venue, totals, {node["id"] for node in nodes})


async def open_node(venue, market, reserve):
    node = await venue.ok(
        "POST", "/v1/nodes", venue.owner,
        {"name": f"node at {reserve}", "market": market, "gpus": 4, "simulated": True},
    )  # fmt: skip
    offer = {"node": node["id"], "gpus": 4, "reserve_price_per_gpu_hour": reserve}
    await venue.ok("POST", "/v1/offers", venue.owner, offer)
    return node


async def assert_parts_add_up(venue, totals, nodes):
    for group_by in ("day", "node", "node_day"):
        groups, cursor = [], ""
        while True:
            page = await venue.ok("GET", f"{SUMMARY}?limit=1&group_by={group_by}{cursor}", venue.owner)
            groups += page["data"]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert sum(micro(group["net"]) for group in groups) == micro(totals["net"])
        assert sum(micro(group["fee"]) for group in groups) == micro(totals["fee"])
        assert sum(group["leased_gpu_seconds"] for group in groups) == totals["leased_gpu_seconds"]
        if group_by != "day":
            assert {group["node"] for group in groups} == nodes
        for group in groups:
            idle = group["idle_gpu_seconds"]
            parts = idle["below_reserve"] + idle["no_trade"] + idle["other"]
            assert parts == max(0, group["offered_gpu_seconds"] - group["leased_gpu_seconds"])


async def test_the_summary_holds_earnings_against_costs(venue):
    """Goal: with a price paid, each group has its floor, depreciation and full cost, and what is left."""
    await venue.offer_node(gpus=2, reserve="1.00")
    placed = await venue.place(gpus=2)
    await venue.lease_in("running")

    async def metered():
        return (await venue.ok("GET", f"/v1/markets/{MARKET}"))["tick"] >= 4

    await venue.until(metered, "four ticks")
    await venue.ok("DELETE", f"/v1/bids/{placed['id']}", venue.buyer)
    await asyncio.sleep(1.1)
    query = "&".join(f"{name}={value}" for name, value in COSTS.items())
    summary = await venue.ok("GET", f"{SUMMARY}?group_by=node&{query}", venue.owner)
    totals, against = summary["totals"], summary["totals"]["against"]
    net, leased = micro(totals["net"]), totals["leased_gpu_seconds"]
    assert leased > 0
    assert totals["net_per_leased_gpu_hour"] == f"{net * 3600 // leased / 1_000_000:.6f}"
    assert micro(summary["short_run_floor"]["net_per_gpu_hour"]) == 150_000
    assert micro(against["floor"]) == -(-150_000 * leased // 3_600)
    assert micro(against["margin_over_floor"]) == net - micro(against["floor"]) > 0
    for kind in ("straight_line", "market_decay"):
        full = micro(against[f"full_cost_{kind}"])
        assert full > micro(against[f"depreciation_{kind}"]) > 0
        assert micro(against[f"margin_over_full_cost_{kind}"]) == net - full
    assert summary["shut_down_age_months"]["floor"] > 18
    assert [group["against"] is not None for group in summary["data"]] == [True]
    plain = await venue.ok("GET", SUMMARY, venue.owner)
    assert (plain["totals"]["against"], plain["short_run_floor"]) == (None, None)


async def test_the_summary_as_a_sheet_has_all_groups_and_the_same_figures(venue):
    await venue.offer_node(gpus=2)
    await venue.place(gpus=2)
    await venue.lease_in("running")
    await asyncio.sleep(1.1)
    window = "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"
    empty = await venue.call("GET", f"{SUMMARY}?format=csv&{window}", venue.owner)
    assert empty.status == 200
    path = f"{SUMMARY}?group_by=node_day&limit=1&purchase_price_per_gpu=36000&useful_life_months=60"
    shown = (await venue.ok("GET", path, venue.owner))["data"][0]
    sheet = await venue.call("GET", f"{path}&format=csv", venue.owner)
    assert sheet.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(sheet.raw.decode()))
    assert (row["day"], row["node"]) == (shown["day"], shown["node"])
    assert int(row["offered_gpu_seconds"]) >= shown["offered_gpu_seconds"]
    assert {"idle_gpu_seconds.no_trade", "against.margin_over_floor", "net"} <= set(row)


async def test_an_owner_without_anything_has_an_empty_summary(venue):
    summary = await venue.ok("GET", SUMMARY, venue.owner)
    assert (summary["data"], summary["next_cursor"]) == ([], None)
    assert summary["totals"]["net_per_leased_gpu_hour"] is None
