"""What one clearing says: the contract that `book` (Cython) and `reference` (plain Python) share.

Prices are levels: whole multiples of the market's price increment. NONE (-1) stands for no level.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1
LEVEL_COUNT_MAX = 1 << 17
GPU_COUNT_MAX = 1_000_000
TOTAL_GPUS_MAX = 1 << 40  # of one side of one book
HANDICAP_BPS_MAX = 100_000
TICK_MAX = (1 << 31) - 1
HASH_MAX = (1 << 32) - 1
SEQ_MAX = (1 << 62) - 1

# Co-located gangs come in these sizes (X1): up to 8 GPUs on one node, more on whole nodes of one domain.
CHAIN = (1, 2, 4, 8, 16, 32, 64)
NODE_GPUS = 8
MARKETS_MAX = 8  # that one bid may name, and that are cleared jointly (X3)
REFINED_GANGS_MAX = 12  # X7: accepted gangs that a thin market is cleared without, one at a time

# A sum of limit x GPUs over one side of a book must fit a signed 64-bit integer (I24).
assert TOTAL_GPUS_MAX * LEVEL_COUNT_MAX < 1 << 62


class Reason(IntEnum):
    """Why a bid did not get (more) GPUs (RULES.md R7)."""

    FILLED = 0
    OUTBID = 1  # its limit does not reach the price
    PROTECTED = 2  # its limit exceeds the price, but incumbents are protected by the handicap
    NO_FIT = 3  # its limit exceeds the price, but its minimum did not fit at its turn


class Outcome(NamedTuple):
    """One bid's result: `needed` and `usable` GPUs at its turn are 0 unless the reason is NO_FIT.

    For a co-located gang `usable` is the largest size of the chain that still fitted.
    """

    fill: int
    reason: Reason
    needed: int
    usable: int


class Clearing(NamedTuple):
    """One market's clearing (RULES.md R5, R6, R10).

    `handles` and `fills` are int32 arrays of one length: the bids whose fill differs from the last
    clearing, in no particular order. A new bid that gets nothing is not among them.
    """

    price: int
    low: int
    high: int
    ceil: int  # lowest accepted limit; NONE when nothing traded
    floor: int  # highest reserve used; NONE when nothing traded
    entry: int  # what a new bid for one GPU must offer next tick if nothing else changes
    sold: int
    offered: int
    demanded: int
    bid_count: int
    offer_count: int
    not_fitted: int
    idle_below_price: int  # unsold units at or below the price
    value: int  # sum of limit x fill, level x GPUs
    cost: int  # sum of the reserves of the `sold` cheapest units: the least any placement costs
    lp_bound: int  # the most that value - cost could be if every bid were divisible
    handles: NDArray[np.int32]
    fills: NDArray[np.int32]
