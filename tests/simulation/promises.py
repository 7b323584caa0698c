"""The rows of the long suite that the simulation keeps."""

import os
import random

from auction.errors import TickFault
from tests.proof.promise import Outcome, Promise, Size
from tests.simulation import planted
from tests.simulation.core_days import DAYS_PER_SEED, CoreDays
from tests.simulation.lives import FULL_CALM_SECONDS, SHORT_CALM_SECONDS, live_all, processors
from tests.simulation.server_days import ServerDays

CORE_DAYS = {Size.SHORT: 10, Size.FULL: 10_000}
SERVER_SEEDS = {Size.SHORT: 2, Size.FULL: 200}
SERVER_DAYS = {Size.SHORT: 0.08, Size.FULL: 1}
CALM_SECONDS = {Size.SHORT: SHORT_CALM_SECONDS, Size.FULL: FULL_CALM_SECONDS}
TWICE_SEEDS = {Size.SHORT: 1, Size.FULL: 10}
PLANT_SEEDS = 4
SECONDS_MAX = int(os.environ.get("FALLOW_SIMULATION_SECONDS", 12 * 3_600))  # of one promise


def _workers(size):
    return 1 if size is Size.SHORT else processors()


def _days_of_the_core(size, seed):
    seeds = range(seed * 8, seed * 8 + CORE_DAYS[size] // DAYS_PER_SEED)
    lives = live_all(seeds, layer="core", days=DAYS_PER_SEED, workers=_workers(size), seconds_max=SECONDS_MAX)
    return _outcome(lives, CORE_DAYS[size])


def _days_of_the_server(size, seed):
    lives = live_all(
        range(seed, seed + SERVER_SEEDS[size]),
        layer="server",
        days=SERVER_DAYS[size],
        calm_seconds=CALM_SECONDS[size],
        workers=_workers(size),
        seconds_max=SECONDS_MAX,
    )
    return _outcome(lives, SERVER_SEEDS[size] * SERVER_DAYS[size])


def _outcome(lives, days):
    has_run = lives.days >= days * 0.999
    figure = str(lives) if has_run else f"of {days:,} days only {lives}"
    return Outcome(has_run and not lives.violations and not lives.missing, figure)


def _one_history_a_seed(size, seed):
    seeds = range(seed, seed + TWICE_SEEDS[size])
    differing = [one for one in seeds if not is_one_history(lambda one=one: CoreDays(one).run(0.5))]
    differing += [one for one in seeds if not is_one_history(lambda one=one: ServerDays(one).run(0.02))]
    return Outcome(not differing, f"{len(seeds)} seeds of each layer twice, {len(differing)} differ")


def is_one_history(live):
    """Live twice, with memory in another state; say whether the hash is the same.

    What is iterated in the order of its addresses shows only so: a loop over a set of tasks did.
    """
    first, dice = live(), random.Random(5)
    scattered = [bytearray(dice.randrange(10, 5_000)) for _ in range(20_000)]
    del scattered[::2]
    return live() == first


def caught(make_world, plant, days, seeds):
    """Return the first violation that a planted bug leads to, None where it is never caught."""
    for seed in seeds:
        with plant():
            try:
                make_world(seed).run(days)
            except (AssertionError, TickFault) as violation:
                return violation
    return None


def _planted_bugs_are_caught(size, seed):
    seeds = range(seed, seed + PLANT_SEEDS)
    missed = [
        name for name, plant in planted.IN_THE_CORE.items() if not _is_caught(CoreDays, plant, 0.5, seeds)
    ]
    missed += [
        name
        for name, plant in planted.IN_THE_SERVER.items()
        if not _is_caught(ServerDays, plant, 0.02, seeds)
    ]
    count = len(planted.IN_THE_CORE) + len(planted.IN_THE_SERVER)
    return Outcome(
        not missed, f"{count - len(missed)} of {count}" + (f", missed: {missed}" if missed else "")
    )


def _is_caught(make_world, plant, days, seeds):
    return caught(make_world, plant, days, seeds) is not None


PROMISES = [
    Promise(
        "simulated-core",
        "No invariant of RULES.md breaks, whatever the storage does to the core.",
        "a seeded crowd in ticks of 100 to 300 s; commits lost, unknown, crashes, outages, clocks set back",
        "10,000 simulated days, no violation, every fault fired",
        _days_of_the_core,
    ),
    Promise(
        "simulated-server",
        "No fault of network, storage, clock or process breaks a promise made over HTTP or a socket.",
        "the whole server in virtual time on one seeded loop, storage and reads by their twins",
        "200 simulated days, no violation, every fault fired",
        _days_of_the_server,
    ),
    Promise(
        "one-history-a-seed",
        "The same seed is the same history.",
        "the hash of all that was decided, at its time, of two runs, objects at other addresses",
        "equal",
        _one_history_a_seed,
    ),
    Promise(
        "simulation-has-teeth",
        "The simulation catches the bugs that it exists for.",
        "each planted on a switch that only tests turn, until a check fails",
        "every one",
        _planted_bugs_are_caught,
    ),
]
