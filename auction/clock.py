"""The clock port: the only place that asks the machine what time it is.

Records carry wall time in microseconds since the epoch. Wall clocks step, so `SystemClock` moves
only forward: it advances by the monotonic clock and follows the wall clock when that is ahead.
A step back of the wall clock therefore never makes an interval negative.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine may know of time."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch; never less than the last answer."""
        ...

    async def wait(self, bell: asyncio.Event, until_us: int | None) -> None:
        """Return when `bell` rings, or at `until_us` if that is given."""
        ...


class SystemClock:
    """Wall time at start, then monotonic time, resynchronised forward only."""

    def __init__(self) -> None:
        self._wall_us = time.time_ns() // 1000
        self._monotonic_us = time.monotonic_ns() // 1000

    def now_us(self) -> int:
        monotonic_us = time.monotonic_ns() // 1000
        elapsed_us = monotonic_us - self._monotonic_us
        # A forward step is followed at most one second per second of real time: a wall clock that
        # jumps ten days ahead must not bill ten days.
        wall_us = min(time.time_ns() // 1000, self._wall_us + 2 * elapsed_us)
        self._wall_us = max(self._wall_us + elapsed_us, wall_us)
        self._monotonic_us = monotonic_us
        return self._wall_us

    async def wait(self, bell: asyncio.Event, until_us: int | None) -> None:
        if until_us is None:
            await bell.wait()
            return
        delay_s = (until_us - self.now_us()) / 1_000_000
        if delay_s > 0:
            try:
                async with asyncio.timeout(delay_s):
                    await bell.wait()
            except TimeoutError:
                return  # the time has come


class ManualClock:
    """A clock that a test, a replay or a simulation moves by hand."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._waiting: set[asyncio.Event] = set()

    def now_us(self) -> int:
        return self._now_us

    def advance_to(self, now_us: int) -> None:
        """Move to `now_us`, which must not be in the past."""
        assert now_us >= self._now_us, "time only grows"
        self._now_us = now_us
        for bell in self._waiting:
            bell.set()

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self.advance_to(self._now_us + int(seconds * 1_000_000))

    async def wait(self, bell: asyncio.Event, until_us: int | None) -> None:
        if until_us is not None and self._now_us >= until_us:
            return
        self._waiting.add(bell)
        await bell.wait()
        self._waiting.discard(bell)
