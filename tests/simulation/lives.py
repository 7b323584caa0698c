"""Many seeds of one layer, one after another or on all processors, and what they come to together.

A seed that fails says its one command. `python -m tests.simulation` and the long suite use this.
"""

import hashlib
import os
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from tests.simulation import core_days, server_days

SHORT_CALM_SECONDS = 240
FULL_CALM_SECONDS = 1_800
EXPECTED = {"core": core_days.EXPECTED, "server": server_days.EXPECTED}


@dataclass
class Life:
    """What one seed came to."""

    layer: str
    seed: int
    days: float
    hash: str = ""
    steps: int = 0
    processor_s: float = 0.0
    seen: Counter = field(default_factory=Counter)
    violation: str | None = None


@dataclass
class Lives:
    """What many seeds came to."""

    lives: list

    @property
    def days(self):
        return sum(life.days for life in self.lives if life.violation is None)

    @property
    def violations(self):
        return [life.violation for life in self.lives if life.violation is not None]

    @property
    def missing(self):
        seen = Counter()
        for life in self.lives:
            seen.update(life.seen)
        return sorted(set(EXPECTED[self.lives[0].layer]) - seen.keys())

    @property
    def processor_s_per_day(self):
        return sum(life.processor_s for life in self.lives) / max(self.days, 0.001)

    @property
    def hash(self):
        return hashlib.sha256("".join(life.hash for life in self.lives).encode()).hexdigest()

    def __str__(self):
        life = self.lives[0]
        return (
            f"{self.days:,.10g} days of the {life.layer}, {len(self.lives)} seeds from {life.seed} on, "
            f"{len(self.violations)} violations, hash {self.hash[:16]}, "
            f"{self.processor_s_per_day:.1f} processor seconds a day"
            + (f", never happened: {', '.join(self.missing)}" if self.missing else "")
            + "".join(f"\n{violation}" for violation in self.violations[:5])
        )


def live(seed, *, layer, days, calm_seconds=FULL_CALM_SECONDS):
    """Run one seed of one layer; never raises for a violation."""
    life = Life(layer, seed, days)
    world = (
        core_days.CoreDays(seed)
        if layer == "core"
        else server_days.ServerDays(seed, calm_seconds=calm_seconds)
    )
    began_s = time.process_time()
    try:
        life.hash = world.run(days)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        life.violation = (
            f"{type(error).__name__}: {str(error)[:300]} ({where.name}:{where.lineno})\n"
            f"  python -m tests.simulation {layer} --seed {seed} --days {days} --calm-seconds {calm_seconds}"
        )
    life.processor_s = time.process_time() - began_s
    life.seen = world.coverage.seen
    life.steps = world.steps
    return life


def live_all(seeds, *, layer, days, calm_seconds=FULL_CALM_SECONDS, workers=1, seconds_max=float("inf")):
    """Run every seed for so many days; begin no more of them after `seconds_max`."""
    run = partial(live, layer=layer, days=days, calm_seconds=calm_seconds)
    lives, began_s, seeds = [], time.monotonic(), list(seeds)
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        for at in range(0, len(seeds), workers):
            if lives and time.monotonic() - began_s > seconds_max:
                break
            some = seeds[at : at + workers]
            lives += pool.map(run, some) if pool else map(run, some)
    return Lives(lives)


def processors():
    return len(os.sched_getaffinity(0))
