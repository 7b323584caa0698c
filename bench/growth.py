"""How a tick grows with the book: fixed changes, more and more resting bids, beside whole-book clearings.

The same ticks as in ticks.py, from ten thousand resting bids to ten million, and at each size the two
fastest clearings of the whole book: numpy's bincount and the C pass. Their prices and winners are compared
with the kernel's before they are timed and once more at the end. The picture is the README's; it needs
matplotlib, without which there are figures only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from bench.baselines import Batch
from bench.books import KernelSide, Live
from bench.ticks import Decisions, part, seconds, settle, side_figures

Figures = dict[str, Any]

PICTURE = Path(__file__).parents[1] / "matching" / "pictures" / "growth.svg"
BASELINES = ("bincount", "bincount_prepared", "c_pass")
BASELINE_REPEATS = 3
LINES = (
    ("bincount", "numpy bincount over all bids", "#8c8c8c", "-"),
    ("c_pass", "C pass over all bids", "#3b6ea5", "-"),
    ("tick_s", "whole tick: apply the changes and clear", "#c8502b", "-"),
    ("clear_s", "of it clearing, with all differences", "#c8502b", "--"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    resting: tuple[int, ...]
    changes: int
    rounds: int
    ticks: int  # a round
    ticks_before: int  # not counted


FULL = Size(
    resting=(10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
    changes=10_000,
    rounds=5,
    ticks=9,
    ticks_before=20,
)
QUICK = Size(resting=(1_000, 4_000, 16_000), changes=500, rounds=2, ticks=3, ticks_before=1)


def at(resting: int, size: Size, decisions: Decisions) -> Figures:
    """Measure one size of the book: seconds of each side by round."""
    live = Live(resting, seed=6)
    side = KernelSide(live)
    settle(live, [side], size.changes, size.ticks_before)
    batch = Batch(live)
    batch.check(side)
    kernel = []
    batches: dict[str, list[float]] = {name: [] for name in BASELINES}
    for _ in range(size.rounds):
        drawn = [live.change(size.changes) for _ in range(size.ticks)]
        kernel.append([side.tick(changes) for changes in drawn])
        # What a whole-book clearing costs depends on the number of bids, not on which they are.
        for name in BASELINES:
            batches[name].append(seconds(getattr(batch, name), BASELINE_REPEATS))
    Batch(live).check(side)
    decisions.add(side)
    figures = side_figures(kernel)
    return {
        "resting": resting,
        "kernel": figures,
        "batches_s": batches,
        "ratios": {f"tick_to_{n}": report.median_ratio(figures["tick_s"], batches[n]) for n in BASELINES},
    }


def exponents(rows: Sequence[Figures]) -> list[float]:
    """The slope of the tick between two sizes on logarithmic axes: 0 is constant, 1 is linear."""
    return [
        log(median(b["kernel"]["tick_s"]) / median(a["kernel"]["tick_s"])) / log(b["resting"] / a["resting"])
        for a, b in pairwise(rows)
    ]


def draw(rows: Sequence[Figures], changes: int, path: Path) -> Path:
    """Write the picture as SVG; the same figures give the same file."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    resting = [row["resting"] for row in rows]
    with matplotlib.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        for name, label, color, style in LINES:
            times = [row["kernel"].get(name) or row["batches_s"][name] for row in rows]
            axes.plot(
                resting, [median(each) * 1e3 for each in times], style,
                color=color, marker="o", markersize=4, linewidth=2, label=label,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(10))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("resting bids")
        axes.set_ylabel("milliseconds a tick")
        axes.set_title(f"One tick with {changes:,} changes", loc="left")
        axes.grid(which="major", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _count(value: float) -> str:
    """10 k, 1 M: sizes as the text writes them."""
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def run(*, quick: bool, picture: Path | None = None) -> Figures:
    """Measure the curve; print its table; write the picture to `picture`, by default only of a full run."""
    size = QUICK if quick else FULL
    decisions = Decisions()
    rows = [at(resting, size, decisions) for resting in size.resting]
    figures = {"quick": quick, "changes": size.changes, "rows": rows, "exponents": exponents(rows)}
    figures["hash"] = decisions.text()
    _show(rows, size.changes, figures["exponents"])
    path = picture or (None if quick else PICTURE)
    figures["has_picture"] = path is not None and find_spec("matplotlib") is not None
    if figures["has_picture"]:
        print(f"\npicture {draw(rows, size.changes, path)}")
    elif path is not None:
        print("\nno picture: matplotlib is not installed")
    print(f"\nresult hash {figures['hash']}")
    return figures


def _show(rows: Sequence[Figures], changes: int, slopes: Sequence[float]) -> None:
    print(f"\nA tick with {changes:,} changes as the book grows, milliseconds\n")
    cells = []
    for row, slope in zip(rows, [None, *slopes], strict=True):
        ours = [f"{median(row['kernel'][name]) * 1e3:,.3f}" for name in ("tick_s", "apply_s", "clear_s")]
        theirs = [f"{median(row['batches_s'][name]) * 1e3:,.3f}" for name in BASELINES]
        ratio = part(row["ratios"]["tick_to_bincount"])
        cells.append([_count(row["resting"]), *ours, *theirs, ratio, "" if slope is None else f"{slope:.2f}"])
    headers = ["resting", "tick", "apply", "clear", "bincount", "prepared", "C pass", "tick / bincount"]
    print(report.table([*headers, "exponent"], cells))
