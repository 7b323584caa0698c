"""Usage and statements over the API: every figure leads to its transfers, and everything adds up."""

import csv
import io
import random
from decimal import Decimal

import pytest

from auction.clock import ManualClock
from auction.commands import Adjust, ClosePayout, Deposit, RequestPayout
from auction.ids import random_id
from auction.units import parse_microusd
from tests.api.conftest import MARKET, serving

SECOND = 1_000_000
START_US = 1_798_000_000 * SECOND  # 2026-12-23T04:26:40Z


def microusd(text):
    return -parse_microusd(text[1:]) if text.startswith("-") else parse_microusd(text)


@pytest.fixture
def clock():
    return ManualClock(START_US)


@pytest.fixture
async def venue(database, config, clock):
    async with serving(database, config, clock=clock) as venue:
        await venue.open_market(tick_seconds=10, notice_seconds=10, settlement_seconds=30)
        venue.buyer_id, venue.buyer = await venue.open_account("buyer")
        venue.owner_id, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "100.00"})
        yield venue


async def run(venue, clock, seconds):
    """Let so many seconds pass, a tick at a time."""
    for _ in range(0, seconds, 10):
        clock.advance(10)

        async def done():
            core = venue.engine.core
            if core.next_due_us() <= clock.now_us() or venue.engine._inbox:
                return False
            return all(lease.state != "starting" for lease in core.leases.values())

        await venue.until(done, "the tick")


async def check(venue, key, month):
    """Return a statement after following every line of it to its transfers."""
    shown = await venue.ok("GET", f"/v1/statements/{month}", key)
    for pocket in shown["pockets"]:
        moved = 0
        for line in pocket["lines"]:
            legs, url = [], f"{line['transfers_url']}?limit=3"
            while url:
                page = await venue.ok("GET", url, key)
                legs += page["data"]
                cursor = page["next_cursor"]
                url = f"{line['transfers_url']}?limit=3&cursor={cursor}" if cursor else None
            assert len(legs) == line["transfers"]
            assert sum(microusd(leg["amount"]) for leg in legs) == microusd(line["amount"])
            assert len({(leg["transfer"], leg["amount"]) for leg in legs}) == len(legs)
            moved += microusd(line["amount"])
        assert microusd(pocket["opening"]) + moved == microusd(pocket["closing"])
    return shown


async def test_a_month_of_a_buyer_and_its_owner_adds_up_to_its_transfers(venue, clock):
    await venue.offer_node()
    await venue.place(labels={"team": "vision"})
    await run(venue, clock, 120)
    shown = await check(venue, venue.buyer, "2026-12")
    assert (shown["state"], shown["from"], shown["to"]) == (
        "open", "2026-12-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z",
    )  # fmt: skip
    money, earnings = shown["pockets"]
    lines = {(line["kind"], line["market"]): line for line in money["lines"]}
    assert set(lines) == {("deposit", None), ("charge", MARKET)}
    assert (money["opening"], lines["deposit", None]["amount"]) == ("0.000000", "100.000000")
    assert earnings["lines"] == []
    balance = await venue.ok("GET", "/v1/balance", venue.buyer)
    assert microusd(money["closing"]) == microusd(balance["available"]) + microusd(balance["held"])

    paid = await check(venue, venue.owner, "2026-12")
    (net,) = paid["pockets"][1]["lines"]
    gross = -microusd(lines["charge", MARKET]["amount"])
    (lease,) = (await venue.ok("GET", "/v1/leases", venue.buyer))["data"]
    assert gross - microusd(net["amount"]) == pytest.approx(gross * lease["fee_bps"] / 10_000, abs=5)

    leg = (await venue.ok("GET", net["transfers_url"], venue.owner))["data"][0]
    (side,) = (await venue.ok("GET", f"/v1/ledger/transfers/{leg['transfer']}", venue.owner))["data"]
    assert (side["amount"], side["ledger_account"]) == (leg["amount"], "earning")
    both = (await venue.ok("GET", "/v1/ledger/entries?limit=500", venue.buyer))["data"]
    for entry in both:
        sides = (await venue.ok("GET", f"/v1/ledger/transfers/{entry['transfer']}", venue.buyer))["data"]
        assert entry in sides


async def test_a_correction_after_the_month_is_a_line_of_its_own_month(venue, clock):
    await venue.offer_node()
    await venue.place()
    await run(venue, clock, 60)
    clock.advance_to(1_798_761_600 * SECOND - 30 * SECOND)  # half a minute before 2027
    bids = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    await venue.call("DELETE", f"/v1/bids/{bids[0]['id']}", venue.buyer)
    before = await check(venue, venue.buyer, "2026-12")
    assert (await venue.call("GET", "/v1/statements/2027-01", venue.buyer)).status == 404
    clock.advance(100)
    final = await check(venue, venue.buyer, "2026-12")
    assert (before["state"], final["state"]) == ("open", "final")
    await venue.engine.execute(Adjust(random_id("adj"), venue.buyer_id, "available", 5_000_000, "goodwill"))
    assert await check(venue, venue.buyer, "2026-12") == final
    january = await check(venue, venue.buyer, "2027-01")
    assert [line["kind"] for line in january["pockets"][0]["lines"]] == ["adjustment"]
    assert january["pockets"][0]["opening"] == final["pockets"][0]["closing"]
    months = (await venue.ok("GET", "/v1/statements", venue.buyer))["data"]
    assert [(month["id"], month["state"]) for month in months] == [("2027-01", "open"), ("2026-12", "final")]


async def test_a_ledger_that_does_not_add_up_is_not_printed(venue, clock):
    """A leg that vanished from the history shows, in the month of it and in every later one."""
    await venue.offer_node()
    await venue.place()
    await run(venue, clock, 60)
    clock.advance_to(1_798_761_600 * SECOND + 100 * SECOND)
    async with venue.pool.acquire() as connection:
        await connection.execute("SET session_replication_role = replica")  # no trigger, no balance moved
        taken = await connection.fetchrow("DELETE FROM transfers WHERE code = 'deposit' RETURNING *")
        for month in ("2026-12", "2027-01"):
            refused = await venue.call("GET", f"/v1/statements/{month}", venue.buyer)
            assert (refused.status, refused.json["code"]) == (500, "internal_error")
        columns = ", ".join(taken.keys())
        places = ", ".join(f"${i}" for i in range(1, len(taken) + 1))
        await connection.execute(
            f"INSERT INTO transfers ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places})", *taken.values()
        )
        await connection.execute("RESET session_replication_role")
    await check(venue, venue.buyer, "2026-12")


async def test_corrections_that_cancel_each_other_are_a_line(venue):
    for amount in (5, -5):
        await venue.engine.execute(Adjust(random_id("adj"), venue.buyer_id, "available", amount, "x"))
    shown = await check(venue, venue.buyer, "2026-12")
    (line,) = [line for line in shown["pockets"][0]["lines"] if line["kind"] == "adjustment"]
    assert (line["amount"], line["transfers"]) == ("0.000000", 2)


async def test_random_histories_add_up(venue, clock):
    """Deposits, corrections, charges, refunds and payouts over two months, in any order."""
    dice = random.Random(11)
    node, _ = await venue.offer_node(gpus=4)
    for _ in range(14):
        roll = dice.random()
        if roll < 0.3:
            await venue.engine.execute(Deposit(random_id("dep"), venue.buyer_id, dice.randint(1, 10**7)))
        elif roll < 0.5:
            there = venue.engine.core.balance(venue.buyer_id).available
            amount = max(-there, dice.choice([-1, 1]) * dice.randint(1, 10**5)) or 1
            await venue.engine.execute(Adjust(random_id("adj"), venue.buyer_id, "available", amount, "x"))
        elif roll < 0.8:
            body = {"market": MARKET, "gpus": dice.randint(1, 2), "limit_price_per_gpu_hour": "3.00"}
            assert (await venue.call("POST", "/v1/bids", venue.buyer, body)).status in (201, 402)
        else:
            earning = venue.engine.core.balance(venue.owner_id).earning
            if earning > 1:
                made = await venue.engine.execute(
                    RequestPayout(random_id("pay"), venue.owner_id, dice.randint(1, earning))
                )
                if dice.random() < 0.6:
                    await venue.engine.execute(ClosePayout(made.id, dice.choice(["paid", "failed"])))
        await run(venue, clock, dice.choice([20, 60]))
        if dice.random() < 0.1:
            clock.advance_to(max(clock.now_us(), 1_798_761_600 * SECOND))
    await venue.ok("POST", f"/v1/nodes/{node['id']}/recall", venue.owner, {})
    await run(venue, clock, 40)
    for key in (venue.buyer, venue.owner):
        closing = None
        for month in reversed((await venue.ok("GET", "/v1/statements", key))["data"]):
            shown = await check(venue, key, month["id"])
            opening = [pocket["opening"] for pocket in shown["pockets"]]
            assert closing in (None, opening)
            closing = [pocket["closing"] for pocket in shown["pockets"]]
        balance = await venue.ok("GET", "/v1/balance", key)
        assert microusd(closing[0]) == microusd(balance["available"]) + microusd(balance["held"])
        assert microusd(closing[1]) == microusd(balance["earning"]) + microusd(balance["payable"])


async def test_usage_by_hour_and_label_and_as_csv(venue, clock):
    await venue.offer_node()
    await venue.place(gpus=1, labels={"team": "vision"})
    await venue.place(gpus=2, labels={"team": "=cmd()", "run": "7"})
    await venue.place(gpus=1)
    await run(venue, clock, 90)
    (total,) = (await venue.ok("GET", "/v1/usage?group_by=market", venue.buyer))["data"]
    for grouping in ("hour", "day", "bid", "label&label=team", "label&label=run"):
        rows = (await venue.ok("GET", f"/v1/usage?group_by={grouping}", venue.buyer))["data"]
        assert sum(microusd(row["amount"]) for row in rows) == microusd(total["amount"]) > 0
        assert sum(row["gpu_seconds"] for row in rows) == total["gpu_seconds"]
    teams = (await venue.ok("GET", "/v1/usage?group_by=label&label=team", venue.buyer))["data"]
    assert [row["group"] for row in teams] == ["", "=cmd()", "vision"]
    (hour,) = (await venue.ok("GET", "/v1/usage?group_by=hour", venue.buyer))["data"]
    assert hour["group"] == "2026-12-23T04"
    sheet = await venue.call("GET", "/v1/usage?group_by=label&label=team&format=csv", venue.buyer)
    assert sheet.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(sheet.raw.decode())))
    assert [row["group"] for row in rows] == ["", "'=cmd()", "vision"], "a spreadsheet must not run it"
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(total["amount"])
    empty = "/v1/usage?group_by=day&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z"
    assert (await venue.ok("GET", empty, venue.buyer))["data"] == []
    for query, code in (
        ("group_by=label", "invalid_value"),
        ("group_by=day&label=team", "invalid_value"),
        ("group_by=hour&from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", "window_too_long"),
        ("from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:00Z", "window_too_long"),
    ):
        refused = await venue.call("GET", f"/v1/usage?{query}", venue.buyer)
        assert (refused.status, refused.json["code"]) == (422, code)


async def test_a_statement_as_csv_and_as_a_page_to_print(venue, clock):
    await venue.offer_node()
    await venue.place()
    await run(venue, clock, 60)
    shown = await venue.ok("GET", "/v1/statements/2026-12", venue.buyer)
    sheet = await venue.call("GET", "/v1/statements/2026-12?format=csv", venue.buyer)
    rows = [row for row in csv.DictReader(io.StringIO(sheet.raw.decode())) if row["pocket"] == "money"]
    assert rows[0]["line"] == "opening" and rows[-1]["line"] == "closing"
    assert sum(Decimal(row["amount"]) for row in rows[:-1]) == Decimal(rows[-1]["amount"])
    page = await venue.call("GET", "/v1/statements/2026-12?format=html", venue.buyer)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    text = page.raw.decode()
    assert "http" not in text and "<script" not in text, "it loads nothing"
    for pocket in shown["pockets"]:
        for line in pocket["lines"]:
            assert line["amount"] in text


async def test_statements_and_transfers_of_another_account_are_not_there(venue):
    entry = (await venue.ok("GET", "/v1/ledger/entries", venue.buyer))["data"][0]
    _, stranger = await venue.open_account("buyer")
    for path in (
        f"/v1/ledger/transfers/{entry['transfer']}",
        "/v1/ledger/transfers/x",
        "/v1/ledger/transfers/999999999",
        "/v1/statements/2026-13",
        "/v1/statements/2031-01",
        "/v1/statements/2026-12/lines/money:theft",
        "/v1/statements/2026-12/lines/purse:deposit",
    ):
        answered = await venue.call("GET", path, stranger)
        assert (answered.status, answered.json["code"]) == (404, "not_found"), path
    empty = await venue.ok("GET", "/v1/statements/2026-12", stranger)
    assert [pocket["lines"] for pocket in empty["pockets"]] == [[], []]
    legs = await venue.ok("GET", "/v1/statements/2026-12/lines/money:deposit", stranger)
    assert legs["data"] == []
