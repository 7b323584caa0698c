# "Which is the next level at or below this one with a lot that may fit?" A 64-ary tree of maxima over
# the levels of a family: 2^17 levels are three short scans. Ease is EASE_MAX - minimum, so that 0 means
# "no lot", zeroed memory is an empty tree, and the easiest lot is the maximum.
from libc.stdint cimport int32_t

from matching.layout cimport FINDER_FAN, FINDER_SHIFT

cdef struct Finder:
    int32_t* ease[3]       # per level, per 64 levels, per 4096 levels
    int32_t count[3]


cdef inline void finder_raise(Finder* finder, int32_t level, int32_t ease) noexcept nogil:
    """A lot of this ease has come to the level."""
    cdef int32_t depth
    for depth in range(3):
        if finder.ease[depth][level] >= ease:
            return
        finder.ease[depth][level] = ease
        level >>= FINDER_SHIFT


cdef inline void finder_set(Finder* finder, int32_t level, int32_t ease) noexcept nogil:
    """The level's easiest lot has become less easy: correct what is above it."""
    cdef int32_t depth, i, first, end
    finder.ease[0][level] = ease
    for depth in range(1, 3):
        first = level >> FINDER_SHIFT << FINDER_SHIFT
        end = first + FINDER_FAN
        end = end if end < finder.count[depth - 1] else finder.count[depth - 1]
        ease = 0
        for i in range(first, end):
            if finder.ease[depth - 1][i] > ease:
                ease = finder.ease[depth - 1][i]
        level >>= FINDER_SHIFT
        if finder.ease[depth][level] == ease:
            return
        finder.ease[depth][level] = ease


cdef inline int32_t finder_below(const Finder* finder, int32_t level, int32_t ease) noexcept nogil:
    """The highest level <= `level` with at least this ease (> 0); 0 if there is none."""
    cdef int32_t depth = 0
    cdef int32_t first
    while level >= 0:
        # Up: the rest of this block, then the block before it, one step higher.
        first = level >> FINDER_SHIFT << FINDER_SHIFT
        while level >= first and finder.ease[depth][level] < ease:
            level -= 1
        if level >= first:
            break
        if depth == 2:
            continue
        level = (first >> FINDER_SHIFT) - 1
        depth += 1
    if level < 0:
        return 0
    while depth > 0:
        # Down: the highest entry of the block that was found.
        depth -= 1
        level = (level << FINDER_SHIFT) + FINDER_FAN - 1
        if level >= finder.count[depth]:
            level = finder.count[depth] - 1
        while finder.ease[depth][level] < ease:
            level -= 1
    return level
