"""How likely a lease is to be outbid: what a market's own record says, and on how much evidence.

The record is a grid of keep prices: the least limit that kept a GPU at that moment (`keep_prices`). A
lease of limit b, whatever it had to pay to enter, goes when the keep price rises above b; that is the
handicap's whole effect here (RULES.md R3): who enters at the entry price already stands above it.

`Outlook` looks at the past moments whose keep price stood nearest to today's and counts how often it
rose, within the horizon, by more than b stands above it now: forecasting by analogues (Lorenz, J. Atmos.
Sci. 26, 1969, 636-646). Overlapping windows tell the same story, so the sample size is the number of
disjoint stretches of the record that they touch, and the share is shrunk by Jeffreys' prior,
(k + 1/2) / (n + 1), strictly between 0 and 1 (Brown, Cai, DasGupta, Stat. Sci. 16, 2001, 101-133). It
falls with the limit and rises with the horizon, by construction. Pure functions; no clock, no I/O.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Prices = NDArray[np.int32]

CELLS_MAX = 1_000_000  # of one record
STARTS_MAX = 8_192  # moments looked at per window length: more of them overlap, and tell nothing new
NEAR_SHARE = 0.05  # of the moments of a record that count as near to the present one, or more
SAMPLES_AIM = 16  # until so many disjoint stretches of the record are touched
NO_LIMIT = np.iinfo(np.int32).max  # keep price where nothing is on offer: no limit suffices


class Estimate(NamedTuple):
    """`samples` is the number of disjoint stretches, as long as the horizon, that the estimate looked at.

    A shorter window, which has more stretches, may have decided the probability.
    """

    probability: float
    samples: int


class _Window(NamedTuple):
    """What followed each start within one length: the highest keep prices, ascending."""

    highest: Prices
    samples: int

    def probability(self, limit: int) -> float:
        lost = self.highest.size - int(np.searchsorted(self.highest, limit, side="right"))
        return (self.samples * lost / self.highest.size + 0.5) / (self.samples + 1)


class TooShort(ValueError):
    """The record does not reach far enough back to say anything about this horizon."""


def keep_prices(high: NDArray[np.int64], entry: NDArray[np.int64]) -> Prices:
    """Return the least limit (microusd per GPU-hour) that surely kept one GPU, per tick.

    `high` and `entry` are a tick's published bounds, -1 where it has none. Where GPUs traded that is
    `high`, the lower of the lowest accepted limit and the cheapest unsold reserve (R6); where none did,
    `entry`, the cheapest reserve on offer (R10); NO_LIMIT where nothing was on offer.
    """
    known = np.where(high >= 0, high, entry)
    return np.where(known >= 0, known, NO_LIMIT).astype(np.int32)


def on_grid(at_us: NDArray[np.int64], keep: Prices, *, step_us: int, until_us: int) -> Prices:
    """Return the record as cells of `step_us`, oldest first, the last one holding `until_us`.

    Ticks may be as irregular as halts and late beats make them: a cell has the highest keep price of its
    ticks, one without a tick repeats the last. `at_us` ascends and is not empty. Raises ValueError for
    more than CELLS_MAX cells.
    """
    cells = (at_us - at_us[0]) // step_us
    count = int(max(until_us - at_us[0], 0) // step_us) + 1
    if count > CELLS_MAX:
        raise ValueError(f"a record has at most {CELLS_MAX} cells")
    begins = np.flatnonzero(np.diff(cells, prepend=-1))
    present = cells[begins]
    last = keep[np.append(begins[1:], keep.size) - 1]
    grid: Prices = last[np.searchsorted(present, np.arange(max(count, int(present[-1]) + 1)), "right") - 1]
    grid[present] = np.maximum.reduceat(keep, begins)
    return grid


class Outlook:
    """What the next `horizon` cells bring, judged by the moments of the record most like its last.

    Every window length 1, 2, 4, … below the horizon is counted too, and the largest probability holds:
    what may happen sooner may happen later. Raises TooShort when the record is no longer than the horizon
    rounded up to a power of two, ValueError for a horizon below one cell.
    """

    def __init__(self, grid: Prices, horizon: int) -> None:
        if horizon < 1:
            raise ValueError("a horizon is at least one cell")
        length = 1 << (horizon - 1).bit_length()
        if grid.size <= length:
            raise TooShort(f"{grid.size} cells do not reach beyond {length}")
        self._windows: list[_Window] = []
        highest, span = grid[1:], 1  # highest[t]: of cells t + 1 .. t + span
        while span < length:
            self._windows.append(_window(grid, highest[: grid.size - span], span))
            shift = (horizon if 2 * span == length else 2 * span) - span
            highest = np.maximum(highest[: highest.size - shift], highest[shift:])
            span *= 2
        # The last window is as long as the horizon, but starts only where the whole span is known, so
        # that horizons of one span share their starts.
        self._windows.append(_window(grid, highest[: grid.size - length], length))

    @property
    def samples(self) -> int:
        return self._windows[-1].samples

    def estimate(self, limit: int) -> Estimate:
        """Return the probability that a lease of `limit` (microusd per GPU-hour) is outbid within it."""
        probability = max(window.probability(limit) for window in self._windows)
        return Estimate(probability, self.samples)

    def limit_for(self, probability: float) -> int | None:
        """Return the lowest keep price seen whose probability as a limit is at most this; None: none is."""
        seen = np.unique(np.concatenate([window.highest for window in self._windows]))
        seen = seen[seen < NO_LIMIT]
        low, high = 0, seen.size
        while low < high:
            middle = (low + high) // 2
            if self.estimate(int(seen[middle])).probability <= probability:
                high = middle
            else:
                low = middle + 1
        return int(seen[low]) if low < seen.size else None


def median_run_cells(grid: Prices, limit: int) -> int | None:
    """Return the median time, in cells, that a lease of `limit` runs from now; None: the record is too short.

    The product-limit estimate over the moments most like the last: runs that the record's end cuts off
    count as long as they were seen (Kaplan, Meier, J. Am. Stat. Assoc. 53, 1958, 457-481).
    """
    if grid.size < 2:
        return None
    starts = _starts(grid, grid.size - 1, 1)
    # The limit as it would have stood at each start: as far above the keep price as it is now.
    limits = limit - int(grid[-1]) + grid[starts].astype(np.int64)
    highest = [grid[1:]]
    while 1 << len(highest) < grid.size:
        shift = 1 << (len(highest) - 1)
        highest.append(np.maximum(highest[-1][:-shift], highest[-1][shift:]))
    survived = np.zeros(starts.size, dtype=np.int64)
    for power in range(len(highest) - 1, -1, -1):
        at = starts + survived
        inside = np.flatnonzero(at < highest[power].size)
        kept = inside[highest[power][at[inside]] <= limits[inside]]
        survived[kept] += 1 << power
    is_lost = starts + survived < grid.size - 1
    runs = survived + is_lost  # a run ends in the cell that takes it away, or was last seen in the last one
    losses = np.bincount(runs[is_lost], minlength=grid.size)
    at_risk = np.cumsum(np.bincount(runs, minlength=grid.size)[::-1])[::-1]
    surviving = np.cumprod(1 - losses / np.maximum(at_risk, 1))
    halves = np.flatnonzero(surviving <= 0.5)
    return int(halves[0]) if halves.size else None


def _window(grid: Prices, highest: Prices, span: int) -> _Window:
    starts = _starts(grid, highest.size, span)
    samples = 1 + int(np.count_nonzero(np.diff(starts // span)))
    return _Window(np.sort(_seen_from_now(grid, starts, highest[starts])), samples)


def _seen_from_now(grid: Prices, starts: NDArray[np.int64], prices: Prices) -> Prices:
    """Carry prices to the last cell: as far from its keep price as they were from their start's."""
    moved = prices.astype(np.int64) - grid[starts] + int(grid[-1])
    return np.where(prices == NO_LIMIT, NO_LIMIT, np.clip(moved, 0, NO_LIMIT - 1)).astype(np.int32)


def _starts(grid: Prices, count: int, span: int) -> NDArray[np.int64]:
    """Return the cells below `count`, ascending, whose keep price is nearest to the last cell's.

    So many that they are NEAR_SHARE of all and touch SAMPLES_AIM disjoint stretches of `span` cells.
    """
    stride = -(-count // STARTS_MAX)
    candidates = np.arange((count - 1) % stride, count, stride)
    distance = np.abs(grid[candidates].astype(np.int64) - int(grid[-1]))
    nearest = max(0, int(NEAR_SHARE * candidates.size) - 1)
    radius = np.partition(distance, nearest)[nearest]
    stretches = np.minimum.reduceat(distance, np.flatnonzero(np.diff(candidates // span, prepend=-1)))
    aim = min(SAMPLES_AIM, stretches.size) - 1
    # All that are as near as the last one taken: which of equals would be chance.
    starts: NDArray[np.int64] = candidates[distance <= max(radius, np.partition(stretches, aim)[aim])]
    return starts
