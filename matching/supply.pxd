# The supply side of a book: GPUs by reserve, and how many co-located items of each size they carry (X1).
from libc.stdint cimport int32_t, int64_t

from matching.layout cimport EASE_MAX, SIZES, Room, SizeCounts, UnitSum
from matching.sums cimport counts_prefix, counts_reached_at, unit_gpus, unit_reached_at

cdef struct Supply:
    int32_t top
    int64_t offered
    UnitSum* units         # index = reserve + 1
    SizeCounts* sizes      # NULL until the first co-located bid


cdef inline void supply_capacity(const Supply* supply, int32_t level, int64_t* capacity) noexcept nogil:
    """capacity[k]: items of size 2^k that fit on units with reserve <= level."""
    cdef int32_t k
    capacity[0] = unit_gpus(supply.units, level + 1)
    for k in range(1, SIZES):
        capacity[k] = 0
    if supply.sizes != NULL:
        counts_prefix(supply.sizes, level + 1, capacity)


cdef inline bint supply_fits(const Supply* supply, int32_t level, const int64_t* need) noexcept nogil:
    """The chain lemma: a set fits iff, size by size, what needs at least that size does."""
    cdef int64_t capacity[7]
    cdef int32_t k
    if supply.sizes == NULL:
        return need[0] <= unit_gpus(supply.units, level + 1)
    supply_capacity(supply, level, capacity)
    for k in range(SIZES):
        if need[k] > capacity[k]:
            return False
    return True


cdef inline int32_t supply_floor(const Supply* supply, const int64_t* need) noexcept nogil:
    """The highest reserve that a set, which is not empty, needs."""
    cdef int64_t below, value
    cdef int32_t floor = unit_reached_at(supply.units, supply.top, need[0], &below, &value) - 1
    cdef int32_t k, level
    for k in range(1, SIZES):
        if need[k] > 0:
            level = counts_reached_at(supply.sizes, supply.top, k, need[k]) - 1
            if level > floor:
                floor = level
    return floor


cdef inline Room room_in(int32_t top, const int64_t* capacity, const int64_t* need) noexcept nogil:
    """What one more lot could have of this capacity, beside what is accepted."""
    cdef int64_t left[7]
    cdef int32_t k, size = SIZES - 1
    cdef bint fits = False
    cdef Room room
    room.top = top
    room.usable = room.size = 0
    room.ease = EASE_MAX           # no free-form lot is as easy as that,
    room.colocated_ease = SIZES    # and no co-located one
    for k in range(SIZES):
        left[k] = capacity[k] - need[k]
        if left[k] < 0:
            return room
    while size >= 0 and not fits:
        # One more item of size 2^size takes 2^(size - k) items of each smaller size 2^k.
        fits = True
        for k in range(size + 1):
            fits = fits and left[k] >= 1 << (size - k)
        size -= not fits
    if size >= 0:
        room.size = 1 << size
        room.colocated_ease = SIZES - size
        room.usable = left[0]
        room.ease = EASE_MAX - <int32_t> left[0] if left[0] < EASE_MAX else 1
        room.ease = room.ease if room.ease > 1 else 1
    return room


cdef inline Room supply_room(const Supply* supply, int32_t top, const int64_t* need) noexcept nogil:
    """What one more lot could have on units with reserve <= top, beside what is accepted."""
    cdef int64_t capacity[7]
    supply_capacity(supply, top, capacity)
    return room_in(top, capacity, need)
