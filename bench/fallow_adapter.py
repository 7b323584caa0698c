"""Our book as a continuous market and as a ticking one, on the same operations as the peers.

Run as `python -m bench.fallow_adapter CASE WORKLOAD REPEATS`, a process of its own as every peer has. The
engine is a call auction; it becomes a continuous market when it is asked to clear after every order:

  place  one bid a call, with account and expiry, all checks on
  mixed  W(R, M) order by order. A cross is an offer of the quantity at the lowest reserve, a clearing, and
         what an auction leaves to its caller: winners leave, the unserved rest of one is placed again with
         its own arrival, the offer goes. A bid's arrival tick is its number, the handicap is 0, so priority
         is by price, then time, and the trades are those of any matching engine, fill for fill. Fills are
         kept as (bid, GPUs).
  array  W(R, M) as a market that ticks every 10,000 operations, through the calls for arrays. What differs:
         within a tick bids arrive together (a random hash orders them, not their number), all crosses are
         one offer that trades at one price after the tick's cancels, and a bid whose cancel comes too late
         because it was served keeps its trade. The quantity sold is the same. Timed with it: finding the
         handles of the bids to cancel, asking for expired ones, keeping the books of who is served how far.

Half of the bids expire, long after the run. Columns of numbers are prepared before timing, as the peers'
lists are; handles are looked up in it, as the peers' ids are. No garbage collector runs.
"""

import gc
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peer_adapters import CANCEL, PLACE, Figures, Operations, load, run_case
from bench.workload import CROSS, LEVEL_COUNT

ACCOUNT_COUNT = 10_000
VALID_TICKS = (100_000_000, 200_000_000)  # after any arrival here
TICK_OPERATIONS = 10_000
TICK_OPERATIONS_QUICK = 500
RESERVE = 1

Ints = NDArray[np.int32]


def accounts_and_expiries(count: int) -> tuple[Ints, Ints]:
    """Return a column of accounts and one of the last valid tick, 0 (never) for every other bid."""
    rng = np.random.default_rng(2)
    expiries = rng.integers(*VALID_TICKS, count, dtype=np.int32)
    expiries[::2] = 0
    return rng.integers(0, ACCOUNT_COUNT, count, dtype=np.int32), expiries


def compiled_book() -> Any:
    """Return a new compiled book without a handicap."""
    from matching.book import Book

    return Book(handicap_bps=0, level_count=LEVEL_COUNT)


class PerCall:
    """A continuous market over a book, one Python call a step."""

    def __init__(self, bid_count: int, new_book: Callable[[], Any] = compiled_book) -> None:
        """Prepare for bids placed at most so many times in all."""
        self.book = new_book()
        self.handles: list[int] = []  # by number; of a bid that left, stale
        self.limits: list[int] = []
        self.left: list[int] = []  # GPUs that a bid still wants
        self.fills: list[tuple[int, int]] = []
        accounts, expiries = accounts_and_expiries(bid_count)
        self._accounts, self._expiries = accounts.tolist(), expiries.tolist()
        self._number_of = [0] * bid_count  # by handle: the book counts them up and gives them out again

    def place(self, limits: list[int], quantities: list[int]) -> float:
        """Place bids; return seconds."""
        handles, place_bid, first = self.handles, self.book.place_bid, len(self.handles)
        numbers = list(range(first, first + len(limits)))
        accounts, expiries = self._accounts[first:], self._expiries[first:]
        rows = zip(numbers, limits, quantities, accounts, expiries, strict=False)  # these are longer
        start = perf_counter()
        for number, limit, quantity, account, expiry in rows:
            handles.append(place_bid(limit, quantity, 1, number, 0, number, False, account, expiry))
        taken = perf_counter() - start
        self.limits += limits
        self.left += quantities
        for number in numbers:
            self._number_of[handles[number]] = number
        return taken

    def mixed(self, operations: Operations) -> float:
        """Run the operations; return seconds."""
        book, handles, number_of, keep = self.book, self.handles, self._number_of, self.fills.append
        place_bid, cancel_bid = book.place_bid, book.cancel_bid
        place_offer, cancel_offer, clear = book.place_offer, book.cancel_offer, book.clear
        accounts, expiries, number = self._accounts, self._expiries, len(handles)
        for terms, of_placed in zip((self.limits, self.left), operations.placed(None), strict=True):
            terms += of_placed
        limits, left = self.limits, self.left
        start = perf_counter()
        for kind, limit, quantity, target in operations.rows():
            if kind == PLACE:
                handle = place_bid(
                    limit, quantity, 1, number, 0, number, False, accounts[number], expiries[number]
                )
                handles.append(handle)
                number_of[handle] = number
                number += 1
            elif kind == CANCEL:
                cancel_bid(handles[target])
            else:
                offer = place_offer(RESERVE, quantity)
                clearing = clear()
                fills = clearing.fills.tolist()
                for i, handle in enumerate(clearing.handles.tolist()):
                    won, fill = number_of[handle], fills[i]
                    keep((won, fill))
                    cancel_bid(handle)
                    if fill < left[won]:
                        left[won] = rest = left[won] - fill
                        handle = place_bid(
                            limits[won], rest, 1, won, 0, won, False, accounts[won], expiries[won]
                        )
                        handles[won] = handle
                        number_of[handle] = won
                cancel_offer(offer)
        return perf_counter() - start

    def outcome(self) -> Figures:
        """Return fills, quantity, value at the bids' limits, and bids left."""
        return {
            "fills": len(self.fills),
            "quantity": sum(fill for _, fill in self.fills),
            "value": sum(fill * self.limits[number] for number, fill in self.fills),
            "live": self.book.clear().bid_count,
        }


@dataclass(frozen=True, slots=True)
class Tick:
    """The operations of one tick as columns, ready for the calls."""

    first: int  # number of its first bid
    limits: Ints
    quantities: Ints
    targets: Ints
    crossed: int  # GPUs

    @classmethod
    def of(cls, first: int, columns: dict[str, Ints]) -> "Tick":
        """Take apart operations given as columns."""
        kinds, quantities = columns["kinds"], columns["quantities"]
        is_placed = kinds == PLACE
        return cls(
            first,
            columns["limits"][is_placed],
            quantities[is_placed],
            columns["targets"][kinds == CANCEL],
            int(quantities[kinds == CROSS].sum()),
        )


class Arrays:
    """A market that ticks over a book, its bids as columns by number."""

    def __init__(self, bid_count: int, new_book: Callable[[], Any] = compiled_book) -> None:
        """Prepare for bids placed at most so many times in all."""
        self.book = new_book()
        self.sold = self.too_late = 0  # GPUs; cancels of bids already served
        self._limits, self._left, self._ticks, self._number_of = (
            np.zeros(bid_count, dtype=np.int32) for _ in range(4)
        )
        self._handles = np.full(bid_count, -1, dtype=np.int32)  # by number; -1: has left
        self._hashes = np.random.default_rng(3).integers(0, 2**32, bid_count, dtype=np.uint32)
        self._accounts, self._expiries = accounts_and_expiries(bid_count)
        self._ones = np.ones(bid_count, dtype=np.int32)

    def place(self, number: int, limits: Ints, quantities: Ints, tick: int) -> None:
        """Place bids from this number on."""
        end = number + len(limits)
        rows = slice(number, end)
        handles = self.book.place_bids(
            limits, quantities, self._ones[rows], self._hashes[rows], arrival_tick=tick,
            first_seq=number, accounts=self._accounts[rows], valid_until_ticks=self._expiries[rows],
        )  # fmt: skip
        self._handles[rows] = handles
        self._number_of[handles] = np.arange(number, end, dtype=np.int32)
        self._limits[rows], self._left[rows], self._ticks[rows] = limits, quantities, tick

    def run(self, ticks: list[Tick], first_tick: int) -> float:
        """Run prepared ticks; return seconds."""
        start = perf_counter()
        for now, tick in enumerate(ticks, start=first_tick):
            self.place(tick.first, tick.limits, tick.quantities, now)
            self._cancel(tick.targets)
            assert not self.book.expired(now)
            offer = self.book.place_offer(RESERVE, tick.crossed) if tick.crossed else None
            clearing = self.book.clear()
            self.sold += clearing.sold
            self._settle(clearing.handles, clearing.fills)
            if offer is not None:
                self.book.cancel_offer(offer)
        return perf_counter() - start

    def _cancel(self, targets: Ints) -> None:
        """Cancel those that have not been served."""
        handles = self._handles[targets]
        handles = handles[handles >= 0]
        self.book.cancel_bids(handles)
        self._handles[targets] = -1
        self.too_late += len(targets) - len(handles)

    def _settle(self, handles: Ints, fills: Ints) -> None:
        """Winners leave; what is left of one served in part is placed again with its own arrival."""
        won = self._number_of[handles]
        self.book.cancel_bids(handles)
        self._handles[won] = -1
        self._left[won] -= fills
        for number in won[self._left[won] > 0].tolist():
            handle = self.book.place_bid(
                int(self._limits[number]), int(self._left[number]), 1, int(self._ticks[number]),
                int(self._hashes[number]), number, False, int(self._accounts[number]),
                int(self._expiries[number]),
            )  # fmt: skip
            self._handles[number] = handle
            self._number_of[handle] = number


def run_arrays(
    content: Figures, tick_operations: int, new_book: Callable[[], Any] = compiled_book
) -> Figures:
    """Time W(R, M) in ticks; return operations, seconds, GPUs sold, late cancels, bids left."""
    columns = {
        name: np.array(content[name], dtype=np.int32) for name in ("kinds", "limits", "quantities", "targets")
    }
    resting, operation_count = content["resting"], len(columns["kinds"])
    market = Arrays(resting + operation_count, new_book)
    limits, quantities = (
        np.array(content[f"resting_{name}"], dtype=np.int32) for name in ("limits", "quantities")
    )
    first_tick = 0
    for start in range(0, resting, tick_operations):
        market.place(
            start, limits[start:][:tick_operations], quantities[start:][:tick_operations], first_tick
        )
        first_tick += 1
    ticks, first = [], resting
    for start in range(0, operation_count, tick_operations):
        rows = slice(start, start + tick_operations)
        ticks.append(Tick.of(first, {name: column[rows] for name, column in columns.items()}))
        first += len(ticks[-1].limits)
    taken = market.run(ticks, first_tick)
    return {
        "operations": operation_count,
        "seconds": [taken],
        "quantity": market.sold,
        "too_late": market.too_late,
        "live": market.book.clear().bid_count,
    }


def run_ours(
    case: str, content: Figures, repeats: int, new_book: Callable[[], Any] = compiled_book
) -> Figures:
    """Time one case of ours."""
    if case == "array":
        quick = len(content["kinds"]) < TICK_OPERATIONS * 10
        return run_arrays(content, TICK_OPERATIONS_QUICK if quick else TICK_OPERATIONS, new_book)
    bid_count = content["resting"] + len(content["kinds"])  # an operation places a bid, or the rest of one
    return run_case(lambda: PerCall(bid_count, new_book), case, content, repeats)


def main() -> None:
    """Time what the command line asks for; print it as one line of JSON."""
    case, path, repeats = sys.argv[1:]
    gc.disable()
    figures = run_ours(case, load(path), int(repeats))
    print(json.dumps(figures | {"python": platform.python_version()}))


if __name__ == "__main__":
    main()
