# One clearing of a book: RULES.md R5 and R6 without visiting what is fully served.
#
#   1. prefix: binary search for the lowest rank down to which everything fits; no lot is visited
#   2. edge:   in the one level where it ends, chunk by chunk, the first lot that is not fully served
#   3. margin: from there jump to the next lot that still fits, until none can
#   4. price:  from the sums, and the first lot of each family that wants more
#
# Why 1 is exact: while everything is accepted, ceil is the lowest limit so far, so supply at `top`
# only falls and demand only grows; if both meet at the last lot they did at every lot before.
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport realloc

from matching.finder cimport finder_below, finder_set
from matching.ladder cimport (
    Ladder,
    base_gpus,
    chunk_lots,
    chunk_recount,
    discount,
    is_before,
    ladder_fold,
    lot_family,
    lot_gpus,
    lot_minimum,
    lowest_limit,
    size_index,
)
from matching.layout cimport (
    EASE_MAX,
    INCUMBENT,
    NEWCOMER,
    NONE,
    SIZES,
    Bid,
    Chunk,
    Cursor,
    Edge,
    Exception_,
    Hint,
    Room,
    Solution,
    Sum,
    UnitSum,
)
from matching.sums cimport (
    counts_prefix,
    sum_gpus,
    sum_prefix,
    sum_reached_at,
    unit_gpus,
    unit_prefix,
    unit_reached_at,
)
from matching.supply cimport (
    Supply,
    room_in,
    supply_capacity,
    supply_fits,
    supply_floor,
    supply_room,
)


cdef inline void need_fold(int64_t* need) noexcept nogil:
    """From items by exact size (GPUs in all at 0) to items by at least that size."""
    cdef int32_t k
    for k in range(SIZES - 2, 0, -1):
        need[k] += 2 * need[k + 1]


cdef inline void need_add(int64_t* need, int32_t k, int64_t gpus) noexcept nogil:
    """One more lot: `gpus` anywhere (k = 0), or an item of size 2^k."""
    cdef int32_t smaller
    need[0] += gpus
    for smaller in range(1, k + 1):
        need[smaller] += 1 << (k - smaller)


# -- where a lot stands against the edge --------------------------------------------------------------

cdef inline bint lot_is_before(
    const Ladder* ladder, const Edge* edges, int32_t slot, int32_t number
) noexcept nogil:
    """Say whether the lot is in the fully served prefix."""
    cdef const Bid* bid = &ladder.bids[slot]
    cdef const Edge* edge = &edges[lot_family(bid, number)]
    if <int32_t> bid.limit != edge.limit:
        return <int32_t> bid.limit > edge.limit
    return edge.is_whole or is_before(&ladder.arrivals[slot], edge.order, edge.seq)


cdef inline int32_t margin_of(
    const Ladder* ladder, const Edge* edges, int32_t slot, int32_t number
) noexcept nogil:
    """What a lot behind the edge got: the base lot's share of the bid's margin, or the rest."""
    cdef const Bid* bid = &ladder.bids[slot]
    cdef int32_t base = 0
    if not lot_is_before(ladder, edges, slot, 0):
        base = base_gpus(bid)
        base = base if base < <int32_t> bid.margin else <int32_t> bid.margin
    return base if number == 0 else <int32_t> bid.margin - base


cdef inline bint base_is_full(const Ladder* ladder, const Edge* edges, int32_t slot) noexcept nogil:
    return (
        lot_is_before(ladder, edges, slot, 0)
        or margin_of(ladder, edges, slot, 0) == base_gpus(&ladder.bids[slot])
    )


cdef inline bint wants_more(
    const Ladder* ladder, const Edge* edges, int32_t slot, int32_t number
) noexcept nogil:
    """Say whether a divisible lot behind the edge has unserved quantity: an expansion only on a full base."""
    if number == 1 and not base_is_full(ladder, edges, slot):
        return False
    return margin_of(ladder, edges, slot, number) < lot_gpus(&ladder.bids[slot], number)


# -- the next lot that may fit ------------------------------------------------------------------------

cdef inline int32_t next_level(
    const Ladder* ladder, int32_t family, int32_t limit, int32_t ease, int32_t colocated_ease
) noexcept nogil:
    """The highest level <= limit with a lot as easy as one of the two; 0 if there is none."""
    cdef int32_t level = finder_below(&ladder.easy[family], limit, ease)
    cdef int32_t other
    if ladder.sizes[family] != NULL:
        other = finder_below(&ladder.colocated[family], limit, colocated_ease)
        level = other if other > level else level
    return level


cdef inline bint seek_in_level(
    Ladder* ladder, const Edge* edges, int32_t family, Cursor* cursor, int32_t ease,
    int32_t colocated_ease, bint wanting
) noexcept nogil:
    """Move the cursor to the next lot of its level that is easy enough, if there is one.

    `wanting` asks for a divisible lot that is not fully served; otherwise served lots are behind the
    cursor already, and whoever takes an expansion asks for its base lot, which may have its turn later.
    """
    cdef bint is_whole = cursor.chunk == 0
    cdef int32_t at = ladder.levels[family][cursor.limit].head if is_whole else cursor.chunk
    cdef int32_t i = 0 if is_whole else cursor.index
    cdef int32_t slot, number, k, easiest = 0, easiest_colocated = 0
    cdef Chunk* chunk
    cdef int32_t* lots
    cdef const Bid* bid
    cdef bint is_scanned
    while at:
        chunk = &ladder.chunks[at]
        is_scanned = chunk.ease >= ease or chunk.colocated_ease >= colocated_ease
        if is_scanned:
            lots = chunk_lots(ladder, at)
            is_scanned = i == 0
            while i < chunk.count:
                slot = lots[i] >> 1
                number = lots[i] & 1
                bid = &ladder.bids[slot]
                k = size_index(bid)
                if (
                    SIZES - k >= colocated_ease if k
                    else EASE_MAX - lot_minimum(bid, number) >= ease
                ):
                    if not wanting or wants_more(ladder, edges, slot, number):
                        cursor.chunk = at
                        cursor.index = i
                        return True
                i += 1
            if is_scanned:
                chunk_recount(ladder, at)
        if chunk.ease > easiest:
            easiest = chunk.ease
        if chunk.colocated_ease > easiest_colocated:
            easiest_colocated = chunk.colocated_ease
        at = chunk.next
        i = 0
    if is_whole:
        finder_set(&ladder.easy[family], cursor.limit, easiest)
        if ladder.sizes[family] != NULL:
            finder_set(&ladder.colocated[family], cursor.limit, easiest_colocated)
    return False


cdef inline bint seek(
    Ladder* ladder, const Supply* supply, const Solution* run, int32_t family, Cursor* cursor, Room* room
) noexcept nogil:
    """Move the cursor to the next lot that fits now; False at the end of the family."""
    cdef int32_t top
    while cursor.limit:
        top = cursor.limit if cursor.limit < run.ceil else run.ceil
        room[0] = supply_room(supply, top, run.need)
        if room.size == 0:
            break  # limits only fall from here
        if seek_in_level(
            ladder, run.edge, family, cursor, room.ease, room.colocated_ease, False
        ):
            return True
        cursor.limit = next_level(
            ladder, family, cursor.limit - 1, room.ease, room.colocated_ease
        )
        cursor.chunk = 0
    cursor.limit = 0
    return False


cdef inline bint comes_first(
    const Ladder* ladder, int32_t incumbent_limit, int32_t newcomer_limit
) noexcept nogil:
    """R4: say whether an incumbent level comes before a newcomer level (0: there is none)."""
    if incumbent_limit == 0 or newcomer_limit == 0:
        return newcomer_limit == 0
    return incumbent_limit >= discount(ladder, newcomer_limit)


# -- 1. the prefix ------------------------------------------------------------------------------------

cdef inline bint prefix_fits(
    const Ladder* ladder, const Supply* supply, int32_t rank, Solution* run
) noexcept nogil:
    """Say whether every lot of at least this rank can be served; leave what they need in the run."""
    cdef int32_t depth[2]
    cdef int64_t gpus
    cdef int32_t family, limit, k
    run.ceil = ladder.level_count
    for k in range(SIZES):
        run.need[k] = 0
    depth[INCUMBENT] = ladder.level_count - rank + 1
    depth[NEWCOMER] = ladder.level_count - lowest_limit(ladder, rank) + 1
    for family in range(2):
        if depth[family] > ladder.level_count:
            depth[family] = ladder.level_count
        gpus = sum_gpus(ladder.sums[family], depth[family])
        if gpus == 0:
            continue
        run.need[0] += gpus
        limit = ladder.level_count + 1 - sum_reached_at(ladder.sums[family], ladder.top, gpus)
        if limit < run.ceil:
            run.ceil = limit
        if ladder.sizes[family] != NULL:
            counts_prefix(ladder.sizes[family], depth[family], run.need)
    need_fold(run.need)
    return run.need[0] == 0 or supply_fits(supply, run.ceil, run.need)


cdef inline void take_prefix(Ladder* ladder, const Supply* supply, Solution* run) noexcept nogil:
    cdef int32_t low = 0, high = ladder.level_count + 1, middle, family, limit
    while low < high:
        middle = (low + high) >> 1
        if prefix_fits(ladder, supply, middle, run):
            high = middle
        else:
            low = middle + 1
    prefix_fits(ladder, supply, low, run)
    run.value = 0
    for family in range(2):
        limit = low if family == INCUMBENT else lowest_limit(ladder, low)
        if limit < 1:
            limit = 1
        run.edge[family].limit = limit
        run.edge[family].is_whole = True
        run.edge[family].order = 0
        run.edge[family].seq = 0
        run.value += sum_prefix(ladder.sums[family], ladder.level_count - limit + 1).value
        run.start[family].limit = next_level(ladder, family, limit - 1, 1, 1)
        run.start[family].chunk = run.start[family].index = 0


cdef inline int64_t wanted_from(const Ladder* ladder, int32_t rank) noexcept nogil:
    """GPUs of all lots with at least this rank."""
    cdef int32_t limit = lowest_limit(ladder, rank)
    limit = limit if limit > 1 else 1
    rank = rank if rank > 1 else 1
    return (
        sum_gpus(ladder.sums[INCUMBENT], ladder.level_count - rank + 1)
        + sum_gpus(ladder.sums[NEWCOMER], ladder.level_count - limit + 1)
    )


# -- 2. the edge --------------------------------------------------------------------------------------

cdef inline bint take_level(
    Ladder* ladder, const Supply* supply, int32_t family, Solution* run
) noexcept nogil:
    """Serve the next level of the family: whole, or up to its first lot that is not fully served."""
    cdef Cursor* start = &run.start[family]
    cdef int32_t limit = start.limit
    cdef int32_t top = limit if limit < run.ceil else run.ceil
    cdef Edge* edge = &run.edge[family]
    cdef int64_t capacity[7]
    cdef Room room
    cdef int32_t at = ladder.levels[family][limit].head
    cdef int32_t i, k, gpus, gangs
    cdef int64_t taken, before = run.need[0]
    cdef Hint* hint = &ladder.hint
    cdef Chunk* chunk
    cdef int32_t* lots
    cdef const Bid* bid
    edge.limit = limit
    run.edge_gangs = 0
    supply_capacity(supply, top, capacity)
    room = room_in(top, capacity, run.need)
    if hint.limit == limit and hint.family == family and supply.sizes == NULL and hint.gpus <= room.usable:
        # The level has not changed: what lies before the last edge is known.
        at = hint.chunk
        run.edge_gangs = hint.gangs
        run.need[0] += hint.gpus
        run.value += limit * hint.gpus
        if hint.gpus:
            run.ceil = top
        room = room_in(top, capacity, run.need)
    while at:
        chunk = &ladder.chunks[at]
        taken = run.need[0]
        gangs = run.edge_gangs
        if chunk.colocated == 0 and chunk.gpus <= room.usable:
            run.need[0] += chunk.gpus
            run.edge_gangs += chunk.gangs
            i = chunk.count
        else:
            lots = chunk_lots(ladder, at)
            i = 0
            while i < chunk.count:
                bid = &ladder.bids[lots[i] >> 1]
                k = size_index(bid)
                gpus = lot_gpus(bid, lots[i] & 1)
                if (room.size < gpus) if k else (room.usable < gpus):
                    break
                need_add(run.need, k, gpus)
                run.edge_gangs += lot_minimum(bid, lots[i] & 1) > 1
                i += 1
                room = room_in(top, capacity, run.need)
        if run.need[0] > taken:
            run.ceil = top
            run.value += limit * (run.need[0] - taken)
        if i < chunk.count:
            edge.is_whole = False
            edge.order = ladder.arrivals[chunk_lots(ladder, at)[i] >> 1].order
            edge.seq = ladder.arrivals[chunk_lots(ladder, at)[i] >> 1].seq
            start.chunk = at
            start.index = i
            hint.family = family
            hint.limit = limit
            hint.chunk = at
            hint.gangs = gangs
            hint.gpus = taken - before
            return False
        room = room_in(top, capacity, run.need)
        at = chunk.next
    edge.is_whole = True
    start.limit = next_level(ladder, family, limit - 1, 1, 1)
    return True


cdef inline void take_edge(Ladder* ladder, const Supply* supply, Solution* run) noexcept nogil:
    """Serve level by level in the order of R4 up to the first lot that is not fully served."""
    cdef int32_t family
    while run.start[NEWCOMER].limit or run.start[INCUMBENT].limit:
        family = NEWCOMER
        if comes_first(ladder, run.start[INCUMBENT].limit, run.start[NEWCOMER].limit):
            family = INCUMBENT
        if not take_level(ladder, supply, family, run):
            break
    run.prefix_ceil = run.ceil
    for family in range(SIZES):
        run.prefix_need[family] = run.need[family]


# -- 3. the margin ------------------------------------------------------------------------------------

cdef inline int exception_add(
    Solution* run, int32_t slot, int32_t number, int32_t fill, int32_t top
) noexcept nogil:
    cdef Exception_* exceptions
    cdef int32_t capacity
    if run.exception_count == run.exception_capacity:
        capacity = run.exception_capacity * 2 if run.exception_capacity else 64
        exceptions = <Exception_*> realloc(run.exceptions, capacity * sizeof(Exception_))
        if exceptions == NULL:
            return -1
        run.exceptions = exceptions
        run.exception_capacity = capacity
    run.exceptions[run.exception_count].slot = slot
    run.exceptions[run.exception_count].number = number
    run.exceptions[run.exception_count].fill = fill
    run.exceptions[run.exception_count].top = top
    run.exception_count += 1
    return 0


cdef inline int take_margin(Ladder* ladder, const Supply* supply, Solution* run) noexcept nogil:
    """Serve what still fits behind the edge, in the order of R4; -1 when there is no memory."""
    cdef Cursor cursor[2]
    cdef Room room[2]
    cdef bint found[2]
    cdef int32_t family, lot, slot, k, fill
    cdef Bid* bid
    run.exception_count = 0
    cursor[0] = run.start[0]
    cursor[1] = run.start[1]
    while True:
        for family in range(2):
            found[family] = seek(ladder, supply, run, family, &cursor[family], &room[family])
        if not (found[NEWCOMER] or found[INCUMBENT]):
            return 0
        family = NEWCOMER
        if comes_first(ladder, cursor[INCUMBENT].limit, cursor[NEWCOMER].limit):
            family = INCUMBENT
        lot = chunk_lots(ladder, cursor[family].chunk)[cursor[family].index]
        slot = lot >> 1
        bid = &ladder.bids[slot]
        cursor[family].index += 1
        if lot & 1 and not base_is_full(ladder, run.edge, slot):
            continue
        k = size_index(bid)
        fill = lot_gpus(bid, lot & 1)
        if k == 0 and fill > room[family].usable:
            fill = <int32_t> room[family].usable
        if exception_add(run, slot, lot & 1, fill, room[family].top):
            return -1
        bid.margin += fill
        need_add(run.need, k, fill)
        run.value += <int64_t> fill * <int64_t> bid.limit
        run.ceil = room[family].top


# -- 4. the price -------------------------------------------------------------------------------------

cdef inline int32_t wanting_limit(Ladder* ladder, Solution* run, int32_t family) noexcept nogil:
    """The highest limit of a lot of this family with unserved divisible quantity, or NONE."""
    cdef Cursor cursor = run.start[family]
    cdef int32_t i
    cdef int32_t best = NONE
    cdef const Exception_* exception
    cdef const Bid* bid
    while cursor.limit and not seek_in_level(
        ladder, run.edge, family, &cursor, EASE_MAX - 1, SIZES, True
    ):
        cursor.limit = next_level(ladder, family, cursor.limit - 1, EASE_MAX - 1, SIZES)
        cursor.chunk = 0
    if cursor.limit:
        best = cursor.limit
    for i in range(run.exception_count):
        exception = &run.exceptions[i]
        bid = &ladder.bids[exception.slot]
        if lot_family(bid, exception.number) == family and exception.fill < lot_gpus(bid, exception.number):
            if <int32_t> bid.limit > best:
                best = <int32_t> bid.limit
    return best


cdef inline void set_price(
    Ladder* ladder, const Supply* supply, Solution* run, int32_t position_bps
) noexcept nogil:
    """R6, and X8 where the market has set a position between low and high."""
    cdef int64_t below, value
    cdef int32_t level, incumbent, newcomer, rank, limit
    run.price = run.low = run.high = run.floor = run.unsold = NONE
    run.cost = 0
    if run.need[0] < supply.offered:
        run.unsold = unit_reached_at(supply.units, supply.top, run.need[0] + 1, &below, &value) - 1
    if run.need[0] == 0:
        run.ceil = NONE
        return
    run.floor = supply_floor(supply, run.need)
    level = unit_reached_at(supply.units, supply.top, run.need[0], &below, &value) - 1
    run.cost = value + (run.need[0] - below) * level
    if run.unsold != NONE and run.unsold < run.floor:
        run.unsold = run.floor
    incumbent = wanting_limit(ladder, run, INCUMBENT)
    newcomer = wanting_limit(ladder, run, NEWCOMER)
    limit = incumbent if incumbent > newcomer else newcomer
    rank = discount(ladder, newcomer) if newcomer != NONE else NONE
    rank = incumbent if incumbent > rank else rank
    run.low = run.floor if run.floor > rank else rank
    run.high = run.ceil if run.unsold == NONE or run.ceil < run.unsold else run.unsold
    run.price = run.floor if run.floor > limit else limit
    run.price = run.high if run.high < run.price else run.price
    if position_bps != NONE:
        run.price = run.low + <int32_t> (<int64_t> (run.high - run.low) * position_bps // 10000)


cdef inline int scan(
    Ladder* ladder, const Supply* supply, Solution* run, int32_t position_bps
) noexcept nogil:
    """Clear the book; margins are left in the bids. Returns -1 when there is no memory."""
    ladder_fold(ladder)
    take_prefix(ladder, supply, run)
    take_edge(ladder, supply, run)
    if take_margin(ladder, supply, run):
        return -1
    set_price(ladder, supply, run, position_bps)
    return 0


# -- what is read off a clearing ------------------------------------------------------------------------

cdef inline int64_t gangs_unserved(
    const Ladder* ladder, const Solution* run, int32_t price
) noexcept nogil:
    """Base lots with a minimum above 1 and a limit above the price that got nothing."""
    cdef int32_t family, limit, i
    cdef int64_t gangs = 0
    cdef int32_t above = ladder.level_count - price  # depth of the limits above the price
    cdef const Exception_* exception
    cdef const Bid* bid
    if above > ladder.level_count:
        above = ladder.level_count
    for family in range(2):
        limit = run.edge[family].limit
        gangs += sum_prefix(ladder.sums[family], above).gangs
        if limit <= price:
            gangs -= sum_prefix(ladder.sums[family], above).gangs
        elif run.edge[family].is_whole:
            gangs -= sum_prefix(ladder.sums[family], ladder.level_count - limit + 1).gangs
        else:
            gangs -= sum_prefix(ladder.sums[family], ladder.level_count - limit).gangs + run.edge_gangs
    for i in range(run.exception_count):
        exception = &run.exceptions[i]
        bid = &ladder.bids[exception.slot]
        if lot_minimum(bid, exception.number) > 1 and <int32_t> bid.limit > price:
            gangs -= 1
    return gangs


cdef inline int64_t lp_bound(const Ladder* ladder, const Supply* supply) noexcept nogil:
    """The optimum of the divisible relaxation, by its dual at the price where demand meets supply.

    For any price v: sum of (limit - v) over wishes above v, plus sum of (v - reserve) over units below
    it, is at least the optimum; it is the optimum at the lowest v with demand above v <= supply at v.
    """
    cdef int32_t low = 0, high = ladder.level_count, middle, family
    cdef int64_t gpus, value = 0
    cdef Sum total
    cdef UnitSum units
    while low < high:
        middle = (low + high) >> 1
        gpus = 0
        for family in range(2):
            gpus += sum_gpus(ladder.sums[family], ladder.level_count - middle)
        if gpus <= unit_gpus(supply.units, middle + 1):
            high = middle
        else:
            low = middle + 1
    units = unit_prefix(supply.units, low + 1)
    for family in range(2):
        total = sum_prefix(ladder.sums[family], ladder.level_count - low)
        value += total.value - total.gpus * low
    return value + units.gpus * low - units.value
