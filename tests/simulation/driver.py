"""A seeded crowd that drives a core: the same seed gives the same commands, on any implementation.

The crowd looks only at committed facts (the core's own entities), so two cores that agree receive the
same commands for ever; the first difference shows in a digest.
"""

import random

from msgspec import structs

from auction.commands import (
    AckNotice,
    Adjust,
    AmendBid,
    AmendMarket,
    AmendNode,
    AmendOffer,
    CancelAfter,
    CancelBid,
    ClosePayout,
    CordonNode,
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    FenceGpus,
    PlaceBid,
    RecallNode,
    ReleaseLease,
    ReportLease,
    ReportNode,
    RequestPayout,
    ResumeKey,
    RetireNode,
    SetAffiliation,
    SetLimits,
    StopKey,
    TestNotice,
    WithdrawOffer,
)
from auction.errors import Rejection
from auction.ids import derived_id
from auction.model import Colocate, LeaseState, Market, NodeHealth, NodeState, OnPreempt, TimeInForce

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND


def make_market(market_id="h100.us", **changes):
    settings = {
        "id": market_id, "kind": "gpu", "gpu_model": "H100", "gpu_memory_gib": 80, "gpus_per_node": 8,
        "interconnect": "nvlink", "region": "us", "tick_seconds": 10, "price_increment": 10_000,
        "price_cap": 10_000_000, "notice_seconds": 30, "settlement_seconds": 60,
        "handicap_bps": 1000, "fee_bps": 300, "is_demo": True, "created_at_us": 0,
    }  # fmt: skip
    return Market(**{**settings, **changes})


def timing(stretch):
    return {"tick_seconds": 10 * stretch, "notice_seconds": 30 * stretch, "settlement_seconds": 60 * stretch}


class Crowd:
    """Buyers, owners and node agents with one seeded dice.

    With `stretch` every duration and every sum of money is that many times as large, so a day has that many
    times fewer steps; seeds mean the same for stretch 1 as without it.
    """

    def __init__(
        self,
        core,
        seed,
        *,
        buyers=6,
        owners=2,
        nodes=6,
        deposit=3_000_000,
        market=None,
        ends=True,
        stretch=1,
    ):
        self.core = core
        self.stretch = stretch
        self.purse = random.Random(seed + 2) if stretch > 1 else None  # who runs dry earns more, over days
        self.dice = random.Random(seed)
        self.ends = random.Random(seed + 1) if ends else None  # dice for how bids end by the clock
        self.seed = f"{seed:064x}"
        self.count = 0
        self.at_us = START_US
        settings = {"provisioning_seconds": 25 * stretch, "stagger_share_bps": 1_500} if ends else {}
        self.market = market or make_market(**timing(stretch), **settings)
        self.accepted = self.rejected = 0
        self.codes = set()
        self.buyers = [self.new_id("acct") for _ in range(buyers)]
        self.owners = [self.new_id("acct") for _ in range(owners)]
        self.nodes = {}
        self.do(CreateMarket(self.market))
        for buyer in self.buyers:
            self.do(CreateAccount(buyer, "buyer", ["buyer"]))
            self.do(Deposit(self.new_id("dep"), buyer, deposit * stretch))
        for owner in self.owners:
            self.do(CreateAccount(owner, "owner", ["owner"]))
        for number in range(nodes):
            node, owner = self.new_id("node"), self.owners[number % owners]
            self.nodes[node] = owner
            gpus, fabric = self.dice.choice([2, 4, 8, 8]), self.dice.choice([None, "east", "west"])
            simulated = not ends or number % 2 == 0
            self.do(CreateNode(node, owner, self.market.id, f"n{number}", gpus, simulated, fabric))
            self.do(EnrolNode(node, owner))
            self.offer(node)

    def new_id(self, prefix):
        self.count += 1
        return derived_id(prefix, self.seed, self.count)

    def do(self, command):
        outcome = self.core.apply(command, self.at_us)
        if isinstance(outcome, Rejection):
            self.rejected += 1
            self.codes.add(outcome.code)
        else:
            self.accepted += 1
        return outcome

    def offer(self, node):
        price = 10_000 * self.dice.randint(50, 150)
        until = self.after(self.dice.randint(60, 600)) if self.dice.random() < 0.2 else None
        gpus = self.dice.choice([2, self.core.nodes[node].gpus])
        notice = self.ends and self.ends.choice([None, None, 45, 90])
        notice = notice and notice * self.stretch
        self.do(CreateOffer(self.new_id("off"), self.nodes[node], node, gpus, price, None, until, notice))

    def after(self, seconds):
        return self.at_us + seconds * self.stretch * SECOND

    def pick(self, entities):
        keys = sorted(entities)
        return entities[self.dice.choice(keys)] if keys else None

    def step(self):
        """One second of the crowd's life: a few commands, agents' reports, and what is due."""
        self.at_us = self.until(
            self.after(self.dice.choice([1, 1, 1, 2, 7])) + self.dice.randint(0, SECOND - 1)
        )
        self.core.run_due(self.at_us)
        if self.purse:
            self.earn()
        for _ in range(self.dice.randint(0, 3)):
            self.act()
        if self.ends:
            self.watch()
            self.pay()
            self.brake()
            lease = self.pick(self.core.leases)
            if lease is not None and self.ends.random() < 0.03:
                self.do(TestNotice(lease.id, lease.account))
        self.agents()

    def until(self, at_us):
        """A node that is late is back or lost within a minute, however long a step is (heartbeats.py)."""
        nodes = self.core.nodes.values()
        late = [node.alive_until_us for node in nodes if node.health is NodeHealth.DEGRADED]
        return at_us if self.stretch == 1 or not late else max(self.at_us, min(at_us, min(late) + MINUTE))

    def earn(self):
        """Who has run dry earns again, so that days do not end in silence."""
        for buyer in self.buyers:
            if self.core.balance(buyer).available < 1_000_000 * self.stretch and self.purse.random() < 0.02:
                self.do(Deposit(self.new_id("dep"), buyer, 2_000_000 * self.stretch))

    def resume(self, core):
        """Go on with a core that was read back: it may know less than the one before."""
        self.core = core
        self.nodes = {node.id: node.account for node in core.nodes.values()}
        self.at_us = max(self.at_us, core.now_us)

    def pay(self):
        """Owners ask for their earnings, the operator pays or cannot; and corrects a balance."""
        dice, payout = self.ends, self.pick(self.core._state.payouts)
        if dice.random() < 0.05:
            owner = dice.choice(self.owners)
            earning = self.core.balance(owner).earning
            amount = earning // dice.choice([1, 2]) + dice.choice([0, 1])
            self.do(RequestPayout(self.new_id("pay"), owner, amount))
        elif payout is not None and dice.random() < 0.1:
            self.do(ClosePayout(payout.id, dice.choice(["paid", "failed"]), "bank"))
        elif dice.random() < 0.02:
            amount = dice.choice([1, 1_000, -1_000])
            self.do(Adjust(self.new_id("adj"), dice.choice(self.buyers), "available", amount, "goodwill"))

    def brake(self):
        """Limits are set and lowered, keys stopped and resumed, accounts declared to belong together."""
        dice = self.ends
        if dice.random() < 0.06:
            buyer = dice.choice(self.buyers)
            scope = dice.choice([buyer, f"key_{buyer}"])
            price = dice.choice([None, None, 2_000_000])
            cap = dice.choice([None, 300_000, 600_000])
            # For a day, and not for minutes of one.
            cap = cap and cap * self.stretch * (1 if self.stretch == 1 else 10)
            self.do(SetLimits(scope, buyer, price, dice.choice([None, 20_000_000]), cap))
        elif dice.random() < 0.03:
            buyer = dice.choice(self.buyers)
            self.do(StopKey(f"key_{buyer}", buyer, dice.random() < 0.5))
        elif dice.random() < 0.1:
            buyer = dice.choice(self.buyers)
            self.do(ResumeKey(f"key_{buyer}", buyer))
        elif dice.random() < 0.02:
            self.do(SetAffiliation(dice.choice([*self.buyers, *self.owners]), dice.choice([None, "group"])))

    def watch(self):
        """Nodes fall silent and come back; GPUs are fenced and cleaned."""
        dice = self.ends
        for node in sorted(self.nodes):
            if self.is_overdue(node):
                health = dice.choice([NodeHealth.OK, NodeHealth.OK, NodeHealth.OFFLINE])
                self.do(ReportNode(node, health, self.at_us))
            elif dice.random() < 0.02:
                health = dice.choice([NodeHealth.DEGRADED, NodeHealth.DEGRADED, NodeHealth.OFFLINE])
                self.do(ReportNode(node, health, self.at_us - dice.randint(0, 20) * SECOND))
            elif self.core.nodes[node].health is not NodeHealth.OK and dice.random() < 0.3:
                self.do(ReportNode(node, NodeHealth.OK, self.at_us))
            elif dice.random() < 0.01:
                gpus = self.core.nodes[node].gpus
                self.do(FenceGpus(node, self.nodes[node], dice.sample(range(gpus), dice.choice([0, 0, 1]))))
            elif dice.random() < 0.01:
                gpus, fabric = dice.choice([None, 2, 8]), dice.choice([None, "east", "west"])
                self.do(AmendNode(node, self.nodes[node], None, gpus, fabric))
            elif dice.random() < 0.01:
                self.renew(node)
            elif self.core.nodes[node].state is NodeState.CORDONED and dice.random() < 0.3:
                self.do(CordonNode(node, self.nodes[node], False, self.core.nodes[node].version))

    def is_overdue(self, node):
        known = self.core.nodes[node]
        is_late = known.health is NodeHealth.DEGRADED
        return self.stretch > 1 and is_late and known.alive_until_us + MINUTE <= self.at_us

    def renew(self, node):
        """Take a node out for good, where nothing is on it, and bring it back under the same name."""
        owner, old = self.nodes[node], self.core.nodes[node]
        if isinstance(self.do(RetireNode(node, owner)), Rejection):
            return
        del self.nodes[node]
        new = self.new_id("node")
        self.nodes[new] = owner
        self.do(CreateNode(new, owner, self.market.id, old.name, old.gpus, old.simulated, old.fabric))
        self.do(EnrolNode(new, owner))
        self.offer(new)

    def act(self):
        dice, roll = self.dice, self.dice.random()
        bid, lease = self.pick(self.core.bids), self.pick(self.core.leases)
        limit = 10_000 * dice.randint(40, 300)
        if roll < 0.45 or bid is None:
            gpus = dice.choice([1, 1, 2, 4, 8])
            minimum = dice.choice([1, 1, gpus, max(1, gpus // 2)])
            colocate = Colocate.NONE
            if dice.random() < 0.3:
                gpus = dice.choice([2, 4, 8, 16])
                minimum, colocate = gpus, Colocate.FABRIC if gpus > 8 else Colocate.NODE
            buyer, market = dice.choice(self.buyers), self.market.id
            place = PlaceBid(self.new_id("bid"), buyer, market, gpus, limit, minimum, colocate)
            self.do(structs.replace(place, **self.some_end(limit * gpus), **self.some_key(buyer)))
        elif roll < 0.60:
            gpus = dice.choice([None, None, 1, 3, 8])
            paused = dice.choice([None, None, None, True, False])
            self.do(AmendBid(bid.id, bid.account, dice.choice([None, limit]), gpus, None, paused))
        elif roll < 0.66:
            self.do(CancelBid(bid.id, bid.account, dice.random() < 0.7))
        elif roll < 0.70 and lease is not None:
            self.do(ReleaseLease(lease.id, lease.account))
        elif roll < 0.76 and self.core._state.notices:
            notice = self.pick(self.core._state.notices)
            self.do(AckNotice(notice.id, notice.account, dice.random() < 0.5))
        elif roll < 0.80:
            node = dice.choice(sorted(self.nodes))
            self.do(RecallNode(node, self.nodes[node], None))
        elif roll < 0.90:
            self.offer(dice.choice(sorted(self.nodes)))
        elif roll < 0.94 and self.core.offers:
            offer = self.pick(self.core.offers)
            price = 10_000 * dice.randint(50, 150)
            if dice.random() < 0.6:
                self.do(AmendOffer(offer.id, offer.account, offer.version, price))
            else:
                self.do(WithdrawOffer(offer.id, offer.account))
        elif roll < 0.945:
            seconds = dice.choice([(10, 30, 60), (5, 30, 90), (15, 30, 30)])
            self.do(AmendMarket(self.market.id, *[number * self.stretch for number in seconds]))
        elif roll < 0.96:
            self.do(Deposit(self.new_id("dep"), dice.choice(self.buyers), 500_000 * self.stretch))

    def some_key(self, buyer):
        return {"key": f"key_{buyer}"} if self.ends and self.ends.random() < 0.5 else {}

    def some_end(self, cost_per_hour):
        """How a bid ends by the clock, if it does."""
        if self.ends is None or self.ends.random() < 0.4:
            return {}
        dice, tick = self.ends, self.core.markets[self.market.id].tick
        if dice.random() < 0.1:
            self.do(
                CancelAfter(
                    dice.choice(self.buyers), dice.choice([0, 20, 60]) * self.stretch, dice.random() < 0.5
                )
            )
        ends = {"on_preempt": dice.choice(list(OnPreempt)), "time_in_force": dice.choice(list(TimeInForce))}
        if ends["time_in_force"] is TimeInForce.GTT:
            ends["expires_at_us"] = self.after(dice.randint(1, 300))
        elif ends["time_in_force"] is TimeInForce.IOC:
            ends["on_preempt"] = OnPreempt.CANCEL
        else:
            ends["valid_until_tick"] = dice.choice([None, tick + 1, tick + 5])
        ends["max_run_seconds"] = (seconds := dice.choice([None, None, 30, 90])) and seconds * self.stretch
        most = dice.choice([None, None, cost_per_hour // 20, cost_per_hour // 10])
        ends["max_spend"] = most and most * self.stretch
        return ends

    def agents(self):
        """Every node's agent: most leases start at once, a few late, a few fail."""
        for lease_id in sorted(self.core.leases):
            lease = self.core.leases.get(lease_id)
            if lease is not None and lease.state is LeaseState.STARTING and self.dice.random() < 0.7:
                state = "failed" if self.dice.random() < 0.03 else "started"
                self.do(ReportLease(lease.id, lease.owner, state))
