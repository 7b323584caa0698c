"""Markets that beat together, and a seeded crowd of bids over one to three of them."""

import random

from msgspec import structs

from auction.commands import (
    AmendBid,
    CancelBid,
    Choice,
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    PlaceBid,
    RecallNode,
    ReportLease,
    SetLimits,
    WithdrawOffer,
)
from auction.core import Core
from auction.errors import Rejection
from auction.ids import derived_id
from auction.model import Colocate, LeaseState
from tests.simulation.driver import SECOND, START_US, make_market

NAMES = ("a100.us", "h100.eu", "h100.us")


class Venues:
    """Three markets that beat together, and hands to act in them."""

    def __init__(self, make_book=None, names=NAMES, **settings):
        self.core = Core(make_book)
        self.at_us = START_US
        self.count = 0
        self.journal = []
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        for name in names:
            self.do(CreateMarket(make_market(name, **settings)))

    def new_id(self, prefix):
        self.count += 1
        return derived_id(prefix, "00" * 32, self.count)

    def do(self, command):
        return self.core.apply(command, self.at_us)

    def buyer(self, name, deposit=50_000_000):
        self.do(CreateAccount(name, name, ["buyer"]))
        self.do(Deposit(self.new_id("dep"), name, deposit))
        return name

    def lend(self, market, gpus, reserve=1_000_000):
        node = self.new_id("node")
        self.do(CreateNode(node, "acct_owner", market, node, gpus, False))
        self.do(EnrolNode(node, "acct_owner"))
        offer = self.new_id("off")
        self.do(CreateOffer(offer, "acct_owner", node, gpus, reserve))
        return node

    def bid(self, account, gpus, limits, **fields):
        """Place a bid over {market: limit}."""
        choices = [Choice(market, limit) for market, limit in limits.items()]
        first = choices[0]
        alternatives = choices if len(choices) > 1 else []
        command = PlaceBid(self.new_id("bid"), account, first.market, gpus, first.limit)
        placed = self.do(structs.replace(command, alternatives=alternatives, **fields))
        assert not isinstance(placed, Rejection), placed
        return placed.bid

    def beat(self, seconds=10):
        """Let time pass to the next tick; nodes report what they were told to start."""
        self.at_us += seconds * SECOND
        self.core.run_due(self.at_us)
        for lease in sorted(self.core.leases.values(), key=lambda lease: lease.id):
            if lease.state is LeaseState.STARTING:
                self.do(ReportLease(lease.id, lease.owner, "started"))

    def where(self, bid):
        return bid.market, bid.filled_gpus


class Travellers(Venues):
    """A seeded crowd of bids over one to three of the markets."""

    def __init__(self, seed, make_book=None):
        super().__init__(make_book, provisioning_seconds=25)
        self.dice = random.Random(seed)
        self.buyers = [self.buyer(f"acct_{i}", 4_000_000) for i in range(5)]
        self.nodes = [self.lend(name, 8, 10_000 * self.dice.randint(50, 120)) for name in NAMES * 2]
        self.codes = set()

    def step(self):
        self.at_us += self.dice.choice([2, 3, 5]) * SECOND
        self.core.run_due(self.at_us)
        for _ in range(self.dice.randint(0, 4)):
            outcome = self.act()
            if isinstance(outcome, Rejection):
                self.codes.add(outcome.code)
        for lease in sorted(self.core.leases.values(), key=lambda lease: lease.id):
            if lease.state is LeaseState.STARTING and self.dice.random() < 0.8:
                state = "failed" if self.dice.random() < 0.05 else "started"
                self.do(ReportLease(lease.id, lease.owner, state))

    def act(self):
        dice, roll = self.dice, self.dice.random()
        bids = sorted(self.core.bids)
        if roll < 0.5 or not bids:
            named = dice.sample(NAMES, dice.choice([1, 2, 2, 3]))
            choices = [Choice(name, 10_000 * dice.randint(40, 250)) for name in named]
            gpus = dice.choice([1, 2, 4, 8])
            colocate = dice.choice([Colocate.NONE, Colocate.NONE, Colocate.NODE])
            minimum = gpus if colocate is Colocate.NODE else dice.choice([1, gpus])
            buyer, cap = dice.choice(self.buyers), dice.choice([None, None, 400_000])
            first, several = choices[0], choices if len(choices) > 1 else []
            place = PlaceBid(self.new_id("bid"), buyer, first.market, gpus, first.limit, minimum, colocate)
            return self.do(structs.replace(place, max_spend=cap, alternatives=several))
        bid = self.core.bids[dice.choice(bids)]
        if roll < 0.75:
            market = dice.choice(bid.markets) if bid.alternatives else None
            limit = dice.choice([None, 10_000 * dice.randint(40, 250)])
            gpus, paused = dice.choice([None, None, 1, 4]), dice.choice([None, None, True, False])
            return self.do(AmendBid(bid.id, bid.account, limit, gpus, None, paused, market=market))
        if roll < 0.85:
            return self.do(CancelBid(bid.id, bid.account, dice.random() < 0.6))
        if roll < 0.9:
            return self.do(RecallNode(dice.choice(self.nodes), "acct_owner", None))
        if roll < 0.93 and self.core.offers:
            return self.do(WithdrawOffer(dice.choice(sorted(self.core.offers)), "acct_owner"))
        if roll < 0.95:
            caps = dice.choice([None, 20_000_000]), dice.choice([None, 900_000])
            return self.do(SetLimits(dice.choice(self.buyers), self.buyers[0], None, *caps))
        node = dice.choice(self.nodes)
        price = 10_000 * dice.randint(50, 120)
        return self.do(CreateOffer(self.new_id("off"), "acct_owner", node, dice.choice([2, 8]), price))
