"""`fallow market`, `bill`, `commands`, `completion` as processes against a real market."""

import csv
import fcntl
import io
import json
import os
import signal
import struct
import termios
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from fallow.client.model import Curve
from fallow.market_cli import draw
from tests.api.conftest import MARKET
from tests.api.shell import Shell


@pytest.fixture
async def shell(venue, tmp_path):
    await venue.offer_node(reserve="1.00")
    await venue.place(gpus=2, limit_price_per_gpu_hour="2.00")
    await venue.lease_in("running")
    return Shell(venue, tmp_path)


def test_depth_is_drawn_by_price_with_what_is_wanted_and_offered_there():
    curve = Curve(
        MARKET,
        7,
        demand=[(Decimal("2.4"), 10), (Decimal(2), 14)],
        supply=[(Decimal("1.5"), 1), (Decimal("2.2"), 28)],
    )
    head, *rows = draw(curve)
    assert "tick 7" in head
    assert [(row.split()[0], row.split()[1], row.split()[-1]) for row in rows] == [
        ("2.4", "10", "28"),
        ("2.2", "10", "28"),
        ("2", "14", "1"),
        ("1.5", "14", "1"),
    ]
    assert [(row.count("#")) for row in rows] == [38, 38, 15, 15]
    assert draw(Curve(MARKET, 1, [], [])) == [f"{MARKET}, tick 1: no bids and no offers"]


async def test_the_depth_of_a_market_as_chart_sheet_and_object(shell):
    code, chart, _ = await shell.run("market", "depth", MARKET)
    assert code == 0 and chart.startswith(f"{MARKET}, tick ") and "2.000000" in chart and "#" in chart
    _, sheet, _ = await shell.run("market", "depth", MARKET, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(sheet)))
    assert {"side": "demand", "price": "2.000000", "cumulative_gpus": "2"} in rows
    assert {row["side"] for row in rows} == {"demand", "supply"}
    (curve,) = await shell.json("market", "depth", MARKET)
    assert curve["demand"][0] == ["2.000000", 2]


async def test_a_markets_history(shell):
    candles = await shell.json("market", "history", MARKET, "--interval", "1m", "--count", "1")
    assert len(candles) == 1 and candles[0]["ticks"] >= 1
    code, _, _ = await shell.run("market", "history", MARKET, "--count", "0")
    assert code == 2
    code, _, errors = await shell.run("market", "history", "none")
    assert code == 3 and "not_found" in errors


async def test_a_market_is_watched_for_so_many_ticks_or_until_it_is_interrupted(shell):
    first, second = await shell.json("market", "watch", MARKET, "--ticks", "2")
    assert (first["market"], second["tick"] > first["tick"]) == (MARKET, True)
    code, _, errors = await shell.run("market", "watch", "none", "--ticks", "1")
    assert code == 3 and "not_found" in errors
    process = await shell.start("market", "watch", "-o", "csv")
    assert (await process.stdout.readline()).startswith(b"market,tick,")
    assert (await process.stdout.readline()).startswith(MARKET.encode())
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


async def test_on_a_terminal_the_watched_market_is_a_table_in_its_place(shell):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await shell.start("market", "watch", "--ticks", "2", stdout=theirs, TERM="xterm")
    os.close(theirs)
    _, errors = await process.communicate()
    drawn = os.read(ours, 65_536).decode()
    os.close(ours)
    assert (process.returncode, errors) == (0, b"")
    assert drawn.count("wanted") >= 2 and MARKET in drawn and "…" not in drawn


async def test_the_bill_in_all_its_forms(shell):
    month = f"{datetime.now(UTC):%Y-%m}"
    (head,) = await shell.json("bill", "statement")
    assert head["id"] == month
    _, sheet, _ = await shell.run("bill", "statement", month, "-o", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(sheet)) if row["pocket"] == "money"]
    *lines, closing = [Decimal(row["amount"]) for row in rows]
    assert (rows[0]["line"], rows[-1]["line"], sum(lines)) == ("opening", "closing", closing)
    (statement,) = await shell.json("bill", "statement", month)
    assert statement["pockets"][0]["closing"] == rows[-1]["amount"]
    entries = await shell.json("bill", "ledger")
    assert entries[-1]["amount"] == "1000.000000"
    code, _, errors = await shell.run("bill", "usage", "--by", "market", "--from", "2026-01-01T00:00Z")
    assert code == 0, errors
    code, _, errors = await shell.run("bill", "statement", "2026-13")
    assert code == 3, errors


async def test_the_command_line_describes_all_of_itself(shell):
    code, output, errors = await shell.run("commands", "--json")
    assert code == 0, errors
    tree = json.loads(output)
    names = {one["name"]: one for one in tree["commands"]}
    assert {"bid", "bill", "demo", "market", "reserve"} <= names.keys() and tree["name"] == "fallow"
    ticks = next(one for one in names["market"]["commands"] if one["name"] == "history")["params"]
    interval = next(one for one in ticks if one["name"] == "interval")
    assert (interval["default"], interval["type"]["choices"]) == ("1h", ["1m", "5m", "1h", "1d"])
    code, listed, _ = await shell.run("commands")
    assert code == 0 and "fallow market depth " in listed

    def whole(one):
        assert one["help"], one["name"]
        for inner in one.get("commands", []):
            whole(inner)

    whole(tree)


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
async def test_a_shell_is_given_its_completion(shell, kind):
    code, script, errors = await shell.run("completion", kind)
    assert (code, errors) == (0, "") and "_FALLOW_COMPLETE" in script
    code, words, _ = await shell.run(
        _FALLOW_COMPLETE="bash_complete", COMP_WORDS="fallow mar", COMP_CWORD="1"
    )
    assert "market" in words
