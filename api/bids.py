"""Buyers' bids: place, look at, change, cancel; one by one and in batches; and trying without placing.

Answers to writes are written from the engine's live objects while the commit is on its way; reads come
from the database. `cancel` of what has already ended is a conflict, of what never was a 404.
"""

from typing import Any

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.events import EventView, event_view
from api.fields import (
    CURRENCY,
    Cursor,
    IdField,
    PageLimit,
    format_instant,
    format_instant_or_none,
    format_price_or_none,
    is_client_bid_id,
    is_object_id,
)
from api.limits import unconfirmed_max
from api.paging import page, read_number
from api.routes import NoBody, NoQuery, route
from api.wire import (
    AmendBidBody,
    AmendOperation,
    BatchBody,
    BatchView,
    BidView,
    CancelAfterBody,
    CancelAfterView,
    CancelOperation,
    Operation,
    PlaceBidBody,
    PlaceOperation,
    PreviewView,
    ResultView,
    bid_view,
)
from auction.bidding import PlacedBid
from auction.commands import AmendBid, CancelAfter, CancelBid, Command, PlaceBid
from auction.core import Core
from auction.errors import Rejection
from auction.ids import random_id
from auction.model import BID_FINAL, Bid, BidStatus, Colocate, OnPreempt, TimeInForce
from auction.ports import Answer
from auction.units import Amount, Price, format_microusd
from sql.reads import BidRow


class BidsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    market: IdField | None = None
    status: BidStatus | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


class CancelQuery(Struct, frozen=True, forbid_unknown_fields=True):
    release: bool = True


class CancelAllQuery(Struct, frozen=True, forbid_unknown_fields=True):
    market: IdField
    release: bool = True


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("POST", "/v1/bids", scope="bids:write", status=201)
async def place_bid(call: Call[PlaceBidBody, NoQuery]) -> Reply[BidView]:
    """Place a bid. A repeat of the same client_bid_id answers 200 with the first one."""
    command = await _placing(call, call.body)
    return await call.submit(
        command,
        lambda placed: _shown(call.core, placed.bid),
        status=lambda placed: 200 if placed.is_repeat else 201,
    )


@route("POST", "/v1/bids/preview", scope="bids:read")
async def preview_bid(call: Call[PlaceBidBody, NoQuery]) -> Reply[PreviewView]:
    """Say what a bid would get and tie up; nothing is stored."""
    preview = call.core.preview(await _placing(call, call.body))
    return call.reply(
        PreviewView(
            fill_gpus=preview.fill,
            price=format_price_or_none(preview.price),
            hold=format_microusd(preview.hold),
            worst_cost_per_hour=format_microusd(preview.worst_cost_per_hour),
            currency=CURRENCY,
            effective_tick=preview.effective_tick,
            cutoff_at=format_instant(preview.cutoff_at_us),
        )
    )


@route("POST", "/v1/bids/batch", scope="bids:write", is_batch=True)
async def batch_bids(call: Call[BatchBody, NoQuery]) -> Reply[BatchView]:
    """Place, amend and cancel up to 1,000 bids, decided in order, each with its own outcome."""
    commands = [await _operation(call, operation) for operation in call.body.operations]

    def encode(outcomes: list[Any]) -> Answer:
        return call.answer(200, _batch_view(call, outcomes))

    return await call.submit_all(commands, encode)


@route("POST", "/v1/bids/cancel-after", scope="bids:write", bucket="exits")
async def cancel_after(call: Call[CancelAfterBody, NoQuery]) -> Reply[CancelAfterView]:
    """Cancel all your bids unless you send this again in time; 0 switches the switch off."""
    command = CancelAfter(call.account, call.body.timeout_seconds, call.body.release)
    return await call.submit(
        command,
        lambda account: CancelAfterView(
            format_instant_or_none(account.cancel_at_us), account.cancel_releases
        ),
    )


@route("GET", "/v1/bids", scope="bids:read")
async def list_bids(call: Call[NoBody, BidsQuery]) -> Reply[Page[BidView]]:
    """List your bids, newest first."""
    query = call.query
    found = await call.services.reader.bids(
        call.account,
        market=query.market,
        status=query.status,
        before_seq=read_number(query.cursor),
        limit=query.limit,
    )
    return call.reply(page([_read(row) for row in found.rows], found.last and found.last.bid.seq))


@route("DELETE", "/v1/bids", scope="bids:write", bucket="exits")
async def cancel_bids(call: Call[NoBody, CancelAllQuery]) -> Reply[BatchView]:
    """Cancel all your live bids of one market."""
    query = call.query
    if query.market not in call.core.markets:
        raise Rejection("market_not_found", "no such market")
    commands = [
        CancelBid(bid.id, call.account, query.release)
        for bid in call.core.bids.values()
        if bid.account == call.account and bid.market == query.market and bid.status not in BID_FINAL
    ]

    def encode(outcomes: list[Any]) -> Answer:
        return call.answer(200, _batch_view(call, outcomes))

    return await call.submit_all(commands, encode)


@route("GET", "/v1/bids/by-client-id/{client_bid_id}", scope="bids:read")
async def get_bid_by_client_id(call: Call[NoBody, NoQuery]) -> Reply[BidView]:
    """Show the bid that carries your own id."""
    client_bid_id = call.path_part("client_bid_id")
    row = None
    if is_client_bid_id(client_bid_id):
        row = await call.services.reader.bid_by_client_id(call.account, client_bid_id)
    return call.reply(_read(call.found(row, "bid")))


@route("GET", "/v1/bids/{bid}", scope="bids:read")
async def get_bid(call: Call[NoBody, NoQuery]) -> Reply[BidView]:
    """Show one bid; for one that lost, why, the price it met, and what would win now."""
    row = await _own_bid(call)
    return call.reply(bid_view(row.bid, row.head, row.leases, call.core.why_not(row.bid.id)))


@route("GET", "/v1/bids/{bid}/events", scope="bids:read")
async def list_bid_events(call: Call[NoBody, ListQuery]) -> Reply[Page[EventView]]:
    """Tell everything that happened to a bid, its leases and notices, newest first."""
    row = await _own_bid(call)
    found = await call.services.reader.bid_events(
        call.account, row.bid.id, before_seq=read_number(call.query.cursor), limit=call.query.limit
    )
    events = [event_view(event, call.core) for event in found.rows]
    return call.reply(page(events, found.last and found.last.account_seq))


@route("PATCH", "/v1/bids/{bid}", scope="bids:write")
async def amend_bid(call: Call[AmendBidBody, NoQuery]) -> Reply[BidView]:
    """Change a bid while it runs: its limit both ways, its GPUs, whether it is paused."""
    if call.body in (AmendBidBody(), AmendBidBody(confirm_limit=True)):
        raise Rejection("nothing_to_change", "expected at least one field")
    command = await _amending(call, call.path_part("bid"), call.body, call.expected_version())
    return await call.submit(command, lambda bid: _shown(call.core, bid), absent=await _when_absent(call))


@route("DELETE", "/v1/bids/{bid}", scope="bids:write", bucket="exits")
async def cancel_bid(call: Call[NoBody, CancelQuery]) -> Reply[BidView]:
    """Cancel a bid; `release=false` lets its leases run on until they end by themselves."""
    command = CancelBid(call.path_part("bid"), call.account, call.query.release, call.expected_version())
    return await call.submit(command, lambda bid: _shown(call.core, bid), absent=await _when_absent(call))


async def _placing(call: Call[Any, Any], body: PlaceBidBody) -> PlaceBid:
    assert call.principal is not None
    minimum = body.min_gpus
    if minimum is None:
        minimum = 1 if body.colocate is Colocate.NONE else body.gpus
    time_in_force = body.time_in_force or (TimeInForce.GTT if body.expires_at else TimeInForce.GTC)
    return PlaceBid(
        bid=random_id("bid"),
        account=call.account,
        market=body.market,
        gpus=body.gpus,
        limit=Price(body.limit_price_per_gpu_hour),
        min_gpus=minimum,
        colocate=body.colocate,
        time_in_force=time_in_force,
        expires_at_us=body.expires_at,
        valid_until_tick=body.valid_until_tick,
        max_run_seconds=body.max_run_seconds,
        max_spend=_amount(body.max_spend),
        on_preempt=body.on_preempt
        or (OnPreempt.CANCEL if time_in_force is TimeInForce.IOC else OnPreempt.REQUEUE),
        client_bid_id=body.client_bid_id,
        labels=body.labels or {},
        key=call.principal.key,
        unconfirmed_max=await _unconfirmed_max(call, body.market, body.confirm_limit),
    )


async def _amending(call: Call[Any, Any], bid: str, body: AmendBidBody, version: int | None) -> AmendBid:
    assert call.principal is not None
    found = call.core.bids.get(bid)
    market = found.market if found is not None and found.account == call.account else ""
    if found is not None and market and (target := call.services.runner.target_of(found)) is not None:
        raise Rejection("bid_of_target", f"target {target} looks after this bid", pointer="/labels/target")
    limit = body.limit_price_per_gpu_hour
    return AmendBid(
        bid=bid,
        account=call.account,
        limit=None if limit is None else Price(limit),
        gpus=body.gpus,
        min_gpus=body.min_gpus,
        paused=body.paused,
        expected_version=version,
        expires_at_us=body.expires_at,
        max_run_seconds=body.max_run_seconds,
        max_spend=_amount(body.max_spend),
        on_preempt=body.on_preempt,
        key=call.principal.key,
        unconfirmed_max=None if limit is None else await _unconfirmed_max(call, market, body.confirm_limit),
    )


async def _unconfirmed_max(call: Call[Any, Any], market: str, is_confirmed: bool) -> Price | None:
    return None if is_confirmed else await unconfirmed_max(call.services, market, call.now_us)


def _amount(value: int | None) -> Amount | None:
    return None if value is None else Amount(value)


async def _operation(call: Call[Any, Any], operation: Operation) -> Command:
    match operation:
        case PlaceOperation():
            return await _placing(call, operation)
        case AmendOperation():
            return await _amending(call, operation.id, operation, operation.version)
        case CancelOperation():
            return CancelBid(operation.id, call.account, operation.release, operation.version)


def _batch_view(call: Call[Any, Any], outcomes: list[Any]) -> BatchView:
    return BatchView([_result(call, outcome) for outcome in outcomes])


def _result(call: Call[Any, Any], outcome: Any) -> ResultView:
    match outcome:
        case Rejection():
            problem = call.problem(outcome)
            return ResultView(problem.status, problem=problem)
        case PlacedBid(bid=bid, is_repeat=is_repeat):
            status = 200 if is_repeat else 201
            return ResultView(status, bid=_shown(call.core, bid))
        case _:
            return ResultView(200, bid=_shown(call.core, outcome))


def _shown(core: Core, bid: Bid) -> BidView:
    """Show a bid as the engine just left it."""
    return bid_view(bid, core.markets[bid.market], core.leases_of(bid.id))


def _read(row: BidRow) -> BidView:
    return bid_view(row.bid, row.head, row.leases)


async def _own_bid(call: Call[Any, Any]) -> BidRow:
    bid = call.path_part("bid")
    row = await call.services.reader.bid(call.account, bid) if is_object_id(bid) else None
    return call.found(row, "bid")


async def _when_absent(call: Call[Any, Any]) -> Rejection | None:
    """Say why the engine may not know this bid: it keeps live ones, the database all of them."""
    bid = call.path_part("bid")
    if bid in call.core.bids or not is_object_id(bid):
        return None
    row = await call.services.reader.bid(call.account, bid)
    return None if row is None else Rejection("bid_final", f"the bid is {row.bid.status}")
