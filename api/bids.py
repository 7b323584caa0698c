"""Buyers' bids: place, look at, change, cancel; one by one and in batches; and trying without placing.

Answers to writes are written from the engine's live objects while the commit is on its way; reads come
from the database. `cancel` of what has already ended is a conflict, of what never was a 404.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from api.auth import Principal
from api.call import Call, Reply
from api.codec import Page
from api.events import EventView, event_view
from api.fields import (
    CURRENCY,
    Cursor,
    IdField,
    PageLimit,
    format_instant,
    format_price_or_none,
    is_client_bid_id,
    is_object_id,
)
from api.order_entry import (
    absent_bid,
    amending,
    batch_view,
    cancelling_all,
    command_of,
    placed_status,
    placing,
    require_change,
    shown,
    switch_view,
)
from api.paging import page, read_number
from api.routes import NoBody, NoQuery, route
from api.wire import (
    AmendBidBody,
    BatchBody,
    BatchView,
    BidView,
    CancelAfterBody,
    CancelAfterView,
    PlaceBidBody,
    PreviewView,
    bid_view,
)
from api.wire_workloads import WorkloadView, workload_view
from auction.commands import CancelAfter, CancelBid, Command
from auction.errors import Rejection
from auction.model import BidStatus
from auction.ports import Answer
from auction.units import format_microusd
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
    command = await placing(call.services, _asker(call), call.body)
    return await call.submit(command, lambda placed: shown(call.core, placed.bid), status=placed_status)


@route("POST", "/v1/bids/preview", scope="bids:read", is_keyed=False)
async def preview_bid(call: Call[PlaceBidBody, NoQuery]) -> Reply[PreviewView]:
    """Say what a bid would get and tie up; nothing is stored."""
    preview = call.core.preview(await placing(call.services, _asker(call), call.body))
    return call.reply(
        PreviewView(
            market=preview.market,
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
    """Place, amend and cancel up to 1,000 bids, decided in order, each with its own outcome.

    With `atomic` all of them happen, or none: then the others say `batch_aborted`.
    """
    asker = _asker(call)
    commands = [await command_of(call.services, asker, operation) for operation in call.body.operations]
    return await _submit_batch(call, commands, is_atomic=call.body.atomic)


@route("POST", "/v1/bids/cancel-after", scope="bids:write", bucket="exits")
async def cancel_after(call: Call[CancelAfterBody, NoQuery]) -> Reply[CancelAfterView]:
    """Cancel all your bids unless you send this again in time; 0 switches the switch off."""
    command = CancelAfter(call.account, call.body.timeout_seconds, call.body.release)
    return await call.submit(command, switch_view)


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
    return await _submit_batch(call, cancelling_all(call.core, call.account, query.market, query.release))


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


@route("GET", "/v1/bids/{bid}/payload", scope="bids:read")
async def get_payload(call: Call[NoBody, NoQuery]) -> Reply[WorkloadView]:
    """Show what a bid's nodes are to run."""
    row = await _own_bid(call)
    contents = await call.services.reader.workloads([row.bid.id])
    return call.reply(workload_view(contents.get(row.bid.id)))


@route("GET", "/v1/bids/{bid}/events", scope="bids:read")
async def list_bid_events(call: Call[NoBody, ListQuery]) -> Reply[Page[EventView]]:
    """Tell everything that happened to a bid, its leases and notices, newest first."""
    row = await _own_bid(call)
    found = await call.services.reader.bid_events(
        call.account, row.bid.id, before_seq=read_number(call.query.cursor), limit=call.query.limit
    )
    events = [event_view(event, call.core) for event in found.rows]
    return call.reply(page(events, found.last and found.last.account_seq))


@route("PATCH", "/v1/bids/{bid}", scope="bids:write", if_match="optional")
async def amend_bid(call: Call[AmendBidBody, NoQuery]) -> Reply[BidView]:
    """Change a bid while it runs: its limit both ways, its GPUs, whether it is paused."""
    require_change(call.body)
    bid, version = call.path_part("bid"), call.expected_version()
    command = await amending(call.services, _asker(call), bid, call.body, version)
    return await call.submit(command, lambda bid: shown(call.core, bid), absent=await _when_absent(call))


@route("DELETE", "/v1/bids/{bid}", scope="bids:write", bucket="exits", if_match="optional")
async def cancel_bid(call: Call[NoBody, CancelQuery]) -> Reply[BidView]:
    """Cancel a bid; `release=false` lets its leases run on until they end by themselves."""
    command = CancelBid(call.path_part("bid"), call.account, call.query.release, call.expected_version())
    return await call.submit(command, lambda bid: shown(call.core, bid), absent=await _when_absent(call))


def _read(row: BidRow) -> BidView:
    return bid_view(row.bid, row.head, row.leases)


async def _own_bid(call: Call[Any, Any]) -> BidRow:
    bid = call.path_part("bid")
    row = await call.services.reader.bid(call.account, bid) if is_object_id(bid) else None
    return call.found(row, "bid")


async def _when_absent(call: Call[Any, Any]) -> Rejection | None:
    return await absent_bid(call.services, call.account, call.path_part("bid"))


def _asker(call: Call[Any, Any]) -> Principal:
    assert call.principal is not None, "the route is public"
    return call.principal


async def _submit_batch(
    call: Call[Any, Any], commands: Sequence[Command], *, is_atomic: bool = False
) -> Reply[BatchView]:
    def encode(outcomes: list[Any]) -> Answer:
        return call.answer(200, batch_view(call.core, outcomes, call.request_id))

    return await call.submit_all(commands, encode, is_atomic=is_atomic)
