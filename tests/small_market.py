"""The smallest market: a core in virtual time, one owner with one node of two GPUs, buyers as they come."""

from auction.commands import (
    CreateAccount,
    CreateMarket,
    CreateNode,
    Deposit,
    PlaceBid,
    ReportLease,
)
from auction.core import Core
from auction.errors import Rejection
from auction.model import LEASE_ON_NODE, LeaseState
from tests.simulation.driver import SECOND, START_US, make_market


class Market:
    """A core with its clock, one owner, and buyers as they come."""

    def __init__(self, core=None):
        self.core = core or Core()
        self.at_us = START_US
        self.do(CreateMarket(make_market()))
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        self.do(CreateNode("node", "acct_owner", "h100.us", "n", 2, True))

    def do(self, command):
        outcome = self.core.apply(command, self.at_us)
        assert not isinstance(outcome, Rejection), outcome
        return outcome

    def fund(self, name):
        """Open a buyer's account with ten dollars, once."""
        if f"acct_{name}" not in self.core.accounts:
            self.do(CreateAccount(f"acct_{name}", name, ["buyer"]))
            self.do(Deposit(f"dep_{name}", f"acct_{name}", 10_000_000))

    def bid(self, name, limit):
        self.fund(name)
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
