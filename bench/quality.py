"""How much welfare a clearing finds, and how fast, beside HiGHS on the same books.

Welfare is limit x GPUs served - reserve x GPUs used, in levels of $0.0001, without handicap. Books are
those of `draw_book` (seeded; demand is twice the supply) and the machines really offered on a public
marketplace (`offers.csv.gz`), one book a model, wanted in the drawn sizes and, where
`alibaba-openb-pods.csv` is at hand, in the sizes of recorded tasks.

Timed for us: `place_bids` of raw arrays and `clear` in an empty book that was used before, offers in place
(their own time stands beside it). Timed for HiGHS: `run` alone, its model built and passed before; once with
its defaults and once without presolve, which costs more than it saves on a program of one long row; `ratio`
is to the defaults, `to its best` to the faster. Its gap is its default of 1e-4 where time is compared and 0
where welfare is. If the limit strikes, welfare is divided by the proven bound and the time is the limit.

With co-location the kernel's `cost` is the least any placement can cost; `placed` is the welfare after
the best placement of what was accepted, by the program with all fills given.
"""

import argparse
import csv
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np

from bench import programs, report
from bench.programs import Bids, Offers, Program
from matching import book as compiled

Figures = dict[str, Any]
Formulation = Callable[[Bids, Offers], Program]

SIZES = (1, 2, 4, 8, 16, 32, 64)
SIZE_SHARES = (0.28, 0.15, 0.15, 0.20, 0.11, 0.07, 0.04)
LEVELS_PER_USD = 10_000
LEVEL_COUNT = 1 << 17
LIMIT_MEDIAN_USD, LIMIT_SIGMA = 2.00, 0.35
RESERVE_MEDIAN_USD, RESERVE_SIGMA = 1.20, 0.30
NODE_GPUS, DOMAIN_NODES = 8, 8
DEMAND_PER_SUPPLY = 2
REFINE_BELOW_BIDS = 200
HIGHS_DEFAULT_GAP = 1e-4
WELFARE_PARTS = ("gangs", "gangs_real", "packed", "packed_real", "packed_fragmented")
OFFERS_FILE = Path(__file__).parents[1] / "fallow" / "data" / "offers.csv.gz"
TASKS_FILE = Path(__file__).parents[2] / "shared" / "data" / "alibaba-openb-pods.csv"
TASKS_THAT_BID = ("BE", "Burstable")
TASK_LIMIT_SIGMA = 0.4  # around the median on-demand price, as in replay_openb


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    speed_bids: int
    speed_rounds: int
    gang_books: tuple[tuple[int, int], ...]  # (bids, how many books)
    packed_books: tuple[tuple[int, int], ...]
    fragmented_books: tuple[tuple[int, int], ...]
    divisible_books: tuple[tuple[int, int], ...]
    thin_books: int
    time_limit_s: float


FULL = Size(
    speed_bids=5_000,
    speed_rounds=5,
    gang_books=((1_000, 20), (3_000, 10), (10_000, 5)),
    packed_books=((300, 100), (1_000, 10), (3_000, 2)),
    fragmented_books=((300, 20), (1_000, 5)),
    divisible_books=((40, 20), (1_000, 10), (10_000, 3)),
    thin_books=300,
    time_limit_s=60,
)
QUICK = Size(
    speed_bids=500,
    speed_rounds=1,
    gang_books=((300, 2),),
    packed_books=((100, 2),),
    fragmented_books=((100, 2),),
    divisible_books=((100, 2),),
    thin_books=10,
    time_limit_s=5,
)


@dataclass(frozen=True, slots=True)
class Market:
    """One book to clear."""

    bids: Bids
    offers: Offers
    arrival_hashes: np.ndarray  # uint32, the order among equals


@dataclass(frozen=True, slots=True)
class Cleared:
    """What the kernel made of it: welfare in level x GPUs, times in seconds."""

    welfare: int
    lp_bound: int
    fills: np.ndarray
    clear_s: float
    offers_s: float


def draw_book(
    seed: int, bid_count: int, *, is_divisible: bool = False, is_fragmented: bool = False
) -> Market:
    """Return the synthetic book of that seed: every bid above one GPU is a gang, unless divisible.

    Fragmented means that each node has 1 to 8 GPUs to lend instead of all 8, as in a busy cluster.
    """
    rng = np.random.default_rng(seed)
    gpus = rng.choice(SIZES, bid_count, p=SIZE_SHARES).astype(np.int64)
    limits = levels(rng.lognormal(np.log(LIMIT_MEDIAN_USD), LIMIT_SIGMA, bid_count))
    bids = Bids(limits, gpus, np.ones_like(gpus) if is_divisible else gpus, np.zeros(bid_count, dtype=bool))
    arrival_hashes = rng.integers(0, 1 << 32, bid_count, dtype=np.uint32)
    target = int(gpus.sum()) / DEMAND_PER_SUPPLY
    free = rng.integers(1, NODE_GPUS + 1, int(target)) if is_fragmented else np.full(int(target), NODE_GPUS)
    free = free[: int(np.searchsorted(np.cumsum(free), target)) + 1]  # whole nodes: at least the target
    reserves = levels(rng.lognormal(np.log(RESERVE_MEDIAN_USD), RESERVE_SIGMA, len(free)))
    return Market(bids, Offers(reserves, free, np.arange(len(free)) // DOMAIN_NODES), arrival_hashes)


def colocated(market: Market) -> Market:
    """The same book with its gangs of the chain co-located, above 8 GPUs where there are domains."""
    largest = SIZES[-1] if bool((market.offers.domains >= 0).any()) else NODE_GPUS
    bids = market.bids
    chained = bids.is_gang & np.isin(bids.gpus, SIZES) & (bids.gpus <= largest)
    return replace(market, bids=replace(bids, colocated=chained))


def real_books(seed: int, tasks_file: Path) -> Iterator[tuple[str, Market]]:
    """Yield (name, book) of the real offers; a machine's interconnect is not known beyond itself."""
    kinds = {"drawn sizes": (np.array(SIZES), np.array(SIZE_SHARES))}
    if tasks_file.exists():
        with tasks_file.open() as lines:
            tasks = [row for row in csv.DictReader(lines) if row["qos"] in TASKS_THAT_BID]
        wanted = [int(task["num_gpu"]) for task in tasks if task["num_gpu"] != "0"]
        sizes, counts = np.unique(wanted, return_counts=True)
        kinds["recorded sizes"] = (sizes, counts / counts.sum())
    models: dict[str, list[dict[str, str]]] = {}
    with gzip.open(OFFERS_FILE, "rt") as lines:
        for row in csv.DictReader(lines):
            models.setdefault(row["market"], []).append(row)
    for kind, (sizes, shares) in kinds.items():
        rng = np.random.default_rng(seed)
        for model, rows in sorted(models.items()):
            yield f"{model}, {kind}", _real_book(rng, rows, sizes, shares)


def _real_book(
    rng: np.random.Generator, rows: list[dict[str, str]], sizes: np.ndarray, shares: np.ndarray
) -> Market:
    """Offers as they were; bids of these sizes around the median on-demand price until demand is there."""
    machine_gpus = np.array([int(row["gpus"]) for row in rows])
    target = DEMAND_PER_SUPPLY * int(machine_gpus.sum())
    gpus = rng.choice(sizes, target, p=shares).astype(np.int64)
    gpus = gpus[: int(np.searchsorted(np.cumsum(gpus), target)) + 1]
    price = median(float(row["on_demand"]) for row in rows)
    limits = levels(rng.lognormal(np.log(price), TASK_LIMIT_SIGMA, len(gpus)))
    bids = Bids(limits, gpus, gpus, np.zeros(len(gpus), dtype=bool))
    reserves = levels(np.array([float(row["reserve"]) for row in rows]))
    offers = Offers(reserves, machine_gpus, np.full(len(rows), -1))
    return Market(bids, offers, rng.integers(0, 1 << 32, len(gpus), dtype=np.uint32))


def levels(usd: np.ndarray) -> np.ndarray:
    """Prices on the grid of $0.0001."""
    return np.clip(np.rint(usd * LEVELS_PER_USD), 1, LEVEL_COUNT).astype(np.int64)


def clear(
    kernel: ModuleType, market: Market, *, refine_below_bids: int = 0, is_used: bool = False
) -> Cleared:
    """Clear one book from empty: a new one, or (`is_used`) one that held the same bids before."""
    book = kernel.Book(handicap_bps=0, level_count=LEVEL_COUNT, refine_below_bids=refine_below_bids)
    bids, offers = market.bids, market.offers
    machines = list(
        zip(offers.reserves.tolist(), offers.gpus.tolist(), count(), offers.domains.tolist(), strict=False)
    )
    columns = [column.astype(np.int32) for column in (bids.limits, bids.gpus, bids.min_gpus)]
    is_colocated = bids.colocated.astype(np.uint8) if bids.colocated.any() else None
    if is_colocated is not None:  # a book counts co-located items from its first co-located bid on
        book.cancel_bid(book.place_bid(1, 1, 1, 0, 0, 0, True))
    start = perf_counter()
    for reserve, gpus, node, domain in machines:
        if is_colocated is None:
            book.place_offer(reserve, gpus)
        else:
            book.place_offer(reserve, gpus, node, domain)
    offers_s = perf_counter() - start
    for is_last in (False, True) if is_used else (True,):
        start = perf_counter()
        handles = book.place_bids(
            *columns, market.arrival_hashes, arrival_tick=0, first_seq=0, colocated=is_colocated
        )
        clearing = book.clear()
        clear_s = perf_counter() - start
        if not is_last:
            book.cancel_bids(handles)
            book.clear()
    by_handle = np.zeros(int(handles.max()) + 1, dtype=np.int64)
    by_handle[clearing.handles] = clearing.fills
    return Cleared(clearing.value - clearing.cost, clearing.lp_bound, by_handle[handles], clear_s, offers_s)


def speed(kernel: ModuleType, size: Size) -> list[Figures]:
    """(a) A full clear of raw bids against HiGHS on the same book, alternating."""
    gang_book = draw_book(1, size.speed_bids)
    divisible_book = draw_book(1, size.speed_bids, is_divisible=True)
    cases: list[tuple[str, Market, Formulation]] = [
        ("divisible, LP", divisible_book, programs.divisible),
        ("gangs, LP relaxation", gang_book, programs.divisible),
        ("gangs, MILP, an integer a size", gang_book, programs.gangs),
        ("gangs, MILP, a binary a gang", gang_book, programs.gangs_by_bid),
        ("co-located gangs, MILP", colocated(gang_book), programs.packed),
    ]
    return [
        {"case": name, "bids": size.speed_bids, "offers": len(market.offers.gpus)}
        | _race(kernel, market, formulation(market.bids, market.offers), size)
        for name, market, formulation in cases
    ]


def _race(kernel: ModuleType, market: Market, program: Program, size: Size) -> Figures:
    """Time both sides in alternating rounds, seconds."""
    ours, default, bare = [], [], []
    for _ in range(size.speed_rounds):
        ours.append(clear(kernel, market, is_used=True))
        for solutions, has_presolve in ((default, True), (bare, False)):
            solutions.append(
                programs.solve(
                    program,
                    time_limit_s=size.time_limit_s,
                    relative_gap=HIGHS_DEFAULT_GAP,
                    has_presolve=has_presolve,
                )
            )
    ours_s = [run.clear_s for run in ours]
    best_s = min(([s.seconds for s in solutions] for solutions in (default, bare)), key=median)
    return {
        "ours_s": ours_s,
        "ours_offers_s": [run.offers_s for run in ours],
        "highs_s": [solution.seconds for solution in default],
        "highs_without_presolve_s": [solution.seconds for solution in bare],
        "highs_status": sorted({solution.status for solution in default + bare}),
        "ratio": report.median_ratio([solution.seconds for solution in default], ours_s),
        "ratio_to_best": report.median_ratio(best_s, ours_s),
        "welfare_ratio": ours[0].welfare / default[0].value,
    }


def compare(kernel: ModuleType, market: Market, formulation: Formulation, limit_s: float) -> Figures:
    """(b, d, f) One book against its MILP and its LP; raise if the certificate is broken."""
    ours = clear(kernel, market, refine_below_bids=REFINE_BELOW_BIDS)
    program = formulation(market.bids, market.offers)
    optimum = programs.solve(program, time_limit_s=limit_s)
    linear = programs.divisible(market.bids, market.offers)
    lp = programs.solve(linear, time_limit_s=limit_s).exact_value(linear)
    bound = min(lp, round(optimum.bound))
    placed = ours.welfare
    if market.bids.colocated.any():
        given = programs.with_fills(program, market.bids, ours.fills)
        placed = round(programs.solve(given, time_limit_s=limit_s).value)
    assert lp == ours.lp_bound, f"LP {lp}, lp_bound {ours.lp_bound}"
    assert placed <= ours.welfare
    assert placed <= bound <= lp, f"welfare {placed}, MILP {bound}, LP {lp}"
    return {
        "bids": len(market.bids.gpus),
        "welfare": ours.welfare,
        "placed": placed,
        "milp": round(optimum.value) if optimum.is_optimal else None,
        "bound": bound,
        "lp": lp,
        "ratio": placed / bound,
        "ratio_at_least_cost": ours.welfare / bound,
        "highs_s": optimum.seconds,
    }


def welfare(kernel: ModuleType, size: Size, *, is_packed: bool, is_fragmented: bool = False) -> list[Figures]:
    """(b, d) Synthetic books by size; with `is_packed` the gangs are co-located."""
    whole_nodes = size.packed_books if is_packed else size.gang_books
    formulation = programs.packed if is_packed else programs.gangs
    result = []
    for bid_count, books in size.fragmented_books if is_fragmented else whole_nodes:
        rows = []
        for seed in range(1, books + 1):
            market = draw_book(seed, bid_count, is_fragmented=is_fragmented)
            market = colocated(market) if is_packed else market
            rows.append(compare(kernel, market, formulation, size.time_limit_s))
        result.append(_summary(f"{bid_count:,} bids", rows))
    return result


def real(kernel: ModuleType, size: Size, tasks_file: Path, *, is_packed: bool) -> list[Figures]:
    """(b, d) The books of the real offers."""
    formulation = programs.packed if is_packed else programs.gangs
    result = []
    for name, drawn in real_books(1, tasks_file):
        market = colocated(drawn) if is_packed else drawn
        rows = [compare(kernel, market, formulation, size.time_limit_s)]
        result.append(_summary(f"{name}, {len(market.bids.gpus):,} bids", rows))
    return result


def divisible(kernel: ModuleType, size: Size) -> list[Figures]:
    """(e) Books without gangs: welfare, lp_bound and HiGHS are one number."""
    result = []
    for bid_count, books in size.divisible_books:
        for seed in range(1, books + 1):
            market = draw_book(seed, bid_count, is_divisible=True)
            ours = clear(kernel, market)
            program = programs.divisible(market.bids, market.offers)
            lp = programs.solve(program, time_limit_s=size.time_limit_s).exact_value(program)
            assert ours.welfare == ours.lp_bound == lp, f"{ours.welfare}, {ours.lp_bound}, {lp}"
        result.append({"book": f"{bid_count:,} bids", "books": books, "equal": books, "last": lp})
    return result


def thin(kernel: ModuleType, size: Size) -> Figures:
    """(c) Thin books of 40 bids, all of them all or nothing, with and without refinement (X7)."""
    refined, plain, welfares = [], [], []
    for seed in range(1, size.thin_books + 1):
        market = draw_book(seed, 40)
        program = programs.gangs(market.bids, market.offers)
        optimum = programs.solve(program, time_limit_s=size.time_limit_s)
        for ratios, below in ((refined, REFINE_BELOW_BIDS), (plain, 0)):
            ours = clear(kernel, market, refine_below_bids=below)
            bound = round(optimum.bound)
            assert ours.welfare <= bound <= ours.lp_bound, f"{ours.welfare}, {bound}, {ours.lp_bound}"
            ratios.append(ours.welfare / bound)
            welfares.append(ours.welfare)
    return {"books": size.thin_books, "refined": refined, "plain": plain, "welfares": welfares}


def _summary(name: str, rows: list[Figures]) -> Figures:
    return {
        "book": name,
        "books": len(rows),
        "mean": mean(row["ratio"] for row in rows),
        "worst": min(row["ratio"] for row in rows),
        "mean_at_least_cost": mean(row["ratio_at_least_cost"] for row in rows),
        "mean_of_lp": mean(row["placed"] / row["lp"] for row in rows),
        "proven": sum(row["milp"] is not None for row in rows),
        "highs_s": median(row["highs_s"] for row in rows),
        "rows": rows,
    }


def run(*, quick: bool, kernel: ModuleType = compiled, tasks_file: Path = TASKS_FILE) -> Figures:
    """Answer all questions; print a table for each; return the figures."""
    size = QUICK if quick else FULL
    figures: Figures = {"kernel": kernel.__name__, "highspy": version("highspy"), "quick": quick}
    figures["tasks"] = tasks_file.name if tasks_file.exists() else "drawn sizes"
    figures["speed"] = speed(kernel, size)
    _show_speed(figures["speed"])
    for name in WELFARE_PARTS:
        is_packed = name.startswith("packed")
        if name.endswith("real"):
            figures[name] = real(kernel, size, tasks_file, is_packed=is_packed)
        else:
            is_fragmented = name.endswith("fragmented")
            figures[name] = welfare(kernel, size, is_packed=is_packed, is_fragmented=is_fragmented)
        _show_welfare(name, figures[name])
    figures["divisible"] = divisible(kernel, size)
    print("\nDivisible books: welfare = lp_bound = LP of HiGHS, exactly\n")
    print(
        report.table(
            ["book", "equal"], [[r["book"], f"{r['equal']} of {r['books']}"] for r in figures["divisible"]]
        )
    )
    figures["thin"] = thin(kernel, size)
    _show_thin(figures["thin"])
    figures["hash"] = hashlib.sha256(json.dumps(_decisions(figures)).encode()).hexdigest()[:16]
    print(f"\nresult hash {figures['hash']}")
    return figures


def _show_speed(rows: list[Figures]) -> None:
    print("\nFull clear of raw bids against HiGHS, milliseconds\n")
    times = ("ours_s", "ours_offers_s", "highs_s", "highs_without_presolve_s")
    table = [
        [f"{row['case']}, {row['bids']:,} bids"]
        + [f"{median(row[column]) * 1e3:,.3f}" for column in times]
        + [", ".join(row["highs_status"]), f"{row['ratio']:,.0f} x", f"{row['ratio_to_best']:,.0f} x"]
        + [f"{row['welfare_ratio']:.6f}"]
        for row in rows
    ]
    headers = ["book, program", "ours", "+ offers", "HiGHS", "no presolve", "status", "ratio", "to its best"]
    print(report.table([*headers, "welfare"], table))


def _show_welfare(name: str, rows: list[Figures]) -> None:
    print(f"\nWelfare of the optimum: {name}\n")
    headers = ["book", "books", "mean", "worst", "at the kernel's cost", "of the LP", "proven", "HiGHS, s"]
    table = [
        [row["book"], str(row["books"])]
        + [f"{row[column]:.6f}" for column in ("mean", "worst", "mean_at_least_cost", "mean_of_lp")]
        + [f"{row['proven']} of {row['books']}", f"{row['highs_s']:.2f}"]
        for row in rows
    ]
    print(report.table(headers, table))


def _show_thin(figures: Figures) -> None:
    print(f"\nThin books: {figures['books']} of 40 bids, all of them all or nothing\n")
    rows = [
        [name, f"{mean(figures[key]):.6f}", f"{min(figures[key]):.6f}",
         f"{sum(ratio > 1 - 1e-9 for ratio in figures[key])}"]
        for name, key in (("with refinement", "refined"), ("without", "plain"))
    ]  # fmt: skip
    print(report.table(["", "mean", "worst", "optimal"], rows))


def _decisions(figures: Figures) -> list[Any]:
    """What the result hash covers: our welfare everywhere, no times and nothing of the solver."""
    books = [row for part in WELFARE_PARTS for row in figures[part]]
    welfares = [row["welfare"] for book in books for row in book["rows"]]
    return [*welfares, *figures["thin"]["welfares"], *(row["last"] for row in figures["divisible"])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, for a smoke test; writes nothing")
    parser.add_argument("--kernel", choices=("book", "reference"), default="book")
    parser.add_argument("--tasks", type=Path, default=TASKS_FILE)
    arguments = parser.parse_args()
    kernel = compiled
    if arguments.kernel == "reference":
        from matching import reference as kernel
    figures = run(quick=arguments.quick, kernel=kernel, tasks_file=arguments.tasks)
    if not arguments.quick:
        print(report.write("quality", " ".join(["python -m bench.quality", *sys.argv[1:]]), figures))


if __name__ == "__main__":
    main()
