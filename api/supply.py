"""Owners' nodes and offers: create, list, change, take back."""

from typing import Any, Literal

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import Cursor, IdField, PageLimit, is_object_id
from api.paging import page, read_key, read_number
from api.routes import NoBody, NoQuery, route
from api.wire import lease_view, notice_view
from api.wire_supply import (
    AmendNodeBody,
    AmendOfferBody,
    BatchOffersBody,
    BatchOffersView,
    CreateNodeBody,
    NodeReliability,
    NodeView,
    OfferBody,
    OfferResultView,
    OfferView,
    RecallNodeBody,
    RecallView,
    node_view,
    offer_view,
)
from auction.commands import (
    AmendNode,
    AmendOffer,
    CordonNode,
    CreateNode,
    CreateOffer,
    RecallNode,
    RetireNode,
    WithdrawOffer,
)
from auction.core import Recalled
from auction.errors import Rejection
from auction.ids import random_id
from auction.ports import Answer
from auction.units import MICROSECONDS_PER_SECOND, Price

RELIABILITY_US = 30 * 86_400 * MICROSECONDS_PER_SECOND

OfferStatusName = Literal["listed", "partly_leased", "leased", "withdrawing", "withdrawn"]


class NodesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


class OffersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    node: IdField | None = None
    status: OfferStatusName | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("POST", "/v1/nodes", scope="supply:write", status=201)
async def create_node(call: Call[CreateNodeBody, NoQuery]) -> Reply[NodeView]:
    """Register a machine; a simulated one is played by the server, on demo markets."""
    body = call.body
    return await call.submit(
        CreateNode(
            random_id("node"),
            call.account,
            body.market,
            body.name,
            body.gpus,
            body.simulated,
            body.fabric,
        ),
        node_view,
    )


@route("GET", "/v1/nodes", scope="supply:read")
async def list_nodes(call: Call[NoBody, NodesQuery]) -> Reply[Page[NodeView]]:
    """List your nodes, newest first, without the retired ones."""
    found = await call.services.reader.nodes(
        call.account, before=read_key(call.query.cursor), limit=call.query.limit
    )
    last = found.last and (found.last.created_at_us, found.last.id)
    return call.reply(page([node_view(node) for node in found.rows], last))


@route("GET", "/v1/nodes/{node}", scope="supply:read")
async def get_node(call: Call[NoBody, NoQuery]) -> Reply[NodeView]:
    """Show one node, with how it delivered in the last 30 days."""
    node = call.path_part("node")
    found = await call.services.reader.node(call.account, node) if is_object_id(node) else None
    shown = call.found(found, "node")
    counts = await call.services.reader.node_reliability(node, call.now_us - RELIABILITY_US)
    return call.reply(node_view(shown, NodeReliability(**counts)))


@route("PATCH", "/v1/nodes/{node}", scope="supply:write", if_match="optional")
async def amend_node(call: Call[AmendNodeBody, NoQuery]) -> Reply[NodeView]:
    """Rename a node, or describe it anew while nothing is offered or leased on it."""
    body = call.body
    if body == AmendNodeBody():
        raise Rejection("nothing_to_change", "expected at least one field")
    node, version = call.path_part("node"), call.expected_version()
    return await call.submit(
        AmendNode(node, call.account, body.name, body.gpus, body.fabric, version), node_view
    )


@route("DELETE", "/v1/nodes/{node}", scope="supply:write", bucket="exits", if_match="optional")
async def retire_node(call: Call[NoBody, NoQuery]) -> Reply[NodeView]:
    """Take a node out of the market for good, once it is recalled and empty; its name is free again."""
    return await call.submit(
        RetireNode(call.path_part("node"), call.account, call.expected_version()), node_view
    )


@route("POST", "/v1/nodes/{node}/cordon", scope="supply:write", if_match="optional")
async def cordon_node(call: Call[NoBody, NoQuery]) -> Reply[NodeView]:
    """Stop new leases on a node; what runs goes on."""
    return await call.submit(_cordoning(call, is_cordoned=True), node_view)


@route("POST", "/v1/nodes/{node}/uncordon", scope="supply:write", if_match="optional")
async def uncordon_node(call: Call[NoBody, NoQuery]) -> Reply[NodeView]:
    """Allow new leases on a node again."""
    return await call.submit(_cordoning(call, is_cordoned=False), node_view)


@route("POST", "/v1/nodes/{node}/recall", scope="supply:write", bucket="exits", if_match="optional")
async def recall_node(call: Call[RecallNodeBody, NoQuery]) -> Reply[RecallView]:
    """Take a node back: its offers are withdrawn and its leases get their notice.

    With `preview` it only lists the leases that would be hit: a read, which no audit log keeps.
    """
    command = RecallNode(
        call.path_part("node"), call.account, call.body.notice_seconds, call.expected_version()
    )

    def view(recalled: Recalled) -> RecallView:
        markets = call.core.markets
        return RecallView(
            node_view(recalled.node),
            [lease_view(lease, markets[lease.market]) for lease in recalled.leases],
            [notice_view(notice) for notice in recalled.notices],
        )

    if call.body.preview:
        return Reply(view(call.core.preview_recall(command)), is_read=True)
    return await call.submit(command, view)


@route("POST", "/v1/offers", scope="supply:write", status=201)
async def create_offer(call: Call[OfferBody, NoQuery]) -> Reply[OfferView]:
    """Offer GPUs of a node at no less than a reserve."""
    return await call.submit(_offering(call.account, call.body), offer_view)


@route("POST", "/v1/offers/batch", scope="supply:write", is_batch=True)
async def batch_offers(call: Call[BatchOffersBody, NoQuery]) -> Reply[BatchOffersView]:
    """Post up to 1,000 offers, decided in order, each with its own outcome."""
    commands = [_offering(call.account, body) for body in call.body.offers]

    def encode(outcomes: list[Any]) -> Answer:
        return call.answer(200, BatchOffersView([_result(call, outcome) for outcome in outcomes]))

    return await call.submit_all(commands, encode)


@route("GET", "/v1/offers", scope="supply:read")
async def list_offers(call: Call[NoBody, OffersQuery]) -> Reply[Page[OfferView]]:
    """List your offers, newest first."""
    query = call.query
    found = await call.services.reader.offers(
        call.account,
        node=query.node,
        status=query.status,
        before_seq=read_number(query.cursor),
        limit=query.limit,
    )
    return call.reply(page([offer_view(offer) for offer in found.rows], found.last and found.last.seq))


@route("GET", "/v1/offers/{offer}", scope="supply:read")
async def get_offer(call: Call[NoBody, NoQuery]) -> Reply[OfferView]:
    """Show one offer."""
    offer = call.path_part("offer")
    found = await call.services.reader.offer(call.account, offer) if is_object_id(offer) else None
    return call.reply(offer_view(call.found(found, "offer")))


@route("PATCH", "/v1/offers/{offer}", scope="supply:write", if_match="required")
async def amend_offer(call: Call[AmendOfferBody, NoQuery]) -> Reply[OfferView]:
    """Change an offer's reserve or end; needs If-Match."""
    version = call.required_version()
    if call.body == AmendOfferBody():
        raise Rejection("nothing_to_change", "expected at least one field")
    reserve = call.body.reserve_price_per_gpu_hour
    command = AmendOffer(
        call.path_part("offer"),
        call.account,
        version,
        None if reserve is None else Price(reserve),
        call.body.available_until,
    )
    return await call.submit(command, offer_view, absent=await _when_absent(call))


@route("DELETE", "/v1/offers/{offer}", scope="supply:write", bucket="exits", if_match="required")
async def withdraw_offer(call: Call[NoBody, NoQuery]) -> Reply[OfferView]:
    """Withdraw an offer: leases on it get the notice it promised; needs If-Match."""
    command = WithdrawOffer(call.path_part("offer"), call.account, call.required_version())
    return await call.submit(command, offer_view, absent=await _when_absent(call))


def _cordoning(call: Call[Any, Any], *, is_cordoned: bool) -> CordonNode:
    node = call.path_part("node")
    version = call.expected_version()
    if version is None:
        # If-Match is optional here: without one the command names the version it is decided on.
        known = call.core.nodes.get(node)
        version = 0 if known is None else known.version
    return CordonNode(node, call.account, is_cordoned, version)


def _offering(account: str, body: OfferBody) -> CreateOffer:
    return CreateOffer(
        offer=random_id("off"),
        account=account,
        node=body.node,
        gpus=body.gpus,
        reserve=Price(body.reserve_price_per_gpu_hour),
        available_from_us=body.available_from,
        available_until_us=body.available_until,
        notice_seconds=body.notice_seconds,
    )


def _result(call: Call[Any, Any], outcome: Any) -> OfferResultView:
    if isinstance(outcome, Rejection):
        problem = call.problem(outcome)
        return OfferResultView(problem.status, problem=problem)
    return OfferResultView(201, offer=offer_view(outcome))


async def _when_absent(call: Call[Any, Any]) -> Rejection | None:
    """Say why the engine may not know this offer: it keeps live ones, the database all of them."""
    offer = call.path_part("offer")
    if offer in call.core.offers or not is_object_id(offer):
        return None
    found = await call.services.reader.offer(call.account, offer)
    return None if found is None else Rejection("offer_final", f"the offer is {found.status}")
