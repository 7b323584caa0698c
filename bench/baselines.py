"""The engines that clear a whole book at each tick: numpy's sort, numpy's bincount, and plain C.

All clear divisible bids without handicap to the same price and the same winners as the kernel; `check`
compares them before anything is timed. In their favour: the int32 columns lie in order of arrival, supply
comes summed up by level, and none of that is timed; `bincount_prepared` gets its columns even in the wider
types that bincount works on. They know nothing of accounts, expiry, gangs or leases, and only `FlatSide`
applies changes and reports differences: it is the engine that a full pass would really be. The C is
compiled here, with what `CC` names or `cc`.
"""

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.books import LEVEL_COUNT, PLACED_AT_ONCE, Changes, Ints, KernelSide, Live, Supply, TickTime
from matching.types import NONE

SOURCE = Path(__file__).with_name("baselines.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")


class Cleared(NamedTuple):
    """One clearing: levels, GPUs, and which bids (in order of arrival) are served in full."""

    price: int
    sold: int
    won: NDArray[np.bool_]
    margin_bid: int  # the bid served in part, or NONE
    margin_fill: int

    def fills(self, gpus: Ints) -> Ints:
        """GPUs by bid."""
        fills = np.where(self.won, gpus, 0).astype(np.int32)
        if self.margin_bid != NONE:
            fills[self.margin_bid] = self.margin_fill
        return fills


class _Result(ctypes.Structure):
    _fields_ = [
        ("price", ctypes.c_int32),
        ("margin", ctypes.c_int32),
        ("sold", ctypes.c_int64),
        ("left", ctypes.c_int64),
        ("margin_bid", ctypes.c_int64),
        ("margin_fill", ctypes.c_int64),
    ]


class _FlatBook(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("limits", "gpus", "min_gpus", "accounts", "valid_until", "fills")
        ),
        ("arrivals", ctypes.c_void_p),
        ("seqs", ctypes.c_void_p),
        ("free_slots", ctypes.c_void_p),
        ("free_count", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
    ]


class Batch:
    """One book, prepared for all batch clearings. Each method is one whole clearing."""

    def __init__(self, live: Live) -> None:
        order = live.in_arrival_order()
        self._order = order
        self.limits: Ints = live.bids.limits[order]
        self.gpus: Ints = live.bids.gpus[order]
        # A stable ascending sort of these is R4: best limit first, then arrival.
        self._sort_keys: Ints = LEVEL_COUNT - self.limits
        # What bincount converts its arguments to.
        self._indices = self.limits.astype(np.intp)
        self._weights = self.gpus.astype(np.float64)
        self._supply = live.supply
        self._won = np.zeros(len(order), dtype=np.uint8)

    def sort(self) -> Cleared:
        """Numpy's stable argsort by limit, then the running sum of demand against supply."""
        up_to_level = self._supply.up_to_level
        order = np.argsort(self._sort_keys, kind="stable")
        limits = self.limits[order]
        demand = np.cumsum(self.gpus[order], dtype=np.int64)
        room = up_to_level[limits]
        first = int(np.argmax(demand > room))  # the first bid that is not served in full
        won = np.zeros(len(order), dtype=np.bool_)
        if demand[first] <= room[first]:
            won[:] = True
            return Cleared(self._price(NONE, int(limits[-1]), int(demand[-1])), int(demand[-1]), won, NONE, 0)
        won[order[:first]] = True
        before = int(demand[first - 1]) if first else 0
        fill = max(0, int(room[first]) - before)
        margin = int(limits[first])
        ceil = margin if fill else int(limits[first - 1]) if first else NONE
        bid = int(order[first]) if fill else NONE
        return Cleared(self._price(margin, ceil, before + fill), before + fill, won, bid, fill)

    def bincount(self) -> Cleared:
        """Numpy's histogram of demand by level, its running sum, and a mask of the winners."""
        return self._bincount(self.limits, self.gpus)

    def bincount_prepared(self) -> Cleared:
        """The same on copies of the columns that bincount need not convert: 16 bytes a bid, not 8."""
        return self._bincount(self._indices, self._weights)

    def _bincount(self, limits: NDArray[Any], gpus: NDArray[Any]) -> Cleared:
        up_to_level = self._supply.up_to_level
        at_level = np.bincount(limits, gpus, LEVEL_COUNT + 1)
        demand = at_level[::-1].cumsum()[::-1]  # exact: far below 2^53
        wanted = at_level > 0
        over = np.flatnonzero(wanted & (demand > up_to_level))
        margin = int(over[-1]) if len(over) else NONE
        above = np.flatnonzero(wanted[margin + 1 :]) if margin != NONE else np.flatnonzero(wanted)
        ceil = int(above[0]) + margin + 1 if len(above) else NONE
        before = int(demand[ceil]) if ceil != NONE else 0
        won = self.limits > margin
        if margin == NONE:
            return Cleared(self._price(NONE, ceil, before), before, won, NONE, 0)
        left = max(0, int(up_to_level[margin]) - before)
        at_margin = np.flatnonzero(self.limits == margin)
        served = np.cumsum(self.gpus[at_margin])
        count = int(np.searchsorted(served, left, side="right"))
        won[at_margin[:count]] = True
        fill = left - (int(served[count - 1]) if count else 0)
        price = self._price(margin, margin if left else ceil, before + left)
        return Cleared(price, before + left, won, int(at_margin[count]) if fill else NONE, fill)

    def c_pass(self) -> Cleared:
        """One pass in C over int32 columns for the histogram, one for the winners."""
        result = _Result()
        _library().full_pass(
            len(self.limits),
            self.limits.ctypes.data,
            self.gpus.ctypes.data,
            LEVEL_COUNT,
            self._supply.up_to_level.ctypes.data,
            self._won.ctypes.data,
            ctypes.byref(result),
        )
        won = self._won.view(np.bool_)
        return Cleared(result.price, result.sold, won, result.margin_bid, result.margin_fill)

    def check(self, kernel: KernelSide) -> None:
        """Raise unless all agree with the kernel's last clearing, bid by bid."""
        expected = kernel.fills()[self._order]
        for clear in (self.sort, self.bincount, self.bincount_prepared, self.c_pass):
            cleared = clear()
            found = (cleared.price, cleared.sold)
            assert (kernel.last.price, kernel.last.sold) == found, f"{clear.__name__}: {found}"
            assert np.array_equal(expected, cleared.fills(self.gpus)), f"{clear.__name__}: winners differ"

    def _price(self, margin: int, ceil: int, sold: int) -> int:
        """R6 for divisible newcomers: min(ceil, cheapest unsold reserve, max(floor, margin))."""
        if sold == 0:
            return NONE
        up_to_level = self._supply.up_to_level
        floor, unsold = np.searchsorted(up_to_level, [sold, sold + 1]).tolist()
        price = min(ceil, max(floor, margin))
        return min(price, unsold) if sold < self._supply.gpus else price


class FlatSide:
    """The O(N) engine: flat slots that take the same changes and report the same differences."""

    def __init__(self, live: Live, *, spare: int) -> None:
        """`spare` is how many bids it can hold beyond those that rest now."""
        capacity = len(live) + spare
        columns = {
            name: np.zeros(capacity, dtype=np.int32)
            for name in ("limits", "gpus", "min_gpus", "accounts", "valid_until", "fills")
        }
        columns["arrivals"] = np.zeros(capacity, dtype=np.uint64)
        columns["seqs"] = np.zeros(capacity, dtype=np.int64)
        columns["free_slots"] = np.zeros(capacity, dtype=np.int32)
        self._columns = columns  # keeps the memory that the structure points to
        pointers = {name: column.ctypes.data for name, column in columns.items()}
        self._book = _FlatBook(**pointers, free_count=0, end=0, capacity=capacity)
        self._supply: Supply = live.supply
        self._changed = np.zeros(capacity, dtype=np.int32)
        self._changed_fills = np.zeros(capacity, dtype=np.int32)
        self._result = _Result()
        self.slots = np.empty(0, dtype=np.int32)
        nothing = np.empty(0, dtype=np.int32)
        for start in range(0, len(live), PLACED_AT_ONCE):
            rows = np.arange(start, min(start + PLACED_AT_ONCE, len(live)), dtype=np.int32)
            bids = live.bids.part(start, start + PLACED_AT_ONCE)
            placed = self._apply(nothing, Changes(live.tick, start, rows, bids))
            self.slots = np.concatenate([self.slots, placed])
        # The initial bids keep the arrivals that they have in `live`.
        columns["arrivals"][self.slots], columns["seqs"][self.slots] = live.arrival_keys, live.seqs
        self._clear()

    def tick(self, changes: Changes) -> TickTime:
        """Run one tick: cancels, new bids, one pass, differences."""
        cancelled = self.slots[changes.rows]
        start = perf_counter()
        placed = self._apply(cancelled, changes)
        applied = perf_counter()
        events = self._clear()
        end = perf_counter()
        self.slots[changes.rows] = placed
        return TickTime(applied - start, end - applied, events)

    def check(self, kernel: KernelSide) -> None:
        """Raise unless the kernel has the same price, the same fills and the same differences."""
        result = self._result
        assert (kernel.last.price, kernel.last.sold) == (result.price, result.sold)
        assert np.array_equal(kernel.fills(), self._columns["fills"][self.slots])

    def _apply(self, cancelled: Ints, changes: Changes) -> Ints:
        bids = changes.bids
        placed = np.empty(len(bids.limits), dtype=np.int32)
        status = _library().flat_apply(
            ctypes.byref(self._book),
            LEVEL_COUNT,
            len(cancelled),
            cancelled.ctypes.data,
            len(placed),
            bids.limits.ctypes.data,
            bids.gpus.ctypes.data,
            bids.min_gpus.ctypes.data,
            bids.arrival_hashes.ctypes.data,
            bids.accounts.ctypes.data,
            bids.valid_until_ticks.ctypes.data,
            changes.tick,
            changes.first_seq,
            placed.ctypes.data,
        )
        assert status == 0, "the flat book refused a change"
        return placed

    def _clear(self) -> int:
        """Clear; return how many fills changed."""
        count: int = _library().flat_clear(
            ctypes.byref(self._book),
            LEVEL_COUNT,
            self._supply.up_to_level.ctypes.data,
            self._changed.ctypes.data,
            self._changed_fills.ctypes.data,
            ctypes.byref(self._result),
        )
        assert count >= 0, "no memory for the marginal level"
        return count


@cache
def _library() -> ctypes.CDLL:
    """Compile baselines.c into a directory that goes away again, and load it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "baselines.so"
        subprocess.run([os.environ.get("CC", "cc"), *FLAGS, "-o", str(path), str(SOURCE)], check=True)
        library = ctypes.CDLL(str(path))
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.full_pass.argtypes = [int64, pointer, pointer, int32, pointer, pointer, pointer]
    library.full_pass.restype = None
    library.flat_apply.argtypes = (
        [pointer, int32, int64, pointer, int64] + [pointer] * 6 + [int64, int64, pointer]
    )
    library.flat_apply.restype = int32
    library.flat_clear.argtypes = [pointer, int32, pointer, pointer, pointer, pointer]
    library.flat_clear.restype = int64
    return library
