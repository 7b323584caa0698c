"""The clearing rule in plain Python: the specification to read, and the oracle of the tests.

This is RULES.md R3 to R7, R10, X1, X7 and X8 line by line. It clears from scratch with a sort and a
scan, has no cleverness, and is never a fallback for the compiled kernel: a broken build must be loud.
Read `_accept` first, then `_solve`: together they are the whole auction.

Invariants: every winner's limit >= price >= every used reserve; one price; the order of acceptance
depends on nothing but (rank, incumbency, limit, arrival tick, arrival hash, sequence, lot number).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from matching.chain import Offer, Supply
from matching.types import CHAIN, NONE, REFINED_GANGS_MAX, Clearing, Outcome, Reason
from matching.validation import (
    check_arrival,
    check_bid,
    check_book,
    check_held,
    check_level,
    check_offer,
    check_place,
    check_validity,
)


@dataclass(slots=True)
class _Bid:
    limit: int
    gpus: int
    min_gpus: int
    arrival: tuple[int, int, int]  # tick, hash, sequence
    is_colocated: bool
    account: int
    valid_until_tick: int
    held: int = 0  # GPUs that rank as an incumbent's


@dataclass(slots=True)
class _Lot:
    handle: int
    rank: int
    is_incumbent: bool
    limit: int
    arrival: tuple[int, int, int]
    number: int  # 0 base, 1 expansion
    gpus: int
    min_gpus: int
    size: int  # the co-located size, 1 for GPUs that may lie anywhere
    fill: int = 0
    usable: int = 0  # GPUs that it could have had at its turn

    def order(self) -> tuple[int, bool, int, tuple[int, int, int], int]:
        """R4: rank, then incumbents, then limit, then arrival with its keyed hash, then lot number."""
        return (-self.rank, not self.is_incumbent, -self.limit, self.arrival, self.number)

    @property
    def has_unserved_divisible(self) -> bool:
        """A lot that could have used one GPU more; a gang that got nothing could not."""
        return self.fill < self.gpus and (self.min_gpus == 1 or self.fill > 0)


@dataclass(slots=True)
class _Solution:
    """One run of the scan, with its price."""

    lots: list[_Lot]
    sold: int = 0
    ceil: int = NONE
    floor: int = NONE
    low: int = NONE
    high: int = NONE
    price: int = NONE
    used: dict[int, int] = field(default_factory=dict)


class Book:
    """Resting bids and offers of one market. Handles are small integers that the book gives out."""

    def __init__(
        self,
        *,
        handicap_bps: int,
        level_count: int,
        refine_below_bids: int = 0,
        price_position_bps: int | None = None,
    ) -> None:
        check_book(handicap_bps, level_count, refine_below_bids, price_position_bps)
        self._handicap_bps = handicap_bps
        self._level_count = level_count
        self._refine_below_bids = refine_below_bids
        self._price_position_bps = price_position_bps
        self._bids: dict[int, _Bid] = {}
        self._offers: dict[int, Offer] = {}
        self._fills: dict[int, int] = {}  # of the last clearing
        self._last: _Solution = _Solution([])
        self._next_handle = 0

    # -- changes to the book ----------------------------------------------------------------------

    def place_bid(
        self,
        limit: int,
        gpus: int,
        min_gpus: int,
        arrival_tick: int,
        arrival_hash: int,
        seq: int,
        colocated: bool = False,
        account: int = 0,
        valid_until_tick: int = 0,
    ) -> int:
        check_bid(self._level_count, limit, gpus, min_gpus, colocated)
        check_arrival(arrival_tick, arrival_hash, seq)
        check_validity(account, valid_until_tick)
        handle = self._take_handle()
        arrival = (arrival_tick, arrival_hash, seq)
        self._bids[handle] = _Bid(limit, gpus, min_gpus, arrival, colocated, account, valid_until_tick)
        return handle

    def place_bids(
        self,
        limits: NDArray[np.int32],
        gpus: NDArray[np.int32],
        min_gpus: NDArray[np.int32],
        arrival_hashes: NDArray[np.uint32],
        *,
        arrival_tick: int,
        first_seq: int,
        accounts: NDArray[np.int32] | None = None,
        valid_until_ticks: NDArray[np.int32] | None = None,
        colocated: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.int32]:
        zeros = [0] * len(limits)
        columns: list[Sequence[int]] = [
            zeros if column is None else column.tolist()
            for column in (limits, gpus, min_gpus, arrival_hashes, accounts, valid_until_ticks, colocated)
        ]
        rows = list(zip(*columns, strict=True))
        for limit, count, minimum, arrival_hash, account, valid_until, is_colocated in rows:
            check_bid(self._level_count, limit, count, minimum, bool(is_colocated))
            check_arrival(arrival_tick, arrival_hash, first_seq)
            check_validity(account, valid_until)
        handles = [
            self.place_bid(
                limit, count, minimum, arrival_tick, arrival_hash, first_seq + i,
                bool(is_colocated), account, valid_until,
            )
            for i, (limit, count, minimum, arrival_hash, account, valid_until, is_colocated)
            in enumerate(rows)
        ]  # fmt: skip
        return np.array(handles, dtype=np.int32)

    def amend_bid(self, handle: int, limit: int, gpus: int, min_gpus: int) -> None:
        bid = self._bids[handle]
        check_bid(self._level_count, limit, gpus, min_gpus, bid.is_colocated)
        bid.limit, bid.gpus, bid.min_gpus = limit, gpus, min_gpus

    def set_held(self, handle: int, held: int) -> None:
        check_held(held)
        self._bids[handle].held = held

    def set_held_many(self, handles: NDArray[np.int32], held: NDArray[np.int32]) -> None:
        """Hold many; all handles and counts are checked before any is set. One named twice is refused."""
        if len(handles) != len(held):
            raise ValueError("the columns differ in length")
        for gpus in held.tolist():
            check_held(gpus)
        self._check_handles(handles)
        for handle, gpus in zip(handles.tolist(), held.tolist(), strict=True):
            self.set_held(handle, gpus)

    def cancel_bid(self, handle: int) -> None:
        del self._bids[handle]
        self._fills.pop(handle, None)

    def cancel_bids(self, handles: NDArray[np.int32]) -> None:
        """Cancel bids; all handles are checked before any is cancelled. One named twice is refused."""
        self._check_handles(handles)
        for handle in handles.tolist():
            self.cancel_bid(handle)

    def _check_handles(self, handles: NDArray[np.int32]) -> None:
        known = set(self._bids)
        for handle in handles.tolist():
            known.remove(handle)

    def expired(self, tick: int) -> list[int]:
        """Return the bids whose last valid tick is over, each of them once."""
        over = [handle for handle, bid in self._bids.items() if 0 < bid.valid_until_tick < tick]
        for handle in over:
            self._bids[handle].valid_until_tick = 0
        return over

    def place_offer(self, reserve: int, gpus: int, node: int = NONE, domain: int = NONE) -> int:
        check_offer(self._level_count, reserve, gpus)
        check_place(node, domain)
        handle = self._take_handle()
        self._offers[handle] = Offer(reserve, gpus, node, domain)
        return handle

    def amend_offer(self, handle: int, reserve: int, gpus: int) -> None:
        check_offer(self._level_count, reserve, gpus)
        offer = self._offers[handle]
        offer.reserve, offer.gpus = reserve, gpus

    def cancel_offer(self, handle: int) -> None:
        del self._offers[handle]

    # -- the auction ------------------------------------------------------------------------------

    def clear(self) -> Clearing:
        """Clear the market: accept lots in rank order, then set one price for all."""
        supply = Supply(self._offers.values())
        self._last = solution = self._refine(supply, self._solve(supply, excluded=None))
        fills = self._fills_of(solution)
        changed = [handle for handle in fills if fills[handle] != self._fills.get(handle, 0)]
        self._fills = fills
        price, sold, units = solution.price, solution.sold, supply.units[1]
        unsold = [reserve for reserve in units[sold:] if reserve <= price]
        return Clearing(
            price=price,
            low=solution.low,
            high=solution.high,
            ceil=solution.ceil,
            floor=solution.floor,
            entry=self._entry(supply, solution),
            sold=sold,
            offered=len(units),
            demanded=sum(bid.gpus for bid in self._bids.values()),
            bid_count=len(self._bids),
            offer_count=len(self._offers),
            not_fitted=sum(self.explain(handle).reason is Reason.NO_FIT for handle in self._bids),
            idle_below_price=len(unsold),
            value=sum(self._bids[handle].limit * fill for handle, fill in fills.items()),
            cost=sum(units[:sold]),
            lp_bound=self._lp_bound(units),
            handles=np.array(changed, dtype=np.int32),
            fills=np.array([fills[handle] for handle in changed], dtype=np.int32),
        )

    def _solve(self, supply: Supply, excluded: int | None) -> _Solution:
        """Accept (R5) and price (R6) everything but the excluded bid."""
        solution = _Solution(self._lots(excluded))
        self._accept(supply, solution)
        if solution.sold == 0:
            return solution
        floor = solution.floor = supply.floor(solution.used)
        wanting = [
            lot for lot in solution.lots if lot.has_unserved_divisible and _base_is_full(lot, solution.lots)
        ]
        unsold = self._cheapest_unsold(supply, solution)
        solution.low = max([floor, *(lot.rank for lot in wanting)])
        solution.high = solution.ceil if unsold is None else min(solution.ceil, unsold)
        solution.price = min(solution.high, max([floor, *(lot.limit for lot in wanting)]))
        if self._price_position_bps is not None:  # X8
            span = solution.high - solution.low
            solution.price = solution.low + span * self._price_position_bps // 10_000
        return solution

    def _accept(self, supply: Supply, solution: _Solution) -> None:
        """R5: each lot fits or is skipped, and the scan goes on."""
        ceil = self._level_count
        used = dict.fromkeys(CHAIN, 0)
        full: set[int] = set()  # bids whose base lot is fully served
        for lot in solution.lots:
            top = min(lot.limit, ceil)
            lot.usable = supply.usable(used, top, lot.size)
            if lot.number == 1 and lot.handle not in full:
                continue
            fill = min(lot.gpus, lot.usable)
            if fill < lot.min_gpus:
                continue
            lot.fill = fill
            used[lot.size] += fill // lot.size
            solution.sold += fill
            solution.ceil = ceil = top
            if lot.number == 0 and fill == lot.gpus:
                full.add(lot.handle)
        solution.used = used

    def _refine(self, supply: Supply, base: _Solution) -> _Solution:
        """X7: a thin market is cleared again without each of the last accepted gangs; the best run stays.

        Ties go to fewer interruptions, then to the base run, then to the gang accepted last. A run in
        which the gang that was left out would still fit is no candidate: it was never in the way.
        """
        if len(self._bids) >= self._refine_below_bids:
            return base
        gangs = [lot for lot in base.lots if lot.fill and lot.number == 0 and lot.min_gpus > 1]
        best = base
        for gang in reversed(gangs[-REFINED_GANGS_MAX:]):
            candidate = self._solve(supply, excluded=gang.handle)
            top = min(gang.limit, candidate.ceil) if candidate.sold else gang.limit
            left_out = replace(gang, fill=0, usable=supply.usable(candidate.used, top, gang.size))
            if left_out.usable >= left_out.min_gpus:
                continue
            candidate.lots.append(left_out)
            if self._merit(supply, candidate) > self._merit(supply, best):
                best = candidate
        return best

    def _merit(self, supply: Supply, solution: _Solution) -> tuple[int, int]:
        """Welfare, then how few GPUs of incumbents are interrupted."""
        value = sum(lot.limit * lot.fill for lot in solution.lots)
        lost = sum(lot.gpus - lot.fill for lot in solution.lots if lot.is_incumbent)
        return value - sum(supply.units[1][: solution.sold]), -lost

    # -- lots and supply --------------------------------------------------------------------------

    def _discount(self, limit: int) -> int:
        """R3: a newcomer ranks as if its limit were lower by the handicap."""
        return limit * 10_000 // (10_000 + self._handicap_bps)

    def _lots(self, excluded: int | None) -> list[_Lot]:
        """R3: an incumbent's base lot and its expansion, or one newcomer's lot; in the order of R4."""
        lots = []
        for handle, bid in self._bids.items():
            if handle == excluded:
                continue
            rank = self._discount(bid.limit)
            size = bid.gpus if bid.is_colocated else 1
            if bid.held == 0:
                lots.append(
                    _Lot(handle, rank, False, bid.limit, bid.arrival, 0, bid.gpus, bid.min_gpus, size)
                )
                continue
            base = min(max(bid.held, bid.min_gpus), bid.gpus)
            lots.append(_Lot(handle, bid.limit, True, bid.limit, bid.arrival, 0, base, bid.min_gpus, size))
            if bid.gpus > base:
                lots.append(_Lot(handle, rank, False, bid.limit, bid.arrival, 1, bid.gpus - base, 1, 1))
        return sorted(lots, key=_Lot.order)

    # -- what is published ------------------------------------------------------------------------

    def _cheapest_unsold(self, supply: Supply, solution: _Solution) -> int | None:
        """The reserve at which one more GPU is for sale: never below what is used already."""
        units = supply.units[1]
        if solution.sold == len(units):
            return None
        return max(units[solution.sold], solution.floor)

    def _entry(self, supply: Supply, solution: _Solution) -> int:
        """R10: the exact price at which one more GPU is won next tick."""
        unsold = self._cheapest_unsold(supply, solution)
        if unsold is not None and (solution.sold == 0 or unsold <= solution.ceil):
            return max(unsold, 1)
        if solution.sold == 0:
            return NONE
        # The smallest L with discount(L) > ceil.
        entry = -(-(solution.ceil + 1) * (10_000 + self._handicap_bps) // 10_000)
        return entry if entry <= self._level_count else NONE

    def _lp_bound(self, units: list[int]) -> int:
        """The best of the divisible relaxation: dearest wishes meet cheapest units, while they gain."""
        wishes = sorted((bid.limit for bid in self._bids.values() for _ in range(bid.gpus)), reverse=True)
        return sum(max(0, limit - reserve) for limit, reserve in zip(wishes, units, strict=False))

    def _fills_of(self, solution: _Solution) -> dict[int, int]:
        fills = dict.fromkeys(self._bids, 0)
        for lot in solution.lots:
            fills[lot.handle] += lot.fill
        return fills

    def explain(self, handle: int) -> Outcome:
        """R7: what the last clearing gave this bid, and why not more."""
        bid = self._bids[handle]
        fill = self._fills.get(handle, 0)
        price = self._last.price
        base = next((lot for lot in self._last.lots if lot.handle == handle and lot.number == 0), None)
        if fill == bid.gpus:
            return Outcome(fill, Reason.FILLED, 0, 0)
        if base is not None and base.fill == 0 and base.min_gpus > 1 and bid.limit > price:
            return Outcome(fill, Reason.NO_FIT, base.min_gpus, base.usable)
        if price != NONE and bid.limit > price:
            return Outcome(fill, Reason.PROTECTED, 0, 0)
        return Outcome(fill, Reason.OUTBID, 0, 0)

    def probe(self, limit: int, gpus: int, min_gpus: int, colocated: bool = False) -> tuple[int, int]:
        """Return (fill, price) that a new bid, last to arrive, would get at the next tick."""
        check_bid(self._level_count, limit, gpus, min_gpus, colocated)
        last = max((bid.arrival[0] for bid in self._bids.values()), default=0)
        handle = self._take_handle()
        self._bids[handle] = _Bid(limit, gpus, min_gpus, (last + 1, 0, 0), colocated, 0, 0)
        solution = self._run()
        del self._bids[handle]
        return self._fill_in(solution, handle), solution.price

    def depth(self, level: int) -> tuple[int, int, int, int]:
        """Return GPUs wanted by ranks above a level, and from it up; offered below it, and up to it."""
        check_level(self._level_count, level)
        lots = self._lots(None)
        offers = self._offers.values()
        return (
            sum(lot.gpus for lot in lots if lot.rank > level),
            sum(lot.gpus for lot in lots if lot.rank >= level),
            sum(offer.gpus for offer in offers if offer.reserve < level),
            sum(offer.gpus for offer in offers if offer.reserve <= level),
        )

    def would_win(self, handle: int) -> int:
        """Return the lowest limit that fills this bid if nothing else changes, else NONE."""
        bid = self._bids[handle]
        limit = bid.limit
        for level in range(1, self._level_count + 1):
            bid.limit = level
            if self._fill_in(self._run(), handle) == bid.gpus:
                break
        else:
            level = NONE
        bid.limit = limit
        return level

    def _run(self) -> _Solution:
        supply = Supply(self._offers.values())
        return self._refine(supply, self._solve(supply, excluded=None))

    @staticmethod
    def _fill_in(solution: _Solution, handle: int) -> int:
        return sum(lot.fill for lot in solution.lots if lot.handle == handle)

    def _take_handle(self) -> int:
        self._next_handle += 1
        return self._next_handle - 1


def _base_is_full(lot: _Lot, lots: list[_Lot]) -> bool:
    """The expansion of a base lot that was not fully served never sets the price (R6)."""
    if lot.number == 0:
        return True
    return all(base.fill == base.gpus for base in lots if base.handle == lot.handle and base.number == 0)
