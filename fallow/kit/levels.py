"""A recorded curve as a crowd: one account bids every demand level, another offers every supply level.

Before each tick the levels are made what was recorded, by ordinary commands that touch only what differs:
what goes on at a price keeps its GPUs, its rank and its protection. What a curve does not tell is lost:
minimum sizes and gangs, who at a price left and who came, levels beyond the 50th, which machine an owner
took back (here the newest offer of its price). In 3,000 simulated ticks the price was the recorded
one in all without minimum sizes and handicap, in 98 % with a handicap of 10 %, in 64 % where 40 % of the bids
wanted all or nothing, in 44 % with both. Reserves in a curve are gross: the fee here is nought.
"""

from decimal import Decimal

from msgspec import structs

from auction.admission import NODE_GPUS_MAX
from auction.commands import (
    AmendBid,
    CancelBid,
    CreateAccount,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    PlaceBid,
    WithdrawOffer,
)
from auction.model import BID_FINAL, Market
from auction.units import AMOUNT_MAX, Price
from fallow.client.model import Curve
from fallow.kit.local import LocalMarket
from fallow.kit.tally import microusd

_BUYER, _OWNER = "acct_demand", "acct_supply"


def without_fee(market: Market) -> Market:
    """Return the rules under which a gross reserve is a reserve."""
    return structs.replace(market, fee_bps=0)


def steps(levels: list[tuple[Decimal, int]]) -> dict[int, int]:
    """Return GPUs by price in microusd, from cumulative ones."""
    sums = [0, *(gpus for _, gpus in levels)]
    return {microusd(price): total - sums[i] for i, (price, total) in enumerate(levels)}


class Levels:
    """The crowd of a LocalMarket; `set` makes it what a curve says."""

    def __init__(self, local: LocalMarket) -> None:
        self._local = local
        self._bids: dict[int, str] = {}
        self._offers: dict[int, list[tuple[str, int]]] = {}  # by price: (offer, GPUs), oldest first
        self._nodes: dict[str, str] = {}  # node -> the offer that it last had
        local.do(CreateAccount(_BUYER, "demand", ["buyer"]))
        local.do(Deposit(local.new_id("dep"), _BUYER, AMOUNT_MAX))
        local.do(CreateAccount(_OWNER, "supply", ["owner"]))

    def set(self, curve: Curve) -> None:
        """Make the crowd bid and offer what the curve says, from now on."""
        demand, supply = steps(curve.demand), steps(curve.supply)
        for price in sorted(self._offers.keys() | supply.keys()):
            self._offer(price, supply.get(price, 0))
        for price in sorted(self._bids.keys() | demand.keys(), reverse=True):
            self._bid(price, demand.get(price, 0))

    def _bid(self, price: int, gpus: int) -> None:
        local = self._local
        bid = local.core.bids.get(self._bids.get(price, ""))
        if bid is None or bid.status in BID_FINAL:
            if gpus > 0:
                self._bids[price] = local.new_id("bid")
                local.do(PlaceBid(self._bids[price], _BUYER, local.id, gpus, Price(price)))
        elif gpus == 0:
            del self._bids[price]
            local.do(CancelBid(bid.id, _BUYER))
        elif gpus != bid.gpus:
            local.do(AmendBid(bid.id, _BUYER, gpus=gpus))

    def _offer(self, price: int, gpus: int) -> None:
        offers = self._offers.setdefault(price, [])
        missing = gpus - sum(count for _, count in offers)
        while missing < 0:
            offer, count = offers.pop()
            self._local.do(WithdrawOffer(offer, _OWNER))
            missing += count
        while missing > 0:
            count = min(missing, NODE_GPUS_MAX)
            offers.append((self._post(price, count), count))
            missing -= count
        if not offers:
            del self._offers[price]

    def _post(self, price: int, gpus: int) -> str:
        local = self._local
        offer = local.new_id("off")
        node = next((node for node, last in self._nodes.items() if last not in local.core.offers), None)
        if node is None:
            node = local.new_id("node")
            local.do(CreateNode(node, _OWNER, local.id, node, NODE_GPUS_MAX, False))
            local.do(EnrolNode(node, _OWNER))
        self._nodes[node] = offer
        local.do(CreateOffer(offer, _OWNER, node, gpus, Price(price)))
        return offer


def without_bids(curve: Curve, own: list[tuple[Decimal, int]]) -> Curve:
    """Return the curve less one's own (limit, GPUs); what is beyond its last level is not in it."""
    demand = steps(curve.demand)
    for limit, gpus in own:
        price = microusd(limit)
        if price in demand:
            demand[price] = max(0, demand[price] - gpus)
    total, left = 0, []
    for level, _ in curve.demand:
        gpus = demand[microusd(level)]
        total += gpus
        if gpus:
            left.append((level, total))
    return structs.replace(curve, demand=left)
