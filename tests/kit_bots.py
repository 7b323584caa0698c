"""Bots for the kit's tests: one that writes down what it hears, and drives through all it can do."""

from decimal import Decimal

from fallow import Strategy


class Witness(Strategy):
    """Bids once at `limit`; stops when it has been through `until` (a lease's state) or on request."""

    def __init__(self, limit: Decimal = Decimal("2.00"), gpus: int = 2, until: str = ""):
        self.limit, self.gpus, self.until = limit, gpus, until
        self.heard, self.bids, self.leases, self.ticks = [], [], [], []

    def on_tick(self, tick):
        self.heard.append("tick")
        self.ticks.append(tick)
        assert self.desk.ticks[-1] is tick
        if not self.desk.bids():
            self.bids.append(self.desk.place(gpus=self.gpus, limit=self.limit))
        if self.until and any(lease.state == self.until for lease in self.leases):
            self.desk.stop("seen")

    def on_bid(self, bid):
        self.heard.append("bid")

    def on_lease(self, lease):
        self.heard.append("lease")
        self.leases.append(lease)

    def on_notice(self, notice):
        self.heard.append("notice")


class Idle(Strategy):
    """Does nothing: what it sees is the market without it."""


class Raising(Strategy):
    def on_tick(self, tick):
        if not self.desk.bids():
            self.desk.place(gpus=1, limit="2.00")
        elif self.desk.leases():
            raise RuntimeError("a bug of mine")
