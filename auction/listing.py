"""What the book sees of an offer: its GPUs as far as its node can lend them now, inside its window."""

from auction.model import LEASE_ON_NODE, Node, NodeHealth, NodeState, Offer, OfferStatus
from auction.state import State


def list_offers(state: State, node: Node) -> None:
    """Show the book what this node's offers are good for in its present state."""
    state.index_restricted(node)
    for offer in sorted(state.market_offers[node.market].values(), key=lambda offer: offer.seq):
        if offer.node == node.id and offer.status is not OfferStatus.WITHDRAWING:
            list_offer(state, offer)


def relist(state: State, node_id: str) -> None:
    """After a change of its leases or offers: list a node again whose offers depend on them."""
    node = state.restricted_nodes.get(node_id)
    if node is not None:
        list_offers(state, node)


def list_offer(state: State, offer: Offer) -> None:
    book = state.books[offer.market]
    node = state.nodes[offer.node]
    now_us = max(state.now_us, offer.created_at_us)  # a core just restored has seen no time yet
    if offer.available_until_us is not None or offer.available_from_us > now_us:
        book.windowed[offer.id] = offer
    gpus = min(offer.gpus, max(0, node.gpus - len(node.fenced) - _offered_before(state, offer)))
    if node.state is NodeState.ENROLLING or node.health is NodeHealth.OFFLINE:
        gpus = 0
    elif node.state is NodeState.CORDONED or node.health is NodeHealth.DEGRADED:
        on_offer = state.offer_leases[offer.id].values()
        gpus = sum(lease.gpu_count for lease in on_offer if lease.state in LEASE_ON_NODE)
    if offer.available_from_us <= now_us:
        book.set_offer(offer.id, gross_reserve=offer.gross_reserve, gpus=gpus, node=node)


def _offered_before(state: State, offer: Offer) -> int:
    """GPUs of the node that its earlier offers lend: fenced ones are missing from the newest first."""
    return sum(
        other.gpus
        for other in state.market_offers[offer.market].values()
        if other.node == offer.node and other.seq < offer.seq and other.status is not OfferStatus.WITHDRAWING
    )


def restore_offer(state: State, offer: Offer) -> None:
    """Put a stored offer back where it was: in the book, or waiting for its window."""
    if offer.available_until_us is not None or offer.available_from_us > offer.created_at_us:
        state.books[offer.market].windowed[offer.id] = offer  # the next tick looks at it
    if offer.available_from_us <= offer.created_at_us:
        list_offer(state, offer)
