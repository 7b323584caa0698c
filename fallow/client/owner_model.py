"""What the market tells an owner, and any account of its keys, webhooks and bills.

Field for field the server's views with money as Decimal and time as datetime; a test compares the two. A
field that a newer server adds is ignored.
"""

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from fallow.client.model import Lease, Notice


class Reliability(Struct, frozen=True):
    """Of the leases that a node was given in the last 30 days."""

    started: int
    failed_to_start: int
    lost: int


class Node(Struct, frozen=True):
    id: str
    name: str
    market: str
    gpus: int
    fabric: str | None
    simulated: bool
    state: str
    health: str
    alive_until: datetime | None
    fenced_gpus: list[int]
    version: int
    created_at: datetime
    reliability_30d: Reliability | None = None


class Offer(Struct, frozen=True):
    id: str
    node: str
    market: str
    gpus: int
    reserve_price_per_gpu_hour: Decimal
    gross_reserve_price_per_gpu_hour: Decimal
    available_from: datetime
    available_until: datetime | None
    notice_seconds: int
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


class Recall(Struct, frozen=True):
    """The leases that a recall ends, and the notices that say when."""

    node: Node
    leases: list[Lease]
    notices: list[Notice]


class Term(Struct, frozen=True):
    name: str
    per_gpu_hour: Decimal
    working: str


class Cost(Struct, frozen=True):
    terms: list[Term]
    net_per_gpu_hour: Decimal
    fee_per_gpu_hour: Decimal
    gross_per_gpu_hour: Decimal


class ShutDown(Struct, frozen=True):
    """Ages in months at which the price first fails to cover a cost."""

    floor: int | None
    full_cost_straight_line: int | None
    full_cost_market_decay: int | None


class IdleSeconds(Struct, frozen=True):
    """GPU-seconds on offer that nobody paid for, by cause."""

    below_reserve: int
    no_trade: int
    other: int


class Against(Struct, frozen=True):
    """The costs of the same hours, and what was left over them."""

    floor: Decimal
    depreciation_straight_line: Decimal
    depreciation_market_decay: Decimal
    full_cost_straight_line: Decimal
    full_cost_market_decay: Decimal
    margin_over_floor: Decimal
    margin_over_full_cost_straight_line: Decimal
    margin_over_full_cost_market_decay: Decimal


class OwnerGroup(Struct, frozen=True):
    """What a day, a node, or both offered, leased and earned."""

    day: str | None
    node: str | None
    offered_gpu_seconds: int
    leased_gpu_seconds: int
    idle_gpu_seconds: IdleSeconds
    revenue: Decimal
    fee: Decimal
    net: Decimal
    net_per_leased_gpu_hour: Decimal | None
    net_per_offered_gpu_hour: Decimal | None
    against: Against | None


class OwnerSummary(Struct, frozen=True, rename={"from_time": "from", "to_time": "to"}):
    """`totals` is of the whole window; `data` of its groups."""

    from_time: datetime
    to_time: datetime
    currency: str
    totals: OwnerGroup
    short_run_floor: Cost | None
    shut_down_age_months: ShutDown | None
    data: list[OwnerGroup]
    next_cursor: str | None


class Key(Struct, frozen=True):
    """`secret` is there in the answer that made it, and never again."""

    id: str
    public_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    previous_valid_until: datetime | None
    allowed_networks: list[str]
    type: str = "secret"  # or ed25519: requests are signed
    public_key: str | None = None
    secret: str | None = None


class Webhook(Struct, frozen=True):
    """`secret` is there in the answer that made it, and never again."""

    id: str
    url: str
    types: list[str]
    description: str
    state: str
    reason: str | None
    consecutive_failures: int
    previous_secret_until: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    secret: str | None = None


class Delivery(Struct, frozen=True):
    id: str
    event: str
    type: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    deadline_at: datetime
    at: datetime


class Replay(Struct, frozen=True):
    """`next_cursor` is None when the whole time was looked at."""

    scheduled: int
    next_cursor: str | None


class Candle(Struct, frozen=True):
    """Prices of the ticks in an interval; GPUs are means over its ticks."""

    start_at: datetime
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    ticks: int
    cleared_gpus: int
    offered_gpus: int
    preempted_gpus: int
    currency: str


class Entry(Struct, frozen=True):
    """One side of a transfer, signed, with the balance of its ledger account after it."""

    id: str
    transfer: str
    code: str
    ledger_account: str
    amount: Decimal
    balance: Decimal
    currency: str
    reference: str
    interval_end: datetime | None
    created_at: datetime


class Usage(Struct, frozen=True):
    group: str
    gpu_seconds: int
    amount: Decimal
    currency: str


class StatementHead(Struct, frozen=True, rename={"from_": "from"}):
    id: str
    state: str
    from_: datetime
    to: datetime


class StatementLine(Struct, frozen=True):
    id: str
    kind: str
    market: str | None
    transfers: int
    amount: Decimal
    transfers_url: str


class Pocket(Struct, frozen=True):
    """opening + lines = closing, to the microdollar."""

    name: str
    opening: Decimal
    lines: list[StatementLine]
    closing: Decimal


class Statement(Struct, frozen=True, rename={"from_": "from"}):
    """A month in UTC, by the time of booking."""

    id: str
    account: str
    state: str
    from_: datetime
    to: datetime
    currency: str
    pockets: list[Pocket]
