"""Commands: what may be asked of the engine. Accepted ones are journalled as they stand here.

Every id and every secret's hash is inside the command, so a replay of the journal needs nothing
else. `account` is the one that asks; None means the market itself (its clock, its operator's tools).
Shapes are checked here and by the wire structs; whether a command is admitted is `admission`'s.
"""

import msgspec
from msgspec import Struct

from auction.model import ApiKey, Colocate, Market, NodeHealth, OnPreempt, TimeInForce
from auction.units import Amount, Price


class Choice(Struct, frozen=True):
    """One market of a bid that takes its GPUs in any of several (X3)."""

    market: str
    limit: Price
    unconfirmed_max: Price | None = None


class PlaceBid(Struct, frozen=True, tag=True):
    """With `alternatives`, the first one is also `market` and `limit`."""

    bid: str
    account: str
    market: str
    gpus: int
    limit: Price
    min_gpus: int = 1
    colocate: Colocate = Colocate.NONE
    client_bid_id: str | None = None
    labels: dict[str, str] = {}
    time_in_force: TimeInForce = TimeInForce.GTC
    expires_at_us: int | None = None
    valid_until_tick: int | None = None
    max_run_seconds: int | None = None
    max_spend: Amount | None = None
    on_preempt: OnPreempt = OnPreempt.REQUEUE
    key: str | None = None  # that asks; None: the market itself, or a journal from before keys had limits
    unconfirmed_max: Price | None = None  # a limit above it must be confirmed; None: any is
    workload: bytes | None = None  # what its nodes are to run (workloads.py)
    alternatives: list[Choice] = []


class AmendBid(Struct, frozen=True, tag=True):
    """Change a bid that keeps running; None leaves a field as it is."""

    bid: str
    account: str
    limit: Price | None = None
    gpus: int | None = None
    min_gpus: int | None = None
    paused: bool | None = None
    expected_version: int | None = None
    expires_at_us: int | None = None
    max_run_seconds: int | None = None  # of leases that start later
    max_spend: Amount | None = None
    on_preempt: OnPreempt | None = None
    key: str | None = None
    unconfirmed_max: Price | None = None
    market: str | None = None  # whose limit changes, of a bid with alternatives


class CancelBid(Struct, frozen=True, tag=True):
    """Take a bid out of the book; with `release` its leases end now, otherwise they run on."""

    bid: str
    account: str
    release: bool = True
    expected_version: int | None = None


class RejectBid(Struct, frozen=True, tag=True):
    """Take a bid out on which a rule of ours fails (FAULTS.md F26); the engine's own, nobody asks for it."""

    bid: str


class CancelAfter(Struct, frozen=True, tag=True):
    """Dead man's switch: cancel all bids of the account unless it is set again in time; 0 switches it off.

    The time that a server is down counts.
    """

    account: str
    timeout_seconds: int
    release: bool = False


class ReleaseLease(Struct, frozen=True, tag=True):
    lease: str
    account: str


class AckNotice(Struct, frozen=True, tag=True):
    """The tenant has seen the notice; `ready` ends the lease and its bill now."""

    notice: str
    account: str
    ready: bool


class TestNotice(Struct, frozen=True, tag=True):
    """The tenant wants to be interrupted as if it had been outbid: a drill of its own handlers."""

    __test__ = False  # pytest, this is not yours

    lease: str
    account: str


class CreateNode(Struct, frozen=True, tag=True):
    node: str
    account: str
    market: str
    name: str
    gpus: int
    simulated: bool
    fabric: str | None = None


class AmendNode(Struct, frozen=True, tag=True):
    """Describe a node anew; None leaves a field as it is."""

    node: str
    account: str
    name: str | None = None
    gpus: int | None = None
    fabric: str | None = None
    expected_version: int | None = None


class RetireNode(Struct, frozen=True, tag=True):
    """Take a node out of the market for good."""

    node: str
    account: str
    expected_version: int | None = None


class EnrolNode(Struct, frozen=True, tag=True):
    """A node's agent reports for duty."""

    node: str
    account: str


class CordonNode(Struct, frozen=True, tag=True):
    """Stop (or allow again) new leases on a node; what runs goes on."""

    node: str
    account: str
    cordoned: bool
    expected_version: int


class ReportNode(Struct, frozen=True, tag=True):
    """The market's own watch tells how a node does, and when it was last heard of."""

    node: str
    health: NodeHealth
    last_heartbeat_us: int


class FenceGpus(Struct, frozen=True, tag=True):
    """A node's agent tells which of its GPUs may not be lent, all of them each time."""

    node: str
    account: str
    gpus: list[int]


class RecallNode(Struct, frozen=True, tag=True):
    """The owner takes a node back: its offers are withdrawn, its leases get their notice."""

    node: str
    account: str
    notice_seconds: int | None = None
    expected_version: int | None = None


class CreateOffer(Struct, frozen=True, tag=True):
    offer: str
    account: str
    node: str
    gpus: int
    reserve: Price
    available_from_us: int | None = None
    available_until_us: int | None = None
    notice_seconds: int | None = None


class AmendOffer(Struct, frozen=True, tag=True):
    offer: str
    account: str
    expected_version: int
    reserve: Price | None = None
    available_until_us: int | None = None


class WithdrawOffer(Struct, frozen=True, tag=True):
    offer: str
    account: str
    expected_version: int | None = None


class ReportLease(Struct, frozen=True, tag=True):
    """A node's agent tells what became of a lease: started, drained, stopped or failed."""

    lease: str
    account: str  # the node's owner
    state: str
    connect: dict[str, str] = {}


class CreateAccount(Struct, frozen=True, tag=True):
    account: str
    name: str
    roles: list[str]
    key: ApiKey | None = None


class AmendAccount(Struct, frozen=True, tag=True):
    """Change an account's name or roles; None leaves them as they are."""

    account: str
    name: str | None = None
    roles: list[str] | None = None
    expected_version: int | None = None


class SetAccountState(Struct, frozen=True, tag=True):
    account: str
    state: str  # open | frozen
    cancel_bids: bool = False
    release: bool = False  # and their leases end


class SetLimits(Struct, frozen=True, tag=True):
    """Replace what an account (`scope` is its id) or one of its keys may risk; None: no limit."""

    scope: str
    account: str
    max_price: Price | None = None
    max_open_notional: Amount | None = None
    spend_cap_per_day: Amount | None = None


class CreateKey(Struct, frozen=True, tag=True):
    key: ApiKey
    limits: SetLimits | None = None


class RevokeKey(Struct, frozen=True, tag=True):
    """Revoke a key, given as its row is stored."""

    key: ApiKey


class RotateKey(Struct, frozen=True, tag=True):
    """Give a key a new secret; the row is as it is then."""

    key: ApiKey


class StopKey(Struct, frozen=True, tag=True):
    """The kill switch: cancel what the key has placed, and let it place nothing more."""

    key: str
    account: str
    release: bool = False


class ResumeKey(Struct, frozen=True, tag=True):
    key: str
    account: str


class SetAffiliation(Struct, frozen=True, tag=True):
    """The operator declares that an account belongs with all others of this name; None: with nobody."""

    account: str
    affiliation: str | None


class Deposit(Struct, frozen=True, tag=True):
    deposit: str
    account: str
    amount: Amount
    reference: str = ""


class Adjust(Struct, frozen=True, tag=True):
    """The operator corrects a balance: a transfer against cash, with its reason."""

    adjustment: str
    account: str
    balance: str  # available | earning
    amount: Amount  # above zero to the account, below zero from it
    reason: str


class RequestPayout(Struct, frozen=True, tag=True):
    payout: str
    account: str
    amount: Amount


class ClosePayout(Struct, frozen=True, tag=True):
    """The operator has paid, or could not."""

    payout: str
    state: str  # paid | failed
    reference: str = ""


class CreateMarket(Struct, frozen=True, tag=True):
    market: Market


class SetMarketStatus(Struct, frozen=True, tag=True):
    market: str
    status: str
    reason: str | None = None


class AmendMarket(Struct, frozen=True, tag="SetMarketTiming"):  # as journals have always named it
    """Change the beat of a market and its promises; None leaves a field as it is.

    What the book is built from (prices, handicap) and the fee stay as they were agreed.
    """

    market: str
    tick_seconds: int | None = None
    notice_seconds: int | None = None
    settlement_seconds: int | None = None
    provisioning_seconds: int | None = None
    stagger_share_bps: int | None = None  # 0: hand-overs are not spread
    expected_version: int | None = None


class RouteBids(Struct, frozen=True, tag=True):
    """Before these markets clear together: send bids with alternatives to the market where they would win."""

    markets: list[str]


class ClearMarket(Struct, frozen=True, tag=True):
    """One tick of one market, at the entry's time."""

    market: str
    tick: int


class Sweep(Struct, frozen=True, tag=True):
    """Carry out what fell due between ticks: reclaims, hand-overs."""


Command = (
    PlaceBid
    | AmendBid
    | CancelBid
    | RejectBid
    | CancelAfter
    | ReleaseLease
    | AckNotice
    | TestNotice
    | CreateNode
    | AmendNode
    | RetireNode
    | EnrolNode
    | CordonNode
    | ReportNode
    | FenceGpus
    | RecallNode
    | CreateOffer
    | AmendOffer
    | WithdrawOffer
    | ReportLease
    | CreateAccount
    | AmendAccount
    | SetAccountState
    | CreateKey
    | RevokeKey
    | RotateKey
    | SetLimits
    | StopKey
    | ResumeKey
    | SetAffiliation
    | Deposit
    | Adjust
    | RequestPayout
    | ClosePayout
    | CreateMarket
    | SetMarketStatus
    | AmendMarket
    | RouteBids
    | ClearMarket
    | Sweep
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


class JournalEntry(Struct, frozen=True):
    """One accepted command with its place and time in the one total order."""

    seq: int
    at_us: int
    command: Command


def encode_command(command: Command) -> bytes:
    """Return the bytes that the journal keeps."""
    return _encoder.encode(command)


def decode_command(payload: bytes) -> Command:
    """Read a journalled command; raises msgspec.DecodeError on a flipped byte."""
    return _decoder.decode(payload)
