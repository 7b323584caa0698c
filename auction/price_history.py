"""What an offer would have sold for, at each reserve, over the prices that a market recorded. Pure.

An offer of reserve r sells while the price is at least gross(r): its owner is taken to be too small to
move the price, so what its GPUs would have done to it is left out, and so is whether a buyer's GPUs
would have fitted. Money is microusd, a bare price microusd per GPU-hour, time microseconds.
"""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

from auction.units import BASIS_POINTS, Amount, Price, gross_reserve

EVEN_STEPS = 10


class PriceShare(Struct, frozen=True):
    """For how long a price stood; None: nothing traded."""

    price: Price | None
    stood_us: int


class Rung(Struct, frozen=True):
    """What one reserve would have brought, per hour offered; amounts in microusd, rounded down."""

    reserve: Price  # net: what the owner asks for
    gross_reserve: Price
    sold_us: int
    sold_bps: int
    gross_per_offered_hour: Amount  # what the tenants would have paid
    net_per_offered_hour: Amount  # less the fee
    margin_per_offered_hour: Amount  # less the short-run floor of the hours sold; may be below zero


def offered_us(shares: Sequence[PriceShare]) -> int:
    """Return how much time the record covers."""
    return sum(share.stood_us for share in shares)


def mean_price(shares: Sequence[PriceShare]) -> Price | None:
    """Return the mean price over the time in which anything traded, rounded down."""
    traded = [(share.price, share.stood_us) for share in shares if share.price is not None]
    total_us = sum(stood_us for _, stood_us in traded)
    if total_us == 0:
        return None
    return Price(sum(price * stood_us for price, stood_us in traded) // total_us)


def even_reserves(shares: Sequence[PriceShare], *, fee_bps: int, increment: int) -> list[Price]:
    """Return reserves in even steps, whose gross runs from the lowest recorded price to the highest."""
    prices = [share.price for share in shares if share.price is not None and share.stood_us > 0]
    if not prices:
        return []
    low, high = min(prices), max(prices)
    steps = (low + (high - low) * step // (EVEN_STEPS - 1) for step in range(EVEN_STEPS))
    # Rounded down to the increment, so that the gross reserve is not above the price it stands for.
    nets = (price * (BASIS_POINTS - fee_bps) // BASIS_POINTS // increment * increment for price in steps)
    return sorted({Price(net) for net in nets})


def sell(
    shares: Sequence[PriceShare],
    reserves: Sequence[Price],
    *,
    fee_bps: int,
    increment: int,
    floor_net: Amount,
) -> list[Rung]:
    """Return the rung of each reserve, lowest first; nothing when the record covers no time."""
    total_us = offered_us(shares)
    if total_us == 0:
        return []
    traded = sorted((share.price, share.stood_us) for share in shares if share.price is not None)
    prices = [price for price, _ in traded]
    # From each price up: for how long, and the sum of price x time.
    sold_from, revenue_from = [0], [0]
    for price, stood_us in reversed(traded):
        sold_from.append(sold_from[-1] + stood_us)
        revenue_from.append(revenue_from[-1] + price * stood_us)
    rungs = []
    for reserve in sorted(set(reserves)):
        gross = gross_reserve(reserve, fee_bps=fee_bps, increment=increment)
        at_least = len(prices) - bisect_left(prices, gross)
        sold_us, revenue = sold_from[at_least], revenue_from[at_least]
        net = revenue * (BASIS_POINTS - fee_bps) // BASIS_POINTS
        rungs.append(
            Rung(
                reserve=reserve,
                gross_reserve=gross,
                sold_us=sold_us,
                sold_bps=sold_us * BASIS_POINTS // total_us,
                gross_per_offered_hour=Amount(revenue // total_us),
                net_per_offered_hour=Amount(net // total_us),
                margin_per_offered_hour=Amount((net - floor_net * sold_us) // total_us),
            )
        )
    return rungs
