"""The clock port: it only moves forward, and waits for a bell or a time, whichever comes first."""

import asyncio
import time

from auction.clock import ManualClock, SystemClock


def test_the_system_clock_follows_real_time_and_never_goes_back(monkeypatch):
    clock = SystemClock()
    first = clock.now_us()
    wall_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns - 864_000 * 10**9)
    assert clock.now_us() >= first, "a step back of ten days is not followed"
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns + 864_000 * 10**9)
    before = clock.now_us()
    assert clock.now_us() - before < 1_000_000, "a step of ten days ahead is not billed"


async def test_a_manual_clock_wakes_who_waits_for_a_time():
    clock = ManualClock(0)
    bell = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(bell, 5_000_000))
    await asyncio.sleep(0)
    clock.advance(5)
    await asyncio.wait_for(waiting, 1)


async def test_the_system_clock_wakes_at_the_bell():
    clock, bell = SystemClock(), asyncio.Event()
    waiting = asyncio.create_task(clock.wait(bell, clock.now_us() + 60_000_000))
    await asyncio.sleep(0)
    bell.set()
    await asyncio.wait_for(waiting, 1)
