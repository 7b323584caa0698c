"""Lists as CSV, and a market's ticks as lines: whole, in order, harmless in a spreadsheet."""

import csv
import io
import json

import pytest

from api import markets
from api.app import ROUTES
from api.codec import prefers_csv
from api.sheets import sheet
from api.wire_market import TickView
from tests.api.conftest import MARKET


async def csv_of(venue, path, key=None):
    answered = await venue.call("GET", path, key, Accept="text/csv")
    assert (answered.status, answered.headers["Content-Type"]) == (200, "text/csv; charset=utf-8"), path
    return list(csv.DictReader(io.StringIO(answered.raw.decode()))), answered.headers


async def traded(venue):
    await venue.offer_node()
    for number in range(3):
        await venue.place(gpus=1, labels={"run": f"=1+{number}"}, client_bid_id=f"@{number}")
    await venue.lease_in("running")


async def test_every_list_is_there_as_csv(venue):
    await traded(venue)
    keys = {"operator": venue.operator, "supply": venue.owner}
    lists = [route for route in ROUTES if route.row is not None and route.method == "GET"]
    assert len(lists) >= 15
    for route in lists:
        path = route.path.replace("{market}", MARKET)
        if "{" in path:
            continue
        key = keys.get((route.scope or "").partition(":")[0], venue.buyer)
        path += "?group_by=market" if path == "/v1/usage" else ""
        rows, _ = await csv_of(venue, path, key)
        shown = await venue.ok("GET", path, key)
        assert len(rows) == len(shown["data"]), path


async def test_cells_are_the_jsons_values_and_no_formulas(venue):
    await traded(venue)
    rows, _ = await csv_of(venue, "/v1/bids", venue.buyer)
    bids = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    for row, bid in zip(rows, bids, strict=True):
        assert list(row) == list(bid)
        assert (row["id"], row["spent"], row["gpus"]) == (bid["id"], bid["spent"], str(bid["gpus"]))
        assert json.loads(row["labels"]) == bid["labels"]
        assert row["client_bid_id"] == "'" + bid["client_bid_id"]
        assert row["expires_at"] == "" and bid["expires_at"] is None
    entries, _ = await csv_of(venue, "/v1/ledger/entries", venue.buyer)
    assert any(row["amount"].startswith("-") for row in entries), "a minus sign is no formula"


async def test_a_page_of_csv_leads_to_the_next(venue):
    await traded(venue)
    path, seen = "/v1/bids?limit=2", []
    while path:
        rows, headers = await csv_of(venue, path, venue.buyer)
        seen += [row["id"] for row in rows]
        link = headers.get("Link", "")
        path = link.partition("<")[2].partition(">")[0]
    assert seen == [bid["id"] for bid in (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]]


async def test_a_refusal_of_csv_is_a_problem_and_one_object_is_none(venue):
    refused = await venue.call("GET", "/v1/bids", Accept="text/csv")
    assert (refused.status, refused.headers["Content-Type"]) == (401, "application/problem+json")
    one = await venue.call("GET", "/v1/balance", venue.buyer, Accept="text/csv")
    assert one.status == 406


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("text/csv", True),
        ("text/csv, application/json", True),
        ("text/csv;q=0.5, application/json", False),
        ("text/csv;q=0", False),
        ("application/msgpack;q=0.2, text/csv;q=0.3, */*", True),
    ],
)
def test_who_is_given_csv(accept, wanted):
    assert prefers_csv(accept) is wanted


async def test_an_export_has_every_tick_once_oldest_first(venue, monkeypatch):
    monkeypatch.setattr(markets, "EXPORT_PAGE_TICKS", 2)
    monkeypatch.setattr(markets, "EXPORT_TICKS_MAX", 4)

    async def some():
        return (await venue.ok("GET", f"/v1/markets/{MARKET}"))["tick"] >= 6

    await venue.until(some, "six ticks")
    path, ticks, pages = f"/v1/markets/{MARKET}/export?to=6", [], 0
    while path:
        answered = await venue.call("GET", path)
        assert (answered.status, answered.headers["Content-Type"]) == (200, "application/x-ndjson")
        ticks += [json.loads(line) for line in answered.raw.splitlines()]
        path = answered.headers.get("Link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert [tick["tick"] for tick in ticks] == [1, 2, 3, 4, 5, 6] and pages == 2
    listed = (await venue.ok("GET", f"/v1/markets/{MARKET}/ticks?to=6"))["data"]
    assert ticks == listed[::-1]
    since = await venue.call("GET", f"/v1/markets/{MARKET}/export?from={ticks[-1]['cleared_at']}&to=6")
    assert [json.loads(line)["tick"] for line in since.raw.splitlines()] == [6]
    assert (await venue.call("GET", "/v1/markets/none/export")).status == 404
    assert (await venue.call("GET", f"/v1/markets/{MARKET}/export?from=soon")).status == 422


def test_a_sheet_has_a_header_even_without_rows():
    assert sheet([], TickView.__struct_fields__).decode().startswith("market,tick,cleared_at,")
