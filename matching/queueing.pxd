# The order in which a batch of bids is placed: near levels together, so that their queues stay in the cache.
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

cdef enum:
    RADIX_BITS = 11
    FEW_ARRIVALS = 16384       # one pass over the hashes leaves hardly two of a level in disorder


cdef inline int32_t* order_by_queue(
    const int32_t* limits, const uint32_t* hashes, int32_t count, int32_t level_count, int32_t* order,
    int32_t* scratch
) noexcept nogil:
    """Sort 0..count-1 by level and hash, roughly: near levels together, the earlier ones of a level first.

    A stable radix sort by the highest bits of both. What is left is for the queues to put in order.
    """
    cdef int32_t starts[1 << RADIX_BITS]
    cdef int32_t i, digit, at, next_start, number, shift = 0
    cdef int32_t* swapped
    while level_count >> shift >= 1 << RADIX_BITS:
        shift += 1
    for i in range(count):
        order[i] = i
    for number in range(3):
        if number == 0 and count <= FEW_ARRIVALS:
            continue
        memset(starts, 0, sizeof(starts))
        for i in range(count):
            starts[limits[i] >> shift if number == 2 else hashes[i] >> (10 + 11 * number) & 2047] += 1
        at = 0
        for digit in range(1 << RADIX_BITS):
            next_start = at + starts[digit]
            starts[digit] = at
            at = next_start
        for i in range(count):
            at = order[i]
            digit = limits[at] >> shift if number == 2 else <int32_t> (hashes[at] >> (10 + 11 * number) & 2047)
            scratch[starts[digit]] = at
            starts[digit] += 1
        swapped = order
        order = scratch
        scratch = swapped
    return order
