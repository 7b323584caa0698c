"""How long a tick takes, beside clearings that look at the whole book each time.

A tick is what the market does: tell the book who runs (h > 0 only), ask for expired bids, cancel and
place through the array calls, clear. "Apply" is all before `clear()`; clearing includes the difference of
fills as arrays. Books and changes are those of books.py, with accounts and expiry, the other engines those
of baselines.py; prices and fills are compared after every round, so all did the same work.

A round is a run of ticks, then the same for each other engine; a side's figure is the median of its run,
a ratio the median over rounds, so each runs with its own data in the caches. Before, as many bids are
replaced as rest: a book loaded at once has a tidier shape than one that grew. Excluded from all times:
drawing changes, preparing columns.
"""

import ctypes
import gc
import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench import report
from bench.baselines import Batch, FlatSide
from bench.books import KernelSide, Live, TickTime

Figures = dict[str, Any]

BASELINES = ("sort", "bincount", "bincount_prepared", "c_pass")
BASELINE_REPEATS = 5
SETTLING_TICKS = 10
FAR_BELOW = (40, 50)  # levels between which one bid moves; the margin lies above 700
PACKED_HANDICAP_BPS = 1_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    resting: int
    resting_large: int
    resting_small: int
    changes_many: int
    changes_few: int
    changed_shares: tuple[float, ...]
    rounds: int
    ticks: int  # a round
    ticks_few: int
    ticks_rebuilt: int
    ticks_quiet: int
    rounds_quiet: int
    ticks_before: int  # not counted


FULL = Size(
    resting=1_000_000,
    resting_large=5_000_000,
    resting_small=10_000,
    changes_many=10_000,
    changes_few=1_000,
    changed_shares=(0.1, 0.3, 1.0),
    rounds=7,
    ticks=15,
    ticks_few=31,
    ticks_rebuilt=3,
    ticks_quiet=201,
    rounds_quiet=15,
    ticks_before=30,
)
QUICK = Size(
    resting=20_000,
    resting_large=60_000,
    resting_small=1_000,
    changes_many=200,
    changes_few=20,
    changed_shares=(0.1, 1.0),
    rounds=2,
    ticks=3,
    ticks_few=3,
    ticks_rebuilt=1,
    ticks_quiet=11,
    rounds_quiet=2,
    ticks_before=2,
)


class Decisions:
    """A hash of everything decided, so that the work cannot vanish or change unseen."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, side: KernelSide) -> None:
        self._hash.update(f"{side.last.price} {side.last.sold} ".encode())
        self._hash.update(side.fills().tobytes())

    def text(self) -> str:
        return self._hash.hexdigest()[:16]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of `work`, seconds."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)


def settle(live: Live, sides: list[KernelSide], change_count: int, ticks: int) -> None:
    """Bring books into the shape that a market gives them: replace as many bids as rest, then tick."""
    replacing = [2 * len(live) // SETTLING_TICKS] * SETTLING_TICKS
    for count in [*replacing, *[change_count] * ticks]:
        changes = live.change(count)
        for side in sides:
            side.tick(changes)


def side_figures(rounds: list[list[TickTime]]) -> Figures:
    """Medians of each round, seconds; the tail over all ticks."""
    all_ticks = [time.tick_s for times in rounds for time in times]
    return {
        "tick_s": [median(time.tick_s for time in times) for times in rounds],
        "apply_s": [median(time.apply_s for time in times) for times in rounds],
        "clear_s": [median(time.clear_s for time in times) for times in rounds],
        "tick_s_p99": float(np.quantile(all_ticks, 0.99)),
        "tick_s_worst": max(all_ticks),
        "ticks": len(all_ticks),
        "events": median(time.events for times in rounds for time in times),
    }


def against_batches(
    live: Live, side: KernelSide, change_count: int, rounds: int, ticks: int, decisions: Decisions
) -> Figures:
    """The kernel's ticks beside the clearings of the whole book, alternating and compared."""
    kernel: list[list[TickTime]] = []
    batches: dict[str, list[float]] = {name: [] for name in BASELINES}
    for _ in range(rounds):
        drawn = [live.change(change_count) for _ in range(ticks)]
        kernel.append([side.tick(changes) for changes in drawn])
        batch = Batch(live)
        batch.check(side)
        for name in BASELINES:
            batches[name].append(seconds(getattr(batch, name), BASELINE_REPEATS))
        decisions.add(side)
    figures = side_figures(kernel)
    ratios = {f"tick_to_{name}": report.median_ratio(figures["tick_s"], batches[name]) for name in BASELINES}
    ratios["clear_to_c_pass"] = report.median_ratio(figures["clear_s"], batches["c_pass"])
    return {
        "resting": len(live),
        "changes": change_count,
        "kernel": figures,
        "batches_s": batches,
        "ratios": ratios,
    }


def against_full_passes(
    live: Live, side: KernelSide, change_count: int, size: Size, decisions: Decisions
) -> Figures:
    """Much of the book changes: the kernel beside the flat engine that passes over all of it."""
    flat = FlatSide(live, spare=change_count)
    kernel, passes, bare = [], [], []
    for _ in range(size.rounds):
        drawn = [live.change(change_count) for _ in range(size.ticks_rebuilt)]
        kernel.append([side.tick(changes) for changes in drawn])
        passes.append([flat.tick(changes) for changes in drawn])
        flat.check(side)
        assert [tick.events for tick in kernel[-1]] == [tick.events for tick in passes[-1]]
        bare.append(seconds(Batch(live).c_pass, BASELINE_REPEATS))
        decisions.add(side)
    ours, theirs = side_figures(kernel), side_figures(passes)
    return {
        "resting": len(live),
        "changes": change_count,
        "kernel": ours,
        "flat": theirs,
        "c_pass_s": bare,
        "tick_to_flat": report.median_ratio(ours["tick_s"], theirs["tick_s"]),
        "tick_to_c_pass": report.median_ratio(ours["tick_s"], bare),
    }


def quiet(lives: list[Live], sides: list[KernelSide], size: Size) -> list[Figures]:
    """Ticks in which nothing happens, and ticks in which one bid far below the margin moves.

    Each round starts with a tick of changes, so that the margin lies somewhere else in its level.
    """
    nothing: list[list[list[float]]] = [[] for _ in sides]
    one_bid: list[list[list[float]]] = [[] for _ in sides]
    for _ in range(size.rounds_quiet):
        for index, (live, side) in enumerate(zip(lives, sides, strict=True)):
            side.tick(live.change(size.changes_many))
            handle = side.book.place_bid(FAR_BELOW[0], 1, 1, live.tick + 1, 0, 1 << 40)
            side.book.clear()
            still, moved = _quiet_ticks(side, handle, size.ticks_quiet)
            nothing[index].append(still)
            one_bid[index].append(moved)
            side.book.cancel_bid(handle)
    figures = []
    for live, still_rounds, moved_rounds in zip(lives, nothing, one_bid, strict=True):
        row: Figures = {"resting": len(live), "margins": size.rounds_quiet, "ticks": size.ticks_quiet}
        for name, rounds in (("nothing", still_rounds), ("one_bid", moved_rounds)):
            row[f"{name}_s"] = [median(times) for times in rounds]
            row[f"{name}_s_p99"] = float(np.quantile(rounds, 0.99))
        figures.append(row)
    return figures


def _quiet_ticks(side: KernelSide, handle: int, ticks: int) -> tuple[list[float], list[float]]:
    """Seconds of each tick with nothing changed, and of each with this bid moved."""
    book = side.book
    still, moved = [], []
    for turn in range(ticks):
        start = perf_counter()
        book.clear()
        still.append(perf_counter() - start)
        limit = FAR_BELOW[(turn + 1) % 2]
        start = perf_counter()
        book.amend_bid(handle, limit, 1, 1)
        clearing = book.clear()
        moved.append(perf_counter() - start)
        assert len(clearing.handles) == 0
        assert clearing.price > max(FAR_BELOW), "the bid was to be far below the margin"
    return still, moved


def large(lives: list[Live], sides: list[KernelSide], size: Size, decisions: Decisions) -> Figures:
    """The same changes to a large book and to the usual one, alternating."""
    rounds: list[list[list[TickTime]]] = [[] for _ in sides]
    for _ in range(size.rounds):
        for index, (live, side) in enumerate(zip(lives, sides, strict=True)):
            drawn = [live.change(size.changes_many) for _ in range(size.ticks)]
            rounds[index].append([side.tick(changes) for changes in drawn])
            decisions.add(side)
    for live, side in zip(lives, sides, strict=True):
        Batch(live).check(side)
    usual, larger = (side_figures(each) for each in rounds)
    return {
        "resting": [len(live) for live in lives],
        "changes": size.changes_many,
        "usual": usual,
        "large": larger,
        "large_to_usual": report.median_ratio(larger["tick_s"], usual["tick_s"]),
    }


def packed(size: Size, decisions: Decisions) -> Figures:
    """70 % co-located gangs with h = 10 % beside the same bids as divisible ones, at the same churn.

    The strict twin is the plainest tick: divisible and h = 0, so no leases are told. The other one is
    divisible too, but has the handicap and its leases.
    """
    live = Live(size.resting, seed=3, has_gangs=True)
    sides = {
        "packed": KernelSide(live, handicap_bps=PACKED_HANDICAP_BPS, is_divisible=False),
        "divisible": KernelSide(live),
        "divisible_with_handicap": KernelSide(live, handicap_bps=PACKED_HANDICAP_BPS),
    }
    change_count = size.resting // 100
    settle(live, list(sides.values()), change_count, size.ticks_before)
    rounds: dict[str, list[list[TickTime]]] = {name: [] for name in sides}
    for _ in range(size.rounds):
        drawn = [live.change(change_count) for _ in range(size.ticks)]
        for name, side in sides.items():
            rounds[name].append([side.tick(changes) for changes in drawn])
            _check_fills(live, side, has_gangs=name == "packed")
            decisions.add(side)
    figures: Figures = {name: side_figures(times) for name, times in rounds.items()}
    for name in ("divisible", "divisible_with_handicap"):
        ratio = report.median_ratio(figures["packed"]["tick_s"], figures[name]["tick_s"])
        figures[f"packed_to_{name}"] = ratio
    last = sides["packed"].last
    figures |= {"resting": len(live), "changes": change_count, "not_fitted": last.not_fitted}
    figures |= {"sold": last.sold, "offered": last.offered, "nodes": len(live.supply.reserves)}
    return figures


def _check_fills(live: Live, side: KernelSide, *, has_gangs: bool) -> None:
    """I1: what is awarded is what is sold, no bid gets more than it wants, a gang all or nothing."""
    fills = side.fills()
    assert side.last.sold == int(fills.sum(dtype=np.int64)) <= live.supply.gpus
    assert bool((fills <= live.bids.gpus).all())
    if has_gangs:
        is_gang = live.bids.min_gpus > 1
        assert bool(((fills == 0) | (fills == live.bids.gpus))[is_gang].all())


def memory(bid_count: int, change_count: int, ticks: int) -> Figures:
    """Bytes a resting bid takes, loaded and settled, without the offers; in a process of its own."""
    live = Live(bid_count, seed=4)
    before = _resident_bytes()
    side = KernelSide(live)
    loaded = sys.getsizeof(side.book)
    settle(live, [side], change_count, ticks)
    resident = _resident_bytes() - before - side.array_bytes() - side.offer_bytes
    return {
        "resting": bid_count,
        "loaded": (loaded - side.offer_bytes) / bid_count,
        "settled": (sys.getsizeof(side.book) - side.offer_bytes) / bid_count,
        "resident": resident / bid_count,
    }


def _resident_bytes() -> int:
    """Memory of this process that is in use, with what the allocator only keeps given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(*, quick: bool) -> Figures:
    """Measure all of it; print a table for each question; return the raw figures."""
    size = QUICK if quick else FULL
    decisions = Decisions()
    figures: Figures = {"quick": quick}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        figures["memory"] = [
            apart.submit(memory, count, size.changes_many, size.ticks_before).result()
            for count in (size.resting, size.resting_large)
        ]
    _show_memory(figures["memory"])
    live = Live(size.resting, seed=1)
    side = KernelSide(live)
    Batch(live).check(side)
    settle(live, [side], size.changes_many, size.ticks_before)
    figures["churn"] = [
        against_batches(live, side, size.changes_many, size.rounds, size.ticks, decisions),
        against_batches(live, side, size.changes_few, size.rounds, size.ticks_few, decisions),
    ]
    _show_churn(figures["churn"])
    lives = [live, Live(size.resting_large, seed=2)]
    sides = [side, KernelSide(lives[1])]
    settle(lives[1], sides[1:], size.changes_many, size.ticks_before)
    figures["large"] = large(lives, sides, size, decisions)
    _show_large(figures["large"])
    lives.insert(0, Live(size.resting_small, seed=5))
    sides.insert(0, KernelSide(lives[0]))
    settle(lives[0], sides[:1], size.changes_many, size.ticks_before)
    figures["quiet"] = quiet(lives, sides, size)
    _show_quiet(figures["quiet"])
    del lives, sides
    figures["rebuilt"] = [
        against_full_passes(live, side, int(share * size.resting), size, decisions)
        for share in size.changed_shares
    ]
    _show_rebuilt(figures["rebuilt"])
    del live, side
    figures["packed"] = packed(size, decisions)
    _show_packed(figures["packed"])
    figures["hash"] = decisions.text()
    print(f"\nresult hash {figures['hash']}")
    return figures


def _ms(times: list[float]) -> str:
    return f"{median(times) * 1e3:,.3f}"


def _tick_cells(figures: Figures) -> list[str]:
    return [_ms(figures[name]) for name in ("tick_s", "apply_s", "clear_s")]


def _show_memory(rows: list[Figures]) -> None:
    print("\nBytes a resting bid, offers not counted\n")
    columns = ("loaded", "settled", "resident")
    cells = [[f"{row['resting']:,}"] + [f"{row[name]:.1f}" for name in columns] for row in rows]
    print(report.table(["resting", "loaded", "settled", "resident set"], cells))


def _show_churn(rows: list[Figures]) -> None:
    print("\nA tick beside clearings of the whole book, milliseconds; below, the tick as a part of theirs\n")
    names = ["stable sort", "bincount", "bincount, prepared", "C pass"]
    cells = []
    for row in rows:
        theirs = [_ms(row["batches_s"][name]) for name in BASELINES]
        cells.append([f"{row['changes']:,} of {row['resting']:,}", *_tick_cells(row["kernel"]), *theirs])
        ratios = [part(row["ratios"][f"tick_to_{name}"]) for name in BASELINES]
        cells.append(["", "", "", f"{part(row['ratios']['clear_to_c_pass'])} of the C pass", *ratios])
    print(report.table(["changes", "tick", "apply", "clear", *names], cells))


def _show_large(row: Figures) -> None:
    print(f"\nThe same {row['changes']:,} changes to a larger book, milliseconds\n")
    sides = zip(row["resting"], (row["usual"], row["large"]), strict=True)
    cells = [[f"{resting:,}", *_tick_cells(side)] for resting, side in sides]
    print(report.table(["resting", "tick", "apply", "clear"], cells))
    print(f"\nratio {row['large_to_usual']:.2f}")


def _show_quiet(rows: list[Figures]) -> None:
    print("\nQuiet ticks, microseconds\n")
    cells = []
    for row in rows:
        figures = []
        for name in ("nothing_s", "one_bid_s"):
            figures += [median(row[name]), max(row[name]), row[f"{name}_p99"]]
        cells.append([f"{row['resting']:,}", *(f"{figure * 1e6:.2f}" for figure in figures)])
    headers = ["resting", "nothing changed", "worst margin", "p99", "one bid moved", "worst margin", "p99"]
    print(report.table(headers, cells))


def _show_rebuilt(rows: list[Figures]) -> None:
    print("\nMuch of the book changes: the tick beside a flat book passed over in C, milliseconds\n")
    cells = []
    for row in rows:
        ratios = [f"{row[name]:.2f}" for name in ("tick_to_flat", "tick_to_c_pass")]
        sides = [*_tick_cells(row["kernel"]), *_tick_cells(row["flat"]), _ms(row["c_pass_s"])]
        cells.append([f"{row['changes']:,} of {row['resting']:,}", *sides, *ratios])
    headers = ["changes", "tick", "apply", "clear", "flat tick", "apply", "clear", "bare C pass"]
    print(report.table([*headers, "tick / flat", "tick / bare"], cells))


def _show_packed(row: Figures) -> None:
    print(f"\n70 % gangs: {row['changes']:,} changes among {row['resting']:,}, {row['nodes']:,} nodes, ms\n")
    names = ("packed", "divisible", "divisible_with_handicap")
    cells = [
        [name.replace("_", " "), *_tick_cells(row[name]), f"{row[name]['events']:,.0f}"] for name in names
    ]
    print(report.table(["book", "tick", "apply", "clear", "events"], cells))
    ratios = [f"{row[f'packed_to_{name}']:.2f} x {name.replace('_', ' ')}" for name in names[1:]]
    print(f"\npacked: {', '.join(ratios)}")


def part(ratio: float) -> str:
    """A ratio below one as people say it: 1/8."""
    return f"1/{1 / ratio:,.1f}" if ratio < 1 else f"{ratio:.2f}"
