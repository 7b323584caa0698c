"""What a run came to, and how that compares with the best that hindsight could have bought.

Best in hindsight: the same GPU-seconds in the same intervals, bought where they were cheapest. For interval t
of L seconds and g GPUs let p_t(g) be the price that clearing the market without the bot gives when a newcomer
asks for g GPUs at the cap, so its price impact counts. One may buy (g L, p_t(g) g L / 3600) for every g up to
the most the bot ran at a time, or what the bot really bought there, (s_t, c_t), or nothing. The best is

    min sum_t h_t(x_t)  with  sum_t x_t = sum_t s_t,   h_t = lower convex envelope of the interval's points.

The envelope lets one buy a part of an interval or a mixture of widths, so this is a lower bound on what any
choice of whole ones costs, and never more than what was paid: (s_t, c_t) is one of the points. It knows the
future, pays no notice and is never interrupted. Share of the best = best / cost.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from msgspec import Struct

from auction.units import SECONDS_PER_HOUR
from fallow.client.model import Curve, Market
from fallow.kit.levels import steps
from fallow.kit.record import Interval, RunLog
from fallow.kit.tally import dollars, microusd
from matching.book import Book

WIDTHS_MAX = 64  # of p_t(g): g = 1..WIDTHS_MAX
_HOURS = Decimal("0.0001")
_SHARE = Decimal("0.0001")
_MICRO = Decimal("0.000001")

Point = tuple[int, int]  # GPU-seconds, units of microusd x seconds / hour


class Report(Struct, frozen=True):
    """Money in US dollars. None where there is nothing to divide by."""

    run: str
    strategy: str
    mode: str
    market: str
    ticks: int
    cost: Decimal
    gpu_hours: Decimal
    average_price_per_gpu_hour: Decimal | None
    interruptions: int
    notices: int
    best_cost: Decimal  # a lower bound, see above
    share_of_best: Decimal | None
    recorded_ticks: int
    agreeing_share: Decimal | None  # of recorded ticks: cleared again without the bot to the very price
    near_share: Decimal | None  # the same within 1 %
    price_impact_per_gpu_hour: Decimal | None  # of the bot's bids, averaged over the GPU-hours it bought


def report(head: RunLog, intervals: Iterable[Interval]) -> Report:
    """Add up a run's log."""
    rows = list(intervals)
    cost = sum((row.cost for row in rows), Decimal(0))
    seconds = sum(row.gpu_seconds for row in rows)
    best = min(best_cost(head.market, rows), cost)
    recorded = [row for row in rows if row.is_recorded]
    agreeing = sum(row.price_alone == row.recorded_price for row in recorded)
    near = sum(_is_near(row) for row in recorded)
    hours = Decimal(seconds) / SECONDS_PER_HOUR
    return Report(
        run=head.run,
        strategy=head.strategy,
        mode=head.mode,
        market=head.market.id,
        ticks=len(rows),
        cost=cost,
        gpu_hours=hours.quantize(_HOURS),
        average_price_per_gpu_hour=(cost / hours).quantize(_MICRO) if seconds else None,
        interruptions=sum(row.interruptions for row in rows),
        notices=sum(row.notices for row in rows),
        best_cost=best,
        share_of_best=(best / cost).quantize(_SHARE) if cost else None,
        recorded_ticks=len(recorded),
        agreeing_share=(Decimal(agreeing) / len(recorded)).quantize(_SHARE) if recorded else None,
        near_share=(Decimal(near) / len(recorded)).quantize(_SHARE) if recorded else None,
        price_impact_per_gpu_hour=_impact(rows),
    )


def _is_near(row: Interval) -> bool:
    if row.price_alone is None or row.recorded_price is None:
        return row.price_alone == row.recorded_price
    return abs(row.price_alone - row.recorded_price) * 100 <= row.recorded_price


def _impact(rows: list[Interval]) -> Decimal | None:
    pairs = [
        (row.tick.price - row.price_alone, row.gpu_seconds)
        for row in rows
        if row.tick.price is not None and row.price_alone is not None and row.gpu_seconds
    ]
    seconds = sum(count for _, count in pairs)
    if seconds == 0:
        return None
    return (sum((more * count for more, count in pairs), Decimal(0)) / seconds).quantize(_MICRO)


def best_cost(market: Market, rows: list[Interval]) -> Decimal:
    """Return the best in hindsight, in dollars rounded down to the microdollar."""
    wanted = sum(row.gpu_seconds for row in rows)
    width = min(max((row.gpus for row in rows), default=0), WIDTHS_MAX)
    edges: list[tuple[Fraction, int]] = []  # (slope, GPU-seconds)
    units = Fraction(0)
    for row in rows:
        points = [(0, 0), (row.gpu_seconds, microusd(row.cost) * SECONDS_PER_HOUR)]
        for gpus, price in prices_with(market, row.curve, width if row.seconds else 0):
            points.append((gpus * row.seconds, gpus * row.seconds * price))
        hull = _lower_hull(points)
        # Not always (0, 0): a bill that was corrected later counts where the correction came.
        wanted, units = wanted - hull[0][0], units + hull[0][1]
        for (x, y), (next_x, next_y) in pairwise(hull):
            edges.append((Fraction(next_y - y, next_x - x), next_x - x))
    for slope, length in sorted(edges):
        taken = min(length, wanted)
        units += slope * taken
        wanted -= taken
        if wanted == 0:
            break
    assert wanted == 0, "what was bought can be bought"
    return dollars(units // SECONDS_PER_HOUR)


def prices_with(market: Market, curve: Curve, width: int) -> list[tuple[int, int]]:
    """Return (g, p(g)) in microusd for every g up to `width` that a newcomer at the cap would get whole."""
    if width == 0:
        return []
    book, increment = _book(market, curve), microusd(market.price_increment)
    found = []
    for gpus in range(1, width + 1):
        fill, level = book.probe(microusd(market.price_cap) // increment, gpus, 1)
        if fill < gpus:
            break
        found.append((gpus, level * increment))
    return found


def _book(market: Market, curve: Curve) -> Book:
    increment = microusd(market.price_increment)
    level_count = microusd(market.price_cap) // increment
    book = Book(
        handicap_bps=market.handicap_bps,
        level_count=level_count,
        price_position_bps=market.price_position_bps,
    )
    for number, (price, gpus) in enumerate(steps(curve.demand).items()):
        book.place_bid(price // increment, gpus, 1, 1, number, number)
    for price, gpus in steps(curve.supply).items():
        if price // increment <= level_count:
            book.place_offer(price // increment, gpus)
    book.clear()
    return book


def _lower_hull(points: Iterable[Point]) -> list[Point]:
    """Return the lower convex hull from the leftmost to the rightmost point (Andrew's monotone chain)."""
    hull: list[Point] = []
    for x, y in sorted(points):
        if hull and hull[-1][0] == x:
            continue  # the cheaper one of the same length came first
        while len(hull) >= 2 and _turns_down(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    return hull


def _turns_down(a: Point, b: Point, c: Point) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])
