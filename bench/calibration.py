"""Are the odds of being outbid true? Predictions on a record, against what then happened.

    python -m bench.calibration [--days 6] [--quick]

A slice of the recorded cluster (bench/replay_openb.py, scenario `tight`) goes through the market in virtual
time. At regular moments of each market's record, knowing only what came before, the estimator of
auction/risk.py says how likely limits from the keep price to half above it are to be outbid within one and
six hours; then the record says whether they were. Printed: the Brier score (mean squared error), that of
always saying the share that was outbid in the end (which knows the future), and a reliability table.
Excluded: recalls and node failures; `samples` below the API's minimum are not predicted.
"""

import argparse
import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from auction.risk import NO_LIMIT, Outlook, Prices, TooShort, keep_prices, on_grid
from auction.units import MICROSECONDS_PER_SECOND
from bench import report
from bench.openb_trace import PRICE_INCREMENT, Scenario, load_scenario
from bench.replay_openb import REPOSITORY, SCENARIOS, replay
from sql.pool import Database, open_database
from sql.reads import Reader
from sql.risk_reads import ticks_after

HORIZONS_SECONDS = (3_600, 21_600)
LIMITS_ABOVE = (1.0, 1.05, 1.1, 1.25, 1.5)  # times the keep price of the moment
HISTORY_SHARE = 0.3  # of a record that is only learnt from
MOMENTS_MAX = 60  # of a market
SAMPLES_MIN = 8
BINS = 10


def walk(grid: Prices, step_seconds: int) -> list[tuple[int, float, bool, float]]:
    """Return (horizon_seconds, predicted, was outbid, limit over keep price) at moments of one record."""
    seen = []
    for horizon_seconds in HORIZONS_SECONDS:
        horizon = horizon_seconds // step_seconds
        first, last = int(HISTORY_SHARE * grid.size), grid.size - horizon - 1
        for now in np.unique(np.linspace(first, last, MOMENTS_MAX, dtype=np.int64)).tolist():
            if last <= first or grid[now] == NO_LIMIT:
                continue
            try:
                outlook = Outlook(grid[: now + 1], horizon)
            except TooShort:
                continue
            if outlook.samples < SAMPLES_MIN:
                continue
            highest = int(grid[now + 1 : now + 1 + horizon].max())
            for above in LIMITS_ABOVE:
                limit = -(-int(int(grid[now]) * above) // PRICE_INCREMENT) * PRICE_INCREMENT
                seen.append((horizon_seconds, outlook.estimate(limit).probability, highest > limit, above))
    return seen


async def grids(database: Database, step_seconds: int) -> dict[str, Prices]:
    """Return every market's record as the API reads it."""
    pool = await database.create_pool()
    try:
        reader = Reader(pool)
        found = {}
        for row in await pool.fetch("SELECT id FROM markets ORDER BY id"):
            _, at_us, high, entry = await ticks_after(reader, row["id"], -1, from_us=0)
            if at_us.size > 1:
                found[row["id"]] = on_grid(
                    at_us,
                    keep_prices(high, entry),
                    step_us=step_seconds * MICROSECONDS_PER_SECOND,
                    until_us=int(at_us[-1]),
                )
        return found
    finally:
        await pool.close()


def score(seen: list[tuple[int, float, bool, float]]) -> dict[str, Any]:
    """Return Brier scores and the reliability table of predictions."""
    predicted = np.array([row[1] for row in seen])
    happened = np.array([row[2] for row in seen], dtype=np.float64)
    base = float(happened.mean())
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    table = [
        {
            "from": b / BINS,
            "predictions": int((bins == b).sum()),
            "predicted": float(predicted[bins == b].mean()),
            "outbid": float(happened[bins == b].mean()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]
    return {
        "predictions": len(seen),
        "base_rate": base,
        "brier": float(np.mean((predicted - happened) ** 2)),
        "brier_of_base_rate": base * (1 - base),
        "mean_predicted": float(predicted.mean()),
        "reliability": table,
    }


async def measure(database: Database, scenario: Scenario) -> dict[str, Any]:
    """Replay the scenario on an empty migrated database; return the scores by horizon."""
    await replay(database, scenario)
    step_seconds = scenario.parameters.tick_seconds
    found = await grids(database, step_seconds)
    seen = [row for grid in found.values() for row in walk(grid, step_seconds)]
    return {
        "markets": len(found),
        "tick_seconds": step_seconds,
        "by_horizon_seconds": {
            str(horizon): score([row for row in seen if row[0] == horizon])
            for horizon in HORIZONS_SECONDS
            if any(row[0] == horizon for row in seen)
        },
    }


def render(figures: dict[str, Any]) -> str:
    parts = []
    for horizon, scores in figures["by_horizon_seconds"].items():
        rows = [
            [f"{row['from']:.1f}", f"{row['predictions']:,}"]
            + [f"{row[name]:.3f}" for name in ("predicted", "outbid")]
            for row in scores["reliability"]
        ]
        parts.append(
            f"within {int(horizon) // 3600} h: {scores['predictions']:,} predictions, "
            f"Brier {scores['brier']:.4f}, of always saying {scores['base_rate']:.3f}: "
            f"{scores['brier_of_base_rate']:.4f}\n\n"
            + report.table(["predicted from", "predictions", "mean predicted", "outbid"], rows)
        )
    return "\n\n".join(parts)


async def _run(scenario: Scenario) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fallow-bench-") as directory:
        async with open_database(url=None, data_dir=Path(directory)) as database:
            await database.prepare(apply_migrations=True)
            return await measure(database, scenario)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calibration")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--days", type=float, default=6.0)
    parser.add_argument("--quick", action="store_true", help="a day and a half, writes nothing")
    options = parser.parse_args()
    days = 1.5 if options.quick else options.days
    scenario = load_scenario(options.data, replace(SCENARIOS["tight"], from_day=120.0, days=days))
    figures = asyncio.run(_run(scenario))
    print(render(figures))
    if not options.quick:
        path = report.write("calibration", f"python -m bench.calibration --days {days}", figures)
        print(f"written: bench/results/{path.name}")


if __name__ == "__main__":
    main()
