"""The things of the market, as the engine holds them and the projections store them.

One struct per table, one field per column, so that what is written is what is read back and the state hash
of a restarted engine equals that of the one that died. Prices are microusd per GPU-hour, amounts microusd,
`_us` microseconds and `_s` seconds since the epoch. States have their transition table beside them.
"""

from enum import StrEnum

from msgspec import Struct, field

from auction.money import FundsTold
from auction.units import Amount, Price


class MarketStatus(StrEnum):
    OPEN = "open"
    CANCEL_ONLY = "cancel_only"
    HALTED = "halted"


class NodeState(StrEnum):
    ENROLLING = "enrolling"
    ONLINE = "online"
    CORDONED = "cordoned"
    RETIRED = "retired"  # its owner took it out of the market for good


class NodeHealth(StrEnum):
    """What the heartbeats of a node's agent say; the server answers for a simulated node."""

    OK = "ok"
    DEGRADED = "degraded"  # late: what runs goes on unbilled, nothing new starts
    OFFLINE = "offline"  # lost: its leases have ended


class OfferStatus(StrEnum):
    LISTED = "listed"
    PARTLY_LEASED = "partly_leased"
    LEASED = "leased"
    WITHDRAWING = "withdrawing"
    WITHDRAWN = "withdrawn"


OFFER_LIVE = frozenset({OfferStatus.LISTED, OfferStatus.PARTLY_LEASED, OfferStatus.LEASED})


class Colocate(StrEnum):
    """Where a bid's GPUs must lie (X1)."""

    NONE = "none"
    NODE = "node"  # on one node
    FABRIC = "fabric"  # on one node, or on whole nodes of one interconnect domain


class TimeInForce(StrEnum):
    """How long a bid looks for GPUs. What it has won it keeps while it wins."""

    GTC = "gtc"  # until it is cancelled
    GTT = "gtt"  # until `expires_at_us`; then its leases end too
    IOC = "ioc"  # at the next tick only


class OnPreempt(StrEnum):
    """What a bid does about GPUs that it lost to a higher bid, its owner or a failed node."""

    REQUEUE = "requeue"  # bid for as many again
    CANCEL = "cancel"  # want that much less


class BidStatus(StrEnum):
    OPEN = "open"
    PARTIAL = "partial"
    FILLED = "filled"
    PREEMPTING = "preempting"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    REJECTED = "rejected"  # a rule of ours failed on it (F26)


BID_FINAL = frozenset({BidStatus.CANCELLED, BidStatus.EXHAUSTED, BidStatus.EXPIRED, BidStatus.REJECTED})


class LeaseState(StrEnum):
    PENDING = "pending"  # won, but the GPUs are still another tenant's
    STARTING = "starting"  # the node has been told
    RUNNING = "running"  # the node reported ready: the bill runs
    NOTICED = "noticed"  # under a preemption notice, still running and billed
    ENDED = "ended"


LEASE_TRANSITIONS: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.PENDING: frozenset({LeaseState.STARTING, LeaseState.ENDED}),
    LeaseState.STARTING: frozenset({LeaseState.RUNNING, LeaseState.ENDED}),
    LeaseState.RUNNING: frozenset({LeaseState.NOTICED, LeaseState.ENDED}),
    LeaseState.NOTICED: frozenset({LeaseState.RUNNING, LeaseState.ENDED}),
    LeaseState.ENDED: frozenset(),
}
LEASE_ON_NODE = frozenset({LeaseState.STARTING, LeaseState.RUNNING, LeaseState.NOTICED})
LEASE_BILLED = frozenset({LeaseState.RUNNING, LeaseState.NOTICED})


class EndReason(StrEnum):
    OUTBID = "outbid"
    OFFER_WITHDRAWN = "offer_withdrawn"
    NODE_LOST = "node_lost"
    FUNDS_EXHAUSTED = "funds_exhausted"
    RELEASED = "released"
    EXPIRED = "expired"  # its bid's time, or its own, is over
    MAX_SPEND = "max_spend"
    SPEND_CAP = "spend_cap"  # of the day, on its account or key
    MOVED = "moved"
    OPERATOR = "operator"
    TEST = "test"  # the tenant asked to be interrupted


class NoticeState(StrEnum):
    ISSUED = "issued"
    ACKNOWLEDGED = "acknowledged"
    WITHDRAWN = "withdrawn"
    DONE = "done"


NOTICE_TRANSITIONS: dict[NoticeState, frozenset[NoticeState]] = {
    NoticeState.ISSUED: frozenset({NoticeState.ACKNOWLEDGED, NoticeState.WITHDRAWN, NoticeState.DONE}),
    NoticeState.ACKNOWLEDGED: frozenset({NoticeState.WITHDRAWN, NoticeState.DONE}),
    NoticeState.WITHDRAWN: frozenset(),
    NoticeState.DONE: frozenset(),
}
NOTICE_LIVE = frozenset({NoticeState.ISSUED, NoticeState.ACKNOWLEDGED})


class Account(Struct):
    """Somebody who bids, offers or operates. `number` names its ledger accounts (ledger.py)."""

    id: str
    number: int
    name: str
    roles: list[str]
    state: str  # open | frozen
    created_at_us: int
    event_seq: int = 0  # last number given in this account's gapless event stream
    cancel_at_us: int | None = None  # dead man's switch: its bids are cancelled then
    cancel_releases: bool = False  # and their leases end too
    affiliation: str | None = None  # accounts with the same one count as one party of a market
    funds_told: FundsTold = FundsTold.NOTHING
    version: int = 1  # counts what an operator changed


class Limits(Struct):
    """What an account or one of its keys may risk; None: as much as the account has money for."""

    id: str  # the account's or the key's
    account: str
    max_price: Price | None = None  # of a bid's limit
    max_open_notional: Amount | None = None  # of limits x GPUs of its live bids, microusd per hour
    spend_cap_per_day: Amount | None = None  # charges of a UTC day, and what is held for more
    is_stopped: bool = False  # the kill switch
    day: int = 0  # days since the epoch: the one that `spent_today` is of
    spent_today: Amount = Amount(0)
    warned_spend: int = 0  # percent that the account was last told of
    warned_notional: int = 0
    version: int = 1


class ApiKey(Struct):
    """A key as stored: the SHA-256 of its secret, or its public half; never what its holder keeps."""

    id: str
    account: str
    public_id: str
    secret_sha256: bytes | None  # None: the key is a pair
    name: str
    scopes: list[str]
    created_at_us: int
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    previous_public_id: str | None = None  # before its rotation, good until then
    previous_secret_sha256: bytes | None = None
    previous_until_us: int | None = None
    allowed_networks: list[str] = field(default_factory=list)  # that it may be used from; none: any
    public_key: bytes | None = None  # ed25519
    previous_public_key: bytes | None = None


class Market(Struct):
    """An instrument and the settings of its auction, with the head of its tick chain."""

    id: str
    kind: str  # gpu | model
    gpu_model: str
    gpu_memory_gib: int
    gpus_per_node: int
    interconnect: str
    region: str
    tick_seconds: int
    price_increment: int
    price_cap: Price
    notice_seconds: int
    settlement_seconds: int  # charges are posted at least this often
    handicap_bps: int
    fee_bps: int
    is_demo: bool
    created_at_us: int
    refine_below_bids: int = 200  # X7: with fewer live bids the market is cleared more thoroughly; 0 = never
    stagger_share_bps: int | None = None  # of its GPUs handed over in one notice length at most (R8)
    provisioning_seconds: int = 600  # what a node may take to start a lease
    price_position_bps: int | None = None  # X8: where the price lies between low and high; None: R6
    status: MarketStatus = MarketStatus.OPEN
    status_reason: str | None = None
    tick: int = 0  # the last tick that was cleared
    next_tick_at_us: int = 0
    price: Price | None = None  # of the last tick that traded
    digest: str = ""  # of the last tick, hex; the seed of the next one
    input_hash: str = ""  # of the commands since that tick, chained
    version: int = 1  # counts what an operator changed, not the ticks


class Node(Struct):
    """A machine with GPUs 0..gpus-1."""

    id: str
    account: str
    market: str
    name: str
    gpus: int
    simulated: bool
    state: NodeState
    created_at_us: int
    fabric: str | None = None  # the interconnect domain that it shares with other nodes of its owner
    health: NodeHealth = NodeHealth.OK
    alive_until_us: int | None = None  # while not ok: its last good heartbeat, where the bills stop
    fenced: list[int] = field(default_factory=list)  # GPUs that did not come back clean
    version: int = 1


class Offer(Struct):
    """An owner's standing instruction: lend up to `gpus` of a node at no less than `reserve`."""

    id: str
    account: str
    node: str
    market: str
    gpus: int
    reserve: Price  # what the owner must net
    gross_reserve: Price  # what the auction sees: with the operator's fee (R1)
    available_from_us: int
    available_until_us: int | None
    notice_seconds: int
    status: OfferStatus
    seq: int  # arrival among all offers: breaks ties between equal reserves
    created_at_us: int
    updated_at_us: int
    version: int = 1


class Alternative(Struct, frozen=True):
    """A market that a bid would take its GPUs in, at most at this limit, and its place in line there (R4)."""

    market: str
    limit: Price
    arrival_tick: int
    arrival_hash: int


class Bid(Struct):
    """A standing instruction: up to `gpus` GPUs while the price is at most `limit`.

    One that names alternatives (X3) is in one market at a time; `market`, `limit` and its arrival are those
    of that market. It changes them between ticks, while it has no lease (routing.py).
    """

    id: str
    account: str
    market: str
    gpus: int
    limit: Price
    min_gpus: int
    status: BidStatus
    seq: int  # arrival among all bids
    arrival_tick: int
    arrival_hash: int
    created_at_us: int
    updated_at_us: int
    colocate: Colocate = Colocate.NONE
    time_in_force: TimeInForce = TimeInForce.GTC
    expires_at_us: int | None = None
    valid_until_tick: int | None = None  # the last tick at which it may win more
    max_run_seconds: int | None = None  # of each of its leases
    max_spend: Amount | None = None
    on_preempt: OnPreempt = OnPreempt.REQUEUE
    client_bid_id: str | None = None
    key: str | None = None  # that placed it: its limits bind it
    labels: dict[str, str] = field(default_factory=dict)
    workload: str | None = None  # digest of what its nodes are to run (workloads.py)
    filled_gpus: int = 0  # on nodes now: starting, running or noticed
    awarded_gpus: int = 0  # the fill of the last tick
    held: Amount = Amount(0)
    spent: Amount = Amount(0)  # settled charges
    is_paused: bool = False  # takes nothing new; what runs goes on
    is_newcomer: bool = False  # limit lowered while running: ranks as a newcomer at the next tick (R3)
    reclaimed_gpus: int = 0  # lost to the owner since the last tick: keeps incumbent rank once (R3)
    has_lapsed: bool = False  # its last tick is over: it keeps what it has and wins nothing more
    awaits_outcome: bool = True  # placed or changed since a tick last spoke of it
    # Why not (more of it) was filled: outbid | protected | no_fit | engine_error.
    reason_code: str | None = None
    reason_price: Price | None = None
    reason_needed: int | None = None
    reason_usable: int | None = None
    version: int = 1
    alternatives: list[Alternative] = field(default_factory=list)  # none: `market` alone

    @property
    def markets(self) -> list[str]:
        """The markets that it names."""
        return [one.market for one in self.alternatives] or [self.market]

    @property
    def top_limit(self) -> Price:
        """The most it may ever pay: what limits of accounts and keys look at."""
        return max([self.limit, *(one.limit for one in self.alternatives)])

    @property
    def asked_gpus(self) -> int:
        """The GPUs that it asks the next tick for."""
        return 0 if self.status in BID_FINAL else self.filled_gpus if self.is_paused else self.gpus

    @property
    def asks_colocated(self) -> bool:
        """Whether they must lie together: what is left of a paused gang that lost some cannot any more."""
        return self.colocate is not Colocate.NONE and self.asked_gpus == self.gpus


class Lease(Struct):
    """The right to use given GPUs of one node from start to end, while its bid wins."""

    id: str
    bid: str
    account: str
    owner: str
    market: str
    node: str
    offer: str
    gpu_count: int
    gpus: list[int]  # indices on the node; empty while pending
    state: LeaseState
    awarded_at_us: int
    awarded_tick: int
    started_at_us: int | None = None
    ended_at_us: int | None = None
    end_reason: EndReason | None = None
    notice: str | None = None  # the live notice, or the one that ended it
    notice_price: Price | None = None  # what it pays under notice: the price it last won at (R8)
    metered_to_s: int | None = None  # end of the last usage row
    carry: int = 0  # remainder of the metering, 0..3599
    metered: Amount = Amount(0)  # of all usage rows
    settled: Amount = Amount(0)  # of all posted charges
    refunded: Amount = Amount(0)  # of what it settled, for a promise that was broken
    settled_to_s: int | None = None
    gpu_seconds: int = 0
    drained_at_us: int | None = None
    start_by_us: int | None = None  # while starting: the node loses it then
    ends_at_us: int | None = None  # by its bid's max_run_seconds
    connect: dict[str, str] = field(default_factory=dict)
    version: int = 1


class Notice(Struct):
    """A durable preemption notice: the GPUs pass on at `reclaim_at_us`, not before."""

    id: str
    lease: str
    bid: str
    account: str
    market: str
    reason: EndReason
    state: NoticeState
    issued_at_us: int
    reclaim_at_us: int
    tick: int
    price: Price | None  # the price that was met
    limit: Price
    keep_price: Price | None  # the limit that would have kept it
    closed_at_us: int | None = None


class Tick(Struct):
    """One market's published result of one tick (RULES.md R10)."""

    market: str
    tick: int
    cleared_at_us: int
    price: Price | None
    low: Price | None
    high: Price | None
    entry_price: Price | None
    cleared_gpus: int
    offered_gpus: int
    demanded_gpus: int
    bids: int
    offers: int
    started_gpus: int
    preempted_gpus: int
    not_fitted: int
    input_hash: str
    output_hash: str
    previous_digest: str
    digest: str
    journal_seq: int
    idle_reserve_gpus: int = 0  # unsold because the reserve is above every limit left
    idle_unfit_gpus: int = 0  # unsold at the price: no bid left that fits
    idle_fragmented_gpus: int = 0  # unsold below the price: too scattered for the gangs that want them (X1)
    welfare: Amount = Amount(0)  # sum of the winners' limits less the reserves used, microusd per hour
    welfare_bound: Amount = Amount(0)  # the most it could be if every bid were divisible (LP)


class Curve(Struct, frozen=True):
    """Cumulative GPUs by price: demand from the highest limit down, supply from the lowest reserve up."""

    market: str
    tick: int
    demand: list[tuple[Price, int]]
    supply: list[tuple[Price, int]]


class Event(Struct, frozen=True):
    """Something that was committed, as the sockets, the feed and the webhooks tell it."""

    account: str | None  # None: public
    account_seq: int
    kind: str  # e.g. lease.started
    at_us: int
    market: str | None
    tick: int | None
    body: bytes  # msgpack of the struct named by the kind's first word, as it was then
