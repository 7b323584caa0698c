"""The shapes of an owner's summary: what was offered, sold and earned, and whether that covers the costs.

See wire.py for the rules that all wire modules follow. Times are GPU-seconds, money decimal strings. A
settlement belongs to the UTC day in which its interval ends, so the money is that of the ledger's
entries by `interval_end`; what runs and is not settled yet is in none of it.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil
from typing import Any, Literal

import msgspec
from msgspec import Struct

from api.fields import CURRENCY, AmountField, Cursor, IdField, InstantField, PageLimit, format_instant
from api.sheets import write_csv
from api.wire_owner import CostFields, CostView, ShutDownView, cost_view, shut_down_view
from auction.economics import (
    OwnerCosts,
    book_value,
    cost_of_hours,
    market_depreciation_per_hour,
    market_value,
    short_run_floor,
    shut_down_ages,
    straight_line_depreciation_per_hour,
)
from auction.units import MICROSECONDS_PER_SECOND, SECONDS_PER_HOUR, Price, format_microusd
from sql.owner_reads import SECONDS_PER_DAY, NodeDay

SUMMARY_DAYS = 7
SUMMARY_DAYS_MAX = 31


class SummaryQuery(
    CostFields,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"from_time": "from", "to_time": "to"},
):
    """`from` and `to` are cut to whole seconds. With `purchase_price_per_gpu` (and any other cost) the
    summary is held against the costs; they are taken for every GPU, so name one `node` where they differ.
    Without `fee_bps` the fee is the highest of the nodes' markets.
    """

    from_time: InstantField | None = None
    to_time: InstantField | None = None
    node: IdField | None = None
    group_by: Literal["day", "node", "node_day"] = "day"
    format: Literal["json", "csv"] = "json"
    purchase_price_per_gpu: AmountField | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


class IdleSecondsView(Struct, frozen=True):
    """GPU-seconds on offer that nobody paid for: the price was below the reserve, the market traded
    nothing, or another cause (no bid that fits, starting, cordoned, not enrolled), which no row tells apart.
    """

    below_reserve: int
    no_trade: int
    other: int


class AgainstView(Struct, frozen=True):
    """The costs of the same hours, rounded up, and what was left of `net` over them; may be below zero.

    Every GPU-second offered or leased bears capital, depreciation, idle cost and operations; every leased
    one the extra energy; the floor is that of the leased ones.
    """

    floor: str
    depreciation_straight_line: str
    depreciation_market_decay: str
    full_cost_straight_line: str
    full_cost_market_decay: str
    margin_over_floor: str
    margin_over_full_cost_straight_line: str
    margin_over_full_cost_market_decay: str


class GroupView(Struct, frozen=True):
    """`revenue` is what tenants paid: fee and net. Per-hour figures are rounded down; null: no hours.

    A settlement across midnight is in the later day with all its seconds, so that a day may show a little
    more leased than offered.
    """

    day: str | None
    node: str | None
    offered_gpu_seconds: int
    leased_gpu_seconds: int
    idle_gpu_seconds: IdleSecondsView
    revenue: str
    fee: str
    net: str
    net_per_leased_gpu_hour: str | None
    net_per_offered_gpu_hour: str | None
    against: AgainstView | None


class SummaryView(Struct, frozen=True, rename={"from_time": "from", "to_time": "to"}):
    """`totals` is of the whole window, whatever page of `data` this is."""

    from_time: str
    to_time: str
    currency: str
    totals: GroupView
    short_run_floor: CostView | None
    shut_down_age_months: ShutDownView | None
    data: list[GroupView]
    next_cursor: str | None


class Sums(Struct):
    """NodeDays added up."""

    offered: int = 0
    leased: int = 0
    held: int = 0
    below_reserve: int = 0
    no_trade: int = 0
    other: int = 0
    net: int = 0
    fee: int = 0

    def add(self, row: NodeDay) -> None:
        """Add a row. GPUs under notice are leased when their offer is gone: idle is never negative."""
        idle = max(0, row.offered - row.leased)
        no_trade = min(idle, row.no_trade)
        below_reserve = min(idle - no_trade, row.below_reserve)
        self.offered += row.offered
        self.leased += row.leased
        self.held += max(row.offered, row.leased)
        self.no_trade += no_trade
        self.below_reserve += below_reserve
        self.other += idle - no_trade - below_reserve
        self.net += row.net
        self.fee += row.fee


Group = tuple[int | None, str | None]


def group_rows(rows: Iterable[NodeDay], group_by: str) -> dict[Group, Sums]:
    """Add rows up by day, node or both; newest day first, then by node."""
    groups: dict[Group, Sums] = {}
    for row in rows:
        key = (None if group_by == "node" else row.day, None if group_by == "day" else row.node)
        groups.setdefault(key, Sums()).add(row)
    return dict(sorted(groups.items(), key=lambda item: (-(item[0][0] or 0), item[0][1] or "")))


def total_of(groups: Iterable[Sums]) -> Sums:
    total = Sums()
    for group in groups:
        for name in Sums.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(group, name))
    return total


def group_view(key: Group, sums: Sums, costs: OwnerCosts | None) -> GroupView:
    """Show one group; `costs` are those of each of its GPUs."""
    day, node = key
    return GroupView(
        day=None if day is None else format_instant(day * SECONDS_PER_DAY * MICROSECONDS_PER_SECOND)[:10],
        node=node,
        offered_gpu_seconds=sums.offered,
        leased_gpu_seconds=sums.leased,
        idle_gpu_seconds=IdleSecondsView(sums.below_reserve, sums.no_trade, sums.other),
        revenue=format_microusd(sums.net + sums.fee),
        fee=format_microusd(sums.fee),
        net=format_microusd(sums.net),
        net_per_leased_gpu_hour=_per_hour(sums.net, sums.leased),
        net_per_offered_gpu_hour=_per_hour(sums.net, sums.offered),
        against=None if costs is None else _against(sums, costs),
    )


def summary_view(
    window: tuple[int, int],
    total: Sums,
    page: Sequence[tuple[Group, Sums]],
    next_cursor: str | None,
    costs: OwnerCosts | None,
) -> SummaryView:
    """Show a summary of [from, to) seconds; the ages are at the price that its leased hours made."""
    ages = None
    if costs is not None and total.leased:
        price = Price((total.net + total.fee) * SECONDS_PER_HOUR // total.leased)
        ages = shut_down_view(shut_down_ages(costs, price))
    from_us, to_us = (second * MICROSECONDS_PER_SECOND for second in window)
    return SummaryView(
        from_time=format_instant(from_us),
        to_time=format_instant(to_us),
        currency=CURRENCY,
        totals=group_view((None, None), total, costs),
        short_run_floor=None if costs is None else cost_view(short_run_floor(costs)),
        shut_down_age_months=ages,
        data=[group_view(key, sums, costs) for key, sums in page],
        next_cursor=next_cursor,
    )


def _against(sums: Sums, costs: OwnerCosts) -> AgainstView:
    age = costs.age_months
    line, decay = straight_line_depreciation_per_hour(costs, age), market_depreciation_per_hour(costs, age)
    full = [
        cost_of_hours(
            costs,
            value=value,
            depreciation_per_hour=depreciation,
            held_seconds=sums.held,
            leased_seconds=sums.leased,
        )
        for value, depreciation in ((book_value(costs, age), line), (market_value(costs, age), decay))
    ]
    floor = _cost_of(Fraction(short_run_floor(costs).net), sums.leased)
    parts = [floor, _cost_of(line, sums.held), _cost_of(decay, sums.held), *full]
    margins = [sums.net - floor, *(sums.net - cost for cost in full)]
    return AgainstView(*(format_microusd(amount) for amount in (*parts, *margins)))


def _cost_of(per_hour: Fraction, gpu_seconds: int) -> int:
    return ceil(per_hour * gpu_seconds / SECONDS_PER_HOUR)


def _per_hour(amount: int, gpu_seconds: int) -> str | None:
    return None if gpu_seconds == 0 else format_microusd(amount * SECONDS_PER_HOUR // gpu_seconds)


def summary_csv(groups: Sequence[GroupView]) -> bytes:
    """Return a row per group; what the JSON nests has its names joined by a dot."""
    rows = [_flat(msgspec.to_builtins(group)) for group in groups]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return write_csv([names, *([row.get(name, "") for name in names] for row in rows)])


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            cells |= _flat(item, f"{prefix}{name}.")
        else:
            cells[f"{prefix}{name}"] = "" if item is None else item
    return cells
