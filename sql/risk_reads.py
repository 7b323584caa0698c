"""Reads about risk: a market's record as the estimator of auction/risk.py wants it."""

import numpy as np
from numpy.typing import NDArray

from sql import query
from sql.reads import Reader

PAGE_TICKS = 5_000  # turned into columns at once, in which time the market does nothing else

Column = NDArray[np.int64]


async def ticks_after(
    reader: Reader, market: str, tick: int, *, from_us: int
) -> tuple[Column, Column, Column, Column]:
    """Return (tick, at_us, high, entry) of the ticks after `tick` since `from_us`, in order; -1 is "none"."""
    pages = [np.empty((0, 4), dtype=np.int64)]
    while True:
        rows = await reader.fetch(query("keep_prices"), market, tick, from_us, PAGE_TICKS)
        if rows:
            pages.append(np.array([tuple(row) for row in rows], dtype=np.int64))
            tick = rows[-1][0]
        if len(rows) < PAGE_TICKS:
            columns = np.concatenate(pages)
            return columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3]
