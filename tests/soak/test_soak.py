"""The soak has teeth: whatever every answer leaves behind is found by the short form."""

import pytest

from tests.proof.promise import Size
from tests.soak.promises import complaints
from tests.soak.soak import jitter_p99_ms, run_soak, slope

SECONDS = 8.0


@pytest.mark.parametrize(
    ("planted", "complained_of"),
    [(["memory"], {"memory grows"}), (["descriptors", "tasks"], {"descriptors grow", "tasks grow"})],
)
def test_what_every_answer_leaves_behind_is_found(planted, complained_of):
    health = run_soak(SECONDS, planted)
    assert complained_of <= set(complaints(health, Size.SHORT)), health


def test_a_slope_is_what_it_says():
    assert 2.0 == pytest.approx(slope([(float(x), 5.0 + 2.0 * x) for x in range(10)]))
    assert 0.0 == slope([(1.0, 7.0), (2.0, 7.0)])


def test_one_late_tick_of_fifty_is_seen_in_the_99th_percentile():
    beats = [1_000_000 * number + (300_000 if number == 30 else 0) for number in range(50)]
    assert 300.0 == jitter_p99_ms(beats)
    assert 0.0 == jitter_p99_ms([1_000_000 * number for number in range(50)])
