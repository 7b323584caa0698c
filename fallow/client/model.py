"""What the market answers, as Python values: money is Decimal (US dollars), times are aware datetimes.

Field for field the structs that the server writes (api/wire*.py); a test compares the two, so they cannot
drift apart. A field that a newer server adds is ignored.
"""

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from fallow.client import errors


class Reason(Struct, frozen=True):
    code: str
    price: Decimal | None
    needed: int | None
    usable: int | None
    winning_price: Decimal | None = None


class Alternative(Struct, frozen=True):
    market: str
    limit_price_per_gpu_hour: Decimal


class Bid(Struct, frozen=True):
    id: str
    market: str
    status: str
    gpus: int
    min_gpus: int
    colocate: str
    limit_price_per_gpu_hour: Decimal
    filled_gpus: int
    resting_gpus: int
    current_price: Decimal | None
    spent: Decimal
    held: Decimal
    worst_cost_per_hour: Decimal
    currency: str
    time_in_force: str
    expires_at: datetime | None
    valid_until_tick: int | None
    max_run_seconds: int | None
    max_spend: Decimal | None
    on_preempt: str
    effective_tick: int | None
    cutoff_at: datetime | None
    reason: Reason | None
    leases: list[str]
    client_bid_id: str | None
    key: str | None
    labels: dict[str, str]
    payload_sha256: str | None
    paused: bool
    version: int
    created_at: datetime
    updated_at: datetime
    alternatives: list[Alternative] = []


class Result(Struct, frozen=True):
    """What became of one operation of a batch: its HTTP status, and its bid or why not."""

    status: int
    bid: Bid | None = None
    problem: errors.Problem | None = None

    def done(self) -> Bid:
        """Return the bid; raises ProblemError's kinds where the operation was refused."""
        if self.problem is not None:
            raise errors.error_of(self.problem)
        assert self.bid is not None
        return self.bid


class Batch(Struct, frozen=True):
    """One for each operation of a batch, in their order."""

    results: list[Result]


class Preview(Struct, frozen=True):
    market: str
    fill_gpus: int
    price: Decimal | None
    hold: Decimal
    worst_cost_per_hour: Decimal
    currency: str
    effective_tick: int
    cutoff_at: datetime


class Lease(Struct, frozen=True):
    id: str
    bid: str
    market: str
    node: str
    gpus: int
    gpu_indices: list[int]
    gpu_uuids: list[str]
    state: str
    price: Decimal | None
    awarded_at: datetime
    started_at: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    notice: str | None
    connect: dict[str, str]
    cost: Decimal
    fee_bps: int
    refunded: Decimal
    currency: str
    gpu_seconds: int
    version: int


class Notice(Struct, frozen=True):
    id: str
    lease: str
    bid: str
    market: str
    reason: str
    issued_at: datetime
    reclaim_at: datetime
    notice_seconds: int
    state: str
    tick: int
    price: Decimal | None
    limit: Decimal
    keep_price: Decimal | None


class Market(Struct, frozen=True):
    id: str
    kind: str
    gpu_model: str
    gpu_memory_gib: int
    gpus_per_node: int
    interconnect: str
    region: str
    tick_seconds: int
    price_increment: Decimal
    price_cap: Decimal
    notice_seconds: int
    settlement_seconds: int
    handicap_bps: int
    fee_bps: int
    provisioning_seconds: int
    stagger_share_bps: int | None
    refine_below_bids: int
    price_position_bps: int | None
    currency: str
    is_demo: bool
    status: str
    status_reason: str | None
    tick: int
    next_tick: datetime
    price: Decimal | None
    digest: str
    version: int  # as If-Match, where an operator changes it


class IdleGpus(Struct, frozen=True):
    reserve: int
    unfit: int
    fragmented: int


class Tick(Struct, frozen=True):
    market: str
    tick: int
    cleared_at: datetime
    price: Decimal | None
    low: Decimal | None
    high: Decimal | None
    entry_price: Decimal | None
    cleared_gpus: int
    offered_gpus: int
    demanded_gpus: int
    idle_gpus: IdleGpus
    bids: int
    offers: int
    started_gpus: int
    preempted_gpus: int
    not_fitted: int
    welfare_per_hour: Decimal
    welfare_bound_per_hour: Decimal
    digest: str
    previous_digest: str
    input_hash: str
    output_hash: str
    status: str


class Curve(Struct, frozen=True):
    """Cumulative GPUs by price, best first, at most 50 levels a side."""

    market: str
    tick: int
    demand: list[tuple[Decimal, int]]
    supply: list[tuple[Decimal, int]]


class Suggestion(Struct, frozen=True):
    label: str
    limit: Decimal
    interruption_probability: Decimal
    samples: int = 0  # hours that it is judged by; 0: not told


class Quote(Struct, frozen=True):
    market: str
    tick: int
    gpus: int
    min_gpus: int
    price_to_fill: Decimal | None
    available_gpus: int
    entry_price: Decimal | None
    clearing_price: Decimal | None
    currency: str
    suggested_limits: list[Suggestion]


class Balance(Struct, frozen=True):
    available: Decimal
    held: Decimal
    owed: Decimal
    earning: Decimal
    payable: Decimal
    currency: str


class Target(Struct, frozen=True):
    id: str
    kind: str
    market: str
    state: str
    reason: str | None
    gpus: int
    min_gpus: int
    limit_price_per_gpu_hour: Decimal
    gpu_seconds: int | None
    ends_at: datetime | None
    max_spend: Decimal | None
    spend_per_day: Decimal | None
    spend_cap_until_day_end: Decimal | None
    spent: Decimal
    delivered_gpu_seconds: int | None
    running_gpus: int
    bid: str | None
    bids: int
    currency: str
    key: str
    version: int
    created_at: datetime
    updated_at: datetime
