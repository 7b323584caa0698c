# What a clearing gives each bid, what has changed since the last one, and why a bid lost.
#
# The published difference is found without looking at who is neither at the edge nor touched: a fill can
# differ only for bids whose terms changed, for lots between the last prefix's edge and this one's, and
# for lots that were or are served behind the edge.
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc

from matching.ladder cimport (
    Ladder,
    base_gpus,
    chunk_for,
    chunk_lots,
    is_before,
    lot_family,
    lot_gpus,
)
from matching.layout cimport (
    INCUMBENT,
    NEWCOMER,
    NONE,
    SIZES,
    Arrival,
    Bid,
    Edge,
    Exception_,
    Room,
    Solution,
)
from matching.scan cimport comes_first, lot_is_before, need_add, next_level
from matching.supply cimport Supply, supply_room

cdef enum:
    KEPT_SLOTS = 65536     # of a scratch array that stays allocated between clearings

cdef struct Kernel:
    Ladder ladder
    Supply supply
    Solution run               # the clearing at work
    Solution published         # the last one that `clear` returned
    bint is_published_whole    # nothing can be inferred from its edge: compare every bid
    int32_t refine_below_bids
    int32_t price_position_bps
    int32_t left_out_usable    # X7: what the gang that was left out could have had at the end
    int32_t* touched           # slots whose terms changed since the last clearing
    int32_t touched_count
    int32_t touched_capacity
    int32_t* changed           # slots whose fill is to be published
    int32_t changed_count
    int32_t changed_capacity


# -- what a bid gets ----------------------------------------------------------------------------------

cdef inline void forget_margins(Kernel* kernel) noexcept nogil:
    cdef int32_t i
    for i in range(kernel.run.exception_count):
        kernel.ladder.bids[kernel.run.exceptions[i].slot].margin = 0


cdef inline int32_t fill_of(const Kernel* kernel, int32_t slot) noexcept nogil:
    """GPUs that the clearing at work gives a bid."""
    cdef const Bid* bid = &kernel.ladder.bids[slot]
    cdef int32_t fill = <int32_t> bid.margin
    if slot == kernel.run.excluded:
        return 0
    if lot_is_before(&kernel.ladder, kernel.run.edge, slot, 0):
        fill += base_gpus(bid)
    if bid.extra_at and lot_is_before(&kernel.ladder, kernel.run.edge, slot, 1):
        fill += lot_gpus(bid, 1)
    return fill


# -- the difference to the last clearing ----------------------------------------------------------------

cdef inline int compare(Kernel* kernel, int32_t slot) noexcept nogil:
    """Note the bid if its fill has changed; -1 when there is no memory."""
    cdef Bid* bid = &kernel.ladder.bids[slot]
    cdef int32_t fill, capacity
    cdef int32_t* changed
    if bid.limit == 0:
        return 0
    fill = fill_of(kernel, slot)
    if <int32_t> bid.fill == fill:
        return 0
    if kernel.changed_count == kernel.changed_capacity:
        capacity = 2 * kernel.changed_capacity if kernel.changed_capacity else 64
        changed = <int32_t*> realloc(kernel.changed, capacity * sizeof(int32_t))
        if changed == NULL:
            return -1
        kernel.changed = changed
        kernel.changed_capacity = capacity
    bid.fill = fill
    kernel.changed[kernel.changed_count] = slot
    kernel.changed_count += 1
    return 0


cdef inline bint edge_is_before(const Edge* a, const Edge* b) noexcept nogil:
    """Say whether less lies before edge a than before edge b."""
    if a.limit != b.limit:
        return a.limit > b.limit
    if a.is_whole or b.is_whole:
        return b.is_whole and not a.is_whole
    return a.order < b.order or (a.order == b.order and a.seq < b.seq)


cdef inline int compare_between(Kernel* kernel, int32_t family) noexcept nogil:
    """Compare the lots of a family that lie between the last prefix's edge and this one's."""
    cdef const Ladder* ladder = &kernel.ladder
    cdef const Edge* first = &kernel.published.edge[family]
    cdef const Edge* last = &kernel.run.edge[family]
    cdef const Edge* swapped = first
    cdef const Arrival* arrival
    cdef int32_t limit, at, i
    cdef int32_t* lots
    if edge_is_before(last, first):
        first = last
        last = swapped
    elif not edge_is_before(first, last):
        return 0
    limit = first.limit
    if first.is_whole:
        limit = next_level(ladder, family, limit - 1, 1, 1)
    while limit and limit >= last.limit:
        at = ladder.levels[family][limit].head
        if limit == first.limit:
            at = chunk_for(ladder, &ladder.levels[family][limit], first.order)
        while at:
            lots = chunk_lots(ladder, at)
            arrival = &ladder.arrivals[lots[0] >> 1]
            if limit == last.limit and not last.is_whole and not is_before(arrival, last.order, last.seq):
                break
            for i in range(ladder.chunks[at].count):
                if compare(kernel, lots[i] >> 1):
                    return -1
            at = ladder.chunks[at].next
        limit = next_level(ladder, family, limit - 1, 1, 1)
    return 0


cdef inline int publish(Kernel* kernel) noexcept nogil:
    """Find the bids whose fill has changed, and make this clearing the last one; -1 without memory."""
    cdef int32_t i
    cdef Solution swapped
    kernel.changed_count = 0
    if kernel.is_published_whole or kernel.ladder.bid_live < kernel.refine_below_bids:
        for i in range(kernel.ladder.bid_end):
            if compare(kernel, i):
                return -1
    else:
        for i in range(kernel.touched_count):
            if compare(kernel, kernel.touched[i]):
                return -1
        for i in range(kernel.published.exception_count):
            if compare(kernel, kernel.published.exceptions[i].slot):
                return -1
        for i in range(kernel.run.exception_count):
            if compare(kernel, kernel.run.exceptions[i].slot):
                return -1
        if compare_between(kernel, NEWCOMER) or compare_between(kernel, INCUMBENT):
            return -1
    for i in range(kernel.touched_count):
        kernel.ladder.bids[kernel.touched[i]].is_touched = 0
    kernel.touched_count = 0
    if kernel.touched_capacity > KEPT_SLOTS:
        free(kernel.touched)
        kernel.touched = NULL
        kernel.touched_capacity = 0
    forget_margins(kernel)
    kernel.is_published_whole = kernel.run.excluded != NONE
    swapped = kernel.published
    kernel.published = kernel.run
    kernel.run = swapped
    return 0


cdef inline void forget_changes(Kernel* kernel) noexcept nogil:
    """The changes have been read."""
    if kernel.changed_capacity > KEPT_SLOTS:
        free(kernel.changed)
        kernel.changed = NULL
        kernel.changed_capacity = 0


# -- why a bid lost -------------------------------------------------------------------------------------

cdef inline bint base_comes_first(const Ladder* ladder, int32_t slot, int32_t other) noexcept nogil:
    """R4: say whether the base lot of one bid comes before the base lot of another."""
    cdef const Bid* a = &ladder.bids[slot]
    cdef const Bid* b = &ladder.bids[other]
    cdef const Arrival* arrival = &ladder.arrivals[other]
    cdef int32_t family = lot_family(a, 0)
    if family != lot_family(b, 0):
        if family == INCUMBENT:
            return comes_first(ladder, <int32_t> a.limit, <int32_t> b.limit)
        return not comes_first(ladder, <int32_t> b.limit, <int32_t> a.limit)
    if a.limit != b.limit:
        return a.limit > b.limit
    return is_before(&ladder.arrivals[slot], arrival.order, arrival.seq)


cdef inline bint extra_comes_first(const Ladder* ladder, int32_t slot, int32_t other) noexcept nogil:
    """R4: say whether the expansion lot of one bid comes before the base lot of another."""
    cdef const Bid* a = &ladder.bids[slot]
    cdef const Bid* b = &ladder.bids[other]
    cdef const Arrival* arrival = &ladder.arrivals[other]
    if lot_family(b, 0) == INCUMBENT:
        return not comes_first(ladder, <int32_t> b.limit, <int32_t> a.limit)
    if a.limit != b.limit:
        return a.limit > b.limit
    return is_before(&ladder.arrivals[slot], arrival.order, arrival.seq)


cdef inline int64_t usable_at_its_turn(const Kernel* kernel, int32_t slot) noexcept nogil:
    """What the bid's base lot could have had when the last clearing came to it."""
    cdef int64_t need[7]
    cdef int32_t i, k, top = kernel.published.prefix_ceil
    cdef const Bid* bid = &kernel.ladder.bids[slot]
    cdef const Exception_* exception
    cdef bint is_earlier
    cdef Room room
    if slot == kernel.published.excluded:
        return kernel.left_out_usable
    for k in range(SIZES):
        need[k] = kernel.published.prefix_need[k]
    for i in range(kernel.published.exception_count):
        exception = &kernel.published.exceptions[i]
        if exception.number == 0:
            is_earlier = base_comes_first(&kernel.ladder, exception.slot, slot)
        else:
            is_earlier = extra_comes_first(&kernel.ladder, exception.slot, slot)
        if not is_earlier:
            break
        k = 0
        if kernel.ladder.bids[exception.slot].is_colocated:
            while 1 << k < exception.fill:
                k += 1
        need_add(need, k, exception.fill)
        top = exception.top
    top = top if top < <int32_t> bid.limit else <int32_t> bid.limit
    room = supply_room(&kernel.supply, top, need)
    return room.size if bid.is_colocated else room.usable
