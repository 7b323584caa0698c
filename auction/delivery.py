"""Whether what was sold is delivered: leases started in time, nodes alive, GPUs clean.

A node that does not start a lease in time loses it and is cordoned until its owner looks. A node that is
late with its heartbeat gets nothing new, one that is lost loses its leases; either way nothing is billed
after its last good heartbeat. GPUs that did not come back clean are not lent.
"""

from auction import admission, bidding, leases
from auction.commands import FenceGpus, ReportLease, ReportNode
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.listing import list_offers
from auction.model import (
    LEASE_ON_NODE,
    EndReason,
    Lease,
    LeaseState,
    Node,
    NodeHealth,
    NodeState,
)
from auction.state import State

_HEALTH_EVENTS = {
    NodeHealth.OK: EventKind.NODE_ONLINE,
    NodeHealth.DEGRADED: EventKind.NODE_DEGRADED,
    NodeHealth.OFFLINE: EventKind.NODE_OFFLINE,
}


def report_node(state: State, command: ReportNode) -> Node:
    """Take in how a node does: late, lost, or back."""
    node = state.nodes.get(command.node)
    if node is None:
        raise NotFound("node")
    if node.health is command.health:
        return node
    node.health = command.health
    node.version += 1
    if node.health is NodeHealth.OK:
        node.alive_until_us = None
    elif node.alive_until_us is None:
        node.alive_until_us = min(command.last_heartbeat_us, state.now_us)
    if node.health is NodeHealth.OFFLINE:
        _lose(state, list(state.node_leases[node.id].values()))
    state.touch(node)
    list_offers(state, node)
    state.emit(_HEALTH_EVENTS[node.health], node, account=node.account, market=node.market)
    state.freed_nodes.add(node.id)
    return node


def fence(state: State, command: FenceGpus) -> Node:
    """Lend these GPUs of a node no more, and the others again; who runs on a fenced one has lost it."""
    node = admission.own_node(state, command.node, command.account)
    fenced = sorted(set(command.gpus))
    if fenced and not 0 <= fenced[0] <= fenced[-1] < node.gpus:
        raise Rejection("gpus_out_of_range", f"GPUs are 0..{node.gpus - 1}", pointer="/fenced_gpus")
    if fenced == node.fenced:
        return node
    node.fenced = fenced
    node.version += 1
    _lose(state, [x for x in state.node_leases[node.id].values() if set(x.gpus) & set(fenced)])
    state.touch(node)
    list_offers(state, node)
    state.freed_nodes.add(node.id)
    return node


def fail_start(state: State, lease: Lease) -> None:
    """The node did not report in time: the bid goes back with its rank, the node waits for its owner."""
    node = state.nodes[lease.node]
    _lose(state, [lease])
    node.state = NodeState.CORDONED
    node.version += 1
    state.touch(node)
    list_offers(state, node)
    state.emit(EventKind.NODE_DEGRADED, node, account=node.account, market=node.market)


def _lose(state: State, lost: list[Lease]) -> None:
    for lease in sorted(lost, key=lambda lease: lease.id):
        if lease.state in LEASE_ON_NODE:
            state.emit(EventKind.LEASE_FAILED, lease, account=lease.account, market=lease.market)
        leases.end(state, lease, EndReason.NODE_LOST)


def report_lease(state: State, command: ReportLease) -> Lease:
    """A node's agent reports: started (the bill begins), drained, finished, stopped or failed."""
    lease = state.leases.get(command.lease)
    if lease is None or lease.owner != command.account:
        raise NotFound("lease")
    if command.state == "started":
        if lease.state in (LeaseState.RUNNING, LeaseState.NOTICED):
            return lease  # said twice
        if lease.state is not LeaseState.STARTING:
            raise Rejection("invalid_transition", f"a {lease.state.value} lease cannot start")
        leases.report_started(state, lease, dict(command.connect))
        state.books[lease.market].is_dirty = True
        return lease
    if lease.state not in LEASE_ON_NODE:
        raise Rejection("invalid_transition", f"a {lease.state.value} lease is not on a node")
    if command.state == "drained":
        if lease.drained_at_us is None:
            lease.drained_at_us = state.now_us
            state.touch(lease)
        return lease
    if command.state == "finished":
        if state.bids[lease.bid].workload is None:
            raise Rejection("invalid_transition", "the bid has no payload that could finish")
        lease.connect = lease.connect | dict(command.connect)
        state.touch(lease)
        bidding.give_back(state, lease)
        return lease
    if command.state not in ("stopped", "failed"):
        raise Rejection(
            "state_unknown", "state is started, drained, finished, stopped or failed", pointer="/state"
        )
    under_notice = lease.notice is not None and command.state == "stopped"
    if under_notice:
        assert lease.notice is not None
        reason = state.notices[lease.notice].reason
    else:
        reason = EndReason.NODE_LOST
        state.emit(EventKind.LEASE_FAILED, lease, account=lease.account, market=lease.market)
    leases.end(state, lease, reason)
    return lease
