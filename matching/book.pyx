"""The compiled book and its clearing: the same contract as `reference`, to the last integer.

It decides who gets how many GPUs and the one price; it knows levels and counts, never money, names,
clocks or I/O. Supply is a Fenwick tree over price levels, so "how many GPUs at or below this price"
and "which level holds the n-th cheapest GPU" cost 17 steps. A clearing orders the lots and scans them
once; nothing outside this file knows how.

Bounds (matching/types.py) are checked at the Python boundary and trusted below it: sums of 2^20 GPUs
a bid over 2^31 bids stay under 2^51.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memset

from matching.types import (
    GPU_COUNT_MAX,
    HANDICAP_BPS_MAX,
    LEVEL_COUNT_MAX,
    Clearing,
    Outcome,
    Reason,
)

cdef extern from *:
    """
    #ifndef MATCHING_VERIFY
    #define MATCHING_VERIFY 0
    #endif
    """
    const bint MATCHING_VERIFY

cdef enum:
    NONE = -1
    FILLED = 0
    OUTBID = 1
    PROTECTED = 2
    NO_FIT = 3
    FIRST_CAPACITY = 64

cdef int64_t _GPU_COUNT_MAX = GPU_COUNT_MAX
cdef tuple _REASONS = (Reason.FILLED, Reason.OUTBID, Reason.PROTECTED, Reason.NO_FIT)


# -- supply: a Fenwick tree over levels ---------------------------------------------------------------

cdef void supply_add(int64_t* tree, int32_t top, int32_t level, int64_t gpus) noexcept nogil:
    cdef int32_t i = level + 1
    while i <= top:
        tree[i] += gpus
        i += i & -i


cdef int64_t supply_at_most(const int64_t* tree, int32_t level) noexcept nogil:
    """GPUs offered with reserve <= level."""
    cdef int32_t i = level + 1
    cdef int64_t gpus = 0
    while i > 0:
        gpus += tree[i]
        i -= i & -i
    return gpus


cdef int32_t supply_level_of(const int64_t* tree, int32_t top, int64_t unit) noexcept nogil:
    """Reserve level of the `unit`-th cheapest GPU, counted from 1; the caller knows that it exists."""
    cdef int32_t at = 0
    cdef int32_t step = top
    while step > 0:
        if at + step <= top and tree[at + step] < unit:
            at += step
            unit -= tree[at]
        step >>= 1
    return at


# -- lots: order and acceptance -----------------------------------------------------------------------

cdef int compare_lots(const void* left, const void* right) noexcept nogil:
    """R4: higher rank, incumbents, higher limit, arrival tick, keyed hash, sequence, lot number."""
    cdef const Lot* a = <const Lot*> left
    cdef const Lot* b = <const Lot*> right
    if a.rank != b.rank:
        return -1 if a.rank > b.rank else 1
    if a.is_newcomer != b.is_newcomer:
        return -1 if a.is_newcomer < b.is_newcomer else 1
    if a.limit != b.limit:
        return -1 if a.limit > b.limit else 1
    if a.arrival_tick != b.arrival_tick:
        return -1 if a.arrival_tick < b.arrival_tick else 1
    if a.arrival_hash != b.arrival_hash:
        return -1 if a.arrival_hash < b.arrival_hash else 1
    if a.seq != b.seq:
        return -1 if a.seq < b.seq else 1
    return <int> a.number - <int> b.number


cdef int64_t accept_lots(
    Lot* lots, int32_t count, int32_t* base_lots, const int64_t* supply, int32_t level_count,
    int32_t* ceil_out
) noexcept nogil:
    """R5: each lot fits or is skipped, and the scan goes on. Returns the GPUs sold."""
    cdef int64_t sold = 0
    cdef int64_t usable
    cdef int32_t ceil = level_count
    cdef int32_t i, top, fill
    cdef Lot* lot
    cdef Lot* base
    for i in range(count):
        lot = &lots[i]
        top = lot.limit if lot.limit < ceil else ceil
        usable = supply_at_most(supply, top) - sold
        if usable < 0:
            usable = 0
        if usable > 0x7FFFFFFF:
            usable = 0x7FFFFFFF
        lot.usable = <int32_t> usable
        if lot.number == 0:
            base_lots[lot.slot] = i
        else:
            base = &lots[base_lots[lot.slot]]
            if base.fill != base.gpus:
                continue
        fill = lot.gpus if lot.gpus < lot.usable else lot.usable
        if fill < lot.min_gpus:
            continue
        lot.fill = fill
        sold += fill
        ceil = top
    ceil_out[0] = ceil
    return sold


cdef void highest_wanting(
    const Lot* lots, int32_t count, const int32_t* base_lots, int32_t* rank_out, int32_t* limit_out
) noexcept nogil:
    """R6: highest rank and highest limit of the lots with unserved divisible quantity, or -1."""
    cdef int32_t i, rank = -1, limit = -1
    cdef const Lot* lot
    cdef const Lot* base
    for i in range(count):
        lot = &lots[i]
        if lot.fill == lot.gpus or (lot.min_gpus > 1 and lot.fill == 0):
            continue
        if lot.number == 1:
            base = &lots[base_lots[lot.slot]]
            if base.fill != base.gpus:
                continue
        if lot.rank > rank:
            rank = lot.rank
        if lot.limit > limit:
            limit = lot.limit
    rank_out[0] = rank
    limit_out[0] = limit


cdef inline int32_t discount(int32_t limit, int32_t handicap_bps) noexcept nogil:
    """R3: a newcomer ranks as if its limit were lower by the handicap."""
    return <int32_t> ((<int64_t> limit * 10000) // (10000 + handicap_bps))


@cython.final
cdef class Book:
    """Resting bids and offers of one market. Handles are slots that the book gives out and reuses."""

    def __cinit__(self, *, int64_t handicap_bps, int64_t level_count):
        self._bids = NULL
        self._offers = NULL
        self._supply = NULL
        self._lots = NULL
        self._base_lots = NULL
        self._bid_free = NONE
        self._offer_free = NONE
        if not 0 <= handicap_bps <= HANDICAP_BPS_MAX:
            raise ValueError(f"handicap_bps {handicap_bps} is outside 0..{HANDICAP_BPS_MAX}")
        if not 1 <= level_count <= LEVEL_COUNT_MAX:
            raise ValueError(f"level_count {level_count} is outside 1..{LEVEL_COUNT_MAX}")
        self._handicap_bps = <int32_t> handicap_bps
        self._level_count = <int32_t> level_count
        self._level_top = 1
        while self._level_top < self._level_count + 1:
            self._level_top *= 2
        self._supply = <int64_t*> malloc((self._level_top + 1) * sizeof(int64_t))
        if self._supply == NULL:
            raise MemoryError
        memset(self._supply, 0, (self._level_top + 1) * sizeof(int64_t))

    def __dealloc__(self):
        free(self._bids)
        free(self._offers)
        free(self._supply)
        free(self._lots)
        free(self._base_lots)

    # -- changes to the book --------------------------------------------------------------------------

    def place_bid(
        self, *, int64_t limit, int64_t gpus, int64_t min_gpus, int64_t arrival_tick,
        int64_t arrival_hash, int64_t seq
    ):
        self._check_bid(limit, gpus, min_gpus)
        if self._bid_free == NONE:
            self._grow_bids()
        cdef int32_t slot = self._bid_free
        cdef BidSlot* bid = &self._bids[slot]
        self._bid_free = bid.gpus
        bid.limit = <int32_t> limit
        bid.gpus = <int32_t> gpus
        bid.min_gpus = <int32_t> min_gpus
        bid.held = 0
        bid.arrival_tick = arrival_tick
        bid.arrival_hash = arrival_hash
        bid.seq = seq
        bid.last_fill = NONE
        self._bid_live += 1
        self._demanded += gpus
        return slot

    def amend_bid(self, int64_t handle, *, int64_t limit, int64_t gpus, int64_t min_gpus):
        self._check_bid(limit, gpus, min_gpus)
        cdef BidSlot* bid = self._bid(handle)
        self._demanded += gpus - bid.gpus
        bid.limit = <int32_t> limit
        bid.gpus = <int32_t> gpus
        bid.min_gpus = <int32_t> min_gpus

    def set_held(self, int64_t handle, int64_t held):
        if not 0 <= held <= _GPU_COUNT_MAX:
            raise ValueError(f"held {held} is outside 0..{GPU_COUNT_MAX}")
        self._bid(handle).held = <int32_t> held

    def cancel_bid(self, int64_t handle):
        cdef BidSlot* bid = self._bid(handle)
        self._demanded -= bid.gpus
        self._bid_live -= 1
        bid.limit = 0
        bid.gpus = self._bid_free
        self._bid_free = <int32_t> handle

    def place_offer(self, *, int64_t reserve, int64_t gpus):
        self._check_offer(reserve, gpus)
        if self._offer_free == NONE:
            self._grow_offers()
        cdef int32_t slot = self._offer_free
        self._offer_free = self._offers[slot].reserve
        self._offers[slot].reserve = <int32_t> reserve
        self._offers[slot].gpus = <int32_t> gpus
        self._offer_live += 1
        self._offered += gpus
        supply_add(self._supply, self._level_top, <int32_t> reserve, gpus)
        return slot

    def amend_offer(self, int64_t handle, *, int64_t reserve, int64_t gpus):
        self._check_offer(reserve, gpus)
        cdef OfferSlot* offer = self._offer(handle)
        supply_add(self._supply, self._level_top, offer.reserve, -offer.gpus)
        supply_add(self._supply, self._level_top, <int32_t> reserve, gpus)
        self._offered += gpus - offer.gpus
        offer.reserve = <int32_t> reserve
        offer.gpus = <int32_t> gpus

    def cancel_offer(self, int64_t handle):
        cdef OfferSlot* offer = self._offer(handle)
        supply_add(self._supply, self._level_top, offer.reserve, -offer.gpus)
        self._offered -= offer.gpus
        self._offer_live -= 1
        offer.gpus = 0
        offer.reserve = self._offer_free
        self._offer_free = <int32_t> handle

    # -- the auction ----------------------------------------------------------------------------------

    def clear(self):
        """Clear the market: accept lots in rank order, then set one price for all."""
        self._reserve_lots()
        cdef int32_t count = 0, ceil = 0, rank = 0, limit = 0
        cdef int32_t price = NONE, low = NONE, high = NONE, floor = NONE, unsold = NONE
        cdef int64_t sold, below
        with nogil:
            count = self._fill_lots()
            qsort(self._lots, count, sizeof(Lot), compare_lots)
            sold = accept_lots(
                self._lots, count, self._base_lots, self._supply, self._level_count, &ceil
            )
            highest_wanting(self._lots, count, self._base_lots, &rank, &limit)
            if sold < self._offered:
                unsold = supply_level_of(self._supply, self._level_top, sold + 1)
            if sold > 0:
                floor = supply_level_of(self._supply, self._level_top, sold)
                low = floor if floor > rank else rank
                high = ceil if unsold == NONE or ceil < unsold else unsold
                price = floor if floor > limit else limit
                price = high if high < price else price
        if MATCHING_VERIFY:
            assert sold <= self._offered, "I1: sold more than is offered"
            assert price == NONE or (floor <= low <= price <= high <= ceil), "I3"
        below = supply_at_most(self._supply, price) - sold if price != NONE else 0
        changes, not_fitted = self._outcomes(count, price)
        return Clearing(
            price, low, high, ceil if sold > 0 else NONE, floor,
            self._entry(ceil if sold > 0 else NONE, unsold), sold, self._offered, self._demanded,
            self._bid_live, self._offer_live, not_fitted, below if below > 0 else 0, changes,
        )

    def probe(self, *, int64_t limit, int64_t gpus, int64_t min_gpus):
        """Return (fill, price) that a new bid, last to arrive, would get at the next tick."""
        cdef int64_t last = 0
        cdef int32_t slot, i, count, ceil = 0, rank = 0, wanting = 0, unsold, floor, price = NONE
        cdef int32_t high, fill = 0
        cdef int64_t sold
        for slot in range(self._bid_capacity):
            if self._bids[slot].limit != 0 and self._bids[slot].arrival_tick > last:
                last = self._bids[slot].arrival_tick
        handle = self.place_bid(
            limit=limit, gpus=gpus, min_gpus=min_gpus, arrival_tick=last + 1, arrival_hash=0, seq=0
        )
        slot = <int32_t> <int64_t> handle
        try:
            self._reserve_lots()
            count = self._fill_lots()
            qsort(self._lots, count, sizeof(Lot), compare_lots)
            sold = accept_lots(
                self._lots, count, self._base_lots, self._supply, self._level_count, &ceil
            )
            highest_wanting(self._lots, count, self._base_lots, &rank, &wanting)
            if sold > 0:
                floor = supply_level_of(self._supply, self._level_top, sold)
                high = ceil
                if sold < self._offered:
                    unsold = supply_level_of(self._supply, self._level_top, sold + 1)
                    high = unsold if unsold < ceil else ceil
                price = floor if floor > wanting else wanting
                price = high if high < price else price
            for i in range(count):
                if self._lots[i].slot == slot:
                    fill = self._lots[i].fill
        finally:
            self.cancel_bid(handle)
        return fill, price

    cdef int32_t _fill_lots(self) noexcept nogil:
        """R3: an incumbent's base lot and its expansion, or one newcomer's lot. Returns their count."""
        cdef int32_t slot, count = 0, base
        cdef BidSlot* bid
        cdef Lot* lot
        for slot in range(self._bid_capacity):
            bid = &self._bids[slot]
            if bid.limit == 0:
                continue
            lot = &self._lots[count]
            count += 1
            lot.slot = slot
            lot.limit = bid.limit
            lot.arrival_tick = bid.arrival_tick
            lot.arrival_hash = bid.arrival_hash
            lot.seq = bid.seq
            lot.fill = 0
            lot.usable = 0
            lot.number = 0
            if bid.held == 0:
                lot.is_newcomer = 1
                lot.rank = discount(bid.limit, self._handicap_bps)
                lot.gpus = bid.gpus
                lot.min_gpus = bid.min_gpus
                continue
            base = bid.held if bid.held > bid.min_gpus else bid.min_gpus
            base = base if base < bid.gpus else bid.gpus
            lot.is_newcomer = 0
            lot.rank = bid.limit
            lot.gpus = base
            lot.min_gpus = bid.min_gpus if bid.min_gpus < base else base
            if bid.gpus > base:
                self._lots[count] = lot[0]
                lot = &self._lots[count]
                count += 1
                lot.number = 1
                lot.is_newcomer = 1
                lot.rank = discount(bid.limit, self._handicap_bps)
                lot.gpus = bid.gpus - base
                lot.min_gpus = 1
        return count

    def _entry(self, int64_t ceil, int64_t unsold):
        """R10: the exact price at which one more GPU is won next tick; NONE when there is none."""
        cdef int64_t entry
        if unsold != NONE and (ceil == NONE or unsold <= ceil):
            return unsold if unsold > 1 else 1
        if ceil == NONE:
            return NONE
        entry = ((ceil + 1) * (10000 + self._handicap_bps) + 9999) // 10000
        return entry if entry <= self._level_count else NONE

    def _outcomes(self, int32_t count, int32_t price):
        """R7: what each bid got and why not more; only what differs from the last clearing."""
        cdef int32_t i, fill, needed, usable, not_fitted = 0
        cdef uint8_t reason
        cdef Lot* lot
        cdef Lot* base
        cdef BidSlot* bid
        cdef list changes = []
        # An expansion is always behind its base, so one pass adds it to the base's fill.
        for i in range(count):
            lot = &self._lots[i]
            bid = &self._bids[lot.slot]
            if lot.number == 1 or (bid.held > 0 and bid.gpus > lot.gpus):
                continue
            needed = usable = 0
            reason = _reason_of(lot, lot.fill, bid.gpus, price)
            if reason == NO_FIT:
                needed, usable = lot.min_gpus, lot.usable
                not_fitted += 1
            if _remember(bid, lot.fill, reason, needed, usable):
                changes.append(Outcome(lot.slot, lot.fill, _REASONS[reason], needed, usable))
        for i in range(count):
            lot = &self._lots[i]
            if lot.number == 0:
                continue
            bid = &self._bids[lot.slot]
            base = &self._lots[self._base_lots[lot.slot]]
            fill = base.fill + lot.fill
            needed = usable = 0
            reason = _reason_of(base, fill, bid.gpus, price)
            if reason == NO_FIT:
                needed, usable = base.min_gpus, base.usable
                not_fitted += 1
            if _remember(bid, fill, reason, needed, usable):
                changes.append(Outcome(lot.slot, fill, _REASONS[reason], needed, usable))
        changes.sort()
        return changes, not_fitted

    # -- bounds and growth ----------------------------------------------------------------------------

    cdef int _check_bid(self, int64_t limit, int64_t gpus, int64_t min_gpus) except -1:
        if not 1 <= limit <= self._level_count:
            raise ValueError(f"limit {limit} is outside 1..{self._level_count}")
        if not 1 <= gpus <= _GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
        if not 1 <= min_gpus <= gpus:
            raise ValueError(f"min_gpus {min_gpus} is outside 1..{gpus}")
        return 0

    cdef int _check_offer(self, int64_t reserve, int64_t gpus) except -1:
        if not 0 <= reserve <= self._level_count:
            raise ValueError(f"reserve {reserve} is outside 0..{self._level_count}")
        if not 1 <= gpus <= _GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
        return 0

    cdef BidSlot* _bid(self, int64_t handle) except NULL:
        if not 0 <= handle < self._bid_capacity or self._bids[handle].limit == 0:
            raise KeyError(handle)
        return &self._bids[handle]

    cdef OfferSlot* _offer(self, int64_t handle) except NULL:
        if not 0 <= handle < self._offer_capacity or self._offers[handle].gpus == 0:
            raise KeyError(handle)
        return &self._offers[handle]

    cdef int _grow_bids(self) except -1:
        cdef int32_t capacity = self._bid_capacity * 2 if self._bid_capacity else FIRST_CAPACITY
        cdef int32_t slot
        cdef BidSlot* bids = <BidSlot*> realloc(self._bids, <size_t> capacity * sizeof(BidSlot))
        if bids == NULL:
            raise MemoryError
        self._bids = bids
        for slot in range(capacity - 1, self._bid_capacity - 1, -1):
            bids[slot].limit = 0
            bids[slot].gpus = self._bid_free
            self._bid_free = slot
        self._bid_capacity = capacity
        return 0

    cdef int _grow_offers(self) except -1:
        cdef int32_t capacity = self._offer_capacity * 2 if self._offer_capacity else FIRST_CAPACITY
        cdef int32_t slot
        cdef OfferSlot* offers = <OfferSlot*> realloc(
            self._offers, <size_t> capacity * sizeof(OfferSlot)
        )
        if offers == NULL:
            raise MemoryError
        self._offers = offers
        for slot in range(capacity - 1, self._offer_capacity - 1, -1):
            offers[slot].gpus = 0
            offers[slot].reserve = self._offer_free
            self._offer_free = slot
        self._offer_capacity = capacity
        return 0

    cdef int _reserve_lots(self) except -1:
        """Make room for two lots a slot."""
        cdef Lot* lots
        cdef int32_t* base_lots
        if self._lot_capacity < self._bid_capacity:
            lots = <Lot*> realloc(self._lots, <size_t> self._bid_capacity * 2 * sizeof(Lot))
            if lots == NULL:
                raise MemoryError
            self._lots = lots
            base_lots = <int32_t*> realloc(
                self._base_lots, <size_t> self._bid_capacity * sizeof(int32_t)
            )
            if base_lots == NULL:
                raise MemoryError
            self._base_lots = base_lots
            self._lot_capacity = self._bid_capacity
        return 0


cdef uint8_t _reason_of(const Lot* base, int32_t fill, int32_t gpus, int32_t price) noexcept nogil:
    if fill == gpus:
        return FILLED
    if base.fill == 0 and base.min_gpus > 1 and base.limit > price:
        return NO_FIT
    if price != NONE and base.limit > price:
        return PROTECTED
    return OUTBID


cdef bint _remember(
    BidSlot* bid, int32_t fill, uint8_t reason, int32_t needed, int32_t usable
) noexcept nogil:
    """Store the bid's outcome; say whether it differs from the last one."""
    if (bid.last_fill == fill and bid.last_reason == reason and bid.last_needed == needed
            and bid.last_usable == usable):
        return False
    bid.last_fill = fill
    bid.last_reason = reason
    bid.last_needed = needed
    bid.last_usable = usable
    return True
