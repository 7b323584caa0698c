"""A recalled GPU is its owner's: it does not go to another tenant of the same node."""

from auction.commands import (
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    PlaceBid,
    ReportLease,
    WithdrawOffer,
)
from auction.core import Core
from auction.errors import Rejection
from auction.model import LEASE_ON_NODE, LeaseState
from tests.simulation.driver import SECOND, START_US, make_market


class Market:
    """A core with its clock, one owner, and buyers as they come."""

    def __init__(self):
        self.core = Core()
        self.at_us = START_US
        self.do(CreateMarket(make_market()))
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        self.do(CreateNode("node", "acct_owner", "h100.us", "n", 2, True))

    def do(self, command):
        outcome = self.core.apply(command, self.at_us)
        assert not isinstance(outcome, Rejection), outcome
        return outcome

    def bid(self, name, limit):
        self.do(CreateAccount(f"acct_{name}", name, ["buyer"]))
        self.do(Deposit(f"dep_{name}", f"acct_{name}", 10_000_000))
        self.do(PlaceBid(f"bid_{name}", f"acct_{name}", "h100.us", 1, limit))

    def until(self, second):
        while self.at_us < START_US + second * SECOND:
            self.at_us += SECOND
            self.core.run_due(self.at_us)
            for lease in list(self.core.leases.values()):
                if lease.state is LeaseState.STARTING:
                    self.do(ReportLease(lease.id, "acct_owner", "started"))

    def on_node(self):
        return sorted(lease.bid for lease in self.core.leases.values() if lease.state in LEASE_ON_NODE)


def test_a_withdrawn_offers_gpu_is_not_given_to_a_tenant_of_the_other_offer():
    """Two offers on one node; one is withdrawn, and the other one's tenant is outbid meanwhile."""
    market = Market()
    market.do(CreateOffer("off_x", "acct_owner", "node", 1, 500_000))
    market.do(CreateOffer("off_y", "acct_owner", "node", 1, 500_000))
    market.bid("a", 2_000_000)
    market.bid("b", 2_000_000)
    market.until(11)
    assert ["bid_a", "bid_b"] == market.on_node()
    market.do(WithdrawOffer("off_x", "acct_owner"))
    market.bid("c", 4_000_000)
    for second in range(12, 120):
        market.until(second)
        lent = sum(lease.gpu_count for lease in market.core.leases.values() if lease.state in LEASE_ON_NODE)
        assert lent <= (2 if "off_x" in market.core.offers else 1)
    assert ["bid_c"] == market.on_node()
