"""Leases started in time, nodes alive, GPUs clean: on a core in virtual time."""

import pytest

from auction.commands import (
    CancelBid,
    CordonNode,
    CreateNode,
    CreateOffer,
    EnrolNode,
    FenceGpus,
    ReportLease,
    ReportNode,
)
from auction.core import Core
from auction.errors import Rejection
from auction.model import BidStatus, EndReason, LeaseState, NodeHealth, NodeState
from tests.simulation.driver import SECOND, START_US
from tests.small_market import Market

DOLLAR = 1_000_000


class Venue(Market):
    """A second node with a real agent, and one bid that it runs from the first tick on."""

    def __init__(self, gpus=1):
        super().__init__()
        self.do(CreateNode("real", "acct_owner", "h100.us", "r", 2, False))
        self.do(EnrolNode("real", "acct_owner"))
        self.do(CreateOffer("off_real", "acct_owner", "real", 2, 500_000))
        for number in range(gpus):
            self.bid(f"b{number}", DOLLAR)

    @property
    def node(self):
        return self.core.nodes["real"]

    def lease(self, name="b0"):
        (lease,) = [lease for lease in self.core.leases.values() if lease.bid == f"bid_{name}"]
        return lease

    def silent(self, health, since):
        self.do(ReportNode("real", health, START_US + since * SECOND))


def test_a_lost_node_ends_its_leases_and_the_bill_stops_at_its_last_heartbeat():
    venue = Venue()
    venue.until(11)
    lease = venue.lease()
    venue.until(100)
    assert lease.settled > 0, "it was settled while the node was alive"
    venue.until(117)
    venue.silent(NodeHealth.DEGRADED, since=101)
    assert (venue.node.health, lease.state) == (NodeHealth.DEGRADED, LeaseState.RUNNING)
    venue.until(162)
    venue.silent(NodeHealth.OFFLINE, since=101)
    assert (lease.state, lease.end_reason) == (LeaseState.ENDED, EndReason.NODE_LOST)
    assert lease.ended_at_us == START_US + 101 * SECOND
    assert lease.gpu_seconds == 101 - (lease.started_at_us - START_US) // SECOND
    assert venue.core.bids["bid_b0"].spent == lease.settled == lease.metered


def test_a_degraded_node_gets_nothing_new_and_bills_its_gap_once_it_is_back():
    venue = Venue()
    venue.until(20)
    lease = venue.lease()
    venue.silent(NodeHealth.DEGRADED, since=15)
    venue.bid("late", 2 * DOLLAR)
    venue.until(45)
    assert venue.core.bids["bid_late"].filled_gpus == 0
    assert venue.core.bids["bid_b0"].filled_gpus == 1, "what runs goes on"
    venue.silent(NodeHealth.OK, since=45)
    venue.until(130)
    assert venue.core.bids["bid_late"].filled_gpus == 1
    venue.do(ReportLease(lease.id, "acct_owner", "failed"))
    assert lease.gpu_seconds == (lease.ended_at_us - lease.started_at_us) // SECOND, "no second is missing"


def test_a_lease_that_is_not_started_in_time_goes_and_its_node_waits_for_the_owner():
    venue = Market()
    venue.core.markets["h100.us"].provisioning_seconds = 25
    venue.do(CreateOffer("off", "acct_owner", "node", 2, 500_000))
    venue.bid("b", DOLLAR)
    venue.at_us = START_US + 10 * SECOND
    venue.core.run_due(venue.at_us)
    (lease,) = venue.core.leases.values()
    assert lease.start_by_us == venue.at_us + 25 * SECOND
    arrival = venue.core.bids["bid_b"].seq
    venue.at_us = lease.start_by_us
    venue.core.run_due(venue.at_us)
    assert (lease.state, lease.end_reason, lease.metered) == (LeaseState.ENDED, EndReason.NODE_LOST, 0)
    assert venue.core.nodes["node"].state is NodeState.CORDONED
    bid = venue.core.bids["bid_b"]
    assert (bid.status, bid.seq) == (BidStatus.OPEN, arrival), "back in the book with its rank"
    venue.until(60)
    assert bid.filled_gpus == 0, "nothing goes to that node"
    venue.do(CordonNode("node", "acct_owner", False, venue.core.nodes["node"].version))
    venue.until(75)
    assert bid.filled_gpus == 1


def test_a_fenced_gpu_is_not_lent_and_its_tenant_is_told_that_it_is_lost():
    venue = Venue(gpus=2)
    venue.until(11)
    first = next(lease for lease in venue.core.leases.values() if lease.gpus == [0])
    venue.do(FenceGpus("real", "acct_owner", [0]))
    assert (first.state, first.end_reason) == (LeaseState.ENDED, EndReason.NODE_LOST)
    venue.until(60)
    assert [lease.gpus for lease in venue.core.leases.values()] == [[1]], "one GPU is left to lend"
    venue.do(FenceGpus("real", "acct_owner", []))
    venue.until(75)
    assert sorted(lease.gpus for lease in venue.core.leases.values()) == [[0], [1]]


@pytest.mark.parametrize("gpus", [[2], [-1], [0, 1, 5]])
def test_only_gpus_that_the_node_has_can_be_fenced(gpus):
    venue = Venue()
    outcome = venue.core.apply(FenceGpus("real", "acct_owner", gpus), venue.at_us)
    assert isinstance(outcome, Rejection)
    assert (outcome.code, venue.node.fenced) == ("gpus_out_of_range", [])


def test_a_tenant_that_leaves_a_silent_node_pays_to_its_last_heartbeat():
    venue = Venue()
    venue.until(30)
    lease = venue.lease()
    venue.silent(NodeHealth.DEGRADED, since=20)
    venue.until(40)
    venue.do(ReportLease(lease.id, "acct_owner", "failed"))
    assert lease.ended_at_us == START_US + 20 * SECOND


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_outage_while_a_node_is_late_leaves_every_second_its_price(is_restarted):
    """Seed 29 of the core's days: settled after ten minutes without the market, up to the last heartbeat.

    The price of the seconds behind that was forgotten before the node's return made them billable, and
    the tick that settled them failed.
    """
    venue = Venue()
    venue.until(103)
    venue.bid("rival", 800_000)
    venue.bid("late", 700_000)
    venue.until(116)
    venue.silent(NodeHealth.DEGRADED, since=103)
    venue.at_us += 600 * SECOND
    venue.core.run_due(venue.at_us)
    assert venue.lease().metered_to_s == START_US // SECOND + 103
    if is_restarted:
        venue.core = Core.restore(venue.core.live())
    venue.silent(NodeHealth.OK, since=716)
    venue.do(CancelBid("bid_late", "acct_late", True))
    venue.until(900)
    lease = venue.lease()
    assert lease.metered_to_s >= START_US // SECOND + 800
    assert lease.gpu_seconds == lease.metered_to_s - lease.started_at_us // SECOND
