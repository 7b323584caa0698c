"""The comparison of kernel and reference has teeth: a kernel with one wrong rounding is found."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from matching import book, reference
from tests.fuzz.kernel_play import Differs, play
from tests.fuzz.kernel_sanitized import plant
from tests.kernel_builds import build, run

LIVES = 2_000


@pytest.mark.timeout(400)
def test_a_rank_that_is_rounded_the_wrong_way_is_found(tmp_path):
    """Goal: one off-by-one in the compiled kernel's handicap does not survive a short run.

    Method: a copy of the kernel with the bug planted is built and driven with the seed's bytes.
    """
    right = "<int64_t> limit * 10000 // (10000 + ladder.handicap_bps)"
    wrong = "(<int64_t> limit * 10000 + 9999) // (10000 + ladder.handicap_bps)"

    def planted(where):
        plant(where, "ladder.pxd", right, wrong)

    where = build(tmp_path / "planted", flags="-O0", before=planted)
    done = run(where, ["-m", "tests.fuzz.kernel_driver", "--runs", str(LIVES)])
    assert done.returncode != 0, done.stdout
    assert "Differs" in done.stderr and "the bytes that show it" in done.stderr


def test_a_refusal_of_one_side_only_is_found():
    """The reference without its bounds: what the fuzzing found first."""

    class Lax(reference.Book):
        def cancel_bids(self, handles):
            for handle in handles.tolist():
                self._bids.pop(handle, None)

    lax = SimpleNamespace(Book=Lax)
    for seed in range(400):
        try:
            play(random.Random(seed).randbytes(64), (book, lax))
        except Differs:
            return
    pytest.fail("a side that cancels what is not there was not told from the other")


def test_bulk_calls_of_the_reference_are_all_or_nothing():
    """What one handle refuses leaves the others as they were, on both sides."""
    for module in (book, reference):
        made = module.Book(handicap_bps=0, level_count=10)
        handle = made.place_bid(5, 1, 1, 0, 0, 0)
        for wrong in ([handle, handle], [handle, 99]):
            column = np.array(wrong, dtype=np.int32)
            with pytest.raises(KeyError):
                made.cancel_bids(column)
            with pytest.raises(KeyError):
                made.set_held_many(column, np.array([1, 1], dtype=np.int32))
        assert 1 == made.clear().bid_count
        for level in (-1, 11):
            with pytest.raises(ValueError, match="level"):
                made.depth(level)
        with pytest.raises(ValueError, match="node"):
            made.place_offer(1, 1, 1_000_001)
