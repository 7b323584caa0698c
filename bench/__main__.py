"""Every question about the kernel that has a target, answered by one command.

  ticks      a tick beside numpy's sort, bincount and a C pass over the whole book; quiet ticks;
             gangs with packing; five million bids; memory                          (a C compiler)
  growth     tick time from ten thousand to ten million resting bids, with a picture (matplotlib)
  peers      order by order beside published matching engines, same orders, same trades
  quality    welfare and time beside HiGHS on the same books                         (highspy)
  substitution  bids over eight markets beside HiGHS                               (highspy)
  stability  48 simulated hours of one market, by switching handicap, with a picture  (matplotlib)

Each part checks its results before it times them, prints its tables, and a full run writes its raw figures
with the machine and versions to bench/results/<part>.json. The last table holds each target beside what was
measured. Parts that are not asked for, or whose packages are missing, are answered from their last results
file, if there is one, and marked so. `pip install '.[bench]'` brings the packages.

A full run takes a quarter of an hour and wants a machine with nothing else to do; figures drift with load, so
compare ratios. `--quick` runs everything in a minute at sizes that only show that it works: it writes
nothing and judges nothing.

  python -m bench                        everything
  python -m bench --only ticks,growth    these two
  python -m bench --only none            only the last table, from the results files
  python -m bench --quick                does it all still run?
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import report

Figures = dict[str, Any]
Measured = tuple[str, bool]  # as text, and whether the target is met

PARTS = ("ticks", "growth", "peers", "quality", "substitution", "stability")
NOT_RUN = "not run"
QUIET_MAX_S = 5e-6
MEMORY_MAX = 64
HIGHS_MIN = 5_000
DEFAULT_HANDICAP_BPS = 1_000


@dataclass(frozen=True, slots=True)
class Question:
    """One target: what is asked, and how the figures of its part answer it."""

    part: str
    question: str
    target: str
    measure: Callable[[Figures], Measured]


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the last table."""

    part: str
    question: str
    target: str
    measured: str
    verdict: str


def at_most(limit: float, *path: str | int) -> Callable[[Figures], Measured]:
    """The figure at this path, a ratio to something slower, is no more than the limit."""

    def measure(figures: Figures) -> Measured:
        value = _at(figures, path)
        return f"1/{1 / value:,.1f}" if limit < 1 and value < 1 else f"{value:.2f} x", value <= limit

    return measure


def stated(name: str) -> Callable[[Figures], Measured]:
    """The part states this answer itself, as {"measured": text, "is_met": bool} under `answers`."""

    def measure(figures: Figures) -> Measured:
        answer = figures["answers"][name]
        return answer["measured"], answer["is_met"]

    return measure


def mean_at_least(limit: float, name: str) -> Callable[[Figures], Measured]:
    """The mean share of the optimum is this for each size of book."""

    def measure(figures: Figures) -> Measured:
        rows = figures[name]
        text = ", ".join(f"{row['mean']:.6f} ({row['book']})" for row in rows)
        return text, all(row["mean"] >= limit for row in rows)

    return measure


def quiet_ticks(figures: Figures) -> Measured:
    """The slower kind of quiet tick at each size, where the margin lay worst."""
    slowest = {row["resting"]: max(row["nothing_s"] + row["one_bid_s"]) for row in figures["quiet"]}
    text = ", ".join(f"{time * 1e6:.1f} µs at {resting:,}" for resting, time in slowest.items())
    return text, max(slowest.values()) <= QUIET_MAX_S


def much_changed(figures: Figures) -> Measured:
    """The tick as a multiple of a flat book's that takes the same changes and passes over all of it."""
    rows = figures["rebuilt"]
    text = ", ".join(f"{row['tick_to_flat']:.2f} x at {row['changes'] / row['resting']:.0%}" for row in rows)
    return text, all(row["tick_to_flat"] <= 1 for row in rows)


def bytes_a_bid(figures: Figures) -> Measured:
    """The book's own count once settled; the resident set beside it."""
    row = figures["memory"][0]
    text = f"{row['settled']:.1f} bytes (resident set {row['resident']:.1f})"
    return text, row["settled"] <= MEMORY_MAX


def against_highs(figures: Figures) -> Measured:
    """The least ratio over all programs of the same book, to HiGHS with its defaults."""
    rows = figures["speed"]
    least = min(rows, key=lambda row: row["ratio"])
    best = min(row["ratio_to_best"] for row in rows)
    text = f"at least {least['ratio']:,.0f} x ({least['case']}); {best:,.0f} x its best options"
    return text, least["ratio"] >= HIGHS_MIN


def thin_books(figures: Figures) -> Measured:
    """The mean share of the optimum over thin books, refined and plain."""
    refined, plain = (sum(figures["thin"][name]) / figures["thin"]["books"] for name in ("refined", "plain"))
    return f"{refined:.6f} ({plain:.6f} without refinement)", refined >= 0.997


def growth_curve(figures: Figures) -> Measured:
    """The ends of the curve; met when it spans the sizes asked for and was drawn."""
    first, last = figures["rows"][0], figures["rows"][-1]
    growth = median(last["kernel"]["tick_s"]) / median(first["kernel"]["tick_s"])
    batch = median(last["batches_s"]["bincount"]) / median(first["batches_s"]["bincount"])
    spans = first["resting"] <= 10_000 and last["resting"] >= 10_000_000
    text = f"tick {growth:,.1f} x, bincount {batch:,.0f} x from {first['resting']:,} to {last['resting']:,}"
    return text, spans and figures["has_picture"]


def by_handicap(name: str, least: float) -> Callable[[Figures], Measured]:
    """The change that the default handicap makes, as a share, in the direction of `least` and that far."""

    def measure(figures: Figures) -> Measured:
        line = next(row for row in figures["summary"] if row["handicap_bps"] == DEFAULT_HANDICAP_BPS)
        change, error = line[f"{name}_change"], line[f"{name}_change_error"]
        return f"{change:+.1%} ± {error:.1%}", (change - least) * (1 if least > 0 else -1) >= 0

    return measure


MANY, FEW = "10,000 changes among 1 M", "1,000 changes among 1 M"
QUESTIONS = (
    Question("ticks", f"{MANY}: whole tick", "≤ 1/60 of numpy's stable sort",
             at_most(1 / 60, "churn", 0, "ratios", "tick_to_sort")),
    Question("ticks", f"{MANY}: whole tick", "≤ 1/5 of numpy bincount",
             at_most(1 / 5, "churn", 0, "ratios", "tick_to_bincount")),
    Question("ticks", f"{MANY}: clear and events alone", "≤ 1/8 of a C pass",
             at_most(1 / 8, "churn", 0, "ratios", "clear_to_c_pass")),
    Question("ticks", f"{FEW}: whole tick", "≤ 1/10 of that C pass",
             at_most(1 / 10, "churn", 1, "ratios", "tick_to_c_pass")),
    Question("ticks", "quiet tick at 10 k, 1 M, 5 M", "≤ 5 µs", quiet_ticks),
    Question("ticks", "more than 10 % of the book changed", "never slower than the O(N) pass", much_changed),
    Question("ticks", "70 % gangs, packing, h = 10 %, 1 % churn at 1 M", "≤ 3 x the divisible tick",
             at_most(3, "packed", "packed_to_divisible")),
    Question("ticks", "5 M against 1 M, same changes", "≤ 2.5 x", at_most(2.5, "large", "large_to_usual")),
    Question("peers", "place a bid per call at 10 k", "≥ 4 x the best peer", stated("place_10k")),
    Question("peers", "place a bid per call at 1 M", "≥ 4 x the best peer", stated("place_1m")),
    Question("peers", "W(R, 1 M) mixed, fills returned", "≥ 6 x the best that returns fills",
             stated("mixed_1m")),
    Question("peers", "array interface, mixed at 1 M", "≥ 2 x CppTrader native", stated("array_1m")),
    Question("ticks", "memory of a resting bid at 1 M", "≤ 64 bytes", bytes_a_bid),
    Question("quality", "full clear of 5,000 raw bids", "≥ 5,000 x faster than HiGHS", against_highs),
    Question("quality", "welfare with gangs, 1,000 bids and more", "≥ 0.9999 of the optimum",
             mean_at_least(0.9999, "gangs")),
    Question("quality", "300 thin books of 40 gangs (X7)", "≥ 0.997 mean", thin_books),
    Question("quality", "packing, from 300 bids", "≥ 0.9999 mean", mean_at_least(0.9999, "packed")),
    Question("substitution", "divisible substitutes", "equal to the LP", stated("divisible")),
    Question("substitution", "substitutes with gangs, from 300 bids", "≥ 0.999 mean", stated("gangs")),
    Question("growth", "tick time from 10 k to 10 M resting", "the curve, as a picture", growth_curve),
    Question("stability", "interruptions at h = 10 % against none", "40 to 50 % fewer",
             by_handicap("interruptions", -0.4)),
    Question("stability", "productive value at h = 10 % against none", "1.5 to 3 % more",
             by_handicap("value_usd", 0.015)),
)  # fmt: skip


def _at(figures: Figures, path: Sequence[str | int]) -> float:
    value: Any = figures
    for key in path:
        value = value[key]
    return float(value)


def answers(figures: dict[str, Figures], earlier: Sequence[str] = ()) -> list[Answer]:
    """Return the last table: one row a target, in the order of QUESTIONS. `earlier` parts are marked."""
    rows = []
    for each in QUESTIONS:
        measured, verdict = "", NOT_RUN
        try:
            measured, is_met = each.measure(figures[each.part])
            verdict = "met" if is_met else "missed"
        except (KeyError, IndexError):  # a part that was not run, or a question it does not answer yet
            pass
        mark = " (earlier run)" if each.part in earlier and measured else ""
        rows.append(Answer(each.part, each.question, each.target, measured + mark, verdict))
    return rows


def run_part(name: str, *, quick: bool) -> Figures | None:
    """Run one part; return its figures, or None and say so where a package it needs is missing."""
    try:
        figures: Figures = import_module(f"bench.{name}").run(quick=quick)
    except ModuleNotFoundError as error:  # also what importlib.metadata raises
        print(f"\n{name}: not run, it needs {error.name}: pip install '.[bench]'")
        return None
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _options(given)
    figures: dict[str, Figures] = {}
    # Nothing refreshes by itself: a thread that draws would be timed with the rest.
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(), auto_refresh=False, disable=not options.only) as progress:
        task = progress.add_task("", total=len(options.only))
        for name in options.only:
            progress.update(task, description=f"running {name}", refresh=True)
            print(f"\n== {name} ==")
            result = run_part(name, quick=options.quick)
            if result is not None:
                figures[name] = result
                if not options.quick:
                    print(f"\n{report.write(name, ' '.join(['python -m bench', *given]), result)}")
            progress.update(task, advance=1, description="done", refresh=True)
    earlier = [] if options.quick else [name for name in PARTS if name not in figures]
    for name in earlier:
        written = report.read(name)
        if written is not None:
            figures[name] = written["figures"]
    print("\n== targets ==\n")
    rows = answers(figures, earlier)
    too_small = {"met": "too small", "missed": "too small"} if options.quick else {}
    cells = [[r.question, r.target, r.measured, too_small.get(r.verdict, r.verdict)] for r in rows]
    print(report.table(["question", "target", "measured", "verdict"], cells))


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smoke sizes, a minute in all; writes nothing")
    parser.add_argument(
        "--only",
        type=_part_names,
        default=PARTS,
        metavar="PART[,PART]",
        help=f"which of {', '.join(PARTS)} to run, or none",
    )
    return parser.parse_args(given)


def _part_names(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    main()
