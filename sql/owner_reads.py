"""Reads for owners: the prices a market had, and what a fleet offered, sold and earned.

Sums are made by the database, over a bounded window; what comes back is at most a row per node and day
or per price. Must not decide what a cost is or what a row looks like outside.
"""

from dataclasses import dataclass, field

from auction.price_history import PriceShare
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price
from sql import query
from sql.reads import Reader

HISTORY_TICKS_MAX = 1_000_000
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class PriceRecord:
    """A market's prices in a window, by price; `from_us` is where the record of it begins."""

    shares: list[PriceShare]
    ticks: int
    from_us: int | None


@dataclass(frozen=True, slots=True)
class NodeDay:
    """One node on one UTC day (days since 1970). Times in GPU-seconds, money in microusd.

    `no_trade` and `below_reserve` are the parts of `offered` that stood in times in which the market
    traded nothing, or at a price below the offer's reserve.
    """

    node: str
    day: int
    offered: int = 0
    leased: int = 0
    no_trade: int = 0
    below_reserve: int = 0
    net: Amount = field(default=Amount(0))
    fee: Amount = field(default=Amount(0))


async def price_record(reader: Reader, market: str, *, from_us: int, to_us: int) -> PriceRecord:
    """Return how long each price stood in [from_us, to_us), over HISTORY_TICKS_MAX ticks at most."""
    records = await reader.fetch(query("price_shares"), market, from_us, to_us, HISTORY_TICKS_MAX)
    return PriceRecord(
        [
            PriceShare(None if r["price"] is None else Price(r["price"]), r["stood_us"])
            for r in records
        ],
        sum(r["ticks"] for r in records),
        min((r["first_us"] for r in records), default=None),
    )  # fmt: skip


async def node_days(
    reader: Reader, account: str, *, node: str | None, from_s: int, to_s: int
) -> list[NodeDay]:
    """Return an owner's nodes by UTC day in [from_s, to_s), newest day first, then by node.

    Two statements: what is settled between them is in the second one only.
    """
    from_us, to_us = from_s * MICROSECONDS_PER_SECOND, to_s * MICROSECONDS_PER_SECOND
    offered = await reader.fetch(query("owner_offered"), account, from_us, to_us, node)
    settled = await reader.fetch(query("owner_settled"), account, from_s, to_s, node)
    on_offer = {(r["day"], r["node"]): r for r in offered}
    sold = {(r["day"], r["node"]): r for r in settled}
    rows = []
    for day, name in sorted(on_offer.keys() | sold.keys(), key=lambda key: (-key[0], key[1])):
        listed, paid = on_offer.get((day, name)), sold.get((day, name))
        rows.append(
            NodeDay(
                node=name,
                day=day,
                offered=listed["offered"] if listed else 0,
                leased=paid["gpu_seconds"] if paid else 0,
                no_trade=listed["no_trade"] if listed else 0,
                below_reserve=listed["below_reserve"] if listed else 0,
                net=Amount(paid["net"] if paid else 0),
                fee=Amount(paid["fee"] if paid else 0),
            )
        )
    return rows
