# The kernel's own O(N) check, in verify builds only (MATCHING_VERIFY=1): after every clearing all that
# is kept incrementally is counted again from the bids. Returns a word for what is wrong, or NULL.
from libc.stdint cimport int32_t, int64_t

from matching.ladder cimport Ladder, chunk_lots, is_before, lot_family, lot_gpus, lot_minimum, size_index
from matching.layout cimport EASE_MAX, NONE, Bid, Chunk, Sum
from matching.publish cimport Kernel
from matching.sums cimport sum_prefix


cdef inline const char* verify_level(const Ladder* ladder, int32_t family, int32_t limit) noexcept nogil:
    """One queue: its order, its chunks' sums, its ease, and its share of the family's sums."""
    cdef int32_t at = ladder.levels[family][limit].head, previous = 0, i, lot, k, ease, last = -1
    cdef int64_t gpus, all_gpus = 0, gangs, all_gangs = 0
    cdef const Chunk* chunk
    cdef const Bid* bid
    cdef Sum here, above
    while at:
        chunk = &ladder.chunks[at]
        if chunk.previous != previous or chunk.count == 0:
            return "chunk list"
        gpus = gangs = 0
        for i in range(chunk.count):
            lot = chunk_lots(ladder, at)[i]
            bid = &ladder.bids[lot >> 1]
            if <int32_t> bid.limit != limit or lot_family(bid, lot & 1) != family:
                return "lot in a wrong queue"
            if (bid.extra_at if lot & 1 else bid.base_at) != at:
                return "lot's chunk"
            if ladder.arrivals[lot >> 1].order < chunk.order:
                return "order of chunks"
            if <int32_t> (ladder.arrivals[lot >> 1].order >> 32) > chunk.last_tick:
                return "last tick of a chunk"
            if i == 0 and last >= 0 and not is_before(
                &ladder.arrivals[last], ladder.arrivals[lot >> 1].order, ladder.arrivals[lot >> 1].seq
            ):
                return "order between chunks"
            last = lot >> 1
            if i and is_before(
                &ladder.arrivals[lot >> 1],
                ladder.arrivals[chunk_lots(ladder, at)[i - 1] >> 1].order,
                ladder.arrivals[chunk_lots(ladder, at)[i - 1] >> 1].seq,
            ):
                return "order of lots"
            gpus += lot_gpus(bid, lot & 1)
            gangs += lot_minimum(bid, lot & 1) > 1
            k = size_index(bid)
            ease = 7 - k if k else EASE_MAX - lot_minimum(bid, lot & 1)
            if (chunk.colocated_ease if k else chunk.ease) < ease:
                return "ease of a chunk"
            if (ladder.colocated[family] if k else ladder.easy[family]).ease[0][limit] < ease:
                return "ease of a level"
        if gpus != chunk.gpus or gangs != chunk.gangs:
            return "sums of a chunk"
        all_gpus += gpus
        all_gangs += gangs
        previous = at
        at = chunk.next
    if ladder.levels[family][limit].tail != previous:
        return "tail of a queue"
    here = sum_prefix(ladder.sums[family], ladder.level_count - limit + 1)
    above = sum_prefix(ladder.sums[family], ladder.level_count - limit)
    if here.gpus - above.gpus != all_gpus or here.gangs - above.gangs != all_gangs:
        return "sums of a family"
    if here.value - above.value != all_gpus * limit:
        return "value of a family"
    return NULL


cdef inline const char* verify(const Kernel* kernel) noexcept nogil:
    cdef const Ladder* ladder = &kernel.ladder
    cdef int32_t family, limit, slot, live = 0
    cdef int64_t fills = 0, value = 0, demanded = 0
    cdef const char* wrong
    for family in range(2):
        for limit in range(1, ladder.level_count + 1):
            wrong = verify_level(ladder, family, limit)
            if wrong != NULL:
                return wrong
    for slot in range(ladder.bid_end):
        if ladder.bids[slot].margin:
            return "margin after a clearing"
        if ladder.bids[slot].limit:
            live += 1
            demanded += ladder.bids[slot].gpus
            fills += ladder.bids[slot].fill
            value += <int64_t> ladder.bids[slot].fill * <int64_t> ladder.bids[slot].limit
    if live != ladder.bid_live or demanded != ladder.demanded:
        return "count of bids"
    if fills != kernel.published.need[0] or value != kernel.published.value:
        return "I1: fills and what is sold"
    if kernel.published.need[0] > kernel.supply.offered:
        return "I1: sold more than is offered"
    if kernel.published.price != NONE and not (
        kernel.published.floor <= kernel.published.low <= kernel.published.price
        <= kernel.published.high <= kernel.published.ceil
    ):
        return "I3"
    return NULL
