"""The demo's world: markets, owners, machines and buyers, made from the real data in `fallow/data`.

Decides who there is and what they own, want and can pay. Pure: the same seed gives the same world.
A machine of the extract is a node with one offer; its minimum bid per GPU is the reserve; a host is an
owner. A market's price level at an hour of the day is the median posted price of that hour, or, where
nobody posts one, the median on-demand price of the market's own offers. Money is microusd.
"""

import csv
import gzip
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from statistics import median_low

from auction.ids import derived_id
from auction.model import Market
from auction.units import Amount, Price, parse_microusd
from fallow.dice import Dice

DEFAULT_SEED = 1
HOURS = 24

PRICE_INCREMENT = 100
PRICE_CAP = Price(10_000_000)
HANDICAP_BPS = 1_000
FEE_BPS = 300

# What the extract has enough machines of: (model's slug, region, GiB of memory).
MARKETS = (
    ("h100-sxm", "us", 80),
    ("h200-sxm", "us", 140),
    ("h200-sxm", "eu", 140),
    ("a100-pcie", "us", 80),
    ("l40s", "us", 45),
    ("rtx4090", "us", 24),
)
BUYERS_PER_MARKET = 6
DEMO_BUYER_DEPOSIT = Amount(1_000_000_000)

# Of the price level, in percent: what a spot buyer would go up to. Below it nobody would sell, far
# above it somebody would rent elsewhere.
LIMIT_PERCENT = {"bargain": (62, 84), "steady": (80, 104), "urgent": (96, 124)}
# In hours of a machine's worth at list price. A thrifty purse runs dry within the day and is filled again.
PURSE_HOURS = {"bargain": 400, "steady": 400, "urgent": 30}


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the extract: a node and its offer."""

    id: str
    name: str
    market: str
    host: str
    gpus: int
    reserve: Price


@dataclass(frozen=True, slots=True)
class Venue:
    """A market, its machines, and its price level in each hour of the day."""

    id: str
    gpu_model: str
    gpu_memory_gib: int
    interconnect: str
    region: str
    machines: tuple[Machine, ...]
    levels: tuple[Price, ...]

    @property
    def gpus(self) -> int:
        return sum(machine.gpus for machine in self.machines)

    def market(self, *, tick_seconds: int, notice_seconds: int, settlement_seconds: int) -> Market:
        """Return the market to create; the engine fills in its clock."""
        return Market(
            id=self.id,
            kind="gpu",
            gpu_model=self.gpu_model,
            gpu_memory_gib=self.gpu_memory_gib,
            gpus_per_node=max(machine.gpus for machine in self.machines),
            interconnect=self.interconnect,
            region=self.region,
            tick_seconds=tick_seconds,
            price_increment=PRICE_INCREMENT,
            price_cap=PRICE_CAP,
            notice_seconds=notice_seconds,
            settlement_seconds=settlement_seconds,
            handicap_bps=HANDICAP_BPS,
            fee_bps=FEE_BPS,
            is_demo=True,
            created_at_us=0,
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """A host of the extract; its machines are those that name it."""

    account: str
    name: str


@dataclass(frozen=True, slots=True)
class Buyer:
    """Somebody who bids in one market."""

    account: str
    name: str
    market: str
    style: str  # bargain | steady | urgent
    gpus: int  # wants about this many GPUs at midday
    purse: Amount  # deposited at first, and again whenever it has run dry


@dataclass(frozen=True, slots=True)
class DemoWorld:
    seed: int
    venues: tuple[Venue, ...]
    owners: dict[str, Owner]  # by host
    buyers: tuple[Buyer, ...]
    operator: str
    demo_buyer: str
    demo_owner: str

    def id(self, prefix: str, number: int) -> str:
        """Return the `number`-th id of this kind that the world gives out."""
        return derived_id(prefix, _hex(self.seed), number)

    def venue(self, market: str) -> Venue:
        return next(venue for venue in self.venues if venue.id == market)

    @property
    def machines(self) -> list[Machine]:
        return [machine for venue in self.venues for machine in venue.machines]


def make_world(seed: int = DEFAULT_SEED) -> DemoWorld:
    """Build the world that this seed gives."""
    prices = _list_prices()
    offers = list(_rows("offers.csv.gz"))
    venues = tuple(_venue(seed, slug, region, memory, offers, prices) for slug, region, memory in MARKETS)
    hosts = sorted({machine.host for venue in venues for machine in venue.machines})
    owners = {host: Owner(derived_id("acct", _hex(seed), 1_000 + n), host) for n, host in enumerate(hosts)}
    # The visitor's own owner has the most machines of the first market, so there is something to see.
    first = [machine.host for machine in venues[0].machines]
    busiest = max(sorted(set(first)), key=first.count)
    return DemoWorld(
        seed=seed,
        venues=venues,
        owners=owners,
        buyers=tuple(_buyers(seed, venues)),
        operator=derived_id("acct", _hex(seed), 0),
        demo_buyer=derived_id("acct", _hex(seed), 1),
        demo_owner=owners[busiest].account,
    )


def draw_limit(dice: Dice, style: str, level: Price) -> Price:
    """Draw what a buyer of this style would pay at most, on the price increment."""
    low, high = LIMIT_PERCENT[style]
    price = level * dice.around(low * 100, high * 100) // 10_000
    price = min(max(price, PRICE_INCREMENT), PRICE_CAP)
    return Price(price - price % PRICE_INCREMENT)


def wanted_gpus(buyer: Buyer, minute_of_day: int) -> int:
    """Return how many GPUs the buyer wants now: 3/4 of its need at midnight, 5/4 of it at noon."""
    distance = abs(minute_of_day % 1_440 - 720)  # minutes from noon, 0..720
    return max(1, buyer.gpus * (1_250 - distance * 500 // 720) // 1_000)


def _venue(
    seed: int,
    slug: str,
    region: str,
    memory_gib: int,
    offers: list[dict[str, str]],
    prices: dict[str, list[Price]],
) -> Venue:
    rows = [
        row
        for row in offers
        if (row["market"], row["region"], int(row["gpu_memory_gib"])) == (slug, region, memory_gib)
    ]
    market = f"{slug}.{region}"
    machines = tuple(
        Machine(
            id=derived_id("node", _hex(seed), int(row["machine"].split("-")[1])),
            name=row["machine"],
            market=market,
            host=row["host"],
            gpus=int(row["gpus"]),
            reserve=_on_increment(parse_microusd(row["reserve"])),
        )
        for row in rows
    )
    on_demand = Price(median_low(parse_microusd(row["on_demand"]) for row in rows))
    levels = prices.get(slug, [on_demand] * HOURS)
    model, interconnect = rows[0]["model"], rows[0]["interconnect"]
    return Venue(market, model, memory_gib, interconnect, region, machines, tuple(levels))


def _buyers(seed: int, venues: Iterable[Venue]) -> Iterable[Buyer]:
    """Give each market buyers who together want about what there is."""
    number = 100
    for venue in venues:
        dice = Dice(seed, "buyers", venue.id)
        for place in range(BUYERS_PER_MARKET):
            style = ("steady", "bargain", "urgent")[place % 3]
            gpus = max(1, venue.gpus * dice.between(14, 26) // 100)
            purse = Amount(venue.levels[0] * gpus * PURSE_HOURS[style])
            name = f"{style} buyer {place + 1} of {venue.id}"
            yield Buyer(derived_id("acct", _hex(seed), number), name, venue.id, style, gpus, purse)
            number += 1


def _list_prices() -> dict[str, list[Price]]:
    """Return each model's posted price in the last day of the series, hour by hour."""
    series: dict[str, list[Price]] = {}
    for row in _rows("list_prices.csv.gz"):
        series.setdefault(row["market"], []).append(Price(parse_microusd(row["median"])))
    return {market: prices[-HOURS:] for market, prices in series.items()}


def _rows(name: str) -> Iterable[dict[str, str]]:
    packed = resources.files("fallow").joinpath("data", name).read_bytes()
    return csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))


def _on_increment(price: int) -> Price:
    # Upwards: an owner never gets less than it asked for.
    return Price(-(-price // PRICE_INCREMENT) * PRICE_INCREMENT)


def _hex(seed: int) -> str:
    return f"{seed:064x}"
