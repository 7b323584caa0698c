"""Seeded books for the kernel's benchmarks, and the changes that a tick brings to them.

Divisible: limits uniform over 1..1,000 on 1,000 levels, 1 to 10 GPUs a bid. Gangs: sizes as drawn in
`GANG_SIZES`, 70 % of all bids all-or-nothing and co-located. Both: supply is 30 % of the demand, lent in
nodes of 8 GPUs with reserves uniform over the levels, eight nodes a domain; bids belong to one of 10,000
accounts, half of them end at a tick, and the order among equals is a random 32-bit hash.

A tick's changes are half cancels of random resting bids, half new bids, so a book keeps its size. New
bids take the rows of the cancelled ones: a row is the name of a bid that all engines share. `Live` has
the rows as flat arrays, `KernelSide` runs the compiled book; baselines.py has the other engines.
"""

import sys
from dataclasses import dataclass, fields
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from matching.book import Book
from matching.types import Clearing

LEVEL_COUNT = 1_000
GPUS_MAX = 10
ACCOUNT_COUNT = 10_000
SUPPLY_OF_DEMAND = 0.3
NODE_GPUS, DOMAIN_NODES = 8, 8
GANG_SIZES = (1, 2, 4, 8, 16, 32, 64)
GANG_SIZE_SHARES = (0.28, 0.15, 0.15, 0.20, 0.11, 0.07, 0.04)
GANG_SHARE = 0.7  # of all bids; every larger size is a gang but a few
# Bids end, but not while we measure: a tick changes as many bids as it says.
VALID_TICKS = (1_000, 100_000)
PLACED_AT_ONCE = 100_000

Ints = NDArray[np.int32]


@dataclass(slots=True)
class Bids:
    """Columns of bids, one row each."""

    limits: Ints
    gpus: Ints
    min_gpus: Ints
    arrival_hashes: NDArray[np.uint32]
    accounts: Ints
    valid_until_ticks: Ints
    colocated: NDArray[np.uint8]

    def part(self, start: int, end: int) -> "Bids":
        """The rows from start to end."""
        return Bids(*(getattr(self, field.name)[start:end] for field in fields(self)))

    def divisible(self) -> "Bids":
        """The same bids, content with any part of what they ask for, anywhere."""
        ones, zeros = np.ones_like(self.min_gpus), np.zeros_like(self.colocated)
        return Bids(
            self.limits, self.gpus, ones, self.arrival_hashes, self.accounts, self.valid_until_ticks, zeros
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What one tick brings: the bids of these rows go, and these bids take their rows."""

    tick: int
    first_seq: int
    rows: Ints
    bids: Bids

    def divisible(self) -> "Changes":
        return Changes(self.tick, self.first_seq, self.rows, self.bids.divisible())


@dataclass(frozen=True, slots=True)
class Supply:
    """What is lent: one reserve a node of NODE_GPUS, and the GPUs with a reserve up to each level."""

    reserves: Ints
    up_to_level: NDArray[np.int64]

    @property
    def gpus(self) -> int:
        return int(self.up_to_level[-1])


@dataclass(frozen=True, slots=True)
class TickTime:
    """Seconds of one tick: leases told to the book and changes applied, then clearing."""

    apply_s: float
    clear_s: float
    events: int  # bids whose fill changed

    @property
    def tick_s(self) -> float:
        return self.apply_s + self.clear_s


class Live:
    """The resting bids as flat arrays by row, and the source of changes. One seed, one history."""

    def __init__(self, bid_count: int, *, seed: int, has_gangs: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._has_gangs = has_gangs
        self.tick = 0
        self.bids = self._draw(bid_count)
        self.arrival_keys = self.bids.arrival_hashes.astype(np.uint64)  # tick * 2^32 + hash
        self.seqs = np.arange(bid_count, dtype=np.int64)
        self._next_seq = bid_count
        self.supply = self._draw_supply()

    def __len__(self) -> int:
        return len(self.seqs)

    def change(self, change_count: int) -> Changes:
        """Draw the next tick's changes, half of them cancels, and take them in."""
        self.tick += 1
        count = change_count // 2
        rows = self._rng.choice(len(self), count, replace=False, shuffle=True).astype(np.int32)
        changes = Changes(self.tick, self._next_seq, rows, self._draw(count))
        for field in fields(Bids):
            getattr(self.bids, field.name)[rows] = getattr(changes.bids, field.name)
        self.arrival_keys[rows] = np.uint64(self.tick << 32) + changes.bids.arrival_hashes
        self.seqs[rows] = np.arange(self._next_seq, self._next_seq + count)
        self._next_seq += count
        return changes

    def in_arrival_order(self) -> NDArray[np.intp]:
        """The rows by arrival: tick, hash, sequence."""
        return np.lexsort((self.seqs, self.arrival_keys))

    def _draw(self, count: int) -> Bids:
        rng = self._rng
        limits = rng.integers(1, LEVEL_COUNT + 1, count, dtype=np.int32)
        if self._has_gangs:
            gpus = rng.choice(np.array(GANG_SIZES, dtype=np.int32), count, p=GANG_SIZE_SHARES)
            is_gang = (gpus > 1) & (rng.random(count) < GANG_SHARE / (1 - GANG_SIZE_SHARES[0]))
        else:
            gpus = rng.integers(1, GPUS_MAX + 1, count, dtype=np.int32)
            is_gang = np.zeros(count, dtype=bool)
        until = self.tick + rng.integers(*VALID_TICKS, count, dtype=np.int32)
        return Bids(
            limits,
            gpus,
            np.where(is_gang, gpus, 1).astype(np.int32),
            rng.integers(0, 1 << 32, count, dtype=np.uint32),
            rng.integers(0, ACCOUNT_COUNT, count, dtype=np.int32),
            np.where(rng.random(count) < 0.5, until, 0).astype(np.int32),
            is_gang.astype(np.uint8),
        )

    def _draw_supply(self) -> Supply:
        nodes = max(1, int(self.bids.gpus.sum(dtype=np.int64) * SUPPLY_OF_DEMAND) // NODE_GPUS)
        reserves = self._rng.integers(1, LEVEL_COUNT + 1, nodes, dtype=np.int32)
        by_level = np.bincount(reserves, minlength=LEVEL_COUNT + 1) * NODE_GPUS
        return Supply(reserves, np.cumsum(by_level, dtype=np.int64))


class KernelSide:
    """The compiled book under the same changes, driven as the market drives it, from Python."""

    def __init__(self, live: Live, *, handicap_bps: int = 0, is_divisible: bool = True) -> None:
        self.book = Book(handicap_bps=handicap_bps, level_count=LEVEL_COUNT)
        self._tells_leases = handicap_bps > 0
        self._is_divisible = is_divisible
        self._place_offers(live.supply)
        self.offer_bytes = sys.getsizeof(self.book)
        bids = live.bids.divisible() if is_divisible else live.bids
        self.handles = np.concatenate(
            [
                self._place(bids.part(start, start + PLACED_AT_ONCE), live.tick, start)
                for start in range(0, len(live), PLACED_AT_ONCE)
            ]
        )
        self._fills = np.zeros(len(live), dtype=np.int32)
        self.last: Clearing = self.book.clear()
        self._keep_fills(int(self.handles.max()))

    def tick(self, changes: Changes) -> TickTime:
        """Run one tick: leases as of the last one, expiry, cancels, new bids, clearing."""
        changes = changes.divisible() if self._is_divisible else changes
        cancelled = self.handles[changes.rows]
        last = self.last
        start = perf_counter()
        if self._tells_leases:
            self.book.set_held_many(last.handles, last.fills)
        over = self.book.expired(changes.tick)
        self.book.cancel_bids(cancelled)
        placed = self._place(changes.bids, changes.tick, changes.first_seq)
        applied = perf_counter()
        clearing = self.book.clear()
        end = perf_counter()
        assert over == [], "the drawn bids outlive the measurement"
        self.last = clearing
        self.handles[changes.rows] = placed
        self._fills[cancelled] = 0
        self._keep_fills(int(placed.max(initial=0)))
        return TickTime(applied - start, end - applied, len(clearing.handles))

    def fills(self) -> Ints:
        """GPUs awarded now, by row: the sum of all differences that were published."""
        return self._fills[self.handles]

    def array_bytes(self) -> int:
        """Memory of what stands beside the book: handles and fills."""
        return self.handles.nbytes + self._fills.nbytes

    def _keep_fills(self, handle_max: int) -> None:
        if handle_max >= len(self._fills):
            self._fills.resize(2 * handle_max + 1, refcheck=False)
        self._fills[self.last.handles] = self.last.fills

    def _place(self, bids: Bids, tick: int, first_seq: int) -> Ints:
        return self.book.place_bids(
            bids.limits,
            bids.gpus,
            bids.min_gpus,
            bids.arrival_hashes,
            arrival_tick=tick,
            first_seq=first_seq,
            accounts=bids.accounts,
            valid_until_ticks=bids.valid_until_ticks,
            colocated=None if self._is_divisible else bids.colocated,
        )

    def _place_offers(self, supply: Supply) -> None:
        """An offer a node; where nothing is co-located a node is not named."""
        place = self.book.place_offer
        if self._is_divisible:
            for reserve in supply.reserves.tolist():
                place(reserve, NODE_GPUS)
        else:
            for node, reserve in enumerate(supply.reserves.tolist()):
                place(reserve, NODE_GPUS, node, node // DOMAIN_NODES)
