"""Every pair of states is legal or refused, as its table says; nothing leaves a final state."""

import itertools

import pytest

from auction.leases import notice_move
from auction.model import (
    LEASE_TRANSITIONS,
    NOTICE_TRANSITIONS,
    EndReason,
    LeaseState,
    Notice,
    NoticeState,
)


def test_tables_name_every_state_once():
    assert set(LeaseState) == set(LEASE_TRANSITIONS)
    assert set(NoticeState) == set(NOTICE_TRANSITIONS)


def test_final_states_are_final():
    assert not LEASE_TRANSITIONS[LeaseState.ENDED]
    assert not NOTICE_TRANSITIONS[NoticeState.DONE]
    assert not NOTICE_TRANSITIONS[NoticeState.WITHDRAWN]


@pytest.mark.parametrize(("before", "after"), list(itertools.product(NoticeState, NoticeState)))
def test_each_pair_of_notice_states(before, after):
    notice = Notice("ntc", "lease", "bid", "acct", "market", EndReason.OUTBID, before, 0, 1, 1, None, 1, None)
    if after in NOTICE_TRANSITIONS[before]:
        notice_move(notice, after)
        assert notice.state is after
    else:
        with pytest.raises(AssertionError):
            notice_move(notice, after)


def test_no_lease_runs_without_having_started():
    """The bill starts at the node's report: only `starting` leads to `running`, or back from a notice."""
    into_running = {state for state, targets in LEASE_TRANSITIONS.items() if LeaseState.RUNNING in targets}
    assert {LeaseState.STARTING, LeaseState.NOTICED} == into_running
