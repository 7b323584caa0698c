"""Replay a recorded GPU cluster through the market, in virtual time, on the real database.

    python -m bench.replay_openb [--smoke] [--data DIR] [--scenario recorded|tight|both]

Measured: how much idle capacity the auction sells, for how much against list price, how often tenants
are interrupted, whether notices hold, whether the books balance, and what a tick costs. Workload: the
nodes and pods of alibaba/clusterdata cluster-trace-gpu-v2023 from its first bid to its end. `recorded`
is the trace as it is: its pods need at most 2 % of its GPUs. `tight` has the same pods several times
over on a part of the nodes, so that supply is scarce. Excluded: HTTP, authentication, delivery to
sockets, containers. The same seed gives the same hash. Assumptions: bench/README.md.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns

import msgspec
from rich.console import Console
from rich.progress import Progress

from auction.clock import SystemClock
from auction.commands import CreateAccount, CreateMarket, CreateNode, Deposit
from auction.core import Core
from auction.errors import Rejection
from auction.model import Market
from auction.units import MICROSECONDS_PER_SECOND, Amount
from bench import openb_table
from bench.openb_figures import Figures, audit_figures, collect, conditions
from bench.openb_trace import (
    PRICE_CAP,
    PRICE_INCREMENT,
    PRICED_LIKE,
    SECONDS_PER_DAY,
    Parameters,
    Scenario,
    load_scenario,
)
from bench.openb_world import Ids, Owners, Tenants, Timeline
from sql.audit import audit
from sql.audit import render as render_audit
from sql.pool import Database, open_database

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
EPOCH_S = 1_700_000_000  # of the trace's second 0: any whole second will do
DEPOSIT = Amount(10**12)  # a million dollars a buyer: money is never what decides here

SCENARIOS = {
    "recorded": Parameters(),
    "tight": Parameters(pressure=0.9, copies=8, tick_seconds=60),
}
SMOKE = {"from_day": 120.0, "days": 0.25}


async def replay(
    database: Database, scenario: Scenario, progress: Callable[[float], None] = lambda _: None
) -> Figures:
    """Run one scenario on an empty migrated database; return its result, audit included."""
    started_ns = perf_counter_ns()
    parameters = scenario.parameters
    store = database.store()
    await store.acquire()
    begin_us, end_us = (
        (EPOCH_S + second) * MICROSECONDS_PER_SECOND for second in (scenario.begin_s, scenario.end_s)
    )
    timeline = Timeline(
        Core.restore(await store.load()),
        store,
        now_us=begin_us,
        commit_entries=parameters.commit_entries,
    )
    ids = Ids(parameters.seed)
    owners, tenants = _people(timeline, ids, scenario, end_us)
    for task in scenario.tasks:
        arrive = owners.arrive if task.limit is None else tenants.arrive
        at_us = (EPOCH_S + task.arrives_s) * MICROSECONDS_PER_SECOND
        timeline.at(at_us, lambda arrive=arrive, task=task: arrive(task))  # type: ignore[misc]
    await timeline.run_until(end_us, lambda now_us: progress((now_us - begin_us) / (end_us - begin_us)))
    tenants.close()
    owners.close()
    await timeline.commit()
    await store.close()
    wall_s = (perf_counter_ns() - started_ns) / 1e9
    connection = await database.connect()
    try:
        findings = await audit(connection)
        print(render_audit(findings), file=sys.stderr)
        return {
            "parameters": asdict(parameters),
            "virtual_days": (scenario.end_s - scenario.begin_s) / SECONDS_PER_DAY,
            "wall_s": wall_s,
            "figures": await collect(connection, scenario, timeline, owners, tenants),
            "audit": audit_figures(findings),
            "postgresql": await connection.fetchval("SHOW server_version"),
            "hash": _hash(timeline.core),
        }
    finally:
        await connection.close()


def _people(timeline: Timeline, ids: Ids, scenario: Scenario, end_us: int) -> tuple[Owners, Tenants]:
    """Open the accounts and markets and bring every node to its market."""

    def do(command: msgspec.Struct) -> None:
        outcome = timeline.do(command)  # type: ignore[arg-type]
        assert not isinstance(outcome, Rejection), outcome

    buyers = [ids.new("acct") for _ in range(scenario.parameters.buyers)]
    for number, buyer in enumerate(buyers):
        do(CreateAccount(buyer, f"buyer {number}", ["buyer"]))
        do(Deposit(ids.new("dep"), buyer, DEPOSIT))
    owners = Owners(timeline, ids, end_us)
    accounts: dict[str, str] = {}
    for node in scenario.nodes:
        if node.model not in accounts:
            accounts[node.model] = ids.new("acct")
            do(CreateAccount(accounts[node.model], f"owner of {node.model}", ["owner"]))
            do(CreateMarket(_market(node.model, scenario.parameters)))
        node_id = ids.new("node")
        do(CreateNode(node_id, accounts[node.model], node.model.lower(), node.name, node.gpus, True))
        owners.add_node(node, node_id, accounts[node.model])
    return owners, Tenants(timeline, ids, buyers, scenario.parameters)


def _market(model: str, parameters: Parameters) -> Market:
    return Market(
        id=model.lower(),
        kind="gpu",
        gpu_model=model,
        gpu_memory_gib=0,
        gpus_per_node=8,
        interconnect="unknown",
        region="trace",
        tick_seconds=parameters.tick_seconds,
        price_increment=PRICE_INCREMENT,
        price_cap=PRICE_CAP,
        notice_seconds=parameters.notice_seconds,
        settlement_seconds=parameters.settlement_seconds,
        handicap_bps=parameters.handicap_bps,
        fee_bps=parameters.fee_bps,
        is_demo=True,  # its nodes are simulated
        created_at_us=0,
    )


def _hash(core: Core) -> str:
    """Commit to every tick of every market and to the state at the end."""
    digests = [core.markets[market].digest for market in sorted(core.markets)]
    return hashlib.sha256(":".join([core.state_hash(), *digests]).encode()).hexdigest()


async def _replay_embedded(name: str, scenario: Scenario) -> Figures:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="fallow-bench-") as directory:
        async with open_database(url=None, data_dir=Path(directory)) as database:
            await database.prepare(apply_migrations=True)
            with Progress(console=console, disable=not console.is_terminal) as bar:
                task = bar.add_task(name, total=1.0)
                return await replay(database, scenario, lambda done: bar.update(task, completed=done))


def main() -> None:
    options = _options()
    names = list(SCENARIOS) if options.scenario == "both" else [options.scenario]
    results: dict[str, Figures] = {}
    for name in names:
        changes = {
            field: value
            for field, value in vars(options).items()
            if field in Parameters.__dataclass_fields__ and value is not None
        }
        parameters = replace(SCENARIOS[name], **(SMOKE if options.smoke else {}) | changes)
        results[name] = asyncio.run(_replay_embedded(name, load_scenario(options.data, parameters)))
        print(openb_table.render(name, results[name]) + "\n")
    report = {
        "date": options.date,
        "smoke": options.smoke,
        "conditions": conditions(),
        "prices_of": {model: source[0] for model, (source, _) in PRICED_LIKE.items()},
        "scenarios": results,
    }
    if options.smoke:
        return
    path = RESULTS / f"replay_openb-{options.date}.json"
    path.write_text(json.dumps(_rounded(report), indent=1) + "\n")
    print(f"written: bench/results/{path.name}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.replay_openb")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--scenario", choices=[*SCENARIOS, "both"], default="both")
    parser.add_argument("--smoke", action="store_true", help="six virtual hours, nothing written")
    today = datetime.fromtimestamp(SystemClock().now_us() // MICROSECONDS_PER_SECOND, UTC).date()
    parser.add_argument("--date", default=today.isoformat(), help="names the result file")
    for name, kind in (
        ("seed", int), ("from-day", float), ("days", float), ("pressure", float), ("copies", int),
        ("tick-seconds", int), ("notice-seconds", int), ("start-seconds", int), ("handicap-bps", int),
        ("limit-sigma", float), ("commit-entries", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args()


def _rounded(value: object) -> object:
    """Six decimals are more than any of these figures means."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
