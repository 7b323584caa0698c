# Which bids end at which tick: a heap by tick. A bid that leaves early leaves its entry behind, stale;
# the heap is made again when a third of it may be.
from libc.stdint cimport int32_t
from libc.stdlib cimport realloc

from matching.layout cimport Bid

cdef enum:
    STALE_KEPT = 1024      # entries that do not matter yet

cdef struct Expiry:
    int32_t tick
    int32_t slot

cdef struct Expiries:
    Expiry* entries
    int32_t count
    int32_t capacity
    int32_t live           # bids that will expire


cdef inline void expiry_sink(Expiries* heap, Expiry entry, int32_t i) noexcept nogil:
    """Put an entry at index i and let it sink to its place."""
    cdef int32_t child
    while 2 * i + 1 < heap.count:
        child = 2 * i + 1
        if child + 1 < heap.count and heap.entries[child + 1].tick < heap.entries[child].tick:
            child += 1
        if entry.tick <= heap.entries[child].tick:
            break
        heap.entries[i] = heap.entries[child]
        i = child
    if heap.count:
        heap.entries[i] = entry


cdef inline bint is_expiry_live(const Expiry* entry, const Bid* bid) noexcept nogil:
    return bid.limit != 0 and bid.valid_until == entry.tick


cdef inline void expiries_forget_stale(Expiries* heap, Bid* bids) noexcept nogil:
    """Keep one entry for each bid that will expire, and make a heap of them.

    A slot that was used again for the same tick has an entry too many; `margin`, free between
    clearings, marks the slots that have one.
    """
    cdef int32_t i, kept = 0
    cdef Bid* bid
    for i in range(heap.count):
        bid = &bids[heap.entries[i].slot]
        if is_expiry_live(&heap.entries[i], bid) and not bid.margin:
            bid.margin = 1
            heap.entries[kept] = heap.entries[i]
            kept += 1
    for i in range(kept):
        bids[heap.entries[i].slot].margin = 0
    heap.count = kept
    for i in range(kept // 2 - 1, -1, -1):
        expiry_sink(heap, heap.entries[i], i)


cdef inline int expiries_add(Expiries* heap, Bid* bids, int32_t tick, int32_t slot) noexcept nogil:
    """Note that a bid ends at a tick; -1 when there is no memory."""
    cdef int32_t i, parent, capacity
    cdef Expiry* entries
    heap.live += 1
    if 2 * heap.count > 3 * heap.live + STALE_KEPT:
        expiries_forget_stale(heap, bids)
    if heap.count == heap.capacity:
        capacity = 2 * heap.capacity if heap.capacity else 64
        entries = <Expiry*> realloc(heap.entries, capacity * sizeof(Expiry))
        if entries == NULL:
            return -1
        heap.entries = entries
        heap.capacity = capacity
    i = heap.count
    heap.count += 1
    while i > 0:
        parent = (i - 1) >> 1
        if heap.entries[parent].tick <= tick:
            break
        heap.entries[i] = heap.entries[parent]
        i = parent
    heap.entries[i].tick = tick
    heap.entries[i].slot = slot
    return 0


cdef inline int32_t expiries_take(Expiries* heap, Bid* bids, int32_t tick) noexcept nogil:
    """The next bid whose last valid tick is before this one, told once; -1 if there is none."""
    cdef Expiry entry
    cdef Bid* bid
    while heap.count and heap.entries[0].tick < tick:
        entry = heap.entries[0]
        heap.count -= 1
        expiry_sink(heap, heap.entries[heap.count], 0)
        bid = &bids[entry.slot]
        if is_expiry_live(&entry, bid):
            bid.valid_until = 0
            heap.live -= 1
            return entry.slot
    return -1
