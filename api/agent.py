"""The node agents' side: enrol, ask what should run, report what became of it.

An agent gets the whole desired state, never commands: one that missed an answer, or restarted, needs
nothing but the newest one. The simulator reports through the same engine command.
"""

import asyncio
import hashlib
from contextlib import suppress

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.fields import Cursor, IdField, WaitSeconds, is_object_id
from api.routes import NoBody, NoQuery, route
from api.services import Services
from api.wire import LeaseView, lease_view
from api.wire_supply import (
    DesiredNode,
    DesiredView,
    EnrolBody,
    HeartbeatBody,
    HeartbeatView,
    InventoryBody,
    NodeView,
    ReportLeaseBody,
    desired_lease,
    node_view,
)
from api.wire_workloads import workload_view
from auction.commands import EnrolNode, FenceGpus, ReportLease
from auction.errors import NotFound, Rejection
from auction.model import Lease, Node, NodeState

# Leases' events go to their tenants, not to the owner, so a waiting agent looks again this often.
POLL_SECONDS = 0.5
HEARTBEATS_PER_GRACE = 3
REVISION_CHARACTERS = 24


class DesiredQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`node` narrows the answer to one node; `revision` is the one you acted on last."""

    node: IdField | None = None
    revision: Cursor | None = None
    wait_seconds: WaitSeconds = 0


@route("POST", "/v1/agent/enrol", scope="agent", bucket="agents")
async def enrol_node(call: Call[EnrolBody, NoQuery]) -> Reply[NodeView]:
    """Report a node for duty."""

    def view(node: Node) -> NodeView:
        call.services.watch.hear(node)
        return node_view(node)

    return await call.submit(EnrolNode(call.body.node, call.account), view)


@route("POST", "/v1/agent/heartbeat", scope="agent", bucket="agents", is_keyed=False)
async def heartbeat(call: Call[HeartbeatBody, NoQuery]) -> Reply[HeartbeatView]:
    """Give a sign of life: without one a node is degraded after 15 s and lost after 60 s."""
    node = call.core.nodes.get(call.body.node)
    if node is None or node.account != call.account:
        raise NotFound("node")
    if node.state is NodeState.ENROLLING:
        raise Rejection("invalid_transition", "the node has not enrolled yet")
    call.services.watch.hear(node)
    seconds = max(1, int(call.services.config.node_degraded_seconds / HEARTBEATS_PER_GRACE))
    return call.reply(HeartbeatView(node.id, node.state, node.health, seconds))


@route("PUT", "/v1/agent/inventory", scope="agent", bucket="agents")
async def put_inventory(call: Call[InventoryBody, NoQuery]) -> Reply[NodeView]:
    """Say which GPUs may not be lent; whoever runs on one has lost it."""
    return await call.submit(FenceGpus(call.body.node, call.account, call.body.fenced_gpus), node_view)


@route("GET", "/v1/agent/desired", scope="agent", bucket="agents")
async def get_desired(call: Call[NoBody, DesiredQuery]) -> Reply[DesiredView]:
    """Tell what should run on your nodes; with `wait_seconds`, once it differs from `revision`."""
    query, services = call.query, call.services
    desired = await _desired(services, call.account, query.node)
    if query.node is not None and not desired.nodes:
        raise NotFound("node")
    with suppress(TimeoutError):
        async with services.patience(query.wait_seconds):
            while query.wait_seconds and desired.revision == query.revision:
                await asyncio.sleep(POLL_SECONDS)
                desired = await _desired(services, call.account, query.node)
    return call.reply(desired)


@route("POST", "/v1/agent/leases/{lease}/report", scope="agent", bucket="agents")
async def report_lease(call: Call[ReportLeaseBody, NoQuery]) -> Reply[LeaseView]:
    """Report that a lease started, drained, finished, stopped or failed; the bill runs from `started`."""
    lease = call.path_part("lease")
    absent = None
    if lease not in call.core.leases and is_object_id(lease):
        found = await call.services.reader.owned_lease(call.account, lease)
        absent = None if found is None else Rejection("lease_ended", f"the lease is {found.state}")

    def view(reported: Lease) -> LeaseView:
        call.services.watch.hear(call.core.nodes[reported.node])
        return lease_view(reported, call.core.markets[reported.market])

    command = ReportLease(lease, call.account, call.body.state, call.body.connect or {})
    return await call.submit(command, view, absent=absent)


async def _desired(services: Services, account: str, node: str | None) -> DesiredView:
    nodes, leases, notices = await services.reader.desired(account, node)
    by_lease = {notice.lease: notice for notice in notices}
    # The payloads are the tenants', and their nodes are to run them.
    contents = await services.system.workloads([lease.bid for lease in leases])
    shown = [
        DesiredNode(
            found.id,
            found.name,
            found.state,
            [
                desired_lease(lease, by_lease.get(lease.id), workload_view(contents.get(lease.bid)))
                for lease in leases
                if lease.node == found.id
            ],
        )
        for found in nodes
    ]
    digest = hashlib.sha256(msgspec.msgpack.encode(shown)).hexdigest()
    return DesiredView(digest[:REVISION_CHARACTERS], shown)
