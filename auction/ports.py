"""The ports: what the engine needs of the world outside, and nothing more.

`Store` is the durable truth (PostgreSQL in sql/store.py, dictionaries in memory.py; one conformance
suite runs over both). One call to `commit` is one transaction: all of it happened, or nothing did.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from auction.commands import JournalEntry
from auction.ledger import Transfer
from auction.model import Account, ApiKey, Bid, Curve, Event, Lease, Limits, Market, Node, Notice, Offer, Tick
from auction.money import Payout, Usage
from auction.units import Price


class Answer(Struct, frozen=True):
    """A reply as it was given, kept under its idempotency key and repeated byte for byte."""

    status: int
    content_type: str
    body: bytes


class KeyedRequest(Struct, frozen=True):
    """An idempotency key: per account, with the hash of the request that used it."""

    account: str
    key: str
    request_hash: bytes


class StoredAnswer(Struct, frozen=True):
    request: KeyedRequest
    answer: Answer
    created_at_us: int


class Changes(Struct):
    """All that one transaction writes. Entities are whole: the row is replaced by what is here."""

    journal: list[JournalEntry] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    keys: dict[str, ApiKey] = field(default_factory=dict)
    markets: dict[str, Market] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    workloads: dict[tuple[str, str], bytes] = field(default_factory=dict)  # content by (account, digest)
    bids: dict[str, Bid] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    notices: dict[str, Notice] = field(default_factory=dict)
    payouts: dict[str, Payout] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)  # that those ticks cleared
    events: list[Event] = field(default_factory=list)
    answers: list[StoredAnswer] = field(default_factory=list)


class LiveState(Struct):
    """What a starting engine reads: every row that can still change, and the heads of the counters."""

    seq: int
    accounts: list[Account]
    markets: list[Market]
    nodes: list[Node]
    offers: list[Offer]  # not withdrawn, or with a lease that is not ended
    bids: list[Bid]  # not final, or with a lease that is not ended
    leases: list[Lease]  # not ended
    notices: list[Notice]  # of those leases, live
    balances: list[tuple[int, int]]  # (ledger account, credits - debits), sorted
    prices: dict[str, list[tuple[int, Price]]]  # by market: (from_s, price), enough to meter every lease
    next_bid_seq: int
    next_offer_seq: int
    payouts: list[Payout] = field(default_factory=list)  # created, not closed
    limits: list[Limits] = field(default_factory=list)
    now_us: int = 0  # of the last entry: time does not go back behind it


class Store(Protocol):
    """The durable truth of one shard. Raises Unavailable when it cannot be reached."""

    async def acquire(self) -> None:
        """Take the shard: a new epoch fences every earlier engine."""
        ...

    async def load(self) -> LiveState:
        """Read the state of the last commit."""
        ...

    def commit(self, changes: Changes) -> Awaitable[None]:
        """Encode `changes` now, and return what writes them in one transaction. No other is under way.

        Raises Fenced when another engine holds the shard, Unavailable when nothing was written.
        An ambiguous commit is resolved here by looking, never by repeating.
        """
        ...

    async def find_answers(self, requests: Sequence[KeyedRequest]) -> Mapping[tuple[str, str], StoredAnswer]:
        """Return the stored answers of these (account, key) pairs."""
        ...

    async def find_client_bids(self, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Bid]:
        """Return the bids, live or final, that carry these (account, client_bid_id) pairs."""
        ...

    async def read_journal(self, after_seq: int, limit: int) -> list[JournalEntry]:
        """Return at most `limit` entries after `after_seq`, in order."""
        ...

    async def save_snapshot(self, seq: int, state_hash: str, payload: bytes) -> None:
        """Keep the whole state as of `seq`, for the audit."""
        ...

    async def load_snapshot(self) -> tuple[int, str, bytes] | None:
        """Return the newest snapshot, or None."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...
