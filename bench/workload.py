"""The order flow W(R, M): R resting bids, then M operations, the same for every engine.

With numpy's `default_rng(seed)` and 1,000 levels, drawn in this order: limits (1..1,000) and quantities
(1..10) of the R bids; one share u an operation, then limit, quantity and pick an operation. u < 0.6 places
a bid, u < 0.9 cancels one, the rest cross: sell the quantity at any price, always filled in full. The bid a
cancel names is `live[int(pick * len(live))]`, where `live` is kept with swap-remove by the FIFO book below.

Bids are numbered in the order of arrival, resting ones first. The book of reference also trades: how many
fills, of how much, for what value, and how many bids are left is known of every workload before an engine
runs, and published for the sizes in CHECKS. Nothing here is timed.
"""

import pickle
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEVEL_COUNT = 1_000
QUANTITY_MAX = 10
PLACE, CANCEL, CROSS = 0, 1, 2
PLACE_BELOW, CANCEL_BELOW = 0.6, 0.9
NO_TARGET = -1


@dataclass(frozen=True, slots=True)
class Trades:
    """What matching did: fills, quantity (GPUs), value (level x GPU at the bids' limits), bids left."""

    fills: int
    quantity: int
    value: int
    live: int


# By (resting, operations) with seed 1, as published beside the peers' figures.
CHECKS = {
    (10_000, 1_000_000): Trades(180_314, 547_995, 503_393_688, 210_112),
    (1_000_000, 1_000_000): Trades(180_860, 549_994, 532_178_341, 1_199_736),
    (5_000_000, 1_000_000): Trades(181_510, 549_694, 544_983_319, 5_200_893),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Plain lists, ready for a loop: a bid's number is its index in resting + placed."""

    resting: int
    resting_limits: list[int]
    resting_quantities: list[int]
    kinds: list[int]
    limits: list[int]  # of every operation; meant where it places
    quantities: list[int]
    targets: list[int]  # the number of the bid to cancel, NO_TARGET elsewhere
    trades: Trades

    def save(self, path: Path) -> None:
        """Write it as plain lists that any Python reads without this module (see peer_adapters.py)."""
        content = {name: getattr(self, name) for name in self.__slots__ if name != "trades"}
        path.write_bytes(pickle.dumps(content, protocol=4))


def generate(resting: int, operations: int, seed: int = 1) -> Workload:
    """Draw W(resting, operations) and run it through the book of reference; check what is published."""
    rng = np.random.default_rng(seed)
    resting_limits = rng.integers(1, LEVEL_COUNT + 1, resting).tolist()
    resting_quantities = rng.integers(1, QUANTITY_MAX + 1, resting).tolist()
    shares = rng.random(operations)
    limits = rng.integers(1, LEVEL_COUNT + 1, operations).tolist()
    quantities = rng.integers(1, QUANTITY_MAX + 1, operations).tolist()
    picks = rng.random(operations).tolist()
    kinds = ((shares >= PLACE_BELOW).astype(int) + (shares >= CANCEL_BELOW)).tolist()

    book = FifoBook()
    for limit, quantity in zip(resting_limits, resting_quantities, strict=True):
        book.place(limit, quantity)
    targets = []
    for kind, limit, quantity, pick in zip(kinds, limits, quantities, picks, strict=True):
        target = NO_TARGET
        if kind == PLACE:
            book.place(limit, quantity)
        elif kind == CANCEL:
            target = book.live[int(pick * len(book.live))]
            book.remove(target)
        else:
            book.cross(quantity)
        targets.append(target)
    trades = book.trades()
    if seed == 1:
        assert trades == CHECKS.get((resting, operations), trades), f"W({resting}, {operations}): {trades}"
    return Workload(resting, resting_limits, resting_quantities, kinds, limits, quantities, targets, trades)


class FifoBook:
    """Bids by price, then arrival, plainly; a level forgets bids that left when it meets them."""

    def __init__(self) -> None:
        self.live: list[int] = []
        self._index: list[int] = []  # of a bid in `live`, -1 once it left
        self._limits: list[int] = []
        self._left: list[int] = []
        self._levels: list[deque[int]] = [deque() for _ in range(LEVEL_COUNT + 1)]
        self._best = 0  # no level above it has a bid
        self._fills = self._quantity = self._value = 0

    def place(self, limit: int, quantity: int) -> None:
        """Add a bid; its number is how many came before."""
        number = len(self._index)
        self._index.append(len(self.live))
        self.live.append(number)
        self._limits.append(limit)
        self._left.append(quantity)
        self._levels[limit].append(number)
        if limit > self._best:
            self._best = limit

    def remove(self, number: int) -> None:
        """Take a live bid out: the last of `live` moves into its place."""
        index, last = self._index[number], self.live.pop()
        assert index >= 0, f"bid {number} has left"
        self._index[number] = -1
        if last != number:
            self.live[index] = last
            self._index[last] = index

    def cross(self, quantity: int) -> None:
        """Sell this much to the best bids, first come first served, each at its own limit."""
        while quantity:
            assert self._best > 0, f"the book cannot take {quantity} more"
            level = self._levels[self._best]
            if not level:
                self._best -= 1
                continue
            number = level[0]
            if self._index[number] < 0:
                level.popleft()
                continue
            fill = min(quantity, self._left[number])
            quantity -= fill
            self._left[number] -= fill
            self._fills += 1
            self._quantity += fill
            self._value += fill * self._limits[number]
            if self._left[number] == 0:
                self.remove(number)
                level.popleft()

    def trades(self) -> Trades:
        """Return what has been traded and how many bids are left."""
        return Trades(self._fills, self._quantity, self._value, len(self.live))
