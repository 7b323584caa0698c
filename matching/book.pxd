# What a book owns. The structs are in layout.pxd and publish.pxd, the work on them beside them.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from matching.expiry cimport Expiries
from matching.publish cimport Kernel

cdef struct OfferSlot:
    int32_t reserve
    int32_t gpus           # 0: the slot is free, and `reserve` links to the next free one
    int32_t node
    int32_t domain

cdef class Book:
    cdef Kernel* _kernel
    cdef OfferSlot* _offers
    cdef int32_t _offer_capacity
    cdef int32_t _offer_free
    cdef int32_t _offer_live
    cdef object _items             # NodeItems, from the first co-located bid on
    cdef object _last              # the last clearing: a quiet tick returns it with no changes
    cdef Expiries _expiries

    cdef int _check_bid(self, int64_t limit, int64_t gpus, int64_t min_gpus, bint colocated) except -1
    cdef int _check_offer(self, int64_t reserve, int64_t gpus) except -1
    cdef int32_t _bid(self, int64_t handle) except -1
    cdef int32_t _offer(self, int64_t handle) except -1
    cdef int _reserve(self, int64_t bids, int64_t lots) except -1
    cdef int32_t _place(
        self, int32_t limit, int32_t gpus, int32_t min_gpus, int64_t tick, int64_t arrival_hash,
        int64_t seq, bint colocated, int32_t account, int32_t valid_until
    ) noexcept nogil
    cdef void _cancel(self, int32_t slot) noexcept nogil
    cdef void _hold(self, int32_t slot, int32_t held) noexcept nogil
    cdef void _touch(self, int32_t slot) noexcept nogil
    cdef int _pack(self) except -1
    cdef int _change_items(self, int64_t handle, int32_t gpus) except -1
    cdef int _expire_at(self, int32_t tick, int32_t slot) except -1
    cdef int _solve(self) except -1
    cdef void _place_some(
        self, Py_ssize_t i, Py_ssize_t end, const int32_t[::1] limits, const int32_t[::1] gpus,
        const int32_t[::1] min_gpus, const uint32_t[::1] arrival_hashes, int64_t arrival_tick,
        int64_t first_seq, const int32_t[::1] accounts, const int32_t[::1] valid_until_ticks,
        const uint8_t[::1] colocated, const int32_t* order, int32_t[::1] out
    ) noexcept nogil
    cdef int _set_units(self, int32_t slot, int32_t reserve, int32_t gpus) except -1
    cdef int _fills_at(self, int32_t slot, int32_t limit) except -1
    cdef int _grow_offers(self) except -1
    cdef int _check_handles(self, const int32_t[::1] handles) except -1
