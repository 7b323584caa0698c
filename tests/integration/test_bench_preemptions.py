"""The preemption benchmarks at a smoke size: they run, and their figures say what the database says."""

import pytest

from bench import preempt_chaos, preempt_half
from tests.support import assert_audit_passes


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # one is enough for a bench
async def test_half_of_the_leases_get_their_notice_in_one_commit(server):
    database = await server.new_database()
    figures = await preempt_half.measure(database, 800)
    assert figures["leases"] == 800
    assert figures["preempted"] == figures["notices_as_promised"] == 400
    assert figures["rows_in_the_commit"]["notices"] == 400
    assert 0 < figures["decided_s"] < figures["committed_s"] <= figures["delivered_p99_s"]
    assert "400 of 800 leases" in preempt_half.render(figures)
    await assert_audit_passes(database)


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # one is enough for a bench
async def test_every_notice_is_kept_and_heard_through_the_storm(server):
    database = await server.new_database()
    figures = await preempt_chaos.measure(database, 160, seed=1)
    assert figures["preempted"] == figures["noticed_and_kept"] == figures["reached_in_time"] == 160
    assert figures["restarts"] == 2 and figures["sockets_cut"] > 10
    assert 0 < figures["webhook_attempts_refused"] < figures["webhook_attempts"]
    assert figures["audit_failed"] == []
    assert "audit: ok" in preempt_chaos.render(figures)
    await assert_audit_passes(database)
