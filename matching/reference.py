"""The clearing rule in plain Python: the specification to read, and the oracle of the tests.

This is RULES.md R3 to R7 and R10 line by line. It clears from scratch with a sort and a scan, has no
cleverness, and is never a fallback for the compiled kernel: a broken build must be loud. Read
`Book.clear` first; it is the whole auction.

Invariants: every winner's limit >= price >= every used reserve; one price; the order of acceptance
depends on nothing but (rank, incumbency, limit, arrival tick, arrival hash, sequence, lot number).
"""

from dataclasses import dataclass

from matching.types import (
    GPU_COUNT_MAX,
    HANDICAP_BPS_MAX,
    LEVEL_COUNT_MAX,
    NONE,
    Clearing,
    Outcome,
    Reason,
)


@dataclass(slots=True)
class _Bid:
    limit: int
    gpus: int
    min_gpus: int
    arrival: tuple[int, int, int]  # tick, hash, sequence
    held: int = 0  # GPUs that rank as an incumbent's
    last: tuple[int, Reason, int, int] | None = None  # what the last clearing said


@dataclass(slots=True)
class _Offer:
    reserve: int
    gpus: int


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
    fill: int = 0
    usable: int = 0  # units that were left at its turn

    def order(self) -> tuple[int, bool, int, tuple[int, int, int], int]:
        """R4: rank, then incumbents, then limit, then arrival with its keyed hash, then lot number."""
        return (-self.rank, not self.is_incumbent, -self.limit, self.arrival, self.number)

    @property
    def has_unserved_divisible(self) -> bool:
        """A lot that could have used one GPU more; a gang that got nothing could not."""
        return self.fill < self.gpus and (self.min_gpus == 1 or self.fill > 0)


class Book:
    """Resting bids and offers of one market. Handles are small integers that the book gives out."""

    def __init__(self, *, handicap_bps: int, level_count: int) -> None:
        if not 0 <= handicap_bps <= HANDICAP_BPS_MAX:
            raise ValueError(f"handicap_bps {handicap_bps} is outside 0..{HANDICAP_BPS_MAX}")
        if not 1 <= level_count <= LEVEL_COUNT_MAX:
            raise ValueError(f"level_count {level_count} is outside 1..{LEVEL_COUNT_MAX}")
        self._handicap_bps = handicap_bps
        self._level_count = level_count
        self._bids: dict[int, _Bid] = {}
        self._offers: dict[int, _Offer] = {}
        self._next_handle = 0

    # -- changes to the book ----------------------------------------------------------------------

    def place_bid(
        self, *, limit: int, gpus: int, min_gpus: int, arrival_tick: int, arrival_hash: int, seq: int
    ) -> int:
        self._check_bid(limit, gpus, min_gpus)
        handle = self._take_handle()
        self._bids[handle] = _Bid(limit, gpus, min_gpus, (arrival_tick, arrival_hash, seq))
        return handle

    def amend_bid(self, handle: int, *, limit: int, gpus: int, min_gpus: int) -> None:
        self._check_bid(limit, gpus, min_gpus)
        bid = self._bids[handle]
        bid.limit, bid.gpus, bid.min_gpus = limit, gpus, min_gpus

    def set_held(self, handle: int, held: int) -> None:
        if not 0 <= held <= GPU_COUNT_MAX:
            raise ValueError(f"held {held} is outside 0..{GPU_COUNT_MAX}")
        self._bids[handle].held = held

    def cancel_bid(self, handle: int) -> None:
        del self._bids[handle]

    def place_offer(self, *, reserve: int, gpus: int) -> int:
        self._check_offer(reserve, gpus)
        handle = self._take_handle()
        self._offers[handle] = _Offer(reserve, gpus)
        return handle

    def amend_offer(self, handle: int, *, reserve: int, gpus: int) -> None:
        self._check_offer(reserve, gpus)
        self._offers[handle] = _Offer(reserve, gpus)

    def cancel_offer(self, handle: int) -> None:
        del self._offers[handle]

    # -- the auction ------------------------------------------------------------------------------

    def clear(self) -> Clearing:
        """Clear the market: accept lots in rank order, then set one price for all."""
        lots = self._lots()
        sold, ceil = self._accept(lots)

        reserves = sorted(unit for offer in self._offers.values() for unit in [offer.reserve] * offer.gpus)
        cheapest_unsold = reserves[sold] if sold < len(reserves) else None
        if sold == 0:
            price = low = high = floor = NONE
        else:
            floor = reserves[sold - 1]
            wanting = [lot for lot in lots if lot.has_unserved_divisible and self._base_is_full(lot, lots)]
            low = max([floor, *(lot.rank for lot in wanting)])
            high = ceil if cheapest_unsold is None else min(ceil, cheapest_unsold)
            price = min(high, max([floor, *(lot.limit for lot in wanting)]))

        entry = self._entry(ceil if sold else None, cheapest_unsold)
        outcomes = self._outcomes(lots, price)
        changes = []
        for outcome in outcomes:
            bid = self._bids[outcome.handle]
            if bid.last != outcome[1:]:
                bid.last = outcome[1:]
                changes.append(outcome)
        return Clearing(
            price=price,
            low=low,
            high=high,
            ceil=ceil if sold else NONE,
            floor=floor,
            entry=entry,
            sold=sold,
            offered=len(reserves),
            demanded=sum(bid.gpus for bid in self._bids.values()),
            bid_count=len(self._bids),
            offer_count=len(self._offers),
            not_fitted=sum(outcome.reason is Reason.NO_FIT for outcome in outcomes),
            idle_below_price=sum(reserve <= price for reserve in reserves[sold:]),
            changes=changes,
        )

    def probe(self, *, limit: int, gpus: int, min_gpus: int) -> tuple[int, int]:
        """Return (fill, price) that a new bid, last to arrive, would get at the next tick."""
        last = max((bid.arrival for bid in self._bids.values()), default=(0, 0, 0))
        arrival = (last[0] + 1, 0, 0)
        self._check_bid(limit, gpus, min_gpus)
        handle = self._take_handle()
        saved = {key: bid.last for key, bid in self._bids.items()}
        self._bids[handle] = _Bid(limit, gpus, min_gpus, arrival)
        clearing = self.clear()
        fill = next(outcome.fill for outcome in clearing.changes if outcome.handle == handle)
        del self._bids[handle]
        for key, value in saved.items():
            self._bids[key].last = value
        return fill, clearing.price

    def _discount(self, limit: int) -> int:
        """R3: a newcomer ranks as if its limit were lower by the handicap."""
        return limit * 10_000 // (10_000 + self._handicap_bps)

    def _lots(self) -> list[_Lot]:
        """R3: an incumbent's base lot and its expansion, or one newcomer's lot; in the order of R4."""
        lots = []
        for handle, bid in self._bids.items():
            if bid.held > 0:
                base = min(max(bid.held, bid.min_gpus), bid.gpus)
                lots.append(
                    _Lot(handle, bid.limit, True, bid.limit, bid.arrival, 0, base, min(bid.min_gpus, base))
                )
                if bid.gpus > base:
                    rank = self._discount(bid.limit)
                    lots.append(_Lot(handle, rank, False, bid.limit, bid.arrival, 1, bid.gpus - base, 1))
            else:
                rank = self._discount(bid.limit)
                lots.append(_Lot(handle, rank, False, bid.limit, bid.arrival, 0, bid.gpus, bid.min_gpus))
        return sorted(lots, key=_Lot.order)

    def _accept(self, lots: list[_Lot]) -> tuple[int, int]:
        """R5: each lot fits or is skipped, and the scan goes on. Returns (GPUs sold, ceil)."""
        sold = 0
        ceil = self._level_count
        full: set[int] = set()  # bids whose base lot is fully served
        for lot in lots:
            top = min(lot.limit, ceil)
            lot.usable = max(0, self._supply_at_most(top) - sold)
            if lot.number == 1 and lot.handle not in full:
                continue
            fill = min(lot.gpus, lot.usable)
            if fill < lot.min_gpus:
                continue
            lot.fill = fill
            sold += fill
            ceil = top
            if lot.number == 0 and fill == lot.gpus:
                full.add(lot.handle)
        return sold, ceil

    def _supply_at_most(self, level: int) -> int:
        return sum(offer.gpus for offer in self._offers.values() if offer.reserve <= level)

    @staticmethod
    def _base_is_full(lot: _Lot, lots: list[_Lot]) -> bool:
        """The expansion of a base lot that was not fully served never sets the price (R6)."""
        if lot.number == 0:
            return True
        return all(base.fill == base.gpus for base in lots if base.handle == lot.handle and base.number == 0)

    def _entry(self, ceil: int | None, cheapest_unsold: int | None) -> int:
        """R10: the exact price at which one more GPU is won next tick."""
        if cheapest_unsold is not None and (ceil is None or cheapest_unsold <= ceil):
            return max(cheapest_unsold, 1)
        if ceil is None:
            return NONE
        # The smallest L with discount(L) > ceil.
        entry = -(-(ceil + 1) * (10_000 + self._handicap_bps) // 10_000)
        return entry if entry <= self._level_count else NONE

    def _outcomes(self, lots: list[_Lot], price: int) -> list[Outcome]:
        """R7: what each bid got, and why not more; in order of handles."""
        by_bid: dict[int, list[_Lot]] = {}
        for lot in lots:
            by_bid.setdefault(lot.handle, []).append(lot)
        outcomes = []
        for handle in sorted(by_bid):
            bid_lots = sorted(by_bid[handle], key=lambda lot: lot.number)
            fill = sum(lot.fill for lot in bid_lots)
            base, limit = bid_lots[0], bid_lots[0].limit
            needed = usable = 0
            if fill == sum(lot.gpus for lot in bid_lots):
                reason = Reason.FILLED
            elif base.fill == 0 and base.min_gpus > 1 and limit > price:
                reason, needed, usable = Reason.NO_FIT, base.min_gpus, base.usable
            elif price != NONE and limit > price:
                reason = Reason.PROTECTED
            else:
                reason = Reason.OUTBID
            outcomes.append(Outcome(handle, fill, reason, needed, usable))
        return outcomes

    # -- bounds -----------------------------------------------------------------------------------

    def _take_handle(self) -> int:
        self._next_handle += 1
        return self._next_handle - 1

    def _check_bid(self, limit: int, gpus: int, min_gpus: int) -> None:
        if not 1 <= limit <= self._level_count:
            raise ValueError(f"limit {limit} is outside 1..{self._level_count}")
        if not 1 <= gpus <= GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
        if not 1 <= min_gpus <= gpus:
            raise ValueError(f"min_gpus {min_gpus} is outside 1..{gpus}")

    def _check_offer(self, reserve: int, gpus: int) -> None:
        if not 0 <= reserve <= self._level_count:
            raise ValueError(f"reserve {reserve} is outside 0..{self._level_count}")
        if not 1 <= gpus <= GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
