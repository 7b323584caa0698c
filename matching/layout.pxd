# The book's layout: many small structs in contiguous arrays, one owner. Indices, not pointers, name
# bids, chunks and levels, so growth cannot dangle. Prices are levels of the market's grid.
#
#   Bid      32 bytes, what a tick reads: two bids to a cache line, none across two
#   Arrival  16 bytes, what only a comparison of equals reads
#   Chunk    32 bytes, the sums of up to 32 lots of one queue in the order of R4: a B+ tree's leaf
#   Level    the queue of one family at one limit: a list of chunks
#
# A bid is one lot, or two while it holds GPUs and wants more. Lots live in two families of levels:
# newcomers (rank = discounted limit) and incumbents (rank = limit). Both are indexed by limit; inside a
# family a higher limit never ranks below a lower one.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #ifdef __linux__
    #include <sys/mman.h>
    #endif

    typedef struct {
        uint64_t gpus : 20, min_gpus : 20, held : 20, is_colocated : 1, is_touched : 1;
        uint64_t limit : 18, fill : 20, margin : 20;
        int32_t base_at, extra_at, account, valid_until;
    } Bid;

    /* Zeroed memory on cache lines, on huge pages where it is large: a cancel is one cold line. */
    static void *array_new(size_t bytes) {
        size_t align = bytes >= ((size_t) 4 << 20) ? (size_t) 2 << 20 : 64;
        void *memory = NULL;
        if (posix_memalign(&memory, align, bytes)) return NULL;
    #ifdef MADV_HUGEPAGE
        if (align > 64) madvise(memory, bytes, MADV_HUGEPAGE);
    #endif
        return memory;
    }
    #define prefetch(address) __builtin_prefetch(address)
    """
    ctypedef struct Bid:
        uint64_t gpus
        uint64_t min_gpus
        uint64_t held          # GPUs that rank as an incumbent's
        uint64_t is_colocated
        uint64_t is_touched    # since the last clearing
        uint64_t limit         # 0: the slot is free, and `base_at` links to the next free one
        uint64_t fill          # as published by the last clearing
        uint64_t margin        # during a clearing: what its lots behind the prefix got
        int32_t base_at        # chunk of its base lot
        int32_t extra_at       # chunk of its expansion lot, 0 if it has none
        int32_t account
        int32_t valid_until
    void* array_new(size_t size) nogil
    void prefetch(const void* address) nogil

cdef enum:
    NONE = -1
    NEWCOMER = 0           # the families
    INCUMBENT = 1
    CHUNK_LOTS = 32
    CHUNK_SPARSE = 8       # a chunk with no more lots than this moves in with its neighbour
    SIZES = 7              # of the chain: 1, 2, 4 ... 64
    EASE_MAX = 1_000_001   # a free-form lot's ease: EASE_MAX - its minimum
    FINDER_SHIFT = 6
    FINDER_FAN = 64

cdef struct Arrival:
    uint64_t order         # arrival tick << 32 | keyed hash
    int64_t seq

cdef struct Chunk:
    uint64_t order         # no lot of this chunk has a smaller one, none of `previous` a larger one
    int32_t last_tick      # no lot of this chunk arrived later
    int32_t previous
    int32_t next
    int32_t gpus
    int32_t ease           # at least the ease of its easiest free-form lot; 0 if it has none
    uint8_t colocated_ease # the same of co-located lots: 7 - log2(size)
    uint8_t count
    uint8_t gangs          # base lots with a minimum above 1
    uint8_t colocated

cdef struct Level:
    int32_t head
    int32_t tail
    int64_t gpus_change    # not yet in the sums
    int32_t gangs_change
    int32_t is_listed      # among the levels to fold

# One node of a Fenwick tree over the levels of a family.
cdef struct Sum:
    int64_t gpus
    int64_t value          # sum of limit x GPUs
    int64_t gangs

# Items of the co-located sizes 2, 4 ... 64 below one node of a Fenwick tree.
cdef struct SizeCounts:
    int32_t n[8]

# One node of the supply's Fenwick tree.
cdef struct UnitSum:
    int64_t gpus
    int64_t value          # sum of reserve x GPUs

# Where the fully served prefix ends in a family: lots above `limit`, at `limit` those before
# (order, seq), or all of them.
cdef struct Edge:
    int32_t limit
    bint is_whole
    uint64_t order
    int64_t seq

# Where the last prefix ended inside a level, while that level stays as it is: all chunks before `chunk`
# hold `gpus`, and `gangs` lots with a minimum.
cdef struct Hint:
    int32_t family
    int32_t limit          # 0: no hint
    int32_t chunk
    int32_t gangs
    int64_t gpus

cdef struct Cursor:
    int32_t limit          # 0: at the end
    int32_t chunk          # 0: at the head of the level
    int32_t index

# A lot behind the prefix that was served.
cdef struct Exception_:
    int32_t slot
    int32_t number
    int32_t fill
    int32_t top

# What a lot can have at some level: GPUs, and the easiest lots that could fit.
cdef struct Room:
    int32_t top
    int32_t size           # the largest co-located size, 0 if nothing fits
    int64_t usable         # free-form GPUs
    int32_t ease           # a free-form lot of at least this ease may fit
    int32_t colocated_ease

cdef struct Solution:
    int64_t need[7]        # what is accepted, in items of 1, 2 ... 64 (chain lemma)
    int64_t prefix_need[7]
    int64_t value
    int64_t cost
    int32_t ceil
    int32_t prefix_ceil
    int32_t floor
    int32_t low
    int32_t high
    int32_t price
    int32_t unsold
    int32_t edge_gangs     # gangs before the edge in the level where it lies
    int32_t excluded       # slot that this run leaves out (X7), else NONE
    Edge edge[2]
    Cursor start[2]        # the first lot behind the edge
    int32_t exception_count
    int32_t exception_capacity
    Exception_* exceptions


cdef inline void* array_grow(void* old, size_t old_bytes, size_t new_bytes) noexcept nogil:
    """Return a larger copy and free the old one; NULL leaves the old one as it is."""
    cdef void* memory = array_new(new_bytes)
    if memory != NULL and old != NULL:
        memcpy(memory, old, old_bytes)
        free(old)
    return memory
