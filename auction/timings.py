"""How long ticks took, phase by phase: for who watches, never for what is decided.

A timing is of one batch that cleared something: all markets that were due together. Kept in memory, the last
TIMINGS_KEPT of them; a restart forgets them.
"""

from collections import deque
from dataclasses import dataclass

TIMINGS_KEPT = 300


@dataclass(slots=True)
class TickTiming:
    """One batch's phases, in microseconds; those that are not over yet are None."""

    markets: tuple[str, ...]
    late_us: int  # from the instant it was due until it began
    clear_us: int  # deciding: clearing, leases, notices, billing
    commit_us: int | None = None  # from decided to durable
    tell_us: int | None = None  # handing it to everybody who listens


class Timings:
    """The last ticks' timings, oldest first."""

    def __init__(self) -> None:
        self.kept: deque[TickTiming] = deque(maxlen=TIMINGS_KEPT)

    def phases(self) -> dict[str, list[int]]:
        """Return each phase's durations over the kept ticks, shortest first, in the order they happen."""
        found: dict[str, list[int]] = {}
        for name in ("late_us", "clear_us", "commit_us", "tell_us"):
            values = (getattr(timing, name) for timing in self.kept)
            found[name] = sorted(value for value in values if value is not None)
        return found
