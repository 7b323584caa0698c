"""Substitutes (X3) beside HiGHS: bids that name up to eight markets, cleared together.

Eight markets, each with its own price level (0.8 to 1.2 of the median). A bid names 1 to 8 of them with a
limit of its own around what it is worth there; sizes, limits and reserves are drawn as in quality.py, and
demand is twice the supply. Divisible books must equal the LP to the last level; books with gangs are
divided by the MILP's proven bound. Our time is the joint clearing with its wishes as Python objects.
"""

from statistics import mean, median
from time import perf_counter
from typing import Any

import numpy as np

from bench import programs, report
from bench.quality import (
    LEVEL_COUNT,
    LIMIT_MEDIAN_USD,
    LIMIT_SIGMA,
    NODE_GPUS,
    REFINE_BELOW_BIDS,
    RESERVE_MEDIAN_USD,
    RESERVE_SIGMA,
    SIZE_SHARES,
    SIZES,
    levels,
)
from matching import book
from matching.substitutes import MARKETS_MAX, Market, Substitutes, Wish
from matching.types import NONE

Figures = dict[str, Any]

GAIN_SIGMA = 0.08  # how far a bid's worth in one market lies from its worth elsewhere
DIVISIBLE_BOOKS = {False: ((100, 10), (300, 10), (1_000, 5), (3_000, 2)), True: ((60, 2),)}
GANG_BOOKS = {False: ((300, 20), (1_000, 5)), True: ((60, 2),)}
TIME_LIMIT_S = {False: 30, True: 5}
TARGET = 0.999


def draw(seed: int, bid_count: int, *, gangs: bool) -> tuple[list[Wish], np.ndarray, np.ndarray]:
    """Return the wishes of that seed, and reserve and market of every 8-GPU machine."""
    rng = np.random.default_rng(seed)
    price_levels = np.linspace(0.8, 1.2, MARKETS_MAX)
    gpus = rng.choice(SIZES, bid_count, p=SIZE_SHARES)
    worth = rng.lognormal(np.log(LIMIT_MEDIAN_USD), LIMIT_SIGMA, bid_count)
    wishes = []
    for number in range(bid_count):
        named = rng.permutation(MARKETS_MAX)[: rng.integers(1, MARKETS_MAX + 1)]
        limits = np.full(MARKETS_MAX, NONE)
        usd = worth[number] * price_levels[named] * rng.lognormal(0, GAIN_SIGMA, len(named))
        limits[named] = levels(usd)
        size = int(gpus[number])
        arrival = (0, int(rng.integers(0, 1 << 32)), number)
        wishes.append(Wish(size, size if gangs else 1, tuple(limits.tolist()), arrival))
    machines = int(gpus.sum()) // 2 // NODE_GPUS + 1
    where = rng.integers(0, MARKETS_MAX, machines)
    usd = rng.lognormal(np.log(RESERVE_MEDIAN_USD), RESERVE_SIGMA, machines) * price_levels[where]
    return wishes, levels(usd), where


def clear(wishes: list[Wish], reserves: np.ndarray, where: np.ndarray) -> tuple[int, float, int]:
    """Return (welfare, seconds, steps of the descent) of one joint clearing from cold prices."""
    books = [
        book.Book(handicap_bps=0, level_count=LEVEL_COUNT, refine_below_bids=REFINE_BELOW_BIDS)
        for _ in range(MARKETS_MAX)
    ]
    for reserve, market in zip(reserves.tolist(), where.tolist(), strict=True):
        books[market].place_offer(reserve, NODE_GPUS)
    joined = Substitutes([Market(made, 0, LEVEL_COUNT) for made in books])
    start = perf_counter()
    joint = joined.clear(wishes)
    seconds = perf_counter() - start
    return sum(c.value - c.cost for c in joint.clearings), seconds, joined.steps


def optimum(
    wishes: list[Wish], reserves: np.ndarray, where: np.ndarray, *, whole: bool, limit_s: float
) -> tuple[int, float]:
    """Return (proven bound, seconds) of HiGHS."""
    rows = [(i, k, limit) for i, wish in enumerate(wishes) for k, limit in enumerate(wish.limits)]
    bids, markets, limits = (
        np.array(column, dtype=np.int64) for column in zip(*(r for r in rows if r[2] != NONE), strict=True)
    )
    alternatives = programs.Alternatives(
        np.array([wish.gpus for wish in wishes]), np.array([wish.min_gpus for wish in wishes]), bids, markets,
        limits,
    )  # fmt: skip
    offers = programs.Offers(reserves, np.full(len(reserves), NODE_GPUS), np.full(len(reserves), NONE))
    solution = programs.solve(
        programs.substitutes(alternatives, offers, where, whole=whole), time_limit_s=limit_s
    )
    return round(solution.bound), solution.seconds


def race(sizes: tuple[tuple[int, int], ...], *, gangs: bool, limit_s: float) -> list[Figures]:
    """Clear all books of these sizes and let HiGHS clear them too."""
    result = []
    for bid_count, books in sizes:
        ratios, ours_s, highs_s, steps = [], [], [], []
        for seed in range(1, books + 1):
            drawn = draw(seed, bid_count, gangs=gangs)
            welfare, seconds, taken = clear(*drawn)
            bound, highs = optimum(*drawn, whole=gangs, limit_s=limit_s)
            assert welfare <= bound, f"{welfare} is above the optimum {bound}"
            ratios.append(welfare / bound)
            ours_s.append(seconds)
            highs_s.append(highs)
            steps.append(taken)
        result.append(
            {"bids": bid_count, "books": books, "mean": mean(ratios), "worst": min(ratios),
             "ours_s": median(ours_s), "highs_s": median(highs_s), "steps": median(steps)}
        )  # fmt: skip
    return result


def run(*, quick: bool) -> Figures:
    """Answer both questions; print a table; return the figures."""
    limit_s = TIME_LIMIT_S[quick]
    parts = {
        "divisible": race(DIVISIBLE_BOOKS[quick], gangs=False, limit_s=limit_s),
        "gangs": race(GANG_BOOKS[quick], gangs=True, limit_s=limit_s),
    }
    headers = ["book", "books", "mean", "worst", "ours, ms", "HiGHS, ms", "descent steps"]
    print(
        report.table(
            headers,
            [
                [
                    f"{row['bids']:,} bids, {name}",
                    str(row["books"]),
                    f"{row['mean']:.6f}",
                    f"{row['worst']:.6f}",
                    f"{row['ours_s'] * 1e3:,.1f}",
                    f"{row['highs_s'] * 1e3:,.1f}",
                    f"{row['steps']:.0f}",
                ]
                for name, rows in parts.items()
                for row in rows
            ],
        )
    )
    equal = all(row["worst"] == 1 for row in parts["divisible"])
    books = sum(row["books"] for row in parts["divisible"])
    means = ", ".join(f"{row['mean']:.6f} ({row['bids']:,} bids)" for row in parts["gangs"])
    return parts | {
        "answers": {
            "divisible": {"measured": f"{'all' if equal else 'not all'} of {books} books", "is_met": equal},
            "gangs": {"measured": means, "is_met": all(row["mean"] >= TARGET for row in parts["gangs"])},
        }
    }


if __name__ == "__main__":
    run(quick=False)
