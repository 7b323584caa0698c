"""Every promise about crashes at its short size, as the long suite runs it at its full one."""

import pytest

from tests.crash import balances, cut_points, kills, lost_replies, outages, rivals
from tests.proof.promise import Size

SEED = 1
PROMISES = [
    promise
    for suite in (cut_points, lost_replies, outages, rivals, kills, balances)
    for promise in suite.PROMISES
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
def test_a_promise_is_kept(promise):
    """None is the honest answer of a machine that cannot run a method; it says why."""
    outcome = promise.run(Size.SHORT, SEED)
    if outcome.is_kept is None:
        assert outcome.figure.startswith("not run: ")
        return
    assert outcome.is_kept, f"{promise.name}, seed {SEED}: {outcome.figure}"
