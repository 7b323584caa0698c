# The demand side of a book: bids, their lots in the order of R4, and the sums over them.
#
# Every change to a bid takes its lots out of their queues and puts them back where they now belong;
# the sums over levels follow when the book is cleared, each touched level once (`ladder_fold`).
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove

from matching.finder cimport Finder, finder_raise, finder_set
from matching.layout cimport (
    CHUNK_LOTS,
    CHUNK_SPARSE,
    EASE_MAX,
    INCUMBENT,
    NEWCOMER,
    NONE,
    Arrival,
    Bid,
    Chunk,
    Hint,
    Level,
    SizeCounts,
    Sum,
    array_grow,
)
from matching.sums cimport counts_add, sum_add

cdef struct Ladder:
    int32_t handicap_bps
    int32_t level_count
    int32_t top                # of the Fenwick trees: a power of two above the levels
    Bid* bids
    Arrival* arrivals
    int32_t bid_capacity
    int32_t bid_end            # slots below it have been used
    int32_t* free_bids         # slots to be used again, the last one first
    int32_t free_count
    int32_t free_capacity
    int32_t bid_live
    int64_t demanded
    Chunk* chunks              # 0 is nobody's
    int32_t* lots              # CHUNK_LOTS per chunk: slot << 1 | lot number
    int32_t chunk_capacity
    int32_t chunk_end
    int32_t chunk_free         # head of the free list (by `next`), 0 when empty
    Level* levels[2]
    Sum* sums[2]               # by depth: 1 is the highest limit
    SizeCounts* sizes[2]       # NULL until the first co-located bid
    Finder easy[2]             # free-form lots: EASE_MAX - minimum
    Finder colocated[2]        # co-located lots: 7 - log2(size)
    Hint hint
    bint is_unchanged          # nothing has changed, on either side, since the last clearing
    int32_t* unfolded          # levels whose change is not in the sums: limit << 1 | family
    int32_t unfolded_count
    int32_t unfolded_capacity


# -- what a lot is (R3) -----------------------------------------------------------------------------

cdef inline int32_t discount(const Ladder* ladder, int32_t limit) noexcept nogil:
    """A newcomer ranks as if its limit were lower by the handicap."""
    return <int32_t> (<int64_t> limit * 10000 // (10000 + ladder.handicap_bps))


cdef inline int32_t lowest_limit(const Ladder* ladder, int32_t rank) noexcept nogil:
    """The lowest newcomer's limit that ranks at least there; above the levels if there is none."""
    cdef int64_t scaled = <int64_t> rank * (10000 + ladder.handicap_bps)
    cdef int64_t limit = (scaled + 9999) // 10000
    return <int32_t> limit if limit <= ladder.level_count else ladder.level_count + 1


cdef inline int32_t base_gpus(const Bid* bid) noexcept nogil:
    cdef uint64_t gpus = bid.held if bid.held > bid.min_gpus else bid.min_gpus
    if bid.held == 0 or gpus > bid.gpus:
        gpus = bid.gpus
    return <int32_t> gpus


cdef inline int32_t lot_gpus(const Bid* bid, int32_t number) noexcept nogil:
    cdef int32_t base = base_gpus(bid)
    return base if number == 0 else <int32_t> bid.gpus - base


cdef inline int32_t lot_minimum(const Bid* bid, int32_t number) noexcept nogil:
    return <int32_t> bid.min_gpus if number == 0 else 1


cdef inline int32_t lot_family(const Bid* bid, int32_t number) noexcept nogil:
    return INCUMBENT if bid.held > 0 and number == 0 else NEWCOMER


cdef inline int32_t size_index(const Bid* bid) noexcept nogil:
    """log2 of the co-located size; 0 for GPUs that may lie anywhere."""
    cdef uint64_t gpus = bid.gpus
    cdef int32_t k = 0
    if bid.is_colocated:
        while gpus > 1:
            gpus >>= 1
            k += 1
    return k


cdef inline bint is_before(const Arrival* a, uint64_t order, int64_t seq) noexcept nogil:
    return a.order < order or (a.order == order and a.seq < seq)


# -- queues -----------------------------------------------------------------------------------------

cdef inline int32_t chunk_take(Ladder* ladder) noexcept nogil:
    """A free chunk; `ladder_reserve` has made sure that there is one."""
    cdef int32_t at = ladder.chunk_free
    if at:
        ladder.chunk_free = ladder.chunks[at].next
    else:
        at = ladder.chunk_end
        ladder.chunk_end += 1
    return at


cdef inline int32_t* chunk_lots(const Ladder* ladder, int32_t at) noexcept nogil:
    return &ladder.lots[<int64_t> at * CHUNK_LOTS]


cdef inline void set_chunk_of(Ladder* ladder, int32_t lot, int32_t at) noexcept nogil:
    if lot & 1:
        ladder.bids[lot >> 1].extra_at = at
    else:
        ladder.bids[lot >> 1].base_at = at


cdef inline void chunk_recount(Ladder* ladder, int32_t at) noexcept nogil:
    """Count a chunk's lots again: after a split or merge, or when its ease was too optimistic."""
    cdef Chunk* chunk = &ladder.chunks[at]
    cdef int32_t* lots = chunk_lots(ladder, at)
    cdef int32_t i, k, ease
    cdef const Bid* bid
    chunk.gpus = chunk.ease = 0
    chunk.colocated_ease = chunk.gangs = chunk.colocated = 0
    for i in range(chunk.count):
        bid = &ladder.bids[lots[i] >> 1]
        chunk.gpus += lot_gpus(bid, lots[i] & 1)
        chunk.gangs += lot_minimum(bid, lots[i] & 1) > 1
        k = size_index(bid)
        if k:
            chunk.colocated += 1
            if 7 - k > chunk.colocated_ease:
                chunk.colocated_ease = <uint8_t> (7 - k)
        else:
            ease = EASE_MAX - lot_minimum(bid, lots[i] & 1)
            if ease > chunk.ease:
                chunk.ease = ease


cdef inline int32_t chunk_add_after(Ladder* ladder, Level* level, int32_t previous) noexcept nogil:
    """An empty chunk behind `previous` (0: in front)."""
    cdef int32_t at = chunk_take(ladder)
    cdef Chunk* chunk = &ladder.chunks[at]
    chunk.count = chunk.gangs = chunk.colocated = chunk.colocated_ease = 0
    chunk.gpus = chunk.ease = 0
    chunk.previous = previous
    chunk.next = ladder.chunks[previous].next if previous else level.head
    if previous:
        ladder.chunks[previous].next = at
    else:
        level.head = at
    if chunk.next:
        ladder.chunks[chunk.next].previous = at
    else:
        level.tail = at
    return at


cdef inline void chunk_drop(Ladder* ladder, Level* level, int32_t at) noexcept nogil:
    cdef Chunk* chunk = &ladder.chunks[at]
    if chunk.previous:
        ladder.chunks[chunk.previous].next = chunk.next
    else:
        level.head = chunk.next
    if chunk.next:
        ladder.chunks[chunk.next].previous = chunk.previous
    else:
        level.tail = chunk.previous
    chunk.next = ladder.chunk_free
    ladder.chunk_free = at


cdef inline void chunk_split(Ladder* ladder, Level* level, int32_t at) noexcept nogil:
    """Move the second half of a full chunk to a new one behind it."""
    cdef int32_t behind = chunk_add_after(ladder, level, at)
    cdef Chunk* chunk = &ladder.chunks[at]
    cdef Chunk* new = &ladder.chunks[behind]
    cdef int32_t* lots = chunk_lots(ladder, behind)
    cdef int32_t i
    new.count = chunk.count - CHUNK_LOTS // 2
    chunk.count = CHUNK_LOTS // 2
    memcpy(lots, chunk_lots(ladder, at) + CHUNK_LOTS // 2, new.count * sizeof(int32_t))
    for i in range(new.count):
        set_chunk_of(ladder, lots[i], behind)
    new.order = ladder.arrivals[lots[0] >> 1].order
    new.last_tick = chunk.last_tick
    chunk_recount(ladder, at)
    chunk_recount(ladder, behind)


cdef inline bint chunk_move_in(Ladder* ladder, Level* level, int32_t at, int32_t to) noexcept nogil:
    """Move the few lots of a chunk into a neighbour, if there is one with room, and drop the chunk."""
    cdef Chunk* chunk = &ladder.chunks[at]
    cdef Chunk* other = &ladder.chunks[to]
    cdef int32_t* lots = chunk_lots(ladder, at)
    cdef int32_t* there = chunk_lots(ladder, to)
    cdef int32_t i
    if to == 0 or chunk.count + other.count > CHUNK_LOTS:
        return False
    for i in range(chunk.count):
        set_chunk_of(ladder, lots[i], to)
    if to == chunk.previous:
        memcpy(there + other.count, lots, chunk.count * sizeof(int32_t))
        other.last_tick = chunk.last_tick
    else:
        memmove(there + chunk.count, there, other.count * sizeof(int32_t))
        memcpy(there, lots, chunk.count * sizeof(int32_t))
        other.order = chunk.order
    other.count += chunk.count
    other.gpus += chunk.gpus
    other.gangs += chunk.gangs
    other.colocated += chunk.colocated
    if chunk.ease > other.ease:
        other.ease = chunk.ease
    if chunk.colocated_ease > other.colocated_ease:
        other.colocated_ease = chunk.colocated_ease
    chunk_drop(ladder, level, at)
    return True


cdef inline int32_t chunk_for(const Ladder* ladder, const Level* level, uint64_t order) noexcept nogil:
    """The last chunk whose lots may all be earlier, or the first: from the tail, where the newest come."""
    cdef int32_t at = level.tail
    while at and ladder.chunks[at].order >= order and ladder.chunks[at].previous:
        at = ladder.chunks[at].previous
    return at


cdef inline int32_t index_for(
    const Ladder* ladder, int32_t at, uint64_t order, int64_t seq
) noexcept nogil:
    """How many lots of the chunk arrived before (order, seq)."""
    cdef const int32_t* lots = chunk_lots(ladder, at)
    cdef int32_t low, high = ladder.chunks[at].count, middle, step = 1
    if ladder.chunks[at].last_tick < <int32_t> (order >> 32):
        return high
    # The newest are at the end: gallop back, then bisect.
    low = high - 1
    while low > 0 and not is_before(&ladder.arrivals[lots[low] >> 1], order, seq):
        high = low
        step *= 2
        low = high - step if high > step else 0
    while low < high:
        middle = (low + high) >> 1
        if is_before(&ladder.arrivals[lots[middle] >> 1], order, seq):
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void level_changed(
    Ladder* ladder, int32_t family, int32_t limit, int64_t gpus, int32_t gangs
) noexcept nogil:
    cdef Level* level = &ladder.levels[family][limit]
    ladder.is_unchanged = False
    level.gpus_change += gpus
    level.gangs_change += gangs
    if not level.is_listed:
        level.is_listed = 1
        ladder.unfolded[ladder.unfolded_count] = limit << 1 | family
        ladder.unfolded_count += 1


cdef inline void lot_add(Ladder* ladder, int32_t slot, int32_t number) noexcept nogil:
    """Put a lot into its queue, in the order of arrival."""
    cdef const Bid* bid = &ladder.bids[slot]
    cdef const Arrival* arrival = &ladder.arrivals[slot]
    cdef int32_t family = lot_family(bid, number)
    cdef int32_t limit = <int32_t> bid.limit
    cdef int32_t gpus = lot_gpus(bid, number)
    cdef int32_t minimum = lot_minimum(bid, number)
    cdef int32_t k = size_index(bid)
    cdef Level* level = &ladder.levels[family][limit]
    cdef int32_t at = chunk_for(ladder, level, arrival.order)
    cdef int32_t index = index_for(ladder, at, arrival.order, arrival.seq) if at else 0
    cdef int32_t behind
    cdef Chunk* chunk
    cdef int32_t* lots
    while at and index == ladder.chunks[at].count:
        behind = ladder.chunks[at].next
        if behind == 0 or ladder.chunks[behind].order != arrival.order:
            break
        index = index_for(ladder, behind, arrival.order, arrival.seq)  # equal orders: by sequence
        if index == 0:
            index = ladder.chunks[at].count
            break
        at = behind
    if at and ladder.chunks[at].count == CHUNK_LOTS:
        if index == CHUNK_LOTS and not ladder.chunks[at].next:
            at = 0  # behind everything: a new chunk, and this one stays full
        else:
            chunk_split(ladder, level, at)
            if index > CHUNK_LOTS // 2:
                index -= CHUNK_LOTS // 2
                at = ladder.chunks[at].next
    if at == 0:
        at = chunk_add_after(ladder, level, level.tail)
        index = 0
    chunk = &ladder.chunks[at]
    lots = chunk_lots(ladder, at)
    if index < chunk.count:
        memmove(&lots[index + 1], &lots[index], (chunk.count - index) * sizeof(int32_t))
    lots[index] = slot << 1 | number
    if index == 0:
        chunk.order = arrival.order
    if index == chunk.count:
        chunk.last_tick = <int32_t> (arrival.order >> 32)
    chunk.count += 1
    chunk.gpus += gpus
    chunk.gangs += minimum > 1
    if k:
        chunk.colocated += 1
        if 7 - k > chunk.colocated_ease:
            chunk.colocated_ease = <uint8_t> (7 - k)
        finder_raise(&ladder.colocated[family], limit, 7 - k)
        counts_add(ladder.sizes[family], ladder.top, ladder.level_count - limit + 1, k, 1)
    else:
        if EASE_MAX - minimum > chunk.ease:
            chunk.ease = EASE_MAX - minimum
        finder_raise(&ladder.easy[family], limit, EASE_MAX - minimum)
    set_chunk_of(ladder, lots[index], at)
    level_changed(ladder, family, limit, gpus, minimum > 1)


cdef inline void lot_remove(Ladder* ladder, int32_t slot, int32_t number) noexcept nogil:
    """Take a lot out of its queue. Eases stay as they are: too optimistic at worst."""
    cdef const Bid* bid = &ladder.bids[slot]
    cdef int32_t family = lot_family(bid, number)
    cdef int32_t limit = <int32_t> bid.limit
    cdef int32_t gpus = lot_gpus(bid, number)
    cdef int32_t is_gang = lot_minimum(bid, number) > 1
    cdef int32_t k = size_index(bid)
    cdef Level* level = &ladder.levels[family][limit]
    cdef int32_t at = bid.extra_at if number else bid.base_at
    cdef Chunk* chunk = &ladder.chunks[at]
    cdef int32_t* lots = chunk_lots(ladder, at)
    cdef int32_t lot = slot << 1 | number
    cdef int32_t index = 0
    while lots[index] != lot:
        index += 1
    chunk.count -= 1
    memmove(&lots[index], &lots[index + 1], (chunk.count - index) * sizeof(int32_t))
    chunk.gpus -= gpus
    chunk.gangs -= is_gang
    if k:
        chunk.colocated -= 1
        counts_add(ladder.sizes[family], ladder.top, ladder.level_count - limit + 1, k, -1)
    set_chunk_of(ladder, lot, 0)
    if chunk.count == 0:
        chunk_drop(ladder, level, at)
        if level.head == 0:
            finder_set(&ladder.easy[family], limit, 0)
            if ladder.sizes[family] != NULL:
                finder_set(&ladder.colocated[family], limit, 0)
    elif chunk.count <= CHUNK_SPARSE and not chunk_move_in(ladder, level, at, chunk.previous):
        chunk_move_in(ladder, level, at, chunk.next)
    level_changed(ladder, family, limit, -gpus, -is_gang)


cdef inline void bid_enter(Ladder* ladder, int32_t slot) noexcept nogil:
    """Put the bid's lots into their queues."""
    cdef const Bid* bid = &ladder.bids[slot]
    lot_add(ladder, slot, 0)
    if bid.held > 0 and base_gpus(bid) < <int32_t> bid.gpus:
        lot_add(ladder, slot, 1)


cdef inline void bid_leave(Ladder* ladder, int32_t slot) noexcept nogil:
    if ladder.bids[slot].extra_at:
        lot_remove(ladder, slot, 1)
    lot_remove(ladder, slot, 0)


# -- room and sums ----------------------------------------------------------------------------------

cdef inline int bids_reserve(Ladder* ladder, int64_t more) noexcept nogil:
    """Make room for `more` bids; -1 when there is no memory."""
    cdef int64_t needed = ladder.bid_end + (more - ladder.free_count if more > ladder.free_count else 0)
    cdef int64_t capacity = ladder.bid_capacity
    cdef Bid* bids
    cdef Arrival* arrivals
    if needed <= capacity:
        return 0
    while capacity < needed:
        capacity = capacity * 2 if capacity else 64
    if capacity > 1 << 30:
        return -1
    bids = <Bid*> array_grow(ladder.bids, ladder.bid_end * sizeof(Bid), capacity * sizeof(Bid))
    if bids == NULL:
        return -1
    ladder.bids = bids
    arrivals = <Arrival*> array_grow(
        ladder.arrivals, ladder.bid_end * sizeof(Arrival), capacity * sizeof(Arrival)
    )
    if arrivals == NULL:
        return -1
    ladder.arrivals = arrivals
    ladder.bid_capacity = <int32_t> capacity
    return 0


cdef inline int free_reserve(Ladder* ladder, int64_t more) noexcept nogil:
    """Make room to note `more` free slots; -1 when there is no memory."""
    cdef int64_t capacity = ladder.free_capacity
    cdef int32_t* grown
    if ladder.free_count + more <= capacity:
        return 0
    while capacity < ladder.free_count + more:
        capacity = capacity * 2 if capacity else 64
    grown = <int32_t*> realloc(ladder.free_bids, capacity * sizeof(int32_t))
    if grown == NULL:
        return -1
    ladder.free_bids = grown
    ladder.free_capacity = <int32_t> capacity
    return 0


cdef inline int lots_reserve(Ladder* ladder, int64_t more, int64_t changes) noexcept nogil:
    """Make room for the chunks of `more` lots and for changes to levels; -1 when there is no memory.

    A lot takes at most one new chunk, by a split or behind a full tail.
    """
    cdef int64_t needed = ladder.chunk_end + more + 1
    cdef int64_t capacity = ladder.chunk_capacity
    cdef Chunk* chunks
    cdef int32_t* lots
    cdef int64_t listed = ladder.unfolded_count + changes
    cdef int32_t* unfolded
    if needed > capacity:
        while capacity < needed:
            capacity = capacity * 2 if capacity else 64
        if capacity > 1 << 30:
            return -1
        chunks = <Chunk*> array_grow(
            ladder.chunks, ladder.chunk_end * sizeof(Chunk), capacity * sizeof(Chunk)
        )
        if chunks == NULL:
            return -1
        ladder.chunks = chunks
        lots = <int32_t*> array_grow(
            ladder.lots,
            <size_t> ladder.chunk_end * CHUNK_LOTS * sizeof(int32_t),
            capacity * CHUNK_LOTS * sizeof(int32_t),
        )
        if lots == NULL:
            return -1
        ladder.lots = lots
        ladder.chunk_capacity = <int32_t> capacity
        if ladder.chunk_end == 0:
            ladder.chunk_end = 1
    if listed > 2 * <int64_t> ladder.level_count + 2:
        listed = 2 * <int64_t> ladder.level_count + 2  # each level is listed once
    if listed > ladder.unfolded_capacity:
        unfolded = <int32_t*> realloc(ladder.unfolded, 2 * listed * sizeof(int32_t))
        if unfolded == NULL:
            return -1
        ladder.unfolded = unfolded
        ladder.unfolded_capacity = <int32_t> (2 * listed)
    return 0


cdef inline void ladder_fold(Ladder* ladder) noexcept nogil:
    """Bring the changes of the touched levels into the sums."""
    cdef int32_t i, limit, family
    cdef Level* level
    for i in range(ladder.unfolded_count):
        limit = ladder.unfolded[i] >> 1
        family = ladder.unfolded[i] & 1
        level = &ladder.levels[family][limit]
        if limit == ladder.hint.limit and family == ladder.hint.family:
            ladder.hint.limit = 0
        if level.gpus_change or level.gangs_change:
            sum_add(
                ladder.sums[family], ladder.top, ladder.level_count - limit + 1,
                level.gpus_change, level.gpus_change * limit, level.gangs_change,
            )
        level.gpus_change = 0
        level.gangs_change = 0
        level.is_listed = 0
    ladder.unfolded_count = 0
