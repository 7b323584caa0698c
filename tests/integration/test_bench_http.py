"""Rows of bench_http at a smoke size: what was charged is checked against what is owed, by the row itself."""

import pytest
from rich.progress import Progress

from bench import http_gateway, http_settlement

LEASES = 20_000
MARKET_LEASES = 800


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # one is enough for a bench
async def test_settlement_charges_what_is_owed_and_the_market_every_lease(server):
    arguments = server.postgres.connect_arguments()
    facts = {"socket": arguments["host"], "pg_port": arguments["port"], "user": arguments["user"]}
    with Progress(disable=True) as progress:
        found = await http_settlement.settlement(
            facts, 2, progress, leases=LEASES, market_leases=MARKET_LEASES
        )
    assert (found["leases"], found["each_leases"], len(found["aggregated_s"])) == (LEASES, LEASES // 10, 2)
    market = found["market"]
    assert market["wrote"] | {"events": 0, "transfers": 0} == {
        "usage": MARKET_LEASES,
        "transfers": 0,
        "leases": MARKET_LEASES,
        "bids": MARKET_LEASES,
        "events": 0,
    }
    assert market["wrote"]["transfers"] == 3 * MARKET_LEASES, "charge, fee and hold of each"
    assert 0 < market["decided_s"] < market["settled_s"]
    titles = [row[0] for row in http_settlement.rows(found, "s")]
    assert titles[-1] == f"settlement, {MARKET_LEASES} leases in the market"


def test_the_gateway_is_left_out_where_no_interpreter_was_named(monkeypatch):
    monkeypatch.delenv("FALLOW_BENCH_PYTHON312", raising=False)
    assert http_gateway.if_there(["single", "gateway"]) == ["single"]
    monkeypatch.setenv("FALLOW_BENCH_PYTHON312", "python3.12")
    assert http_gateway.if_there(["single", "gateway"]) == ["single", "gateway"]
