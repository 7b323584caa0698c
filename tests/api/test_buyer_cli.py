"""The buyer's commands as processes against a real market: output, exit codes, the call behind them."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys

import pytest

from tests.api.conftest import MARKET
from tests.api.shell import Shell


@pytest.fixture
async def shell(venue, tmp_path):
    await venue.offer_node()
    return Shell(venue, tmp_path)


async def test_a_bid_from_its_preview_to_its_end(shell, venue):
    (market,) = await shell.json("market", "ls")
    assert market["id"] == MARKET
    (quote,) = await shell.json("quote", MARKET, "--gpus", "2")
    assert quote["available_gpus"] == 8
    (preview,) = await shell.json("bid", "preview", MARKET, "--gpus", "2", "--limit", "2.40")
    assert preview["worst_cost_per_hour"] == "4.800000"
    (bid,) = await shell.json("bid", "place", MARKET, "--gpus", "2", "--limit", "2.40", "--max-spend", "5")
    assert (bid["limit_price_per_gpu_hour"], bid["max_spend"]) == ("2.400000", "5.000000")
    lease = await venue.lease_in("running")
    _, output, _ = await shell.run("bid", "ls", "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [(row["id"], row["gpus"]) for row in rows] == [(bid["id"], "2")]
    code, table, _ = await shell.run("lease", "ls")
    assert code == 0 and lease["id"] in table and "running" in table
    (amended,) = await shell.json("bid", "amend", bid["id"], "--limit", "2.50", "--paused")
    assert amended["paused"] is True
    (released,) = await shell.json("lease", "release", lease["id"])
    assert released["state"] == "ended"
    code, shown, _ = await shell.run("bid", "show", bid["id"])
    assert code == 0 and "cancelled" in shown, "all it had was given back"
    (balance,) = await shell.json("bill", "balance")
    assert balance["held"] == "0.000000"


async def test_placing_a_bid_loads_no_framework(shell):
    """Goal: its own time is short. What it loads decides that, and a clock here would not be fair."""
    heavy = {"aiohttp", "numpy", "rich", "matching", "cryptography", "asyncpg", "asyncio"}
    program = f"""
import sys
from fallow.cli import main
main(["bid", "place", "{MARKET}", "--gpus", "1", "--limit", "2.40"], standalone_mode=False)
print("loaded", *sorted({heavy} & set(sys.modules)))
"""
    environment = {**os.environ, "FALLOW_URL": shell.server, "FALLOW_KEY": shell.key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    assert lines[0].split()[0] == "id" and lines[0].split()[1].startswith("bid_")
    assert lines[-1] == "loaded"


async def test_what_nothing_takes_back_is_asked_at_a_terminal(shell, venue):
    """Goal: a slip of the hand is not a cancelled run; a script is never asked."""
    bids = [(await venue.place())["id"] for _ in range(3)]

    async def at_a_terminal(*arguments, typed):
        ours, theirs = os.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fallow.cli", *arguments, stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "FALLOW_URL": shell.server, "FALLOW_KEY": shell.key, "NO_COLOR": "1"},
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, typed)
        _, errors = await process.communicate()
        os.close(ours)
        return process.returncode, errors.decode()

    async def status(bid):
        return (await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer))["status"]

    code, errors = await at_a_terminal("bid", "cancel", bids[0], typed=b"n\n")
    assert (code, f"Cancel {bids[0]}?" in errors) == (1, True)
    assert await status(bids[0]) != "cancelled"
    assert (await at_a_terminal("bid", "cancel", bids[0], typed=b"y\n"))[0] == 0
    assert (await at_a_terminal("bid", "cancel", bids[1], "--yes", typed=b""))[0] == 0
    assert (await shell.run("bid", "cancel", bids[2]))[0] == 0, "no terminal, no question"
    assert [await status(bid) for bid in bids] == ["cancelled"] * 3


async def test_targets(shell, venue):
    (held,) = await shell.json("target", "hold", MARKET, "--gpus", "2", "--limit", "2")
    by = "2099-01-01T00:00Z"
    code, _, errors = await shell.run(
        "target", "deadline", MARKET, "--gpu-hours", "1", "--by", by, "--max-spend", "9"
    )
    assert code == 3 and "target_unreachable" in errors and "accepted: ends_at" in errors
    (paced,) = await shell.json("target", "pace", MARKET, "--spend-per-day", "48", "--limit", "2")
    assert {one["id"] for one in await shell.json("target", "ls")} == {held["id"], paced["id"]}
    (cancelled,) = await shell.json("target", "cancel", held["id"])
    assert cancelled["state"] == "cancelled"


async def test_exit_codes_say_what_kind_of_no_it_was(shell):
    for arguments, key, server, expected in (
        (("bid", "place", MARKET, "--gpus", "1", "--limit", "900"), None, None, 3),
        (("bid", "show", "bid_none"), None, None, 3),
        (("bill", "balance"), "fal_test_wrong", None, 4),
        (("bid", "place", MARKET, "--gpus", "1"), None, None, 2),
        (("bid", "place", MARKET, "--gpus", "1", "--limit", "two"), None, None, 2),
    ):
        code, output, errors = await shell.run(*arguments, key=key, server=server)
        assert (code, output) == (expected, ""), (arguments, errors)
        assert errors


async def test_the_explained_call_does_the_same(shell):
    _, output, explained = await shell.run(
        "bid", "preview", MARKET, "--gpus", "1", "--limit", "2", "-o", "json", "--explain"
    )
    assert explained.startswith("curl ") and shell.key not in explained
    again = await asyncio.to_thread(
        subprocess.run, explained.strip(), shell=True, capture_output=True, text=True,
        env={**os.environ, "KEY": shell.key}, check=True,
    )  # fmt: skip
    mine, theirs = json.loads(output), json.loads(again.stdout)
    assert (mine["hold"], mine["worst_cost_per_hour"]) == (theirs["hold"], theirs["worst_cost_per_hour"])
