"""What happens in a simulated market whatever its auction decides: jobs, machines, recalls, new limits.

Everything is drawn before a simulation starts, from one seed, so that markets with different settings meet
the same events. Times are ticks of one minute, prices are levels of $0.0001 per GPU-hour, work is in
GPU-ticks. Nothing here knows the kernel.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

SIZES = (1, 2, 4, 8, 16, 32, 64)
SIZE_SHARES = (0.28, 0.15, 0.15, 0.20, 0.11, 0.07, 0.04)
LEVELS_PER_USD = 10_000
LEVEL_COUNT = 1 << 17
NODE_GPUS = 8
TICKS_PER_HOUR = 60
RUN_HOURS_MIN = 1 / 6

JobRow = tuple[int, int, bool, int, int]  # limit, gpus, is_gang, work, hash


@dataclass(frozen=True, slots=True)
class World:
    """The parameters of one simulated market; money in dollars per GPU-hour."""

    hours: float = 48
    warm_up_hours: float = 12
    node_count: int = 128
    load: float = 1.6  # GPU-hours that arrive, of the GPU-hours that owners lend on average
    gang_share: float = 0.7  # of the jobs
    limit_median: float = 2.00
    limit_sigma: float = 0.35
    reserve_median: float = 1.20
    reserve_sigma: float = 0.30
    run_hours_median: float = 2.0  # of a job that has all its GPUs all the time
    run_hours_sigma: float = 1.0
    run_hours_max: float = 24
    lent_hours_mean: float = 12
    recalled_hours_mean: float = 2
    restart_ticks: int = 10
    notice_ticks: int = 2
    limit_changes_per_hour: float = 0  # of each live bid
    limit_change_sigma: float = 0.05  # of the new limit around the one first placed
    is_rank_lost_by_lowering: bool = True
    refine_below_bids: int = 200


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that happens whatever the handicap: by tick, jobs, recalls, returns, new limits."""

    ticks: int
    warm_up_ticks: int
    reserves: list[int]
    jobs: dict[int, list[JobRow]]
    recalls: dict[int, list[int]]
    returns: dict[int, list[int]]
    limit_changes: dict[int, list[tuple[int, int]]]  # (job number, new limit), for jobs still there


def draw(world: World, seed: int) -> Script:
    """Return the jobs, nodes and recalls of that seed."""
    rng = np.random.default_rng(seed)
    ticks = round((world.warm_up_hours + world.hours) * TICKS_PER_HOUR)
    reserves = _levels(rng.lognormal(math.log(world.reserve_median), world.reserve_sigma, world.node_count))
    recalls, returns = defaultdict(list), defaultdict(list)
    lent, recalled = world.lent_hours_mean * TICKS_PER_HOUR, world.recalled_hours_mean * TICKS_PER_HOUR
    for node in range(world.node_count):
        is_lent, tick = bool(rng.random() < lent / (lent + recalled)), 0.0
        if is_lent:
            returns[0].append(node)
        while True:
            tick += world.notice_ticks + 1 + rng.exponential(lent if is_lent else recalled)
            if tick >= ticks:
                break
            (recalls if is_lent else returns)[int(tick)].append(node)
            is_lent = not is_lent
    jobs, limits = _draw_jobs(world, rng, ticks, world.node_count * NODE_GPUS * lent / (lent + recalled))
    changes = _draw_limit_changes(world, rng, ticks, limits)
    warm_up_ticks = round(world.warm_up_hours * TICKS_PER_HOUR)
    return Script(ticks, warm_up_ticks, reserves, jobs, recalls, returns, changes)


def _draw_jobs(
    world: World, rng: np.random.Generator, ticks: int, mean_supply: float
) -> tuple[dict[int, list[JobRow]], list[tuple[int, int]]]:
    """Jobs by tick, and (arrival tick, limit) of each. The load is exact in expectation after the cut."""
    sample = rng.lognormal(math.log(world.run_hours_median), world.run_hours_sigma, 100_000)
    run_hours = float(np.clip(sample, RUN_HOURS_MIN, world.run_hours_max).mean())
    gpu_hours = run_hours * float(np.dot(SIZES, SIZE_SHARES))
    arrivals = rng.poisson(world.load * mean_supply / gpu_hours / TICKS_PER_HOUR, ticks)
    count = int(arrivals.sum())
    limits = _levels(rng.lognormal(math.log(world.limit_median), world.limit_sigma, count))
    sizes = rng.choice(SIZES, count, p=SIZE_SHARES).tolist()
    are_gangs = (rng.random(count) < world.gang_share).tolist()
    hours = np.clip(
        rng.lognormal(math.log(world.run_hours_median), world.run_hours_sigma, count),
        RUN_HOURS_MIN,
        world.run_hours_max,
    )
    run_ticks = np.ceil(hours * TICKS_PER_HOUR).astype(int).tolist()
    hashes = rng.integers(0, 1 << 32, count).tolist()
    of_tick = np.repeat(np.arange(ticks), arrivals).tolist()
    jobs = defaultdict(list)
    for tick, limit, size, is_gang, run, arrival_hash in zip(
        of_tick, limits, sizes, are_gangs, run_ticks, hashes, strict=True
    ):
        jobs[tick].append((limit, size, is_gang, run * size, arrival_hash))
    return jobs, list(zip(of_tick, limits, strict=True))


def _draw_limit_changes(
    world: World, rng: np.random.Generator, ticks: int, limits: list[tuple[int, int]]
) -> dict[int, list[tuple[int, int]]]:
    changes = defaultdict(list)
    if world.limit_changes_per_hour == 0:
        return changes
    for number, (arrived, limit) in enumerate(limits):
        tick = float(arrived)
        while True:
            tick += 1 + rng.exponential(TICKS_PER_HOUR / world.limit_changes_per_hour)
            if tick >= ticks:
                break
            factor = math.exp(rng.normal(0, world.limit_change_sigma))
            changes[int(tick)].append((number, min(max(round(limit * factor), 1), LEVEL_COUNT)))
    return changes


def _levels(usd: np.ndarray) -> list[int]:
    return np.clip(np.rint(usd * LEVELS_PER_USD), 1, LEVEL_COUNT).astype(int).tolist()
