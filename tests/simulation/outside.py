"""What the product asks the machine for, from the loop and the seed instead: time, random bytes, connections.

The product has one door for each (auction/clock.py, auction/ids.py, the client's timeouts, aiohttp's way to a
socket); they are exchanged for the time of a run. Periods of a second or less are stretched where a day would
be nothing but they.
"""

import random
from contextlib import contextmanager

import aiohappyeyeballs

from api import agent as agent_routes
from api import heartbeats
from api import stream as socket_routes
from auction import clock, ids
from fallow.agent import node as agent
from fallow.client import transport

WALL_US = 1_700_000_000_000_000
STRETCHED = (
    (agent_routes, "POLL_SECONDS", 5.0),
    (agent, "LOOK_SECONDS", 2.0),
    (agent, "POLL_SECONDS", 50),
    (heartbeats, "WATCH_SECONDS", 3.0),
    (socket_routes, "REVOCATION_CHECK_SECONDS", 10.0),
)


class MachineTime:
    """The module `time` as far as the product uses it; the wall's clock can be set, the other cannot."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 0

    def __init__(self, loop):
        self._loop = loop
        self.wall_step_us = 0

    def monotonic(self):
        return self._loop.time()

    def clock_gettime_ns(self, _):
        return int(self._loop.time() * 1_000_000) * 1_000

    def time_ns(self):
        return self.clock_gettime_ns(0) + (WALL_US + self.wall_step_us) * 1_000


class SeededSecrets:
    """The module `secrets` as far as auction/ids.py uses it."""

    def __init__(self, seed):
        self._dice = random.Random(f"secrets {seed}")

    def token_bytes(self, count):
        return self._dice.randbytes(count)

    def choice(self, some):
        return self._dice.choice(some)

    def randbelow(self, bound):
        return self._dice.randrange(bound)


@contextmanager
def machine_of(loop, seed):
    """Exchange the doors; yields the time, whose wall clock can be set."""
    time = MachineTime(loop)
    exchanged = [
        (clock, "time", time),
        (transport, "time", time),
        (ids, "secrets", SeededSecrets(seed)),
        (aiohappyeyeballs, "start_connection", loop.network.start_connection),
        *STRETCHED,
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in exchanged]
    ids._pool.clear()
    for place, name, value in exchanged:
        setattr(place, name, value)
    try:
        yield time
    finally:
        ids._pool.clear()
        for place, name, value in before:
            setattr(place, name, value)
