"""The owners' and agents' shapes: nodes, offers, recalls, what a node should be running.

See wire.py for the rules that all wire modules follow.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.fields import (
    ConnectField,
    IdField,
    InstantField,
    NameField,
    NodeGpuCount,
    NoticeSeconds,
    PriceField,
    format_instant,
    format_instant_or_none,
)
from api.wire import LeaseView, NoticeView, ProblemView
from api.wire_workloads import PayloadView, WorkloadView
from auction.model import Lease, Node, Notice, Offer
from auction.units import format_microusd

BATCH_OFFERS_MAX = 1_000


class CreateNodeBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: NameField
    market: IdField
    gpus: NodeGpuCount
    fabric: NameField | None = None
    simulated: bool = False


class AmendNodeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is.

    `gpus` may grow and `fabric` change while nothing is offered or leased.
    """

    name: NameField | None = None
    gpus: NodeGpuCount | None = None
    fabric: NameField | None = None


class NodeReliability(Struct, frozen=True):
    """Of the leases that the node was given in the last 30 days."""

    started: int
    failed_to_start: int
    lost: int


class RecallNodeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Left out: the notice that each offer promised. A `preview` only lists what it would hit."""

    notice_seconds: NoticeSeconds | None = None
    preview: bool = False


class NodeView(Struct, frozen=True):
    id: str
    name: str
    market: str
    gpus: int
    fabric: str | None
    simulated: bool
    state: str
    health: str
    alive_until: str | None  # while not ok: its last good heartbeat, where the bills stop
    fenced_gpus: list[int]
    version: int
    created_at: str
    reliability_30d: NodeReliability | None = None  # only where one node is shown


class OfferBody(Struct, frozen=True, forbid_unknown_fields=True):
    node: IdField
    gpus: NodeGpuCount
    reserve_price_per_gpu_hour: PriceField
    available_from: InstantField | None = None
    available_until: InstantField | None = None
    notice_seconds: NoticeSeconds | None = None


class AmendOfferBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    reserve_price_per_gpu_hour: PriceField | None = None
    available_until: InstantField | None = None


class BatchOffersBody(Struct, frozen=True, forbid_unknown_fields=True):
    offers: Annotated[list[OfferBody], Meta(min_length=1, max_length=BATCH_OFFERS_MAX)]


class OfferView(Struct, frozen=True):
    id: str
    node: str
    market: str
    gpus: int
    reserve_price_per_gpu_hour: str
    gross_reserve_price_per_gpu_hour: str
    available_from: str
    available_until: str | None
    notice_seconds: int
    status: str
    version: int
    created_at: str
    updated_at: str


class OfferResultView(Struct, frozen=True):
    status: int
    offer: OfferView | None = None
    problem: ProblemView | None = None


class BatchOffersView(Struct, frozen=True):
    results: list[OfferResultView]


class RecallView(Struct, frozen=True):
    """What a recall set in motion: the leases that end, and the notices that say when."""

    node: NodeView
    leases: list[LeaseView]
    notices: list[NoticeView]


class EnrolBody(Struct, frozen=True, forbid_unknown_fields=True):
    node: IdField


class HeartbeatBody(Struct, frozen=True, forbid_unknown_fields=True):
    node: IdField


class HeartbeatView(Struct, frozen=True):
    """What the market thinks of the node; send the next one after `heartbeat_seconds`."""

    node: str
    state: str
    health: str
    heartbeat_seconds: int


class InventoryBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`fenced_gpus`: indices that may not be lent, all of them each time."""

    node: IdField
    fenced_gpus: Annotated[list[Annotated[int, Meta(ge=0, le=1_023)]], Meta(max_length=1_024)]


class ReportLeaseBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`finished`: the payload ended by itself, and with it the lease; `connect` may add its exit code."""

    state: Literal["started", "drained", "finished", "stopped", "failed"]
    connect: ConnectField | None = None


class DesiredNotice(Struct, frozen=True):
    id: str
    reason: str
    reclaim_at: str
    state: str


class DesiredLease(Struct, frozen=True):
    """A lease that should be running (or draining, with a notice) on the node."""

    id: str
    state: str
    gpu_indices: list[int]
    notice: DesiredNotice | None
    ssh_public_key: str | None = None
    payload: PayloadView | None = None


class DesiredNode(Struct, frozen=True):
    id: str
    name: str
    state: str
    leases: list[DesiredLease]


class DesiredView(Struct, frozen=True):
    """The whole desired state; `revision` changes exactly when the rest does."""

    revision: str
    nodes: list[DesiredNode]


def node_view(node: Node, reliability: NodeReliability | None = None) -> NodeView:
    return NodeView(
        id=node.id,
        name=node.name,
        market=node.market,
        gpus=node.gpus,
        fabric=node.fabric,
        simulated=node.simulated,
        state=node.state,
        health=node.health,
        alive_until=format_instant_or_none(node.alive_until_us),
        fenced_gpus=node.fenced,
        version=node.version,
        created_at=format_instant(node.created_at_us),
        reliability_30d=reliability,
    )


def offer_view(offer: Offer) -> OfferView:
    return OfferView(
        id=offer.id,
        node=offer.node,
        market=offer.market,
        gpus=offer.gpus,
        reserve_price_per_gpu_hour=format_microusd(offer.reserve),
        gross_reserve_price_per_gpu_hour=format_microusd(offer.gross_reserve),
        available_from=format_instant(offer.available_from_us),
        available_until=format_instant_or_none(offer.available_until_us),
        notice_seconds=offer.notice_seconds,
        status=offer.status,
        version=offer.version,
        created_at=format_instant(offer.created_at_us),
        updated_at=format_instant(offer.updated_at_us),
    )


def desired_lease(lease: Lease, notice: Notice | None, workload: WorkloadView) -> DesiredLease:
    shown = None
    if notice is not None:
        shown = DesiredNotice(notice.id, notice.reason, format_instant(notice.reclaim_at_us), notice.state)
    return DesiredLease(lease.id, lease.state, lease.gpus, shown, workload.ssh_public_key, workload.payload)
