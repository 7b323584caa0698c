"""A seeded crowd for simulations: the demo's machines and buyers in one market, a tick a minute.

Buyers come and bid around the market's price level of the hour, some raise when they are outbid, all leave
after a while; owners take a machine back now and then. Every draw comes from one dice, and none depends on
what the bot does other than through the market itself.
"""

from auction.commands import (
    AmendBid,
    CancelBid,
    CreateAccount,
    CreateNode,
    CreateOffer,
    Deposit,
    PlaceBid,
    RecallNode,
)
from auction.errors import Rejection
from auction.model import Market
from auction.units import Price
from fallow.dice import Dice
from fallow.kit.local import LocalMarket
from fallow.world import LIMIT_PERCENT, PRICE_INCREMENT, Machine, Venue, draw_limit, make_world

TICK_SECONDS = 60
NOTICE_SECONDS = 120
SETTLEMENT_SECONDS = 600
START_US = 1_700_006_400_000_000  # a midnight, UTC
REST_TICKS = 45
STAY_TICKS = (15, 40, 90, 150, 300)
GPUS = (1, 1, 2, 2, 4, 4, 8)
ARRIVAL_PERCENT, RAISE_PERCENT, RECALL_PERCENT, WHOLE_PERCENT = 60, 20, 3, 40
WARM_UP_ARRIVALS = 20  # before the first tick


class Crowd:
    """The others of a simulated market. Raises ValueError for a market of which nothing is known."""

    def __init__(self, market: str, seed: int) -> None:
        world = make_world(seed)
        known = [venue.id for venue in world.venues]
        if market not in known:
            raise ValueError(f"no market {market!r} to simulate; there are {', '.join(known)}")
        self._venue: Venue = world.venue(market)
        self._buyers = [buyer for buyer in world.buyers if buyer.market == market]
        self._dice = Dice(seed, "kit", market)
        self._bids: dict[str, tuple[str, int]] = {}  # bid -> (account, leaves at tick)
        self._resting: dict[str, int] = {}  # node -> comes back at tick
        self.start_us = START_US
        self.rules: Market = self._venue.market(
            tick_seconds=TICK_SECONDS, notice_seconds=NOTICE_SECONDS, settlement_seconds=SETTLEMENT_SECONDS
        )

    def enter(self, local: LocalMarket) -> None:
        """Open the accounts, post the machines, place the first bids."""
        self._local = local
        for host in sorted({machine.host for machine in self._venue.machines}):
            local.do(CreateAccount(_owner(host), host, ["owner"]))
        for machine in self._venue.machines:
            local.do(CreateNode(machine.id, _owner(machine.host), local.id, machine.name, machine.gpus, True))
            self._offer(machine)
        for buyer in self._buyers:
            local.do(CreateAccount(buyer.account, buyer.name, ["buyer"]))
            local.do(Deposit(local.new_id("dep"), buyer.account, buyer.purse))
        for _ in range(WARM_UP_ARRIVALS):
            self._bid(0)

    def act(self, tick: int) -> None:
        """What the crowd does before this tick."""
        dice, local = self._dice, self._local
        for bid, (account, leaves_at) in list(self._bids.items()):
            if bid not in local.core.bids or tick >= leaves_at:
                self._do(CancelBid(bid, account))
                del self._bids[bid]
        for machine in self._venue.machines:
            if self._resting.get(machine.id) == tick:
                self._offer(machine)
        if dice.happens(ARRIVAL_PERCENT):
            self._bid(tick)
        if dice.happens(RAISE_PERCENT) and self._bids:
            chosen = local.core.bids.get(dice.choice(list(self._bids)))
            if chosen is not None and chosen.awarded_gpus < chosen.gpus:
                raised = chosen.limit * 11 // 10 // PRICE_INCREMENT * PRICE_INCREMENT
                self._do(AmendBid(chosen.id, chosen.account, Price(raised)))
        if dice.happens(RECALL_PERCENT):
            machine = dice.choice(self._venue.machines)
            if self._resting.get(machine.id, 0) <= tick:
                self._resting[machine.id] = tick + REST_TICKS
                self._do(RecallNode(machine.id, _owner(machine.host)))

    def _bid(self, tick: int) -> None:
        dice, local = self._dice, self._local
        buyer, gpus = dice.choice(self._buyers), dice.choice(GPUS)
        level = self._venue.levels[tick // 60 % len(self._venue.levels)]
        limit = draw_limit(dice, dice.choice(sorted(LIMIT_PERCENT)), level)
        minimum = gpus if dice.happens(WHOLE_PERCENT) else 1
        stay, bid = dice.choice(STAY_TICKS), local.new_id("bid")
        if self._do(PlaceBid(bid, buyer.account, local.id, gpus, limit, minimum)):
            self._bids[bid] = buyer.account, tick + stay
        else:
            local.do(Deposit(local.new_id("dep"), buyer.account, buyer.purse))

    def _offer(self, machine: Machine) -> None:
        offer = self._local.new_id("off")
        self._do(CreateOffer(offer, _owner(machine.host), machine.id, machine.gpus, machine.reserve))

    def _do(self, command: PlaceBid | AmendBid | CancelBid | CreateOffer | RecallNode) -> bool:
        """Ask like anybody else; a refusal is an answer too."""
        return not isinstance(self._local.core.apply(command, self._local.at_us), Rejection)


def _owner(host: str) -> str:
    return f"acct_{host}"
