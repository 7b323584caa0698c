# Fenwick trees: sums over levels in log(levels) steps, and the level at which a sum is reached.
# P. Fenwick, "A new data structure for cumulative frequency tables", Software: Practice and
# Experience 24(3), 1994. Index 1..top; what is asked most is a prefix.
from libc.stdint cimport int32_t, int64_t

from matching.layout cimport SIZES, SizeCounts, Sum, UnitSum


cdef inline void sum_add(
    Sum* tree, int32_t top, int32_t i, int64_t gpus, int64_t value, int64_t gangs
) noexcept nogil:
    while i <= top:
        tree[i].gpus += gpus
        tree[i].value += value
        tree[i].gangs += gangs
        i += i & -i


cdef inline Sum sum_prefix(const Sum* tree, int32_t i) noexcept nogil:
    cdef Sum total
    total.gpus = total.value = total.gangs = 0
    while i > 0:
        total.gpus += tree[i].gpus
        total.value += tree[i].value
        total.gangs += tree[i].gangs
        i &= i - 1
    return total


cdef inline int64_t sum_gpus(const Sum* tree, int32_t i) noexcept nogil:
    cdef int64_t gpus = 0
    while i > 0:
        gpus += tree[i].gpus
        i &= i - 1
    return gpus


cdef inline int32_t sum_reached_at(const Sum* tree, int32_t top, int64_t gpus) noexcept nogil:
    """The smallest index whose prefix has at least `gpus` > 0; the caller knows that there is one."""
    cdef int32_t at = 0
    cdef int32_t step = top
    while step > 0:
        if at + step <= top and tree[at + step].gpus < gpus:
            at += step
            gpus -= tree[at].gpus
        step >>= 1
    return at + 1


cdef inline void counts_add(
    SizeCounts* tree, int32_t top, int32_t i, int32_t k, int32_t change
) noexcept nogil:
    while i <= top:
        tree[i].n[k] += change
        i += i & -i


cdef inline void counts_prefix(const SizeCounts* tree, int32_t i, int64_t* out) noexcept nogil:
    """Add the items of sizes 2, 4 ... 64 up to index i to out[1..6]."""
    cdef int32_t k
    while i > 0:
        for k in range(1, SIZES):
            out[k] += tree[i].n[k]
        i &= i - 1


cdef inline int32_t counts_reached_at(
    const SizeCounts* tree, int32_t top, int32_t k, int64_t count
) noexcept nogil:
    cdef int32_t at = 0
    cdef int32_t step = top
    while step > 0:
        if at + step <= top and tree[at + step].n[k] < count:
            at += step
            count -= tree[at].n[k]
        step >>= 1
    return at + 1


cdef inline void unit_add(
    UnitSum* tree, int32_t top, int32_t i, int64_t gpus, int64_t value
) noexcept nogil:
    while i <= top:
        tree[i].gpus += gpus
        tree[i].value += value
        i += i & -i


cdef inline UnitSum unit_prefix(const UnitSum* tree, int32_t i) noexcept nogil:
    cdef UnitSum total
    total.gpus = total.value = 0
    while i > 0:
        total.gpus += tree[i].gpus
        total.value += tree[i].value
        i &= i - 1
    return total


cdef inline int64_t unit_gpus(const UnitSum* tree, int32_t i) noexcept nogil:
    cdef int64_t gpus = 0
    while i > 0:
        gpus += tree[i].gpus
        i &= i - 1
    return gpus


cdef inline int32_t unit_reached_at(
    const UnitSum* tree, int32_t top, int64_t unit, int64_t* below, int64_t* value
) noexcept nogil:
    """Index of the `unit`-th cheapest GPU (from 1), with the GPUs and their reserves below it."""
    cdef int32_t at = 0
    cdef int32_t step = top
    below[0] = value[0] = 0
    while step > 0:
        if at + step <= top and below[0] + tree[at + step].gpus < unit:
            at += step
            below[0] += tree[at].gpus
            value[0] += tree[at].value
        step >>= 1
    return at + 1
