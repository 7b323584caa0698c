"""A market without its clock and its auction: a test sets the time, the price and each lease by hand.

So one rule of a lease or of a bill meets exactly what the test says. At PRICE a GPU costs A_SECOND a second,
and a bid of one GPU at that limit holds HOLD: an interval of 60 s, a notice of 30, two ticks of 10, 10 more.
"""

from auction import leases
from auction.commands import (
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    PlaceBid,
)
from auction.core import Core
from auction.errors import Rejection
from auction.ledger import AVAILABLE, ledger_account
from auction.model import EndReason, Limits
from tests.simulation.driver import SECOND, START_US, make_market

START_S = START_US // SECOND
PRICE = 3_600_000
A_SECOND = 1_000
HOLD = 120 * A_SECOND
MONEY = 100 * HOLD
US, EU = "h100.us", "h100.eu"


class Bare:
    """One owner with one node and one offer; prices, bids and leases as a test wants them."""

    def __init__(self, *, gpus=8, offered=None, simulated=True, **settings):
        self.core = Core()
        self.state = self.core._state
        self.at(0)
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        self.market = self.open_market(US, **settings)
        self.node, self.offer = self.lend("node", gpus, offered or gpus, simulated=simulated)
        self.state.take_changes()

    def at(self, second):
        """Let it be `second` now; fractions too."""
        self.state.now_us = START_US + int(second * SECOND)

    def do(self, command):
        outcome = self.core.apply(command, self.state.now_us)
        assert not isinstance(outcome, Rejection), outcome.code
        return outcome

    def open_market(self, name, **settings):
        self.do(CreateMarket(make_market(name, **settings)))
        self.price(0, PRICE, market=name)
        return self.state.markets[name]

    def price(self, second, price, market=US):
        self.state.books[market].set_price(START_S + second, price)

    def lend(self, name, gpus, offered, *, market=US, simulated=True):
        node = self.do(CreateNode(name, "acct_owner", market, name, gpus, simulated))
        if not simulated:
            self.do(EnrolNode(name, "acct_owner"))
        return node, self.do(CreateOffer(f"off_{name}", "acct_owner", name, offered, 0))

    def bid(self, name="b", gpus=1, *, limit=PRICE, money=MONEY, **terms):
        """Place a bid of an account that was just given so much money."""
        account = f"acct_{name}"
        self.do(CreateAccount(account, name, ["buyer"]))
        self.do(Deposit(f"dep_{name}", account, money))
        terms = {"market": US} | terms
        bid = self.do(PlaceBid(f"bid_{name}", account, gpus=gpus, limit=limit, **terms)).bid
        self.state.take_changes()
        return bid

    def award(self, bid, gpus=1, offer=None):
        return leases.award(self.state, bid, offer or self.offer, gpus)

    def starting(self, bid, gpus=1, offer=None):
        lease = self.award(bid, gpus, offer)
        assert gpus == leases.start_pending(self.state, [lease])
        return lease

    def running(self, bid, gpus=1, offer=None):
        """Give the bid GPUs that run from now on, and forget what was told of it."""
        lease = self.starting(bid, gpus, offer)
        leases.report_started(self.state, lease, {})
        self.state.take_changes()
        return lease

    def notice(self, lease, reason=EndReason.OUTBID, *, seconds=30, old_price=PRICE):
        terms = {"notice_seconds": seconds, "old_price": old_price, "price": PRICE, "keep_price": None}
        return leases.issue_notice(self.state, lease, reason, **terms)

    def leave(self, bid, amount):
        """Let the bid's account have so much to spare."""
        self.state.balances[ledger_account(self.state.accounts[bid.account].number, AVAILABLE)] = amount

    def rank(self, bid):
        """Return the GPUs with which the book ranks the bid as one that runs (R3)."""
        return self.state.books[bid.market]._bids[bid.id].held

    def limited(self, bid, **limits):
        """Limit the bid's account."""
        found = Limits(bid.account, bid.account, **limits)
        self.state.add_limits(found)
        return found

    def told(self):
        """What was told, and to whom, since the changes were last taken."""
        return [(event.kind, event.account) for event in self.state.changes.events]

    def kinds(self):
        return [kind for kind, _ in self.told()]

    def transfers(self):
        return [(transfer.code, transfer.amount) for transfer in self.state.changes.transfers]

    def usage(self):
        """The metered rows: from and to as seconds of the test, and the price."""
        return [(row.from_s - START_S, row.to_s - START_S, row.price) for row in self.state.changes.usage]
