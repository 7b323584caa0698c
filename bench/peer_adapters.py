"""Published matching engines, each through its documented API, in a process and an interpreter of its own.

Run as `python -I peer_adapters.py NAME CASE WORKLOAD REPEATS`; imports only the engine it is asked for and
prints one JSON line with seconds and, where the engine tells, what it traded. Cases:

  place  bids, one a call, into a book that holds R; timed without the R, on a new book each repeat
  mixed  the operations of W(R, M), in order

In the engines' favour: the loops have one call in them and no layer between, names are local, lists and
numbers are prepared before, no garbage collector runs. Inside the timed loops: building the order objects
an engine wants, keeping the ids of bids in a list, keeping the fills an engine returns.

  limit-order-book  C++ behind ctypes; the caller chooses the ids; returns no fills
  matching-engine   Python and msgspec, CPython 3.12 or newer; returns events. Buyers and sellers are
                    different accounts, its self-trade check would end a cross otherwise
  nanobook          Rust; a sell that crosses loops for ever in 0.19.2, so it only places
"""

import gc
import json
import pickle
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter
from typing import Any

PLACE, CANCEL = 0, 1
CROSS_LIMIT = 1  # sells at any price
BUYER, SELLER = 1, 2

Figures = dict[str, Any]


class LimitOrderBookPeer:
    """limit-order-book: bid n has id n + 1, sells have ids above all bids."""

    def __init__(self) -> None:
        from limit_order_book import LimitOrderBook

        self.book = LimitOrderBook()
        self.ids: list[int] = []

    def place(self, limits: list[int], quantities: list[int]) -> float:
        """Place bids; return seconds."""
        ids, limit_buy = self.ids, self.book.limit_buy
        numbers = list(range(len(ids) + 1, len(ids) + 1 + len(limits)))
        start = perf_counter()
        for number, limit, quantity in zip(numbers, limits, quantities, strict=True):
            limit_buy(number, quantity, limit)
            ids.append(number)
        return perf_counter() - start

    def mixed(self, operations: "Operations") -> float:
        """Run the operations; return seconds."""
        ids, limit_buy, limit_sell, cancel = (
            self.ids,
            self.book.limit_buy,
            self.book.limit_sell,
            self.book.cancel,
        )
        number, sell_number = len(ids), len(ids) + len(operations.kinds)
        start = perf_counter()
        for kind, limit, quantity, target in operations.rows():
            if kind == PLACE:
                number += 1
                limit_buy(number, quantity, limit)
                ids.append(number)
            elif kind == CANCEL:
                cancel(ids[target])
            else:
                sell_number += 1
                limit_sell(sell_number, quantity, CROSS_LIMIT)
        return perf_counter() - start

    def outcome(self) -> Figures:
        """Return what the engine tells of its trades: only how many bids are left."""
        return {"live": self.book.count()}


class MatchingEnginePeer:
    """matching-engine: commands with a sequence, which is the id of what they place."""

    def __init__(self) -> None:
        from matching_engine.engine import MatchingEngine

        self.engine = MatchingEngine()
        self.ids: list[int] = []
        self.events: list[list[Any]] = []

    def place(self, limits: list[int], quantities: list[int]) -> float:
        """Place bids; return seconds."""
        from matching_engine import NewOrder, SequencedCommand, Side

        ids, process, buy, seq = self.ids, self.engine.process, Side.BUY, self.engine.last_seq
        start = perf_counter()
        for limit, quantity in zip(limits, quantities, strict=True):
            seq += 1
            process(SequencedCommand(seq, 0, NewOrder(seq, BUYER, buy, limit, quantity)))
            ids.append(seq)
        return perf_counter() - start

    def mixed(self, operations: "Operations") -> float:
        """Run the operations, keeping the events of every cross; return seconds."""
        from matching_engine import CancelOrder, NewOrder, SequencedCommand, Side

        ids, process, buy, sell = self.ids, self.engine.process, Side.BUY, Side.SELL
        events, seq = self.events, self.engine.last_seq
        start = perf_counter()
        for kind, limit, quantity, target in operations.rows():
            seq += 1
            if kind == PLACE:
                process(SequencedCommand(seq, 0, NewOrder(seq, BUYER, buy, limit, quantity)))
                ids.append(seq)
            elif kind == CANCEL:
                process(SequencedCommand(seq, 0, CancelOrder(ids[target], BUYER)))
            else:
                order = NewOrder(seq, SELLER, sell, CROSS_LIMIT, quantity)
                events.append(process(SequencedCommand(seq, 0, order)))
        return perf_counter() - start

    def outcome(self) -> Figures:
        """Return fills, quantity, value and bids left, from the events kept."""
        from matching_engine.events import Trade

        trades = [event for some in self.events for event in some if type(event) is Trade]
        return {
            "fills": len(trades),
            "quantity": sum(trade.qty for trade in trades),
            "value": sum(trade.qty * trade.price for trade in trades),
            "live": len(self.engine.book.orders),
        }


class NanobookPeer:
    """nanobook: only places."""

    def __init__(self) -> None:
        from nanobook import Exchange

        self.book = Exchange()
        self.ids: list[int] = []

    def place(self, limits: list[int], quantities: list[int]) -> float:
        """Place bids; return seconds."""
        ids, submit_limit = self.ids, self.book.submit_limit
        start = perf_counter()
        for limit, quantity in zip(limits, quantities, strict=True):
            ids.append(submit_limit("buy", limit, quantity).order_id)
        return perf_counter() - start


class Operations:
    """The operations of a saved workload, as lists."""

    def __init__(self, content: Figures) -> None:
        self.kinds: list[int] = content["kinds"]
        self.limits: list[int] = content["limits"]
        self.quantities: list[int] = content["quantities"]
        self.targets: list[int] = content["targets"]

    def rows(self) -> Any:
        """Kind, limit, quantity, target of each."""
        return zip(self.kinds, self.limits, self.quantities, self.targets, strict=True)

    def placed(self, count: int | None) -> tuple[list[int], list[int]]:
        """Limits and quantities of the first bids placed, all of them or so many."""
        rows = [i for i, kind in enumerate(self.kinds) if kind == PLACE][:count]
        return [self.limits[i] for i in rows], [self.quantities[i] for i in rows]


PEERS: dict[str, Callable[[], Any]] = {
    "limit-order-book": LimitOrderBookPeer,
    "matching-engine": MatchingEnginePeer,
    "nanobook": NanobookPeer,
}


def load(path: str) -> Figures:
    """Return the lists of a workload that `Workload.save` wrote."""
    with open(path, "rb") as file:
        content: Figures = pickle.load(file)
    return content


def run_case(new_book: Callable[[], Any], case: str, content: Figures, repeats: int) -> Figures:
    """Time one case; return operations, seconds of each repeat, and for `mixed` what was traded."""
    operations = Operations(content)
    limits, quantities = content["resting_limits"], content["resting_quantities"]
    if case == "place":
        # About as many as rest: the book is of the size that the row says, and its growth is paid in full.
        new_limits, new_quantities = operations.placed(len(limits))
        seconds = []
        for _ in range(repeats):
            book = new_book()
            book.place(limits, quantities)
            seconds.append(book.place(new_limits, new_quantities))
        return {"operations": len(new_limits), "seconds": seconds}
    assert case == "mixed" and repeats == 1, f"{case} x {repeats}"
    book = new_book()
    book.place(limits, quantities)
    taken = book.mixed(operations)
    return {"operations": len(operations.kinds), "seconds": [taken], **book.outcome()}


def main() -> None:
    """Time what the command line asks for; print it with the versions, as one line of JSON."""
    name, case, path, repeats = sys.argv[1:]
    gc.disable()
    figures = run_case(PEERS[name], case, load(path), int(repeats))
    figures |= {"version": version(name), "python": platform.python_version()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
