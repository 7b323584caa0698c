"""Reads about risk: a market's record as the estimator of auction/risk.py wants it."""

import numpy as np
from numpy.typing import NDArray

from sql import query
from sql.reads import Reader

RECORD_TICKS_MAX = 100_000


async def record(
    reader: Reader, market: str, *, from_us: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (at_us, high, entry) of the market's ticks since `from_us`, oldest first; -1 is "none"."""
    rows = await reader.fetch(query("keep_prices"), market, from_us, RECORD_TICKS_MAX)
    columns = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]
