"""The stability simulation keeps its books: GPUs, work and events add up, and a seed says it all.

The small world of the quick run, with limits that change, so that every path of the market is taken. The
checks recount from parts and nodes and do not use the counters of the simulation.
"""

from dataclasses import replace

import pytest

from bench import stability
from bench.stability_market import CAUSES, NEVER, Simulation
from bench.stability_world import NODE_GPUS, World, draw
from matching import book, reference

WORLD = replace(stability.QUICK, limit_changes_per_hour=2)


@pytest.mark.parametrize("handicap_bps", [0, 1_000])
def test_no_tick_awards_or_occupies_more_gpus_than_owners_lend(handicap_bps: int) -> None:
    """Step through every tick; recount awards, and tenants of each node, against what is lent."""
    simulation = Simulation(book, WORLD, draw(WORLD, 1), handicap_bps)
    busiest = 0
    for _ in range(simulation.script.ticks):
        simulation.step()
        lent = [node for node in simulation.nodes if node.offer >= 0]
        assert sum(job.fill for job in simulation.jobs.values()) <= NODE_GPUS * len(lent)
        for number, node in enumerate(simulation.nodes):
            occupied = sum(job.parts.get(number, [0])[0] for job in simulation.jobs.values())
            is_there = node.offer >= 0 or node.leaves_at < NEVER
            assert occupied == (NODE_GPUS - node.free if is_there else 0)
            assert 0 <= node.free <= NODE_GPUS
        busiest = max(busiest, sum(job.held for job in simulation.jobs.values()) / (NODE_GPUS * len(lent)))
    assert busiest > 0.5, "a market that is not crowded tests nothing"


@pytest.mark.parametrize("handicap_bps", [0, 5_000])
def test_jobs_hold_what_they_may_and_produce_what_they_want(handicap_bps: int) -> None:
    """A gang works with all its GPUs or not at all; the book ranks no more than is held or just lost."""
    simulation = Simulation(book, WORLD, draw(WORLD, 2), handicap_bps)
    for _ in range(simulation.script.ticks):
        simulation.step()
        for job in simulation.jobs.values():
            assert job.held <= job.gpus
            assert 0 <= job.done <= job.work
            if job.is_gang and job.is_at_work:
                assert job.held == job.gpus
            if job.number not in simulation.rerank | simulation.lowered:
                assert job.ranked_gpus == job.held
    placed = sum(len(rows) for rows in simulation.script.jobs.values())
    assert placed == len(simulation.jobs) + simulation.counts["finished"]
    assert simulation.counts["finished"] > 0
    assert all(simulation.counts[cause] > 0 for cause in CAUSES)


def test_every_notice_has_its_length() -> None:
    """Nobody loses GPUs to another bid sooner than the notice after the clearing that said so."""
    world = replace(WORLD, lent_hours_mean=1e6, reserve_sigma=0)  # only other bids take GPUs away
    simulation = Simulation(book, world, draw(world, 3), 0)
    before: dict[int, int] = {}
    below_since: dict[int, int] = {}
    lost = 0
    for tick in range(simulation.script.ticks):
        simulation.step()
        for number, job in simulation.jobs.items():
            if job.held < before.get(number, 0):
                lost += 1
                assert tick - below_since[number] >= world.notice_ticks
            if job.fill < job.held:
                below_since.setdefault(number, tick)
            else:
                below_since.pop(number, None)
        before = {number: job.held for number, job in simulation.jobs.items()}
    assert lost > 0


def test_one_seed_gives_the_same_figures_on_both_kernels() -> None:
    """Compiled book, compiled book again and the plain reference decide alike, tick by tick."""
    world = replace(WORLD, node_count=8, hours=1)
    runs = [stability.simulate(kernel, world, range(1, 3), (0, 1_000)) for kernel in (book, book, reference)]
    assert runs[0] == runs[1]
    assert runs[0] == runs[2]


def test_handicaps_of_a_seed_share_their_jobs_and_recalls() -> None:
    """The script knows no handicap; without anybody to displace, all handicaps give the same figures."""
    world = World(hours=2, warm_up_hours=0, node_count=8, load=0.1, reserve_median=0.5)
    rows = stability.simulate(book, world, range(1, 2), stability.HANDICAPS_BPS)
    assert len({row["hash"] for row in rows}) == 1


def test_the_quick_run_prints_its_tables_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smoke size of the benchmark: figures for every handicap, without a picture."""
    monkeypatch.setattr(stability, "draw_picture", lambda *_: pytest.fail("drawn"))
    figures = stability.run(quick=True)
    assert [line["handicap_bps"] for line in figures["summary"]] == list(stability.HANDICAPS_BPS)
    assert figures["hash"] in capsys.readouterr().out
    assert figures["hash"] == stability.run(quick=True)["hash"]
