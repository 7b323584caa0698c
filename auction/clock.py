"""The clock port: the only place that asks the machine what time it is.

Records carry wall time in microseconds since the epoch. Wall clocks step, so `SystemClock` asks the wall
once, at its start, and counts from there by the clock that nobody can set: a second billed is a second
that passed, whatever happens to the wall (FAULTS.md F14). When the two part by a second it says so.
"""

import asyncio
import logging
import time
from typing import Protocol

DRIFT_TOLD_US = 1_000_000

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What the engine may know of time."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch; never less than the last answer."""
        ...

    def not_before(self, at_us: int) -> None:
        """Go on from `at_us` if that is later: records of that time exist already."""
        ...

    async def wait(self, bell: asyncio.Event, until_us: int | None) -> None:
        """Return when `bell` rings, or at `until_us` if that is given."""
        ...


class SystemClock:
    """The wall's time when it was made, and the time that has passed since (a machine's sleep included)."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1000 - _passed_us()
        self._is_drift_told = False

    def now_us(self) -> int:
        now_us = self._offset_us + _passed_us()
        drift_us = time.time_ns() // 1000 - now_us
        if (abs(drift_us) > DRIFT_TOLD_US) is not self._is_drift_told:
            self._is_drift_told = not self._is_drift_told
            log.warning(
                "the wall clock is %+.1f s from the market's time; %s",
                drift_us / 1e6,
                "bills follow the market's" if self._is_drift_told else "they agree again",
            )
        return now_us

    def not_before(self, at_us: int) -> None:
        self._offset_us = max(self._offset_us, at_us - _passed_us())

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


def _passed_us() -> int:
    """Return microseconds since some fixed instant; nothing sets this clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class ManualClock:
    """A clock that a test, a replay or a simulation moves by hand."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._waiting: dict[asyncio.Event, None] = {}

    def now_us(self) -> int:
        return self._now_us

    def not_before(self, at_us: int) -> None:
        self._now_us = max(self._now_us, at_us)

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
        self._waiting[bell] = None
        await bell.wait()
        self._waiting.pop(bell, None)
