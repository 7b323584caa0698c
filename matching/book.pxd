# The book's layout: many small structs in contiguous arrays, one owner. Slots, not pointers, name
# bids and offers, so growth cannot dangle. Prices are levels of the market's grid.
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef struct BidSlot:
    int32_t limit       # 0: the slot is free, and `gpus` links to the next free one
    int32_t gpus
    int32_t min_gpus
    int32_t held        # GPUs that rank as an incumbent's
    int64_t arrival_tick
    int64_t arrival_hash
    int64_t seq
    int32_t last_fill   # what the last clearing said; -1: nothing yet
    int32_t last_needed
    int32_t last_usable
    uint8_t last_reason

cdef struct OfferSlot:
    int32_t reserve
    int32_t gpus        # 0: the slot is free, and `reserve` links to the next free one

cdef struct Lot:
    int32_t slot
    int32_t rank
    int32_t limit
    int32_t gpus
    int32_t min_gpus
    int32_t fill
    int32_t usable
    uint8_t is_newcomer
    uint8_t number      # 0 base, 1 expansion
    int64_t arrival_tick
    int64_t arrival_hash
    int64_t seq

cdef class Book:
    cdef int32_t _handicap_bps
    cdef int32_t _level_count
    cdef int32_t _level_top        # Fenwick size: the power of two above the levels
    cdef BidSlot* _bids
    cdef int32_t _bid_capacity
    cdef int32_t _bid_free         # head of the free list, -1 when none
    cdef int32_t _bid_live
    cdef OfferSlot* _offers
    cdef int32_t _offer_capacity
    cdef int32_t _offer_free
    cdef int32_t _offer_live
    cdef int64_t* _supply          # Fenwick tree: GPUs offered by reserve level
    cdef int64_t _offered
    cdef int64_t _demanded
    cdef Lot* _lots
    cdef int32_t* _base_lots       # by slot: index of its base lot in the order of acceptance
    cdef int32_t _lot_capacity

    cdef int _grow_bids(self) except -1
    cdef int _grow_offers(self) except -1
    cdef int _check_bid(self, int64_t limit, int64_t gpus, int64_t min_gpus) except -1
    cdef int _check_offer(self, int64_t reserve, int64_t gpus) except -1
    cdef BidSlot* _bid(self, int64_t handle) except NULL
    cdef OfferSlot* _offer(self, int64_t handle) except NULL
    cdef int32_t _fill_lots(self) noexcept nogil
    cdef int _reserve_lots(self) except -1
