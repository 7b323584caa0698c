"""What an owner does: nodes, offers, recall."""

from msgspec import Struct

from auction import admission, clearing
from auction.commands import (
    AmendNode,
    AmendOffer,
    CordonNode,
    CreateNode,
    CreateOffer,
    EnrolNode,
    RecallNode,
    RetireNode,
    WithdrawOffer,
)
from auction.errors import Rejection
from auction.events import EventKind
from auction.listing import list_offer, list_offers
from auction.model import (
    Lease,
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


def amend_node(state: State, command: AmendNode) -> Node:
    node = admission.amend_node(state, command)
    if command.name is not None:
        del state.node_names[node.account, node.name]
        node.name = command.name
        state.node_names[node.account, node.name] = node.id
    node.gpus = node.gpus if command.gpus is None else command.gpus
    node.fabric = node.fabric if command.fabric is None else command.fabric
    node.version += 1
    state.index_restricted(node)
    state.touch(node)
    return node


def retire_node(state: State, command: RetireNode) -> Node:
    """Take an idle node out of the market for good; its name is free again."""
    node = admission.own_node(state, command.node, command.account, command.expected_version)
    admission.idle_node(state, node)
    node.state = NodeState.RETIRED
    node.version += 1
    state.drop_node(node)
    state.touch(node)
    return node


def enrol_node(state: State, command: EnrolNode) -> Node:
    node = admission.own_node(state, command.node, command.account)
    if node.state is NodeState.ENROLLING:
        node.state = NodeState.ONLINE
        node.version += 1
        state.touch(node)
        list_offers(state, node)
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
    list_offers(state, node)
    return node


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
    node, offers = check_recall(state, command)
    hit = leases_of_node(state, node)
    notices: list[Notice] = []
    for offer in offers:
        seconds = offer.notice_seconds if command.notice_seconds is None else command.notice_seconds
        notices += clearing.withdraw_offer(state, offer, seconds)
    node.version += 1
    state.touch(node)
    return Recalled(node, hit, notices)


def leases_of_node(state: State, node: Node) -> list[Lease]:
    return sorted(state.node_leases[node.id].values(), key=lambda lease: lease.id)


def check_recall(state: State, command: RecallNode) -> tuple[Node, list[Offer]]:
    """Check a recall; return the node and the offers that it withdraws."""
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
    return node, offers
