"""What a promise is, and what a run of its method says of it.

A suite that keeps a promise has a list `PROMISES`; `python -m tests.proof` runs each at its full size and
writes the table, and pytest runs each at its short size. A method returns what it saw; it never raises
because a figure is missed: a missed figure is a row of the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Size(Enum):
    """How much of a suite runs: what CI can afford, or all of it."""

    SHORT = "short"
    FULL = "full"


@dataclass(frozen=True)
class Outcome:
    """What one run saw.

    `is_kept` is None where the method could not run here; `figure` then says why.
    """

    is_kept: bool | None
    figure: str


@dataclass(frozen=True)
class Promise:
    """One row: `run(size, seed)` returns its outcome."""

    name: str  # short and stable: `python -m tests.proof --only NAME`
    promise: str  # the claim, as a reader would say it
    method: str  # how it is tested
    target: str
    run: Callable[[Size, int], Outcome]
