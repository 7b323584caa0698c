"""The buyers' shapes: bids, leases, notices, events. What the wire carries is what these structs say.

Decides field names and how a struct of the market becomes one of the wire; /openapi.json is made from
the same classes. Must not decide whether anything is allowed: that is admission's.
"""

from collections.abc import Iterable
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from api.fields import (
    CURRENCY,
    AmountField,
    ClientBidIdField,
    GpuCount,
    IdField,
    InstantField,
    LabelsField,
    PriceField,
    RunSeconds,
    SshKeyField,
    TickNumber,
    TimeoutSeconds,
    format_instant,
    format_instant_or_none,
    format_price_or_none,
)
from api.wire_workloads import PayloadBody
from auction.core import Explanation
from auction.model import (
    BID_FINAL,
    Bid,
    Colocate,
    Lease,
    LeaseState,
    Notice,
    OnPreempt,
    TimeInForce,
)
from auction.units import MICROSECONDS_PER_SECOND, Price, format_microusd
from matching.types import MARKETS_MAX

BATCH_OPERATIONS_MAX = 1_000


class MarketHead(Protocol):
    """Where a market stands: all that a bid or a lease shows of it."""

    @property
    def price(self) -> Price | None: ...

    @property
    def fee_bps(self) -> int: ...

    @property
    def tick(self) -> int: ...

    @property
    def next_tick_at_us(self) -> int: ...


class AlternativeBody(Struct, frozen=True, forbid_unknown_fields=True):
    market: IdField
    limit_price_per_gpu_hour: PriceField


class PlaceBidBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`market` and its limit, or `alternatives`: it takes its GPUs in one of them, where it gains most."""

    gpus: GpuCount
    market: IdField | None = None
    limit_price_per_gpu_hour: PriceField | None = None
    alternatives: Annotated[list[AlternativeBody], Meta(min_length=1, max_length=MARKETS_MAX)] | None = None
    min_gpus: GpuCount | None = None  # 1; all of them for a co-located bid
    colocate: Colocate = Colocate.NONE
    time_in_force: TimeInForce | None = None  # gtc; gtt with `expires_at`
    expires_at: InstantField | None = None
    valid_until_tick: TickNumber | None = None
    max_run_seconds: RunSeconds | None = None
    max_spend: AmountField | None = None
    on_preempt: OnPreempt | None = None  # requeue; cancel for an ioc bid
    client_bid_id: ClientBidIdField | None = None
    labels: LabelsField | None = None
    confirm_limit: bool = False  # the limit is meant, though it is far above the market's price
    ssh_public_key: SshKeyField | None = None
    payload: PayloadBody | None = None  # what its nodes are to run


class AmendBidBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    limit_price_per_gpu_hour: PriceField | None = None
    market: IdField | None = None  # where the limit changes; needed for a bid with alternatives
    gpus: GpuCount | None = None
    min_gpus: GpuCount | None = None
    paused: bool | None = None
    expires_at: InstantField | None = None
    max_run_seconds: RunSeconds | None = None
    max_spend: AmountField | None = None
    on_preempt: OnPreempt | None = None
    confirm_limit: bool = False


class PlaceOperation(PlaceBidBody, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="place"):
    pass


class AmendOperation(
    AmendBidBody, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="amend"
):
    id: IdField
    version: int | None = None


class CancelOperation(Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="cancel"):
    id: IdField
    release: bool = True
    version: int | None = None


class CancelAfterBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Dead man's switch: send it again and again; 0 switches it off. `release` ends the leases too."""

    timeout_seconds: TimeoutSeconds
    release: bool = False


class CancelAfterView(Struct, frozen=True):
    cancel_at: str | None
    release: bool


Operation = PlaceOperation | AmendOperation | CancelOperation


class ReasonView(Struct, frozen=True):
    """Why not (more of) the bid was filled: outbid, protected, no_fit or engine_error.

    `winning_price` is the lowest limit that would fill it all if nothing else changed; only where one
    bid is shown.
    """

    code: str
    price: str | None
    needed: int | None
    usable: int | None
    winning_price: str | None = None


class AlternativeView(Struct, frozen=True):
    market: str
    limit_price_per_gpu_hour: str


class BidView(Struct, frozen=True):
    """A bid with `alternatives` shows the market that it is in now, and its limit there."""

    id: str
    market: str
    status: str
    gpus: int
    min_gpus: int
    colocate: str
    limit_price_per_gpu_hour: str
    filled_gpus: int
    resting_gpus: int
    current_price: str | None
    spent: str
    held: str
    worst_cost_per_hour: str
    currency: str
    time_in_force: str
    expires_at: str | None
    valid_until_tick: int | None
    max_run_seconds: int | None
    max_spend: str | None
    on_preempt: str
    effective_tick: int | None
    cutoff_at: str | None
    reason: ReasonView | None
    leases: list[str]
    client_bid_id: str | None
    key: str | None
    labels: dict[str, str]
    payload_sha256: str | None  # GET /v1/bids/{id}/payload has it
    paused: bool
    version: int
    created_at: str
    updated_at: str
    alternatives: list[AlternativeView]


class PreviewView(Struct, frozen=True):
    """What the next tick would do with this bid if nothing else changed, where it gains most."""

    market: str
    fill_gpus: int
    price: str | None
    hold: str
    worst_cost_per_hour: str
    currency: str
    effective_tick: int
    cutoff_at: str


class ErrorItem(Struct, frozen=True):
    pointer: str
    detail: str


class ProblemView(Struct, frozen=True, omit_defaults=True):
    """RFC 9457; behind `errors` come the extras, each only where its code has it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    errors: list[ErrorItem] = []
    required: str | None = None
    available: str | None = None
    below: str | None = None
    above: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    current: int | None = None
    scope: str | None = None
    accepted: dict[str, str | int] = {}


class ResultView(Struct, frozen=True):
    """One operation of a batch: its HTTP status, and its bid or why not."""

    status: int
    bid: BidView | None = None
    problem: ProblemView | None = None


class BatchBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Decided in order; each operation has its own outcome. `atomic`: all or none."""

    operations: Annotated[list[Operation], Meta(min_length=1, max_length=BATCH_OPERATIONS_MAX)]
    atomic: bool = False


class BatchView(Struct, frozen=True):
    results: list[ResultView]


class LeaseView(Struct, frozen=True):
    id: str
    bid: str
    market: str
    node: str
    gpus: int
    gpu_indices: list[int]
    gpu_uuids: list[str]
    state: str
    price: str | None
    awarded_at: str
    started_at: str | None
    ends_at: str | None  # by its bid's max_run_seconds
    ended_at: str | None
    end_reason: str | None
    notice: str | None
    connect: dict[str, str]
    cost: str
    fee_bps: int  # of the cost: the operator's part, the rest is the owner's
    refunded: str  # of the cost, for a promise that its owner or its node broke
    currency: str
    gpu_seconds: int
    version: int


class NoticeView(Struct, frozen=True):
    id: str
    lease: str
    bid: str
    market: str
    reason: str
    issued_at: str
    reclaim_at: str
    notice_seconds: int
    state: str
    tick: int
    price: str | None
    limit: str
    keep_price: str | None


class AckNoticeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`ready` true ends the lease and its bill now; false only says that the notice was seen."""

    ready: bool = False


def bid_view(
    bid: Bid, market: MarketHead, lease_ids: Iterable[str], explanation: Explanation | None = None
) -> BidView:
    """Show a bid beside the market it stands in; `lease_ids` are its live leases.

    With an `explanation` the reason is the last tick's, otherwise that of the last change.
    """
    is_final = bid.status in BID_FINAL
    reason = None
    if explanation is not None:
        why = explanation.reason
        assert why.code is not None
        reason = ReasonView(
            why.code,
            format_price_or_none(why.price),
            why.needed,
            why.usable,
            format_price_or_none(explanation.winning_limit),
        )
    elif bid.reason_code is not None:
        reason = ReasonView(
            bid.reason_code, format_price_or_none(bid.reason_price), bid.reason_needed, bid.reason_usable
        )
    return BidView(
        id=bid.id,
        market=bid.market,
        status=bid.status,
        gpus=bid.gpus,
        min_gpus=bid.min_gpus,
        colocate=bid.colocate,
        limit_price_per_gpu_hour=format_microusd(bid.limit),
        filled_gpus=bid.filled_gpus,
        resting_gpus=0 if is_final else max(bid.gpus - bid.filled_gpus, 0),
        current_price=format_price_or_none(market.price) if bid.filled_gpus else None,
        spent=format_microusd(bid.spent),
        held=format_microusd(bid.held),
        worst_cost_per_hour=format_microusd(bid.top_limit * bid.gpus),
        currency=CURRENCY,
        time_in_force=bid.time_in_force,
        expires_at=format_instant_or_none(bid.expires_at_us),
        valid_until_tick=bid.valid_until_tick,
        max_run_seconds=bid.max_run_seconds,
        max_spend=format_price_or_none(bid.max_spend),
        on_preempt=bid.on_preempt,
        effective_tick=None if is_final else market.tick + 1,
        cutoff_at=None if is_final else format_instant(market.next_tick_at_us),
        reason=reason,
        leases=list(lease_ids),
        client_bid_id=bid.client_bid_id,
        key=bid.key,
        labels=bid.labels,
        payload_sha256=bid.workload,
        paused=bid.is_paused,
        version=bid.version,
        created_at=format_instant(bid.created_at_us),
        updated_at=format_instant(bid.updated_at_us),
        alternatives=[AlternativeView(one.market, format_microusd(one.limit)) for one in bid.alternatives],
    )


def lease_view(lease: Lease, market: MarketHead) -> LeaseView:
    """Show a lease with what it pays now: the market's price, or the frozen one under notice."""
    price = None
    if lease.state is LeaseState.NOTICED:
        price = lease.notice_price
    elif lease.state is not LeaseState.ENDED:
        price = market.price
    return LeaseView(
        id=lease.id,
        bid=lease.bid,
        market=lease.market,
        node=lease.node,
        gpus=lease.gpu_count,
        gpu_indices=lease.gpus,
        gpu_uuids=[],
        state=lease.state,
        price=format_price_or_none(price),
        awarded_at=format_instant(lease.awarded_at_us),
        started_at=format_instant_or_none(lease.started_at_us),
        ends_at=format_instant_or_none(lease.ends_at_us),
        ended_at=format_instant_or_none(lease.ended_at_us),
        end_reason=lease.end_reason,
        notice=lease.notice,
        connect=lease.connect,
        cost=format_microusd(lease.metered),
        fee_bps=market.fee_bps,
        refunded=format_microusd(lease.refunded),
        currency=CURRENCY,
        gpu_seconds=lease.gpu_seconds,
        version=lease.version,
    )


def notice_view(notice: Notice) -> NoticeView:
    return NoticeView(
        id=notice.id,
        lease=notice.lease,
        bid=notice.bid,
        market=notice.market,
        reason=notice.reason,
        issued_at=format_instant(notice.issued_at_us),
        reclaim_at=format_instant(notice.reclaim_at_us),
        notice_seconds=(notice.reclaim_at_us - notice.issued_at_us) // MICROSECONDS_PER_SECOND,
        state=notice.state,
        tick=notice.tick,
        price=format_price_or_none(notice.price),
        limit=format_microusd(notice.limit),
        keep_price=format_price_or_none(notice.keep_price),
    )
