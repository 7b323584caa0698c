"""What the replay's database says afterwards, as figures, as a table and as JSON.

Money, GPU-hours, notices and waits are read from the committed rows, not from the replay's own
bookkeeping; what the market cannot know (the owners' work, the tenants' progress) comes from the
people. Floats are allowed here: nothing flows back into a market.
"""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from auction.units import MICROSECONDS_PER_SECOND, MICROUSD_PER_USD, SECONDS_PER_HOUR
from bench.openb_trace import Scenario, gpus_by_model
from bench.openb_world import Owners, Tenants, Timeline
from sql.audit import Finding

Figures = dict[str, Any]
PREEMPTIONS = ("outbid", "offer_withdrawn", "moved")

SOLD = """
SELECT m.gpu_model AS model, coalesce(sum(l.gpu_seconds), 0)::bigint AS gpu_s,
       coalesce(sum(l.settled), 0)::bigint AS charged_microusd
FROM markets m LEFT JOIN leases l ON l.market = m.id GROUP BY 1 ORDER BY 1"""
FEES = "SELECT coalesce(sum(amount), 0)::bigint FROM transfers WHERE code = 'fee'"
ENDS = """
SELECT end_reason, count(*) AS leases, sum(gpu_count)::bigint AS gpus
FROM leases WHERE started_at_us IS NOT NULL GROUP BY 1 ORDER BY 1"""
# A notice was kept when its lease lasted to reclaim_at, or its tenant gave the GPUs back before.
NOTICES = """
SELECT count(*) AS issued,
       count(*) FILTER (WHERE n.state = 'withdrawn') AS withdrawn,
       count(*) FILTER (WHERE n.state = 'done' AND l.ended_at_us >= n.reclaim_at_us) AS lasted,
       count(*) FILTER (WHERE n.state = 'done' AND l.ended_at_us < n.reclaim_at_us
                        AND l.end_reason = 'released') AS given_back,
       count(*) FILTER (WHERE n.state = 'done' AND l.ended_at_us < n.reclaim_at_us
                        AND l.end_reason <> 'released') AS broken
FROM notices n JOIN leases l ON l.id = n.lease"""
WAITS = """
SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY (started_at_us - created_at_us) / 1e6),
       count(*)
FROM (SELECT b.created_at_us, min(l.started_at_us) AS started_at_us
      FROM bids b JOIN leases l ON l.bid = b.id WHERE l.started_at_us IS NOT NULL GROUP BY b.id) AS first"""
# Bids that no owner would have taken: their limit is below every reserve ever offered in their market.
PRICED_OUT = """
SELECT count(*) FROM bids b
JOIN (SELECT market, min(gross_reserve) AS lowest FROM offers GROUP BY market) AS o USING (market)
WHERE b.limit_price < o.lowest"""
PRICES = """
SELECT m.gpu_model AS model, count(*) AS ticks, count(t.price) AS traded, avg(t.price)::float8 AS mean_price
FROM ticks t JOIN markets m ON m.id = t.market GROUP BY 1 ORDER BY 1"""


async def collect(
    connection: "asyncpg.Connection[asyncpg.Record]",
    scenario: Scenario,
    timeline: Timeline,
    owners: Owners,
    tenants: Tenants,
) -> Figures:
    """Read the figures of a replay that is over and committed."""
    figures: Figures = {"pods": dict(scenario.counts)}
    figures["pods"] |= _fraction_shares(scenario)
    figures["markets"] = await _by_model(connection, scenario, owners)
    figures["totals"] = _totals(figures["markets"])
    figures["totals"]["fee_usd"] = await connection.fetchval(FEES) / MICROUSD_PER_USD
    figures["totals"]["owners_net_usd"] = figures["totals"]["charged_usd"] - figures["totals"]["fee_usd"]
    ends = {row["end_reason"]: dict(row) for row in await connection.fetch(ENDS)}
    sold_kilo_hours = figures["totals"]["sold_gpu_hours"] / 1_000
    figures["preemptions_per_1000_gpu_hours"] = {
        reason: round(ends[reason]["leases"] / sold_kilo_hours, 2) if reason in ends else 0.0
        for reason in PREEMPTIONS
    }
    figures["lease_ends"] = {reason: row["leases"] for reason, row in ends.items()}
    notices = await connection.fetchrow(NOTICES)
    assert notices is not None
    ended = notices["lasted"] + notices["given_back"] + notices["broken"]
    figures["notices"] = dict(notices) | {"honoured_share": 1 - notices["broken"] / ended if ended else None}
    figures["tenants"] = await _tenants(connection, tenants, figures["totals"]["sold_gpu_hours"])
    figures["owners"] = _owners(owners)
    figures["engine"] = _engine(timeline)
    return figures


def conditions() -> Figures:
    """The machine and the versions that a result belongs to."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(models),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("fallow", "asyncpg", "msgspec", "numpy")},
    }


async def _by_model(
    connection: "asyncpg.Connection[asyncpg.Record]", scenario: Scenario, owners: Owners
) -> dict[str, Figures]:
    hours = (scenario.end_s - scenario.begin_s) / SECONDS_PER_HOUR
    prices = {row["model"]: row for row in await connection.fetch(PRICES)}
    gpus = gpus_by_model(scenario.nodes)
    markets: dict[str, Figures] = {}
    for row in await connection.fetch(SOLD):
        model, sold = row["model"], row["gpu_s"] / SECONDS_PER_HOUR
        price = prices.get(model)
        mean = None if price is None else price["mean_price"]
        list_price = scenario.list_prices[model]
        markets[model] = {
            "nodes": sum(node.model == model for node in scenario.nodes),
            "gpus": gpus[model],
            "gpu_hours": gpus[model] * hours,
            "owner_gpu_hours": owners.gpu_us.get(model, 0) / MICROSECONDS_PER_SECOND / SECONDS_PER_HOUR,
            "sold_gpu_hours": sold,
            "charged_usd": row["charged_microusd"] / MICROUSD_PER_USD,
            "list_value_usd": sold * list_price / MICROUSD_PER_USD,
            "list_price_usd": list_price / MICROUSD_PER_USD,
            "mean_price_of_list": None if mean is None else mean / list_price,
            "ticks": 0 if price is None else price["ticks"],
            "ticks_with_a_price": 0 if price is None else price["traded"],
        }
    return markets


def _totals(markets: dict[str, Figures]) -> Figures:
    names = (
        "nodes",
        "gpus",
        "gpu_hours",
        "owner_gpu_hours",
        "sold_gpu_hours",
        "charged_usd",
        "list_value_usd",
    )
    totals: Figures = {name: sum(market[name] for market in markets.values()) for name in names}
    offered = totals["gpu_hours"] - totals["owner_gpu_hours"]
    totals["offered_gpu_hours"] = offered
    totals["sold_of_offered"] = totals["sold_gpu_hours"] / offered
    totals["owner_of_all"] = totals["owner_gpu_hours"] / totals["gpu_hours"]
    totals["used_of_all"] = (totals["owner_gpu_hours"] + totals["sold_gpu_hours"]) / totals["gpu_hours"]
    listed = totals["list_value_usd"]
    totals["charged_of_list"] = totals["charged_usd"] / listed if listed else None
    traded = [market for market in markets.values() if market["ticks_with_a_price"]]
    weight = sum(market["ticks_with_a_price"] for market in traded)
    totals["mean_price_of_list"] = (
        sum(market["mean_price_of_list"] * market["ticks_with_a_price"] for market in traded) / weight
        if weight
        else None
    )
    return totals


def _fraction_shares(scenario: Scenario) -> Figures:
    """How much of the demand wants part of a GPU, and how much less than it gets (a whole one)."""
    shares: Figures = {}
    for name, is_bid in (("bids", True), ("owner_tasks", False)):
        whole = fractional = wanted = 0.0
        for task in scenario.tasks:
            if (task.limit is not None) == is_bid:
                gpu_hours = task.gpus * task.run_s / SECONDS_PER_HOUR
                wanted += gpu_hours * task.gpu_milli / 1_000
                whole += gpu_hours
                fractional += gpu_hours if task.gpu_milli < 1_000 else 0.0
        shares[f"{name}_gpu_hours"] = whole
        shares[f"{name}_gpu_hours_of_part_of_a_gpu"] = fractional
        shares[f"{name}_gpu_hours_wanted_exactly"] = wanted
    return shares


async def _tenants(
    connection: "asyncpg.Connection[asyncpg.Record]", tenants: Tenants, sold: float
) -> Figures:
    waits = await connection.fetchrow(WAITS)
    assert waits is not None
    quantiles = waits[0] or [None] * 3
    done = tenants.done_us / MICROSECONDS_PER_SECOND / SECONDS_PER_HOUR
    return {
        "bids": tenants.placed,
        "refused": tenants.refused,
        "started": waits[1],
        "below_every_reserve": await connection.fetchval(PRICED_OUT),
        "completed": tenants.completed,
        "work_done": tenants.done_us / tenants.work_us if tenants.work_us else None,
        "work_gpu_hours": tenants.work_us / MICROSECONDS_PER_SECOND / SECONDS_PER_HOUR,
        "sold_that_was_work": done / sold if sold else None,
        "wait_s": dict(zip(("p50", "p90", "p99"), quantiles, strict=True)),
    }


def _owners(owners: Owners) -> Figures:
    waits_s = np.array(owners.waits_us or [0]) / MICROSECONDS_PER_SECOND
    recalls_s = np.array(owners.recall_waits_us) / MICROSECONDS_PER_SECOND
    return {
        "tasks_started": len(owners.waits_us),
        "tasks_never_started": owners.never_started,
        "started_at_once": float(np.mean(waits_s == 0)),
        "wait_s": _quantiles(waits_s, (50, 99, 100)),
        "wait_for_tenants_s": _quantiles(recalls_s, (50, 99, 100)) if owners.recall_waits_us else {},
        "offers_recalled_from_a_tenant": owners.recalled_leased,
        "starts_that_found_the_gpu_occupied": owners.started_blocked,
    }


def _engine(timeline: Timeline) -> Figures:
    beats_ms = np.array([elapsed for elapsed, _ in timeline.tick_ns] or [0]) / 1e6
    ticks = sum(markets for _, markets in timeline.tick_ns)
    commit_s = sum(timeline.commit_ns) / 1e9
    return {
        "beats": len(timeline.tick_ns),
        "ticks": ticks,
        "commands": timeline.commands,
        "journal_entries": timeline.core.seq,
        "rejections": dict(sorted(timeline.rejections.items())),
        "beat_ms": _quantiles(beats_ms, (50, 99, 99.9, 100)),
        "tick_ms_mean": float(beats_ms.sum()) / max(1, ticks),
        "commits": len(timeline.commit_ns),
        "commit_s": commit_s,
        "commit_ms": _quantiles(np.array(timeline.commit_ns or [0]) / 1e6, (50, 99, 100)),
        "rows": timeline.rows,
        "entries_per_commit_second": timeline.core.seq / commit_s if commit_s else None,
        "rows_per_commit_second": timeline.rows / commit_s if commit_s else None,
    }


def _quantiles(values: "np.ndarray[Any, np.dtype[np.float64]]", points: Sequence[float]) -> Figures:
    names = ("worst" if point == 100 else f"p{point:g}" for point in points)
    return dict(zip(names, (float(value) for value in np.percentile(values, points)), strict=True))


def audit_figures(findings: Sequence[Finding]) -> Figures:
    return {
        "checks": len(findings),
        "failed": [f"{finding.name}: {finding.bad} bad" for finding in findings if not finding.is_ok],
        "rows": sum(finding.checked for finding in findings),
        "noted": {finding.name: finding.noted for finding in findings if finding.noted},
        "elapsed_s": sum(finding.elapsed_ns for finding in findings) / 1e9,
    }
