"""The compiled book and its clearing: the same contract as `reference`, to the last integer.

It decides who gets how many GPUs and the one price; it knows levels and counts, never money, names,
clocks or I/O. This file is what Python sees: bounds are checked here and trusted below. The layout is
in layout.pxd, the bids and their sums in ladder.pxd, the clearing itself in scan.pxd, what changed in
publish.pxd; matching/README.md draws them. A clearing costs what has changed since the last one, not what
rests in the book.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

import numpy as np

from matching.expiry cimport Expiry, expiries_add, expiries_take
from matching.finder cimport Finder
from matching.ladder cimport (
    Ladder,
    bid_enter,
    bid_leave,
    bids_reserve,
    chunk_lots,
    free_reserve,
    ladder_fold,
    lots_reserve,
)
from matching.layout cimport (
    CHUNK_LOTS,
    NEWCOMER,
    NONE,
    SIZES,
    Arrival,
    Bid,
    Chunk,
    Level,
    SizeCounts,
    Solution,
    Sum,
    UnitSum,
    prefetch,
)
from matching.publish cimport (
    Kernel,
    fill_of,
    forget_changes,
    forget_margins,
    publish,
    usable_at_its_turn,
)
from matching.refine cimport solve
from matching.queueing cimport order_by_queue
from matching.scan cimport gangs_unserved, lp_bound, wanted_from
from matching.sums cimport counts_add, unit_add, unit_gpus
from matching.verify cimport verify

from matching.nodes import NodeItems
from matching.types import (
    CHAIN,
    GPU_COUNT_MAX,
    HASH_MAX,
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

cdef int64_t _GPU_COUNT_MAX = GPU_COUNT_MAX
cdef int64_t _TICK_MAX = TICK_MAX
cdef int64_t _HASH_MAX = HASH_MAX
cdef int64_t _SEQ_MAX = SEQ_MAX
cnp.import_array()

cdef object _new_tuple = tuple.__new__
cdef object _no_changes = np.empty(0, dtype=np.int32)
_no_changes.flags.writeable = False


@cython.final
cdef class Book:
    """Resting bids and offers of one market. Handles are slots that the book gives out and reuses."""

    def __cinit__(
        self, *, handicap_bps, level_count, refine_below_bids=0, price_position_bps=None
    ):
        cdef int32_t family
        check_book(handicap_bps, level_count, refine_below_bids, price_position_bps)
        self._kernel = <Kernel*> calloc(1, sizeof(Kernel))
        if self._kernel == NULL:
            raise MemoryError
        self._kernel.refine_below_bids = refine_below_bids
        self._kernel.price_position_bps = NONE if price_position_bps is None else price_position_bps
        self._kernel.ladder.handicap_bps = handicap_bps
        self._kernel.ladder.level_count = level_count
        self._offer_free = NONE
        self._kernel.ladder.top = 1
        while self._kernel.ladder.top < self._kernel.ladder.level_count + 1:
            self._kernel.ladder.top *= 2
        self._kernel.supply.top = self._kernel.ladder.top
        # calloc leaves untouched levels without memory.
        self._kernel.supply.units = <UnitSum*> calloc(self._kernel.supply.top + 1, sizeof(UnitSum))
        if self._kernel.supply.units == NULL:
            raise MemoryError
        for family in range(2):
            self._kernel.ladder.levels[family] = <Level*> calloc(self._kernel.ladder.level_count + 1, sizeof(Level))
            self._kernel.ladder.sums[family] = <Sum*> calloc(self._kernel.ladder.top + 1, sizeof(Sum))
            if self._kernel.ladder.levels[family] == NULL or self._kernel.ladder.sums[family] == NULL:
                raise MemoryError
            finder_new(&self._kernel.ladder.easy[family], self._kernel.ladder.level_count + 1)
        for family in range(2):
            self._kernel.published.edge[family].limit = self._kernel.ladder.level_count + 1
            self._kernel.published.edge[family].is_whole = True
        self._kernel.published.price = self._kernel.published.ceil = NONE
        self._kernel.published.excluded = NONE

    def __dealloc__(self):
        cdef int32_t family
        free(self._offers)
        free(self._expiries.entries)
        if self._kernel == NULL:
            return
        for family in range(2):
            free(self._kernel.ladder.levels[family])
            free(self._kernel.ladder.sums[family])
            free(self._kernel.ladder.sizes[family])
            finder_free(&self._kernel.ladder.easy[family])
            finder_free(&self._kernel.ladder.colocated[family])
        free(self._kernel.ladder.bids)
        free(self._kernel.ladder.arrivals)
        free(self._kernel.ladder.chunks)
        free(self._kernel.ladder.lots)
        free(self._kernel.ladder.unfolded)
        free(self._kernel.ladder.free_bids)
        free(self._kernel.supply.units)
        free(self._kernel.supply.sizes)
        free(self._kernel.run.exceptions)
        free(self._kernel.published.exceptions)
        free(self._kernel.touched)
        free(self._kernel.changed)
        free(self._kernel)

    def __sizeof__(self):
        """Bytes that hold bids, offers and their order: what has been used, not what is reserved."""
        cdef int64_t size = sizeof(Kernel)
        size += <int64_t> self._kernel.ladder.bid_end * (sizeof(Bid) + sizeof(Arrival))
        size += <int64_t> self._kernel.ladder.chunk_end * (sizeof(Chunk) + CHUNK_LOTS * sizeof(int32_t))
        size += <int64_t> (self._kernel.ladder.unfolded_capacity + self._kernel.ladder.free_count) * sizeof(int32_t)
        size += 2 * <int64_t> self._kernel.ladder.level_count * (sizeof(Level) + sizeof(Sum) + 5)
        size += <int64_t> self._kernel.ladder.level_count * sizeof(UnitSum)
        if self._items is not None:
            size += 3 * <int64_t> self._kernel.ladder.level_count * sizeof(SizeCounts)
        size += (<int64_t> self._kernel.touched_capacity + self._kernel.changed_capacity) * sizeof(int32_t)
        size += <int64_t> self._expiries.count * sizeof(Expiry)
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
        cdef int32_t* order
        cdef int32_t* ordered = NULL
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
        order = <int32_t*> malloc(2 * count * sizeof(int32_t) + 1)
        if order == NULL:
            raise MemoryError
        try:
            if count:
                ordered = order_by_queue(
                    &limits[0], &arrival_hashes[0], <int32_t> count, self._kernel.ladder.level_count,
                    order, order + count,
                )
            for i in range(0, count, BATCH):
                end = i + BATCH if i + BATCH < count else count
                self._reserve(end - i, end - i)
                with nogil:
                    self._place_some(
                        i, end, limits, gpus, min_gpus, arrival_hashes, arrival_tick, first_seq, accounts,
                        valid_until_ticks, colocated, ordered, out,
                    )
        finally:
            free(order)
        if valid_until_ticks is not None:
            for i in range(count):
                if valid_until_ticks[i]:
                    self._expire_at(valid_until_ticks[i], out[i])
        return handles

    cdef void _place_some(
        self, Py_ssize_t i, Py_ssize_t end, const int32_t[::1] limits, const int32_t[::1] gpus,
        const int32_t[::1] min_gpus, const uint32_t[::1] arrival_hashes, int64_t arrival_tick,
        int64_t first_seq, const int32_t[::1] accounts, const int32_t[::1] valid_until_ticks,
        const uint8_t[::1] colocated, const int32_t* order, int32_t[::1] out
    ) noexcept nogil:
        """Place the i-th to the end-th arrival of the columns: in order, each is the last of its queue."""
        cdef int32_t tail, slot, ahead
        cdef Py_ssize_t at, row
        for at in range(i, end):
            if self._kernel.ladder.free_count > AHEAD:  # the slot that will be taken then
                slot = self._kernel.ladder.free_bids[self._kernel.ladder.free_count - 1 - AHEAD]
                prefetch(&self._kernel.ladder.bids[slot])
                prefetch(&self._kernel.ladder.arrivals[slot])
            row = order[at]
            if at + 2 * AHEAD < end:
                ahead = order[at + 2 * AHEAD]
                prefetch(&limits[ahead])
                prefetch(&gpus[ahead])
                prefetch(&min_gpus[ahead])
                prefetch(&arrival_hashes[ahead])
                if accounts is not None:
                    prefetch(&accounts[ahead])
                if valid_until_ticks is not None:
                    prefetch(&valid_until_ticks[ahead])
            if at + AHEAD < end:
                prefetch(&self._kernel.ladder.levels[NEWCOMER][limits[order[at + AHEAD]]])
                tail = self._kernel.ladder.levels[NEWCOMER][limits[order[at + AHEAD // 2]]].tail
                prefetch(&self._kernel.ladder.chunks[tail])
                prefetch(chunk_lots(&self._kernel.ladder, tail))
            out[row] = self._place(
                limits[row], gpus[row], min_gpus[row], arrival_tick, arrival_hashes[row], first_seq + row,
                colocated is not None and colocated[row] != 0,
                accounts[row] if accounts is not None else 0,
                valid_until_ticks[row] if valid_until_ticks is not None else 0,
            )

    def amend_bid(self, int64_t handle, int64_t limit, int64_t gpus, int64_t min_gpus):
        cdef int32_t slot = self._bid(handle)
        cdef Bid* bid = &self._kernel.ladder.bids[slot]
        self._check_bid(limit, gpus, min_gpus, bid.is_colocated)
        self._reserve(1, 2)
        bid = &self._kernel.ladder.bids[slot]
        bid_leave(&self._kernel.ladder, slot)
        self._kernel.ladder.demanded += gpus - <int64_t> bid.gpus
        bid.limit = limit
        bid.gpus = gpus
        bid.min_gpus = min_gpus
        bid_enter(&self._kernel.ladder, slot)
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
        for i in range(count):
            check_held(held[i])
        self._reserve(count, 2 * count)
        self._check_handles(handles)
        for i in range(count):
            if i + AHEAD < count:
                prefetch(&self._kernel.ladder.bids[handles[i + AHEAD]])
                prefetch(&self._kernel.ladder.arrivals[handles[i + AHEAD]])
            self._kernel.ladder.bids[handles[i]].margin = 0
            self._hold(handles[i], held[i])

    def cancel_bid(self, int64_t handle):
        cdef int32_t slot = self._bid(handle)
        if lots_reserve(&self._kernel.ladder, 0, 2) or free_reserve(&self._kernel.ladder, 1):
            raise MemoryError
        self._cancel(slot)

    def cancel_bids(self, const int32_t[::1] handles):
        """Cancel bids; all handles are checked before any is cancelled. One named twice is refused."""
        cdef Py_ssize_t count = handles.shape[0], i
        cdef int32_t at
        if lots_reserve(&self._kernel.ladder, 0, 2 * count) or free_reserve(&self._kernel.ladder, count):
            raise MemoryError
        self._check_handles(handles)
        for i in range(count):
            if i + 2 * AHEAD < count:
                prefetch(&self._kernel.ladder.bids[handles[i + 2 * AHEAD]])
            if i + AHEAD < count:
                at = self._kernel.ladder.bids[handles[i + AHEAD]].base_at
                prefetch(&self._kernel.ladder.chunks[at])
                prefetch(chunk_lots(&self._kernel.ladder, at))
                prefetch(chunk_lots(&self._kernel.ladder, at) + 16)
            self._cancel(handles[i])

    cdef int _check_handles(self, const int32_t[::1] handles) except -1:
        """Refuse unknown handles and one that is named twice; leave the slots marked by their `margin`.

        It is free between clearings; whoever works through the handles clears it.
        """
        cdef Py_ssize_t count = handles.shape[0], i, marked = count
        cdef int32_t slot
        for i in range(count):
            if i + AHEAD < count and 0 <= handles[i + AHEAD] < self._kernel.ladder.bid_end:
                prefetch(&self._kernel.ladder.bids[handles[i + AHEAD]])
            slot = handles[i]
            if (
                slot < 0 or slot >= self._kernel.ladder.bid_end or self._kernel.ladder.bids[slot].limit == 0
                or self._kernel.ladder.bids[slot].margin
            ):
                marked = i
                break
            self._kernel.ladder.bids[slot].margin = 1
        if marked < count:
            for i in range(marked):
                self._kernel.ladder.bids[handles[i]].margin = 0
            raise KeyError(handles[marked])
        return 0

    def expired(self, int64_t tick):
        """Return the bids whose last valid tick is over, each of them once."""
        cdef list over = []
        cdef int32_t slot
        tick = min(max(tick, 0), _TICK_MAX)
        while True:
            slot = expiries_take(&self._expiries, self._kernel.ladder.bids, <int32_t> tick)
            if slot == NONE:
                return over
            over.append(slot)

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
        self._kernel.ladder.is_unchanged = False
        if old:
            unit_add(self._kernel.supply.units, self._kernel.supply.top, offer.reserve + 1, -old, -old * offer.reserve)
            self._change_items(slot, -offer.gpus)
        offer.reserve = reserve
        offer.gpus = gpus
        self._kernel.supply.offered += gpus - old
        if gpus:
            unit_add(
                self._kernel.supply.units, self._kernel.supply.top, reserve + 1, gpus, <int64_t> gpus * reserve
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
            counts_add(self._kernel.supply.sizes, self._kernel.supply.top, reserve + 1, k, change)
        return 0

    cdef int _pack(self) except -1:
        """The first co-located bid: from here on sizes are counted on both sides."""
        cdef int32_t family, slot
        self._kernel.supply.sizes = <SizeCounts*> calloc(self._kernel.supply.top + 1, sizeof(SizeCounts))
        if self._kernel.supply.sizes == NULL:
            raise MemoryError
        for family in range(2):
            finder_new(&self._kernel.ladder.colocated[family], self._kernel.ladder.level_count + 1)
            self._kernel.ladder.sizes[family] = <SizeCounts*> calloc(self._kernel.ladder.top + 1, sizeof(SizeCounts))
            if self._kernel.ladder.sizes[family] == NULL:
                raise MemoryError
        self._items = NodeItems()
        for slot in range(self._offer_capacity):
            if self._offers[slot].gpus:
                self._change_items(slot, self._offers[slot].gpus)
        return 0

    # -- the auction ----------------------------------------------------------------------------------

    def clear(self):
        """Clear the market: accept lots in rank order, then set one price for all."""
        cdef Solution* run = &self._kernel.run
        if self._kernel.ladder.is_unchanged:
            if self._last.handles is not _no_changes:
                self._last = self._last._replace(handles=_no_changes, fills=_no_changes)
            return self._last
        cdef int64_t below = 0, not_fitted, bound
        cdef const char* wrong
        self._solve()
        not_fitted = gangs_unserved(&self._kernel.ladder, run, run.price)
        if run.excluded != NONE and <int32_t> self._kernel.ladder.bids[run.excluded].limit > run.price:
            not_fitted += 1
        ladder_fold(&self._kernel.ladder)  # a gang that was left out is back
        bound = lp_bound(&self._kernel.ladder, &self._kernel.supply)
        if run.price != NONE:
            below = max(0, unit_gpus(self._kernel.supply.units, run.price + 1) - run.need[0])
        if publish(self._kernel):
            raise MemoryError
        run = &self._kernel.published
        if MATCHING_VERIFY:
            wrong = verify(self._kernel)
            assert wrong == NULL, wrong.decode()
        handles, fills = self._take_changes()
        self._last = _new_tuple(Clearing, (
            run.price, run.low, run.high, run.ceil, run.floor, self._entry(), run.need[0],
            self._kernel.supply.offered, self._kernel.ladder.demanded, self._kernel.ladder.bid_live, self._offer_live,
            not_fitted, below, run.value, run.cost, bound, handles, fills,
        ))
        self._kernel.ladder.is_unchanged = True
        return self._last

    def explain(self, int64_t handle):
        """R7: what the last clearing gave this bid, and why not more."""
        cdef int32_t slot = self._bid(handle)
        cdef const Bid* bid = &self._kernel.ladder.bids[slot]
        cdef int32_t price = self._kernel.published.price
        cdef int64_t usable
        if bid.fill == bid.gpus:
            return Outcome(bid.fill, Reason.FILLED, 0, 0)
        if bid.fill == 0 and bid.min_gpus > 1 and <int32_t> bid.limit > price:
            usable = usable_at_its_turn(self._kernel, slot)
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
        if free_reserve(&self._kernel.ladder, 1):
            raise MemoryError
        slot = self._place(
            <int32_t> limit, <int32_t> gpus, <int32_t> min_gpus, _TICK_MAX, _HASH_MAX, _SEQ_MAX,
            colocated, 0, 0,
        )
        try:
            self._solve()
            fill = fill_of(self._kernel, slot)
            price = self._kernel.run.price
        finally:
            forget_margins(self._kernel)
            self._cancel(slot)
        return fill, price

    def depth(self, int64_t level):
        """Return GPUs wanted by ranks above a level, and from it up; offered below it, and up to it."""
        if not 0 <= level <= self._kernel.ladder.level_count:
            raise ValueError(f"level {level} is outside 0..{self._kernel.ladder.level_count}")
        ladder_fold(&self._kernel.ladder)
        return (
            wanted_from(&self._kernel.ladder, <int32_t> level + 1),
            wanted_from(&self._kernel.ladder, <int32_t> level),
            unit_gpus(self._kernel.supply.units, <int32_t> level),
            unit_gpus(self._kernel.supply.units, <int32_t> level + 1),
        )

    def would_win(self, int64_t handle):
        """Return the lowest limit that fills this bid if nothing else changes, else NONE.

        By bisection: raising a limit never takes from a bid (I9).
        """
        cdef int32_t slot = self._bid(handle)
        cdef int32_t own = <int32_t> self._kernel.ladder.bids[slot].limit
        cdef int32_t low = 1, high = self._kernel.ladder.level_count, middle
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
        bid_leave(&self._kernel.ladder, slot)
        self._kernel.ladder.bids[slot].limit = limit
        bid_enter(&self._kernel.ladder, slot)
        self._solve()
        is_filled = fill_of(self._kernel, slot) == <int32_t> self._kernel.ladder.bids[slot].gpus
        forget_margins(self._kernel)
        return is_filled

    cdef int _solve(self) except -1:
        """Clear the book; margins are left in the bids."""
        self._reserve(0, 4)  # a gang leaves and comes back (X7)
        if solve(self._kernel):
            raise MemoryError
        return 0

    # -- what is published ----------------------------------------------------------------------------

    def _take_changes(self):
        cdef int32_t i
        cdef cnp.npy_intp count = self._kernel.changed_count
        cdef cnp.ndarray handles, fills
        cdef int32_t* handles_out
        cdef int32_t* fills_out
        if count == 0:
            return _no_changes, _no_changes
        handles = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INT32, 0)
        fills = cnp.PyArray_EMPTY(1, &count, cnp.NPY_INT32, 0)
        handles_out = <int32_t*> cnp.PyArray_DATA(handles)
        fills_out = <int32_t*> cnp.PyArray_DATA(fills)
        for i in range(count):
            handles_out[i] = self._kernel.changed[i]
            fills_out[i] = <int32_t> self._kernel.ladder.bids[self._kernel.changed[i]].fill
        forget_changes(self._kernel)
        return handles, fills

    def _entry(self):
        """R10: the exact price at which one more GPU is won next tick; NONE when there is none."""
        cdef int64_t entry, ceil = self._kernel.published.ceil, unsold = self._kernel.published.unsold
        if unsold != NONE and (ceil == NONE or unsold <= ceil):
            return unsold if unsold > 1 else 1
        if ceil == NONE:
            return NONE
        entry = ((ceil + 1) * (10000 + self._kernel.ladder.handicap_bps) + 9999) // 10000
        return entry if entry <= self._kernel.ladder.level_count else NONE

    # -- one bid -------------------------------------------------------------------------------------------

    cdef int32_t _place(
        self, int32_t limit, int32_t gpus, int32_t min_gpus, int64_t tick, int64_t arrival_hash,
        int64_t seq, bint colocated, int32_t account, int32_t valid_until
    ) noexcept nogil:
        """Put a checked bid into a reserved slot."""
        cdef int32_t slot
        cdef Bid* bid
        if self._kernel.ladder.free_count:
            self._kernel.ladder.free_count -= 1
            slot = self._kernel.ladder.free_bids[self._kernel.ladder.free_count]
            bid = &self._kernel.ladder.bids[slot]
        else:
            slot = self._kernel.ladder.bid_end
            self._kernel.ladder.bid_end += 1
            bid = &self._kernel.ladder.bids[slot]
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
        self._kernel.ladder.arrivals[slot].order = <uint64_t> tick << 32 | <uint64_t> arrival_hash
        self._kernel.ladder.arrivals[slot].seq = seq
        self._kernel.ladder.bid_live += 1
        self._kernel.ladder.demanded += gpus
        bid_enter(&self._kernel.ladder, slot)
        self._touch(slot)
        return slot

    cdef void _cancel(self, int32_t slot) noexcept nogil:
        cdef Bid* bid = &self._kernel.ladder.bids[slot]
        bid_leave(&self._kernel.ladder, slot)
        self._kernel.ladder.demanded -= bid.gpus
        self._kernel.ladder.bid_live -= 1
        self._expiries.live -= bid.valid_until != 0
        bid.limit = 0
        bid.margin = 0
        self._kernel.ladder.free_bids[self._kernel.ladder.free_count] = slot
        self._kernel.ladder.free_count += 1

    cdef void _hold(self, int32_t slot, int32_t held) noexcept nogil:
        cdef Bid* bid = &self._kernel.ladder.bids[slot]
        if <int32_t> bid.held == held:
            return
        bid_leave(&self._kernel.ladder, slot)
        bid.held = held
        bid_enter(&self._kernel.ladder, slot)
        self._touch(slot)

    cdef void _touch(self, int32_t slot) noexcept nogil:
        if self._kernel.ladder.bids[slot].is_touched == 0:
            self._kernel.ladder.bids[slot].is_touched = 1
            self._kernel.touched[self._kernel.touched_count] = slot
            self._kernel.touched_count += 1

    # -- bounds and growth ---------------------------------------------------------------------------------

    cdef int _check_bid(self, int64_t limit, int64_t gpus, int64_t min_gpus, bint colocated) except -1:
        if not 1 <= limit <= self._kernel.ladder.level_count:
            raise ValueError(f"limit {limit} is outside 1..{self._kernel.ladder.level_count}")
        if not 1 <= gpus <= _GPU_COUNT_MAX:
            raise ValueError(f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}")
        if not 1 <= min_gpus <= gpus:
            raise ValueError(f"min_gpus {min_gpus} is outside 1..{gpus}")
        if colocated and (min_gpus != gpus or gpus & (gpus - 1) or gpus > 1 << (SIZES - 1)):
            raise ValueError(f"a co-located bid is all or nothing and has one of {CHAIN} GPUs, not {gpus}")
        return 0

    cdef int _check_offer(self, int64_t reserve, int64_t gpus) except -1:
        if not (0 <= reserve <= self._kernel.ladder.level_count and 1 <= gpus <= _GPU_COUNT_MAX):
            check_offer(self._kernel.ladder.level_count, reserve, gpus)
        return 0

    cdef int32_t _bid(self, int64_t handle) except -1:
        if not 0 <= handle < self._kernel.ladder.bid_end or self._kernel.ladder.bids[handle].limit == 0:
            raise KeyError(handle)
        return <int32_t> handle

    cdef int32_t _offer(self, int64_t handle) except -1:
        if not 0 <= handle < self._offer_capacity or self._offers[handle].gpus == 0:
            raise KeyError(handle)
        return <int32_t> handle

    cdef int _reserve(self, int64_t bids, int64_t lots) except -1:
        """Make room for new or touched bids and for lots, so that changing them cannot fail."""
        cdef int64_t touched = self._kernel.touched_count + bids
        cdef int32_t* grown
        if bids_reserve(&self._kernel.ladder, bids) or lots_reserve(
            &self._kernel.ladder, lots, 2 * lots
        ):
            raise MemoryError
        if touched > self._kernel.touched_capacity:
            touched *= 2
            grown = <int32_t*> realloc(self._kernel.touched, touched * sizeof(int32_t))
            if grown == NULL:
                raise MemoryError
            self._kernel.touched = grown
            self._kernel.touched_capacity = <int32_t> touched
        return 0

    cdef int _expire_at(self, int32_t tick, int32_t slot) except -1:
        if expiries_add(&self._expiries, self._kernel.ladder.bids, tick, slot):
            raise MemoryError
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
