# X7: a thin market is cleared again without each of the last accepted gangs, and the best run stays.
# Ties go to fewer interruptions, then to the base run, then to the gang that was accepted last.
from libc.stdint cimport int32_t, int64_t

from matching.ladder cimport base_gpus, bid_enter, bid_leave
from matching.layout cimport NONE, Bid, Room
from matching.publish cimport Kernel, base_comes_first, fill_of, forget_margins
from matching.scan cimport scan
from matching.supply cimport supply_room

cdef enum:
    REFINED_GANGS_MAX = 12  # as in matching/types.py


cdef inline int64_t merit(const Kernel* kernel, int64_t* lost) noexcept nogil:
    """The run's welfare, and how many GPUs of incumbents it interrupts."""
    cdef int32_t slot, fill, base
    cdef const Bid* bid
    lost[0] = 0
    for slot in range(kernel.ladder.bid_end):
        bid = &kernel.ladder.bids[slot]
        if bid.limit and bid.held:
            base = base_gpus(bid)
            fill = fill_of(kernel, slot)
            lost[0] += base - fill if fill < base else 0
    return kernel.run.value - kernel.run.cost


cdef inline int32_t last_gangs(const Kernel* kernel, int32_t* gangs) noexcept nogil:
    """The last gangs that were accepted, last first; room for one more than the maximum."""
    cdef int32_t slot, i, count = 0
    for slot in range(kernel.ladder.bid_end):
        if kernel.ladder.bids[slot].limit == 0 or kernel.ladder.bids[slot].min_gpus == 1:
            continue
        if fill_of(kernel, slot) == 0:
            continue
        i = count
        while i > 0 and base_comes_first(&kernel.ladder, gangs[i - 1], slot):
            gangs[i] = gangs[i - 1]
            i -= 1
        gangs[i] = slot
        if count < REFINED_GANGS_MAX:
            count += 1
    return count


cdef inline int run_without(Kernel* kernel, int32_t slot) noexcept nogil:
    """Run the scan without one bid; 0 if it would still fit, so that it was never in the way.

    1 if this run is a candidate, -1 when there is no memory. There is room for the bid's lots.
    """
    cdef Bid* bid = &kernel.ladder.bids[slot]
    cdef int32_t top = <int32_t> bid.limit
    cdef int64_t usable
    cdef int failed
    cdef Room room
    forget_margins(kernel)
    bid_leave(&kernel.ladder, slot)
    failed = scan(&kernel.ladder, &kernel.supply, &kernel.run, kernel.price_position_bps)
    bid_enter(&kernel.ladder, slot)
    if failed:
        return -1
    kernel.run.excluded = slot
    if kernel.run.ceil != NONE and kernel.run.ceil < top:
        top = kernel.run.ceil
    room = supply_room(&kernel.supply, top, kernel.run.need)
    usable = room.size if bid.is_colocated else room.usable
    if usable >= <int64_t> bid.min_gpus:
        return 0
    kernel.left_out_usable = <int32_t> usable
    return 1


cdef inline int refine(Kernel* kernel) noexcept nogil:
    """Replace the run by a better one, if leaving out one gang gives one; -1 when there is no memory."""
    cdef int32_t gangs[REFINED_GANGS_MAX + 1]
    cdef int32_t count = last_gangs(kernel, gangs), i, best = NONE, outcome
    cdef int64_t lost = 0, best_lost = 0, found, best_merit = merit(kernel, &best_lost)
    for i in range(count):
        outcome = run_without(kernel, gangs[i])
        if outcome < 0:
            return -1
        if outcome == 0:
            continue
        found = merit(kernel, &lost)
        if found > best_merit or (found == best_merit and lost < best_lost):
            best = gangs[i]
            best_merit = found
            best_lost = lost
    if count == 0:
        return 0
    forget_margins(kernel)
    kernel.run.excluded = NONE
    if best != NONE:
        return -1 if run_without(kernel, best) < 0 else 0
    return scan(&kernel.ladder, &kernel.supply, &kernel.run, kernel.price_position_bps)


cdef inline int solve(Kernel* kernel) noexcept nogil:
    """Clear the book, thoroughly if it is thin; margins are left in the bids. -1 without memory."""
    kernel.run.excluded = NONE
    if scan(&kernel.ladder, &kernel.supply, &kernel.run, kernel.price_position_bps):
        return -1
    if kernel.ladder.bid_live < kernel.refine_below_bids:
        return refine(kernel)
    return 0
