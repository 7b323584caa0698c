"""The simulation's teeth, and the seeds that found something; its promises run in tests/proof."""

import pytest

from tests.simulation import planted
from tests.simulation.core_days import CoreDays
from tests.simulation.coverage import Coverage
from tests.simulation.lives import live, live_all
from tests.simulation.promises import PLANT_SEEDS, caught, is_one_history
from tests.simulation.server_days import ServerDays


@pytest.mark.parametrize("name", planted.IN_THE_CORE)
def test_a_bug_planted_in_the_core_is_caught(name):
    assert caught(CoreDays, planted.IN_THE_CORE[name], 0.5, range(PLANT_SEEDS)) is not None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("drawn_in_a_tick", "P9"),
        ("reused_key", "P4"),
        ("early_word", "P3"),
        ("lost_event", "P11"),
        ("late_notice", "P8"),
    ],
)
def test_a_bug_planted_in_the_server_is_caught_as_what_it_is(name, why):
    violation = caught(ServerDays, planted.IN_THE_SERVER[name], 0.02, range(PLANT_SEEDS))
    assert violation is not None and str(violation).startswith(why)


def test_a_violation_says_the_command_that_shows_it_again():
    with planted.gpu_sold_twice():
        (violation,) = live_all([3], layer="core", days=0.5).violations
    assert "python -m tests.simulation core --seed 3 --days 0.5" in violation


def test_a_fault_that_never_fired_is_missing():
    coverage = Coverage(["often", "never"])
    coverage.sometimes("often")
    assert coverage.missing() == ["never"]
    with pytest.raises(AssertionError):
        coverage.sometimes("unheard of")


def test_a_day_that_ended_early_is_no_day():
    with planted.gpu_sold_twice():
        assert live_all([3], layer="core", days=0.5).days == 0


def test_seed_29_an_outage_while_a_node_was_late_stops_nobody():
    """It once failed an assertion in the tick that billed the node's silent seconds (test_delivery.py)."""
    assert live(29, layer="core", days=2).violation is None


def test_seed_7_what_lies_where_in_memory_decides_nothing():
    """A socket whose parts ended together was once closed for the reason that a set gave first."""
    assert is_one_history(lambda: ServerDays(7).run(0.02))


def test_seed_72_a_hold_that_fell_short_and_was_enough_again_is_forgotten():
    """Amended to less before the tick, its bid was topped up there by whoever had not started meanwhile."""
    assert live(72, layer="core", days=2).violation is None
