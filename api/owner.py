"""Owners' economics: which reserve to ask for, what the fleet earned, what stayed unsold and why.

Reads only; nothing is stored.
"""

from typing import Any

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import IdField
from api.paging import read_key, write_cursor
from api.routes import NoBody, NoQuery, route
from api.sheets import CSV_TYPE
from api.wire import LeaseView, lease_view
from api.wire_owner import (
    CostFields,
    PriceHistory,
    ReserveBody,
    ReserveView,
    UnsoldView,
    costs_of,
    reserve_view,
    unsold_view,
)
from api.wire_summary import (
    SUMMARY_DAYS,
    SUMMARY_DAYS_MAX,
    Group,
    SummaryQuery,
    SummaryView,
    Sums,
    group_rows,
    summary_csv,
    summary_view,
    total_of,
)
from auction.core import Core
from auction.economics import OwnerCosts, check_costs
from auction.errors import Rejection
from auction.model import Market
from auction.ports import Answer
from auction.units import MICROSECONDS_PER_SECOND, Price
from sql.owner_reads import SECONDS_PER_DAY, NodeDay, node_days, price_record

# The cursor's key is a number and a name; these stand for a group without a day or without a node.
_NO_DAY, _NO_NODE = 0, "-"
SHEET_GROUPS_MAX = 10_000


class UnsoldQuery(Struct, frozen=True, forbid_unknown_fields=True):
    market: IdField


@route("POST", "/v1/owner/reserve-calculator", scope="supply:read", is_keyed=False)
async def calculate_reserve(call: Call[ReserveBody, NoQuery]) -> Reply[ReserveView]:
    """Say what a GPU-hour costs, which reserve to ask for, and what it would have brought."""
    body = call.body
    market = None if body.market is None else _market(call, body.market)
    costs = costs_of(body, body.purchase_price_per_gpu, fee_bps=None if market is None else market.fee_bps)
    check_costs(costs)
    price = None if body.price_per_gpu_hour is None else Price(body.price_per_gpu_hour)
    if market is None:
        if body.reserves:
            raise Rejection("missing_field", "reserves are held against a market", pointer="/market")
        return call.reply(reserve_view(costs, price=price))
    for i, reserve in enumerate(body.reserves):
        _on_increment(reserve, market.price_increment, f"/reserves/{i}")
    to_us = call.now_us
    from_us = max(0, to_us - body.days * SECONDS_PER_DAY * MICROSECONDS_PER_SECOND)
    record = await price_record(call.services.reader, market.id, from_us=from_us, to_us=to_us)
    history = PriceHistory(
        market=market.id,
        from_us=from_us if record.from_us is None else record.from_us,
        to_us=to_us,
        ticks=record.ticks,
        shares=record.shares,
        reserves=[Price(reserve) for reserve in body.reserves],
    )
    return call.reply(reserve_view(costs, increment=market.price_increment, price=price, history=history))


@route("GET", "/v1/owner/summary", scope="supply:read", also=("text/csv",))
async def get_owner_summary(call: Call[NoBody, SummaryQuery]) -> Reply[SummaryView]:
    """Sum up what your nodes offered, leased and earned, by day, node or both, against their costs."""
    query = call.query
    costs = _costs(query)
    from_s, to_s = _window(call)
    after_day, after_node = read_key(query.cursor)
    rows = await node_days(call.services.reader, call.account, node=query.node, from_s=from_s, to_s=to_s)
    if costs is not None and query.fee_bps is None:
        costs = msgspec.structs.replace(costs, fee_bps=_fee_bps(call.core, rows, costs.fee_bps))
    groups = group_rows(rows, query.group_by)
    following = [
        (group, sums)
        for group, sums in groups.items()
        if query.cursor is None or (-(group[0] or _NO_DAY), group[1] or _NO_NODE) > (-after_day, after_node)
    ]
    if query.format == "csv":
        if len(following) > SHEET_GROUPS_MAX:
            raise Rejection("too_many_groups", f"a CSV has at most {SHEET_GROUPS_MAX} groups")
        whole = summary_view((from_s, to_s), total_of(groups.values()), following, None, costs)
        return Reply(answer=Answer(200, CSV_TYPE, summary_csv(whole.data)))
    page = following[: query.limit]
    next_cursor = _cursor(page) if len(following) > len(page) else None
    return call.reply(summary_view((from_s, to_s), total_of(groups.values()), page, next_cursor, costs))


@route("GET", "/v1/owner/unsold", scope="supply:read")
async def get_unsold(call: Call[NoBody, UnsoldQuery]) -> Reply[UnsoldView]:
    """Say how much of the last week your reserves were above a market's price, and which would have sold.

    Your live offers' reserves, and steps below them down to a half, against the price as it was.
    """
    market = _market(call, call.query.market)
    reserves = {
        offer.reserve
        for offer in call.core.offers.values()
        if offer.account == call.account and offer.market == market.id
    }
    to_us = call.now_us
    from_us = max(0, to_us - SUMMARY_DAYS * SECONDS_PER_DAY * MICROSECONDS_PER_SECOND)
    record = await price_record(call.services.reader, market.id, from_us=from_us, to_us=to_us)
    return call.reply(unsold_view(market, record.shares, reserves))


@route("GET", "/v1/owner/leases", scope="supply:read")
async def list_owner_leases(call: Call[NoBody, NoQuery]) -> Reply[Page[LeaseView]]:
    """List the leases that are on your nodes now, by id: all of them, on one page."""
    _, leases, _ = await call.services.reader.desired(call.account, None)
    return call.reply(Page([lease_view(lease, call.core.markets[lease.market]) for lease in leases]))


def _market(call: Call[Any, Any], market_id: str) -> Market:
    market = call.core.markets.get(market_id)
    if market is None:
        raise Rejection("market_not_found", "no such market", pointer="/market")
    return market


def _on_increment(reserve: int, increment: int, pointer: str) -> None:
    below = reserve - reserve % increment
    if reserve != below:
        raise Rejection(
            "price_not_on_increment",
            f"the market's increment is {increment} microusd",
            pointer=pointer,
            below=below,
            above=below + increment,
        )


def _costs(query: SummaryQuery) -> OwnerCosts | None:
    if query.purchase_price_per_gpu is None:
        given = [name for name in CostFields.__struct_fields__ if getattr(query, name) is not None]
        if given:
            raise Rejection(
                "missing_field", f"{given[0]} needs a price paid", pointer="/purchase_price_per_gpu"
            )
        return None
    costs = costs_of(query, query.purchase_price_per_gpu, fee_bps=None)
    check_costs(costs)
    return costs


def _fee_bps(core: Core, rows: list[NodeDay], fallback: int) -> int:
    """Return the highest fee of the markets that these nodes are in."""
    markets = {core.nodes[row.node].market for row in rows if row.node in core.nodes}
    return max((core.markets[market].fee_bps for market in markets), default=fallback)


def _window(call: Call[NoBody, SummaryQuery]) -> tuple[int, int]:
    """Return [from, to) in whole seconds: the last days unless told otherwise, never the future."""
    now_s = call.now_us // MICROSECONDS_PER_SECOND
    given = call.query.to_time
    to_s = now_s if given is None else min(now_s, given // MICROSECONDS_PER_SECOND)
    begin = call.query.from_time
    from_s = to_s - SUMMARY_DAYS * SECONDS_PER_DAY if begin is None else begin // MICROSECONDS_PER_SECOND
    from_s = max(0, from_s)
    if from_s >= to_s:
        raise Rejection("invalid_value", "from lies before to, and before now", pointer="/from")
    if to_s - from_s > SUMMARY_DAYS_MAX * SECONDS_PER_DAY:
        raise Rejection("invalid_value", f"at most {SUMMARY_DAYS_MAX} days at once", pointer="/from")
    return from_s, to_s


def _cursor(page: list[tuple[Group, Sums]]) -> str:
    day, node = page[-1][0]
    return write_cursor((day or _NO_DAY, node or _NO_NODE))
