"""The compiled book and its clearing: the same contract as `reference`, to the last integer.

It decides who gets how many GPUs and the one price; it knows levels and counts, never money, names,
clocks or I/O. This file is what Python sees: bounds are checked here and trusted below. The layout is
in layout.pxd, the bids and their sums in ladder.pxd, the clearing itself in scan.pxd; matching/README.md
draws them. A clearing costs what has changed since the last one, not what rests in the book.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

import numpy as np

from matching.finder cimport Finder
from matching.ladder cimport (
    Ladder,
    base_gpus,
    bid_enter,
    bid_leave,
    bids_reserve,
    chunk_for,
    chunk_lots,
    is_before,
    ladder_fold,
    lots_reserve,
    lot_family,
    lot_gpus,
)
from matching.layout cimport (
    CHUNK_LOTS,
    INCUMBENT,
    NEWCOMER,
    NONE,
    SIZES,
    Arrival,
    Bid,
    Chunk,
    Edge,
    Exception_,
    Level,
    Room,
    SizeCounts,
    Solution,
    Sum,
    UnitSum,
    prefetch,
)
from matching.scan cimport (
    comes_first,
    gangs_unserved,
    lot_is_before,
    lp_bound,
    need_add,
    next_level,
    scan,
    wanted_from,
)
from matching.sums cimport counts_add, unit_add, unit_gpus
from matching.supply cimport Supply, supply_room

from matching.nodes import NodeItems
from matching.types import (
    CHAIN,
    GPU_COUNT_MAX,
    HASH_MAX,
    REFINED_GANGS_MAX,
    SEQ_MAX,
    TICK_MAX,
    Clearing,
    Outcome,
    Reason,
)
from matching.validation import check_book, check_offer

cdef extern from *:
    """
    #ifndef MATCHING_VERIFY
    #define MATCHING_VERIFY 0
    #endif
    """
    const bint MATCHING_VERIFY

cdef enum:
    BATCH = 1024           # bids placed between two looks at the room left
    AHEAD = 12             # bids that a bulk call prefetches ahead
    SORTED_BULK = 65536    # bids placed at once are put in the order of arrival first
    KEPT_SLOTS = 65536     # of a scratch array that stays allocated between clearings

cdef int64_t _GPU_COUNT_MAX = GPU_COUNT_MAX
cdef int64_t _TICK_MAX = TICK_MAX
cdef int64_t _HASH_MAX = HASH_MAX
cdef int64_t _SEQ_MAX = SEQ_MAX
cdef int32_t _REFINED_GANGS_MAX = REFINED_GANGS_MAX
cdef object _no_changes = np.empty(0, dtype=np.int32)
_no_changes.flags.writeable = False


@cython.final
cdef class Book:
    """Resting bids and offers of one market. Handles are slots that the book gives out and reuses."""

    def __cinit__(
        self, *, handicap_bps, level_count, refine_below_bids=0, price_position_bps=None
    ):
        cdef int32_t family, depth, count
        check_book(handicap_bps, level_count, refine_below_bids, price_position_bps)
        self._refine_below_bids = refine_below_bids
        self._price_position_bps = NONE if price_position_bps is None else price_position_bps
        self._ladder.handicap_bps = handicap_bps
        self._ladder.level_count = level_count
        self._ladder.bid_free = NONE
        self._offer_free = NONE
        self._ladder.top = 1
        while self._ladder.top < self._ladder.level_count + 1:
            self._ladder.top *= 2
        self._supply.top = self._ladder.top
        # calloc leaves untouched levels without memory.
        self._supply.units = <UnitSum*> calloc(self._supply.top + 1, sizeof(UnitSum))
        if self._supply.units == NULL:
            raise MemoryError
        for family in range(2):
            self._ladder.levels[family] = <Level*> calloc(self._ladder.level_count + 1, sizeof(Level))
            self._ladder.sums[family] = <Sum*> calloc(self._ladder.top + 1, sizeof(Sum))
            if self._ladder.levels[family] == NULL or self._ladder.sums[family] == NULL:
                raise MemoryError
            finder_new(&self._ladder.easy[family], self._ladder.level_count + 1)
        for family in range(2):
            self._published.edge[family].limit = self._ladder.level_count + 1
            self._published.edge[family].is_whole = True
        self._published.price = self._published.ceil = NONE
        self._published.excluded = NONE

    def __dealloc__(self):
        cdef int32_t family
        for family in range(2):
            free(self._ladder.levels[family])
            free(self._ladder.sums[family])
            free(self._ladder.sizes[family])
            finder_free(&self._ladder.easy[family])
            finder_free(&self._ladder.colocated[family])
        free(self._ladder.bids)
        free(self._ladder.arrivals)
        free(self._ladder.chunks)
        free(self._ladder.lots)
        free(self._ladder.unfolded)
        free(self._supply.units)
        free(self._supply.sizes)
        free(self._run.exceptions)
        free(self._published.exceptions)
        free(self._offers)
        free(self._touched)
        free(self._expiries)
        free(self._changed)

    def __sizeof__(self):
        """Bytes that hold bids, offers and their order: what has been used, not what is reserved."""
        cdef int64_t size = sizeof(Ladder) + sizeof(Supply) + 2 * sizeof(Solution)
        size += <int64_t> self._ladder.bid_end * (sizeof(Bid) + sizeof(Arrival))
        size += <int64_t> self._ladder.chunk_end * (sizeof(Chunk) + CHUNK_LOTS * sizeof(int32_t))
        size += <int64_t> self._ladder.unfolded_capacity * sizeof(int32_t)
        size += 2 * <int64_t> self._ladder.level_count * (sizeof(Level) + sizeof(Sum) + 5)
        size += <int64_t> self._ladder.level_count * sizeof(UnitSum)
        if self._items is not None:
            size += 3 * <int64_t> self._ladder.level_count * sizeof(SizeCounts)
        size += (<int64_t> self._touched_capacity + self._changed_capacity) * sizeof(int32_t)
        size += <int64_t> self._expiry_count * sizeof(Expiry)
        size += <int64_t> self._offer_capacity * sizeof(OfferSlot)
        return size

    # -- bids -----------------------------------------------------------------------------------------

    def place_bid(
        self, int64_t limit, int64_t gpus, int64_t min_gpus, int64_t arrival_tick,
        int64_t arrival_hash, int64_t seq, bint colocated=False, int64_t account=0,
        int64_t valid_until_tick=0,
    ):
        cdef int32_t slot
        self._check_bid(limit, gpus, min_gpus, colocated)
        check_arrival(arrival_tick, arrival_hash, seq)
        check_validity(account, valid_until_tick)
        if colocated and self._items is None:
            self._pack()
        self._reserve(1, 1)
        slot = self._place(
            <int32_t> limit, <int32_t> gpus, <int32_t> min_gpus, arrival_tick, arrival_hash, seq,
            colocated, <int32_t> account, <int32_t> valid_until_tick,
        )
        if valid_until_tick:
            self._expire_at(<int32_t> valid_until_tick, slot)
        return slot

    def place_bids(
        self,
        const int32_t[::1] limits,
        const int32_t[::1] gpus,
        const int32_t[::1] min_gpus,
        const uint32_t[::1] arrival_hashes,
        *,
        int64_t arrival_tick,
        int64_t first_seq,
        const int32_t[::1] accounts=None,
        const int32_t[::1] valid_until_ticks=None,
        const uint8_t[::1] colocated=None,
    ):
        """Place bids from columns of one length; all are checked before any is placed."""
        cdef Py_ssize_t count = limits.shape[0], i, end
        cdef const int64_t[::1] order = None
        cdef bint any_colocated = False
        cdef int32_t slot
        if (
            gpus.shape[0] != count or min_gpus.shape[0] != count or arrival_hashes.shape[0] != count
            or (accounts is not None and accounts.shape[0] != count)
            or (valid_until_ticks is not None and valid_until_ticks.shape[0] != count)
            or (colocated is not None and colocated.shape[0] != count)
        ):
            raise ValueError("the columns differ in length")
        check_arrival(arrival_tick, 0, first_seq)
        check_arrival(arrival_tick, 0, first_seq + count)
        for i in range(count):
            self._check_bid(
                limits[i], gpus[i], min_gpus[i], colocated is not None and colocated[i] != 0
            )
            check_validity(
                accounts[i] if accounts is not None else 0,
                valid_until_ticks[i] if valid_until_ticks is not None else 0,
            )
            any_colocated = any_colocated or (colocated is not None and colocated[i] != 0)
        if any_colocated and self._items is None:
            self._pack()
        handles = np.empty(count, dtype=np.int32)
        cdef int32_t[::1] out = handles
        if count >= SORTED_BULK:
            order = np.argsort(arrival_hashes, kind="stable")
        for i in range(0, count, BATCH):
            end = i + BATCH if i + BATCH < count else count
            self._reserve(end - i, end - i)
            with nogil:
                self._place_some(
                    i, end, limits, gpus, min_gpus, arrival_hashes, arrival_tick, first_seq, accounts,
                    valid_until_ticks, colocated, order, out,
                )
        if valid_until_ticks is not None:
            for i in range(count):
                if valid_until_ticks[i]:
                    self._expire_at(valid_until_ticks[i], out[i])
        return handles

    cdef void _place_some(
        self, Py_ssize_t i, Py_ssize_t end, const int32_t[::1] limits, const int32_t[::1] gpus,
        const int32_t[::1] min_gpus, const uint32_t[::1] arrival_hashes, int64_t arrival_tick,
        int64_t first_seq, const int32_t[::1] accounts, const int32_t[::1] valid_until_ticks,
        const uint8_t[::1] colocated, const int64_t[::1] order, int32_t[::1] out
    ) noexcept nogil:
        """Place bids i to end of the columns, in the order of arrival if that is given."""
        cdef int32_t tail
        cdef Py_ssize_t at, row
        for at in range(i, end):
            row = at if order is None else order[at]
            if order is None and at + AHEAD < end:
                prefetch(&self._ladder.levels[NEWCOMER][limits[at + AHEAD]])
                tail = self._ladder.levels[NEWCOMER][limits[at + AHEAD // 2]].tail
                prefetch(&self._ladder.chunks[tail])
                prefetch(chunk_lots(&self._ladder, tail))
            out[row] = self._place(
                limits[row], gpus[row], min_gpus[row], arrival_tick, arrival_hashes[row], first_seq + row,
                colocated is not None and colocated[row] != 0,
                accounts[row] if accounts is not None else 0,
                valid_until_ticks[row] if valid_until_ticks is not None else 0,
            )

    def amend_bid(self, int64_t handle, int64_t limit, int64_t gpus, int64_t min_gpus):
        cdef int32_t slot = self._bid(handle)
        cdef Bid* bid = &self._ladder.bids[slot]
        self._check_bid(limit, gpus, min_gpus, bid.is_colocated)
        self._reserve(1, 2)
        bid = &self._ladder.bids[slot]
        bid_leave(&self._ladder, slot)
        self._ladder.demanded += gpus - <int64_t> bid.gpus
        bid.limit = limit
        bid.gpus = gpus
        bid.min_gpus = min_gpus
        bid_enter(&self._ladder, slot)
        self._touch(slot)

    def set_held(self, int64_t handle, int64_t held):
        cdef int32_t slot = self._bid(handle)
        check_held(held)
        self._reserve(1, 2)
        self._hold(slot, <int32_t> held)

    def set_held_many(self, const int32_t[::1] handles, const int32_t[::1] held):
        """`set_held` from columns of one length; all are checked before any is changed."""
        cdef Py_ssize_t count = handles.shape[0], i
        if held.shape[0] != count:
            raise ValueError("the columns differ in length")
        self._check_handles(handles)
        for i in range(count):
            check_held(held[i])
        for i in range(count):
            if i % BATCH == 0:
                self._reserve(BATCH, 2 * BATCH)
            if i + AHEAD < count:
                prefetch(&self._ladder.bids[handles[i + AHEAD]])
                prefetch(&self._ladder.arrivals[handles[i + AHEAD]])
            self._hold(handles[i], held[i])

    def cancel_bid(self, int64_t handle):
        cdef int32_t slot = self._bid(handle)
        self._reserve(0, 2)
        self._cancel(slot)

    def cancel_bids(self, const int32_t[::1] handles):
        """Cancel bids; all handles are checked before any is cancelled. One named twice is refused."""
        cdef Py_ssize_t count = handles.shape[0], i
        cdef int32_t at
        self._check_handles(handles)
        for i in range(count):
            if i % BATCH == 0:
                self._reserve(0, 2 * BATCH)
            if i + AHEAD < count:
                at = self._ladder.bids[handles[i + AHEAD]].base_at
                prefetch(&self._ladder.chunks[at])
                prefetch(chunk_lots(&self._ladder, at))
                prefetch(chunk_lots(&self._ladder, at) + 16)
            self._cancel(handles[i])

    cdef int _check_handles(self, const int32_t[::1] handles) except -1:
        """Refuse unknown handles and one that is named twice: `margin` is free between clearings."""
        cdef Py_ssize_t count = handles.shape[0], i, marked = count
        cdef int32_t slot
        for i in range(count):
            if i + AHEAD < count and 0 <= handles[i + AHEAD] < self._ladder.bid_end:
                prefetch(&self._ladder.bids[handles[i + AHEAD]])
            slot = handles[i]
            if (
                slot < 0 or slot >= self._ladder.bid_end or self._ladder.bids[slot].limit == 0
                or self._ladder.bids[slot].margin
            ):
                marked = i
                break
            self._ladder.bids[slot].margin = 1
        for i in range(marked):
            self._ladder.bids[handles[i]].margin = 0
        if marked < count:
            raise KeyError(handles[marked])
        return 0

    def expired(self, int64_t tick):
        """Return the bids whose last valid tick is over, each of them once."""
        cdef list over = []
        cdef Expiry entry
        cdef Bid* bid
        while self._expiry_count and self._expiries[0].tick < tick:
            entry = self._expiries[0]
            self._expiry_count -= 1
            expiry_sink(self._expiries, self._expiry_count, self._expiries[self._expiry_count])
            bid = &self._ladder.bids[entry.slot]
            if bid.limit and bid.valid_until == entry.tick:
                bid.valid_until = 0
                over.append(entry.slot)
        return over

    # -- offers ---------------------------------------------------------------------------------------

    def place_offer(self, int64_t reserve, int64_t gpus, int64_t node=NONE, int64_t domain=NONE):
        self._check_offer(reserve, gpus)
        if not (NONE <= node <= _GPU_COUNT_MAX and NONE <= domain <= _GPU_COUNT_MAX):
            raise ValueError(f"node {node} or domain {domain} is outside {NONE}..{GPU_COUNT_MAX}")
        if self._offer_free == NONE:
            self._grow_offers()
        cdef int32_t slot = self._offer_free
        self._offer_free = self._offers[slot].reserve
        self._offers[slot].reserve = <int32_t> reserve
        self._offers[slot].node = <int32_t> node
        self._offers[slot].domain = <int32_t> domain
        self._offers[slot].gpus = 0
        self._offer_live += 1
        self._set_units(slot, <int32_t> reserve, <int32_t> gpus)
        return slot

    def amend_offer(self, int64_t handle, int64_t reserve, int64_t gpus):
        self._check_offer(reserve, gpus)
        self._set_units(self._offer(handle), <int32_t> reserve, <int32_t> gpus)

    def cancel_offer(self, int64_t handle):
        cdef int32_t slot = self._offer(handle)
        self._set_units(slot, self._offers[slot].reserve, 0)
        self._offer_live -= 1
        self._offers[slot].reserve = self._offer_free
        self._offer_free = slot

    cdef int _set_units(self, int32_t slot, int32_t reserve, int32_t gpus) except -1:
        """Give an offer this many GPUs at this reserve."""
        cdef OfferSlot* offer = &self._offers[slot]
        cdef int64_t old = offer.gpus
        if old:
            unit_add(self._supply.units, self._supply.top, offer.reserve + 1, -old, -old * offer.reserve)
            self._change_items(slot, -offer.gpus)
        offer.reserve = reserve
        offer.gpus = gpus
        self._supply.offered += gpus - old
        if gpus:
            unit_add(
                self._supply.units, self._supply.top, reserve + 1, gpus, <int64_t> gpus * reserve
            )
            self._change_items(slot, gpus)
        return 0

    cdef int _change_items(self, int64_t slot, int32_t gpus) except -1:
        """Count the co-located items that these GPUs of the offer's node add or take away."""
        cdef OfferSlot* offer = &self._offers[slot]
        if self._items is None:
            return 0
        node = offer.node if offer.node != NONE else -2 - slot
        for k, reserve, change in self._items.change(node, offer.domain, offer.reserve, gpus):
            counts_add(self._supply.sizes, self._supply.top, reserve + 1, k, change)
        return 0

    cdef int _pack(self) except -1:
        """The first co-located bid: from here on sizes are counted on both sides."""
        cdef int32_t family, slot
        self._supply.sizes = <SizeCounts*> calloc(self._supply.top + 1, sizeof(SizeCounts))
        if self._supply.sizes == NULL:
            raise MemoryError
        for family in range(2):
            finder_new(&self._ladder.colocated[family], self._ladder.level_count + 1)
            self._ladder.sizes[family] = <SizeCounts*> calloc(self._ladder.top + 1, sizeof(SizeCounts))
            if self._ladder.sizes[family] == NULL:
                raise MemoryError
        self._items = NodeItems()
        for slot in range(self._offer_capacity):
            if self._offers[slot].gpus:
                self._change_items(slot, self._offers[slot].gpus)
        return 0

    # -- the auction ----------------------------------------------------------------------------------

    def clear(self):
        """Clear the market: accept lots in rank order, then set one price for all."""
        cdef Solution* run = &self._run
        cdef int64_t below = 0, fragmented = 0, not_fitted, bound
        self._solve()
        not_fitted = gangs_unserved(&self._ladder, run, run.price)
        if run.excluded != NONE and <int32_t> self._ladder.bids[run.excluded].limit > run.price:
            not_fitted += 1
        ladder_fold(&self._ladder)  # a gang that was left out is back
        bound = lp_bound(&self._ladder, &self._supply)
        if run.price != NONE:
            below = max(0, unit_gpus(self._supply.units, run.price + 1) - run.need[0])
            fragmented = max(0, unit_gpus(self._supply.units, run.price) - run.need[0])
        self._publish()
        run = &self._published
        handles, fills = self._take_changes()
        return Clearing(
            run.price, run.low, run.high, run.ceil, run.floor, self._entry(), run.need[0],
            self._supply.offered, self._ladder.demanded, self._ladder.bid_live, self._offer_live,
            not_fitted, below, fragmented, run.value, run.cost, bound, handles, fills,
        )

    def explain(self, int64_t handle):
        """R7: what the last clearing gave this bid, and why not more."""
        cdef int32_t slot = self._bid(handle)
        cdef const Bid* bid = &self._ladder.bids[slot]
        cdef int32_t price = self._published.price
        cdef int64_t usable
        if bid.fill == bid.gpus:
            return Outcome(bid.fill, Reason.FILLED, 0, 0)
        if bid.fill == 0 and bid.min_gpus > 1 and <int32_t> bid.limit > price:
            usable = self._usable_at_its_turn(slot)
            return Outcome(0, Reason.NO_FIT, bid.min_gpus, usable)
        if price != NONE and <int32_t> bid.limit > price:
            return Outcome(bid.fill, Reason.PROTECTED, 0, 0)
        return Outcome(bid.fill, Reason.OUTBID, 0, 0)

    def probe(self, int64_t limit, int64_t gpus, int64_t min_gpus, bint colocated=False):
        """Return (fill, price) that a new bid, last to arrive, would get at the next tick."""
        cdef int32_t slot, fill, price
        self._check_bid(limit, gpus, min_gpus, colocated)
        if colocated and self._items is None:
            self._pack()
        self._reserve(1, 4)
        slot = self._place(
            <int32_t> limit, <int32_t> gpus, <int32_t> min_gpus, _TICK_MAX, _HASH_MAX, _SEQ_MAX,
            colocated, 0, 0,
        )
        try:
            self._solve()
            fill = self._fill_of(slot)
            price = self._run.price
        finally:
            self._forget_margins()
            self._cancel(slot)
        return fill, price

    def depth(self, int64_t level):
        """Return GPUs wanted by lots ranked above a level, and at or above it; offered below, and at or below."""
        if not 0 <= level <= self._ladder.level_count:
            raise ValueError(f"level {level} is outside 0..{self._ladder.level_count}")
        ladder_fold(&self._ladder)
        return (
            wanted_from(&self._ladder, <int32_t> level + 1),
            wanted_from(&self._ladder, <int32_t> level),
            unit_gpus(self._supply.units, <int32_t> level),
            unit_gpus(self._supply.units, <int32_t> level + 1),
        )

    def would_win(self, int64_t handle):
        """Return the lowest limit that fills this bid if nothing else changes, else NONE.

        By bisection: raising a limit never takes from a bid (I9).
        """
        cdef int32_t slot = self._bid(handle)
        cdef int32_t own = <int32_t> self._ladder.bids[slot].limit
        cdef int32_t low = 1, high = self._ladder.level_count, middle
        if not self._fills_at(slot, high):
            self._fills_at(slot, own)
            return NONE
        while low < high:
            middle = (low + high) >> 1
            if self._fills_at(slot, middle):
                high = middle
            else:
                low = middle + 1
        self._fills_at(slot, own)
        return low

    cdef int _fills_at(self, int32_t slot, int32_t limit) except -1:
        """Move the bid to another limit and say whether it would be filled there."""
        cdef bint is_filled
        self._reserve(0, 4)
        bid_leave(&self._ladder, slot)
        self._ladder.bids[slot].limit = limit
        bid_enter(&self._ladder, slot)
        self._solve()
        is_filled = self._fill_of(slot) == <int32_t> self._ladder.bids[slot].gpus
        self._forget_margins()
        return is_filled

    cdef int _solve(self) except -1:
        """Run the scan, and in a thin market look for a better run (X7); margins are left in the bids."""
        self._run.excluded = NONE
        if scan(&self._ladder, &self._supply, &self._run, self._price_position_bps):
            raise MemoryError
        if self._ladder.bid_live < self._refine_below_bids:
            self._refine()
        return 0

    # -- X7: a thin market is cleared again without each of the last accepted gangs ---------------------

    cdef int _refine(self) except -1:
        """Keep the run with the best welfare; ties go to fewer interruptions, then to the base run."""
        cdef int32_t gangs[64]
        cdef int32_t count = self._last_gangs(gangs), i, best = NONE
        cdef int64_t lost = 0, best_lost = 0, merit, best_merit
        best_merit = self._merit(&best_lost)
        for i in range(count):
            if not self._run_without(gangs[i]):
                continue
            merit = self._merit(&lost)
            if merit > best_merit or (merit == best_merit and lost < best_lost):
                best, best_merit, best_lost = gangs[i], merit, lost
        if count:
            self._forget_margins()
            self._run.excluded = NONE
            if best != NONE:
                self._run_without(best)
            elif scan(&self._ladder, &self._supply, &self._run, self._price_position_bps):
                raise MemoryError
        return 0

    cdef int32_t _last_gangs(self, int32_t* gangs) noexcept nogil:
        """The last gangs that were accepted, last first. Returns how many."""
        cdef int32_t slot, i, count = 0
        for slot in range(self._ladder.bid_end):
            if self._ladder.bids[slot].limit == 0 or self._ladder.bids[slot].min_gpus == 1:
                continue
            if self._fill_of(slot) == 0:
                continue
            i = count if count < _REFINED_GANGS_MAX else _REFINED_GANGS_MAX
            while i > 0 and self._is_ahead(gangs[i - 1], slot):
                gangs[i] = gangs[i - 1]
                i -= 1
            gangs[i] = slot
            if count < _REFINED_GANGS_MAX:
                count += 1
        return count

    cdef bint _is_ahead(self, int32_t slot, int32_t other) noexcept nogil:
        """R4: say whether the base lot of one bid comes before the base lot of another."""
        cdef const Bid* a = &self._ladder.bids[slot]
        cdef const Bid* b = &self._ladder.bids[other]
        cdef int32_t family = lot_family(a, 0)
        if family != lot_family(b, 0):
            if family == INCUMBENT:
                return comes_first(&self._ladder, <int32_t> a.limit, <int32_t> b.limit)
            return not comes_first(&self._ladder, <int32_t> b.limit, <int32_t> a.limit)
        if a.limit != b.limit:
            return a.limit > b.limit
        return is_before(
            &self._ladder.arrivals[slot], self._ladder.arrivals[other].order,
            self._ladder.arrivals[other].seq,
        )

    cdef int _run_without(self, int32_t slot) except -1:
        """Run the scan without one bid; 0 if that bid would still fit, so that it was never in the way."""
        cdef Bid* bid = &self._ladder.bids[slot]
        cdef int32_t top = <int32_t> bid.limit
        cdef int failed
        cdef Room room
        self._forget_margins()
        self._reserve(0, 4)
        bid_leave(&self._ladder, slot)
        failed = scan(&self._ladder, &self._supply, &self._run, self._price_position_bps)
        bid_enter(&self._ladder, slot)
        if failed:
            raise MemoryError
        self._run.excluded = slot
        if self._run.ceil != NONE and self._run.ceil < top:
            top = self._run.ceil
        room = supply_room(&self._supply, top, self._run.need)
        self._left_out_usable = <int32_t> room.size
        if not bid.is_colocated:
            self._left_out_usable = <int32_t> room.usable if room.usable < _GPU_COUNT_MAX else -1
        return 0 <= self._left_out_usable < <int32_t> bid.min_gpus

    cdef int64_t _merit(self, int64_t* lost) noexcept nogil:
        """The run's welfare, and how many GPUs of incumbents it interrupts."""
        cdef int32_t slot, fill, base
        cdef const Bid* bid
        lost[0] = 0
        for slot in range(self._ladder.bid_end):
            bid = &self._ladder.bids[slot]
            if bid.limit and bid.held:
                base = base_gpus(bid)
                fill = self._fill_of(slot)
                lost[0] += base - fill if fill < base else 0
        return self._run.value - self._run.cost

    # -- what is published: the difference to the last clearing -------------------------------------------

    cdef void _forget_margins(self) noexcept nogil:
        cdef int32_t i
        for i in range(self._run.exception_count):
            self._ladder.bids[self._run.exceptions[i].slot].margin = 0

    cdef int32_t _fill_of(self, int32_t slot) noexcept nogil:
        """GPUs that the clearing at work gives a bid."""
        cdef const Bid* bid = &self._ladder.bids[slot]
        cdef int32_t fill
        if slot == self._run.excluded:
            return 0
        fill = <int32_t> bid.margin
        if lot_is_before(&self._ladder, self._run.edge, slot, 0):
            fill += base_gpus(bid)
        if bid.extra_at and lot_is_before(&self._ladder, self._run.edge, slot, 1):
            fill += lot_gpus(bid, 1)
        return fill

    cdef int _compare(self, int32_t slot) except -1:
        """Note the bid if its fill has changed."""
        cdef Bid* bid = &self._ladder.bids[slot]
        cdef int32_t fill
        cdef int32_t* changed
        if bid.limit == 0:
            return 0
        fill = self._fill_of(slot)
        if <int32_t> bid.fill == fill:
            return 0
        bid.fill = fill
        if self._changed_count == self._changed_capacity:
            self._changed_capacity = 2 * self._changed_capacity if self._changed_capacity else 64
            changed = <int32_t*> realloc(self._changed, self._changed_capacity * sizeof(int32_t))
            if changed == NULL:
                raise MemoryError
            self._changed = changed
        self._changed[self._changed_count] = slot
        self._changed_count += 1
        return 0

    cdef int _compare_between(self, int32_t family) except -1:
        """Compare the lots of a family that lie between the last prefix's edge and this one's."""
        cdef Edge* first = &self._published.edge[family]
        cdef Edge* last = &self._run.edge[family]
        cdef int32_t limit, at, i
        cdef int32_t* lots
        if edge_is_before(last, first):
            first, last = last, first
        elif not edge_is_before(first, last):
            return 0
        limit = first.limit
        if first.is_whole:
            limit = next_level(&self._ladder, family, limit - 1, 1, 1)
        while limit and limit >= last.limit:
            at = self._ladder.levels[family][limit].head
            if limit == first.limit:
                at = chunk_for(
                    &self._ladder, &self._ladder.levels[family][limit], first.order, first.seq
                )
            while at:
                lots = chunk_lots(&self._ladder, at)
                if limit == last.limit and not last.is_whole and not is_before_edge(
                    &self._ladder.arrivals[lots[0] >> 1], last
                ):
                    break
                for i in range(self._ladder.chunks[at].count):
                    self._compare(lots[i] >> 1)
                at = self._ladder.chunks[at].next
            limit = next_level(&self._ladder, family, limit - 1, 1, 1)
        return 0

    cdef int _publish(self) except -1:
        """Find the bids whose fill has changed, and make this clearing the last one."""
        cdef int32_t i
        self._changed_count = 0
        if self._is_published_whole or self._ladder.bid_live < self._refine_below_bids:
            for i in range(self._ladder.bid_end):
                self._compare(i)
        else:
            for i in range(self._touched_count):
                self._compare(self._touched[i])
            for i in range(self._published.exception_count):
                self._compare(self._published.exceptions[i].slot)
            for i in range(self._run.exception_count):
                self._compare(self._run.exceptions[i].slot)
            self._compare_between(NEWCOMER)
            self._compare_between(INCUMBENT)
        for i in range(self._touched_count):
            self._ladder.bids[self._touched[i]].is_touched = 0
        self._touched_count = 0
        if self._touched_capacity > KEPT_SLOTS:
            free(self._touched)
            self._touched = NULL
            self._touched_capacity = 0
        self._forget_margins()
        self._is_published_whole = self._run.excluded != NONE
        self._run, self._published = self._published, self._run
        return 0

    def _take_changes(self):
        cdef int32_t i
        cdef int32_t[::1] handles_out, fills_out
        if self._changed_count == 0:
            return _no_changes, _no_changes
        handles = np.empty(self._changed_count, dtype=np.int32)
        fills = np.empty(self._changed_count, dtype=np.int32)
        handles_out = handles
        fills_out = fills
        for i in range(self._changed_count):
            handles_out[i] = self._changed[i]
            fills_out[i] = <int32_t> self._ladder.bids[self._changed[i]].fill
        if self._changed_capacity > KEPT_SLOTS:
            free(self._changed)
            self._changed = NULL
            self._changed_capacity = 0
        return handles, fills

    def _entry(self):
        """R10: the exact price at which one more GPU is won next tick; NONE when there is none."""
        cdef int64_t entry, ceil = self._published.ceil, unsold = self._published.unsold
        if unsold != NONE and (ceil == NONE or unsold <= ceil):
            return unsold if unsold > 1 else 1
        if ceil == NONE:
            return NONE
        entry = ((ceil + 1) * (10000 + self._ladder.handicap_bps) + 9999) // 10000
        return entry if entry <= self._ladder.level_count else NONE

    cdef int64_t _usable_at_its_turn(self, int32_t slot) noexcept nogil:
        """What the bid's base lot could have had when the last clearing came to it."""
        cdef int64_t need[7]
        cdef int32_t i, k, top = self._published.prefix_ceil
        cdef const Bid* bid = &self._ladder.bids[slot]
        cdef const Bid* other
        cdef const Exception_* exception
        cdef Room room
        if slot == self._published.excluded:
            return self._left_out_usable
        for k in range(SIZES):
            need[k] = self._published.prefix_need[k]
        for i in range(self._published.exception_count):
            exception = &self._published.exceptions[i]
            if exception.number == 0:
                if not self._is_ahead(exception.slot, slot):
                    break
            elif not self._extra_is_ahead(exception.slot, slot):
                break
            other = &self._ladder.bids[exception.slot]
            k = 0
            if other.is_colocated:
                while 1 << k < exception.fill:
                    k += 1
            need_add(need, k, exception.fill)
            top = exception.top
        top = top if top < <int32_t> bid.limit else <int32_t> bid.limit
        room = supply_room(&self._supply, top, need)
        return room.size if bid.is_colocated else room.usable

    cdef bint _extra_is_ahead(self, int32_t slot, int32_t other) noexcept nogil:
        """R4: say whether the expansion lot of one bid comes before the base lot of another."""
        cdef const Bid* a = &self._ladder.bids[slot]
        cdef const Bid* b = &self._ladder.bids[other]
        if lot_family(b, 0) == INCUMBENT:
            return not comes_first(&self._ladder, <int32_t> b.limit, <int32_t> a.limit)
        if a.limit != b.limit:
            return a.limit > b.limit
        return is_before(
            &self._ladder.arrivals[slot], self._ladder.arrivals[other].order,
            self._ladder.arrivals[other].seq,
        )

    # -- one bid -------------------------------------------------------------------------------------------

    cdef int32_t _place(
        self, int32_t limit, int32_t gpus, int32_t min_gpus, int64_t tick, int64_t arrival_hash,
        int64_t seq, bint colocated, int32_t account, int32_t valid_until
    ) noexcept nogil:
        """Put a checked bid into a reserved slot."""
        cdef int32_t slot = self._ladder.bid_free
        cdef Bid* bid
        if slot != NONE:
            bid = &self._ladder.bids[slot]
            self._ladder.bid_free = bid.base_at
            prefetch(&self._ladder.bids[bid.base_at])
            prefetch(&self._ladder.arrivals[bid.base_at])
        else:
            slot = self._ladder.bid_end
            self._ladder.bid_end += 1
            bid = &self._ladder.bids[slot]
            memset(bid, 0, sizeof(Bid))
        bid.limit = limit
        bid.gpus = gpus
        bid.min_gpus = min_gpus
        bid.held = 0
        bid.is_colocated = colocated
        bid.fill = 0
        bid.margin = 0
        bid.base_at = bid.extra_at = 0
        bid.account = account
        bid.valid_until = valid_until
        self._ladder.arrivals[slot].order = <uint64_t> tick << 32 | <uint64_t> arrival_hash
        self._ladder.arrivals[slot].seq = seq
        self._ladder.bid_live += 1
        self._ladder.demanded += gpus
        bid_enter(&self._ladder, slot)
        self._touch(slot)
        return slot

    cdef void _cancel(self, int32_t slot) noexcept nogil:
        cdef Bid* bid = &self._ladder.bids[slot]
        bid_leave(&self._ladder, slot)
        self._ladder.demanded -= bid.gpus
        self._ladder.bid_live -= 1
        bid.limit = 0
        bid.base_at = self._ladder.bid_free
        self._ladder.bid_free = slot

    cdef void _hold(self, int32_t slot, int32_t held) noexcept nogil:
        cdef Bid* bid = &self._ladder.bids[slot]
        if <int32_t> bid.held == held:
            return
        bid_leave(&self._ladder, slot)
        bid.held = held
        bid_enter(&self._ladder, slot)
        self._touch(slot)

    cdef void _touch(self, int32_t slot) noexcept nogil:
        if self._ladder.bids[slot].is_touched == 0:
            self._ladder.bids[slot].is_touched = 1
            self._touched[self._touched_count] = slot
            self._touched_count += 1

    # -- bounds and growth ---------------------------------------------------------------------------------

    cdef int _check_bid(self, int64_t limit, int64_t gpus, int64_t min_gpus, bint colocated) except -1:
        if not 1 <= limit <= self._ladder.level_count:
            raise ValueError(f"limit {limit} is outside 1..{self._ladder.level_count}")
        if not 1 <= gpus <= _GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
        if not 1 <= min_gpus <= gpus:
            raise ValueError(f"min_gpus {min_gpus} is outside 1..{gpus}")
        if colocated and (min_gpus != gpus or gpus & (gpus - 1) or gpus > 1 << (SIZES - 1)):
            raise ValueError(f"a co-located bid is all or nothing and has one of {CHAIN} GPUs, not {gpus}")
        return 0

    cdef int _check_offer(self, int64_t reserve, int64_t gpus) except -1:
        if not (0 <= reserve <= self._ladder.level_count and 1 <= gpus <= _GPU_COUNT_MAX):
            check_offer(self._ladder.level_count, reserve, gpus)
        return 0

    cdef int32_t _bid(self, int64_t handle) except -1:
        if not 0 <= handle < self._ladder.bid_end or self._ladder.bids[handle].limit == 0:
            raise KeyError(handle)
        return <int32_t> handle

    cdef int32_t _offer(self, int64_t handle) except -1:
        if not 0 <= handle < self._offer_capacity or self._offers[handle].gpus == 0:
            raise KeyError(handle)
        return <int32_t> handle

    cdef int _reserve(self, int64_t bids, int64_t lots) except -1:
        """Make room for new or touched bids and for lots, so that changing them cannot fail."""
        cdef int64_t touched = self._touched_count + bids
        cdef int32_t* grown
        if bids_reserve(&self._ladder, bids) or lots_reserve(&self._ladder, lots):
            raise MemoryError
        if touched > self._touched_capacity:
            touched *= 2
            grown = <int32_t*> realloc(self._touched, touched * sizeof(int32_t))
            if grown == NULL:
                raise MemoryError
            self._touched = grown
            self._touched_capacity = <int32_t> touched
        return 0

    cdef int _grow_offers(self) except -1:
        cdef int32_t capacity = self._offer_capacity * 2 if self._offer_capacity else 64
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

    cdef int _expire_at(self, int32_t tick, int32_t slot) except -1:
        cdef int32_t i = self._expiry_count, parent
        cdef Expiry* expiries
        if i == self._expiry_capacity:
            self._expiry_capacity = 2 * i if i else 64
            expiries = <Expiry*> realloc(self._expiries, self._expiry_capacity * sizeof(Expiry))
            if expiries == NULL:
                raise MemoryError
            self._expiries = expiries
        self._expiry_count += 1
        while i > 0:
            parent = (i - 1) >> 1
            if self._expiries[parent].tick <= tick:
                break
            self._expiries[i] = self._expiries[parent]
            i = parent
        self._expiries[i].tick = tick
        self._expiries[i].slot = slot
        return 0


cdef void expiry_sink(Expiry* heap, int32_t count, Expiry entry) noexcept nogil:
    """Put an entry at the root of a heap and let it sink to its place."""
    cdef int32_t i = 0, child
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count and heap[child + 1].tick < heap[child].tick:
            child += 1
        if entry.tick <= heap[child].tick:
            break
        heap[i] = heap[child]
        i = child
    if count:
        heap[i] = entry


cdef int finder_new(Finder* finder, int32_t count) except -1:
    cdef int32_t depth
    for depth in range(3):
        finder.count[depth] = count
        finder.ease[depth] = <int32_t*> calloc(count, sizeof(int32_t))
        if finder.ease[depth] == NULL:
            raise MemoryError
        count = (count + 63) // 64
    return 0


cdef void finder_free(Finder* finder) noexcept:
    cdef int32_t depth
    for depth in range(3):
        free(finder.ease[depth])


cdef bint is_before_edge(const Arrival* arrival, const Edge* edge) noexcept nogil:
    return is_before(arrival, edge.order, edge.seq)


cdef bint edge_is_before(const Edge* a, const Edge* b) noexcept nogil:
    """Say whether less lies before edge a than before edge b."""
    if a.limit != b.limit:
        return a.limit > b.limit
    if a.is_whole or b.is_whole:
        return b.is_whole and not a.is_whole
    return a.order < b.order or (a.order == b.order and a.seq < b.seq)


cdef int check_arrival(int64_t tick, int64_t arrival_hash, int64_t seq) except -1:
    if not (0 <= tick <= _TICK_MAX and 0 <= arrival_hash <= _HASH_MAX and 0 <= seq <= _SEQ_MAX):
        raise ValueError(f"arrival ({tick}, {arrival_hash}, {seq}) is outside (0, 0, 0)..{_ARRIVAL_MAX}")
    return 0


cdef int check_validity(int64_t account, int64_t valid_until_tick) except -1:
    if not (0 <= account <= _TICK_MAX and 0 <= valid_until_tick <= _TICK_MAX):
        raise ValueError(f"account {account} or valid_until_tick {valid_until_tick} is outside 0..{TICK_MAX}")
    return 0


cdef int check_held(int64_t held) except -1:
    if not 0 <= held <= _GPU_COUNT_MAX:
        raise ValueError(f"held {held} is outside 0..{GPU_COUNT_MAX}")
    return 0


cdef tuple _ARRIVAL_MAX = (TICK_MAX, HASH_MAX, SEQ_MAX)
