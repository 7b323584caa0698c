"""What one clearing says: the contract that `book` (Cython) and `reference` (plain Python) share.

Prices are levels: whole multiples of the market's price increment. NONE (-1) stands for no level.
"""

from enum import IntEnum
from typing import NamedTuple

NONE = -1
LEVEL_COUNT_MAX = 1 << 17
GPU_COUNT_MAX = 1_000_000
TOTAL_GPUS_MAX = 1 << 40  # of one side of one book
HANDICAP_BPS_MAX = 100_000


class Reason(IntEnum):
    """Why a bid did not get (more) GPUs (RULES.md R7)."""

    FILLED = 0
    OUTBID = 1  # its limit does not reach the price
    PROTECTED = 2  # its limit exceeds the price, but incumbents are protected by the handicap
    NO_FIT = 3  # its limit exceeds the price, but its minimum did not fit at its turn


class Outcome(NamedTuple):
    """One bid's result: `needed` and `usable` GPUs at its turn are 0 unless the reason is NO_FIT."""

    handle: int
    fill: int
    reason: Reason
    needed: int
    usable: int


class Clearing(NamedTuple):
    """One market's clearing (RULES.md R5, R6, R10). `changes` is the difference to the last one."""

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
    changes: list[Outcome]
