"""What an owner and its nodes do: nodes, offers, recall, and the agents' reports."""

from msgspec import Struct

from auction import admission, clearing, leases
from auction.commands import (
    AmendOffer,
    CordonNode,
    CreateNode,
    CreateOffer,
    EnrolNode,
    RecallNode,
    ReportLease,
    WithdrawOffer,
)
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.model import (
    LEASE_ON_NODE,
    EndReason,
    Lease,
    LeaseState,
    Node,
    NodeState,
    Notice,
    Offer,
    OfferStatus,
)
from auction.state import State
from auction.units import gross_reserve


class Recalled(Struct, frozen=True):
    """A recalled node with the leases that it hits and the notices that they got."""

    node: Node
    leases: list[Lease]
    notices: list[Notice]


def create_node(state: State, command: CreateNode) -> Node:
    market = admission.create_node(state, command)
    node = Node(
        id=command.node,
        account=command.account,
        market=market.id,
        name=command.name,
        gpus=command.gpus,
        simulated=command.simulated,
        state=NodeState.ONLINE if command.simulated else NodeState.ENROLLING,
        created_at_us=state.now_us,
        fabric=command.fabric,
    )
    state.add_node(node)
    state.touch(node)
    if command.simulated:
        state.emit(EventKind.NODE_ONLINE, node, account=node.account, market=node.market)
    return node


def enrol_node(state: State, command: EnrolNode) -> Node:
    node = admission.own_node(state, command.node, command.account)
    if node.state is NodeState.ENROLLING:
        node.state = NodeState.ONLINE
        node.version += 1
        state.touch(node)
        _list_offers(state, node)
        state.emit(EventKind.NODE_ONLINE, node, account=node.account, market=node.market)
    return node


def cordon_node(state: State, command: CordonNode) -> Node:
    """A cordoned node offers what is leased on it now and nothing more."""
    node = admission.own_node(state, command.node, command.account, command.expected_version)
    if node.state is NodeState.ENROLLING:
        raise Rejection("invalid_transition", "the node has not enrolled yet")
    node.state = NodeState.CORDONED if command.cordoned else NodeState.ONLINE
    node.version += 1
    state.touch(node)
    _list_offers(state, node)
    return node


def _list_offers(state: State, node: Node) -> None:
    """Show the book what this node's offers are good for in its present state."""
    for offer in sorted(state.market_offers[node.market].values(), key=lambda offer: offer.seq):
        if offer.node == node.id and offer.status is not OfferStatus.WITHDRAWING:
            list_offer(state, offer)


def list_offer(state: State, offer: Offer) -> None:
    book = state.books[offer.market]
    node = state.nodes[offer.node]
    now_us = max(state.now_us, offer.created_at_us)  # a core just restored has seen no time yet
    if offer.available_until_us is not None or offer.available_from_us > now_us:
        book.windowed[offer.id] = offer
    gpus = 0 if node.state is NodeState.ENROLLING else offer.gpus
    if node.state is NodeState.CORDONED:
        on_offer = state.offer_leases[offer.id].values()
        gpus = sum(lease.gpu_count for lease in on_offer if lease.state in LEASE_ON_NODE)
    if offer.available_from_us <= now_us:
        book.set_offer(offer.id, gross_reserve=offer.gross_reserve, gpus=gpus, node=node)


def restore_offer(state: State, offer: Offer) -> None:
    """Put a stored offer back where it was: in the book, or waiting for its window."""
    if offer.available_until_us is not None or offer.available_from_us > offer.created_at_us:
        state.books[offer.market].windowed[offer.id] = offer  # the next tick looks at it
    if offer.available_from_us <= offer.created_at_us:
        list_offer(state, offer)


def create_offer(state: State, command: CreateOffer) -> Offer:
    node, market, gross, notice_seconds = admission.create_offer(state, command)
    offer = Offer(
        id=command.offer,
        account=command.account,
        node=node.id,
        market=market.id,
        gpus=command.gpus,
        reserve=command.reserve,
        gross_reserve=gross,
        available_from_us=command.available_from_us or state.now_us,
        available_until_us=command.available_until_us,
        notice_seconds=notice_seconds,
        status=OfferStatus.LISTED,
        seq=state.next_offer_seq,
        created_at_us=state.now_us,
        updated_at_us=state.now_us,
    )
    state.next_offer_seq += 1
    state.add_offer(offer)
    list_offer(state, offer)
    state.touch(offer)
    state.emit(EventKind.OFFER_LISTED, offer, account=offer.account, market=offer.market)
    return offer


def amend_offer(state: State, command: AmendOffer) -> Offer:
    offer = admission.own_offer(state, command.offer, command.account, command.expected_version)
    market = state.markets[offer.market]
    if command.reserve is not None:
        admission.price_on_grid(market, command.reserve, "/reserve_price_per_gpu_hour", minimum=0)
        gross = gross_reserve(command.reserve, fee_bps=market.fee_bps, increment=market.price_increment)
        if gross > market.price_cap:
            raise Rejection(
                "price_out_of_range",
                f"with the fee the reserve is {gross} microusd, above the market's cap",
                pointer="/reserve_price_per_gpu_hour",
            )
        offer.reserve, offer.gross_reserve = command.reserve, gross
    if command.available_until_us is not None:
        if command.available_until_us <= state.now_us:
            raise Rejection("window_invalid", "the offer would end in the past", pointer="/available_until")
        offer.available_until_us = command.available_until_us
    offer.version += 1
    offer.updated_at_us = state.now_us
    list_offer(state, offer)
    state.touch(offer)
    return offer


def withdraw_offer(state: State, command: WithdrawOffer) -> Offer:
    offer = admission.own_offer(state, command.offer, command.account, command.expected_version)
    clearing.withdraw_offer(state, offer, offer.notice_seconds)
    return offer


def recall(state: State, command: RecallNode) -> Recalled:
    """Take a node back: every lease on it gets the notice that its offer promised, or a longer one."""
    node = admission.own_node(state, command.node, command.account, command.expected_version)
    offers = sorted(
        (
            offer
            for offer in state.market_offers[node.market].values()
            if offer.node == node.id and offer.status is not OfferStatus.WITHDRAWING
        ),
        key=lambda offer: offer.seq,
    )
    promised = max((offer.notice_seconds for offer in offers), default=0)
    if command.notice_seconds is not None and not (
        promised <= command.notice_seconds <= admission.NOTICE_SECONDS_MAX
    ):
        raise Rejection(
            "notice_seconds_out_of_range",
            f"notice_seconds {command.notice_seconds} is outside {promised} (promised)"
            f"..{admission.NOTICE_SECONDS_MAX}",
            pointer="/notice_seconds",
        )
    hit = sorted(state.node_leases[node.id].values(), key=lambda lease: lease.id)
    notices: list[Notice] = []
    for offer in offers:
        seconds = offer.notice_seconds if command.notice_seconds is None else command.notice_seconds
        notices += clearing.withdraw_offer(state, offer, seconds)
    node.version += 1
    state.touch(node)
    return Recalled(node, hit, notices)


def report(state: State, command: ReportLease) -> Lease:
    """A node's agent reports: started (the bill begins), drained, stopped or failed."""
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
    if command.state not in ("stopped", "failed"):
        raise Rejection("state_unknown", "state is started, drained, stopped or failed", pointer="/state")
    under_notice = lease.notice is not None and command.state == "stopped"
    if under_notice:
        assert lease.notice is not None
        reason = state.notices[lease.notice].reason
    else:
        reason = EndReason.NODE_LOST
        state.emit(EventKind.LEASE_FAILED, lease, account=lease.account, market=lease.market)
    leases.end(state, lease, reason)
    leases.start_pending(state, lease.market)
    return lease
