"""Reads for the API: committed rows only, one account's at a time, pages by key and never by offset.

Every method that touches an account's rows takes the account first and puts it into its WHERE, so
what belongs to another account is simply not there. Must not decide what a row looks like outside.
Invariants: bounded pages, newest first; a database that is away is `Unavailable`, never a driver error.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import asyncpg
import msgspec
from msgspec import Struct

from auction.commands import JournalEntry, decode_command
from auction.errors import Unavailable
from auction.ledger import CODES_PER_ACCOUNT, CUSTOMER_CODES
from auction.model import Account, ApiKey, Bid, Curve, Event, Lease, Market, Node, Notice, Offer, Tick
from auction.money import Payout
from auction.state import Balance
from auction.units import Amount, Price
from sql import query
from sql.audit import Finding, audit
from sql.rows import TABLES, decode_rows, select_columns
from sql.scope import AUDITOR, Pool
from sql.store import CONNECTION_ERRORS, SHARD_ID

READ_SECONDS_MAX = 5.0
INT64_MAX = (1 << 63) - 1

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

Key = tuple[int, str]  # microseconds and id: where a page ended
NEWEST: Key = (INT64_MAX, "")
NEWEST_ENTRY = 1 << 62

_MARKET_HEAD = """m.price AS head_price, m.tick AS head_tick, m.next_tick_at_us AS head_next_tick_at_us,
    m.fee_bps AS head_fee_bps"""
_LIVE_LEASES = """ARRAY(SELECT l.id FROM leases l WHERE l.bid = b.id AND l.state <> 'ended'
    ORDER BY l.awarded_at_us, l.id) AS live_leases"""
_BIDS = f"""SELECT {select_columns(Bid, "b.")}, {_MARKET_HEAD}, {_LIVE_LEASES}
    FROM bids b JOIN markets m ON m.id = b.market"""
_LEASES = f"""SELECT {select_columns(Lease, "l.")}, {_MARKET_HEAD}
    FROM leases l JOIN markets m ON m.id = l.market"""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a bid's or lease's market stands."""

    price: Price | None
    tick: int
    next_tick_at_us: int
    fee_bps: int


@dataclass(frozen=True, slots=True)
class BidRow:
    bid: Bid
    head: Head
    leases: list[str]  # live ones


@dataclass(frozen=True, slots=True)
class LeaseRow:
    lease: Lease
    head: Head


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One leg of a transfer. `position` orders all legs; `amount` is signed."""

    position: int
    transfer: int
    code: str
    ledger_code: int
    amount: int
    balance: int
    reference: str
    interval_end_s: int
    at_us: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    group: str
    gpu_seconds: int
    amount: int


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """One page; `last` is the last row's key when more follow."""

    rows: list[T]
    last: T | None

    @classmethod
    def of(cls, rows: list[T], limit: int) -> "Slice[T]":
        """Cut the row too many, which was read to learn whether more follow."""
        return cls(rows[:limit], rows[limit - 1] if len(rows) > limit else None)


class Reader:
    """All reads of the API, over one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # -- public ------------------------------------------------------------------------------------

    async def markets(self) -> list[Market]:
        return await self._select(Market, "ORDER BY id")

    async def market(self, market: str) -> Market | None:
        return _first(await self._select(Market, "WHERE id = $1", market))

    async def tick(self, market: str, tick: int | None) -> Tick | None:
        """Return one tick's result, the newest for None."""
        condition = "WHERE market = $1 AND tick <= $2 AND ($3 OR tick = $2) ORDER BY tick DESC LIMIT 1"
        return _first(
            await self._select(Tick, condition, market, INT64_MAX if tick is None else tick, tick is None)
        )

    async def ticks(
        self, market: str, *, first: int, last: int, from_us: int, to_us: int, limit: int
    ) -> Slice[Tick]:
        """Return ticks `first`..`last` that were cleared in [from_us, to_us], newest first."""
        condition = """WHERE market = $1 AND tick BETWEEN $2 AND $3
            AND cleared_at_us BETWEEN $4 AND $5 ORDER BY tick DESC LIMIT $6"""
        rows = await self._select(Tick, condition, market, first, last, from_us, to_us, limit + 1)
        return Slice.of(rows, limit)

    async def ticks_onward(
        self, market: str, *, first: int, last: int, from_us: int, to_us: int, limit: int
    ) -> list[Tick]:
        """Return the same as `ticks`, oldest first."""
        condition = """WHERE market = $1 AND tick BETWEEN $2 AND $3
            AND cleared_at_us BETWEEN $4 AND $5 ORDER BY tick LIMIT $6"""
        return await self._select(Tick, condition, market, first, last, from_us, to_us, limit)

    async def curve(self, market: str, tick: int) -> Curve | None:
        """Return what a tick cleared; None for none, or one too long ago."""
        rows = await self._fetch(
            "SELECT demand, supply FROM curves WHERE market = $1 AND tick = $2", market, tick
        )
        sides = [[tuple(step) for step in msgspec.json.decode(side)] for row in rows for side in row]
        return Curve(market, tick, *sides) if sides else None

    # -- buyers ------------------------------------------------------------------------------------

    async def bid(self, account: str, bid: str) -> BidRow | None:
        return _first(await self._bids("WHERE b.account = $1 AND b.id = $2", account, bid))

    async def bids_named(self, account: str, bids: Sequence[str]) -> list[BidRow]:
        """Return these bids of the account, newest first."""
        return await self._bids("WHERE b.account = $1 AND b.id = ANY($2) ORDER BY b.seq DESC", account, bids)

    async def bid_by_client_id(self, account: str, client_bid_id: str) -> BidRow | None:
        return _first(
            await self._bids("WHERE b.account = $1 AND b.client_bid_id = $2", account, client_bid_id)
        )

    async def bids(
        self, account: str, *, market: str | None, status: str | None, before_seq: int, limit: int
    ) -> Slice[BidRow]:
        condition = """WHERE b.account = $1 AND b.seq < $2 AND ($3::text IS NULL OR b.market = $3)
            AND ($4::text IS NULL OR b.status = $4) ORDER BY b.seq DESC LIMIT $5"""
        return Slice.of(await self._bids(condition, account, before_seq, market, status, limit + 1), limit)

    async def bid_events(self, account: str, bid: str, *, before_seq: int, limit: int) -> Slice[Event]:
        """Return what happened to a bid, its leases and its notices, newest first."""
        # Ids are random, so their bytes inside a body can only be a mention of that very object.
        condition = """WHERE account = $1 AND account_seq < $2 AND kind ~ '^(bid|lease|notice)[.]'
            AND position(convert_to($3, 'UTF8') IN body) > 0 ORDER BY account_seq DESC LIMIT $4"""
        return Slice.of(await self._select(Event, condition, account, before_seq, bid, limit + 1), limit)

    async def lease(self, account: str, lease: str) -> LeaseRow | None:
        return _first(await self._leases("WHERE l.account = $1 AND l.id = $2", account, lease))

    async def leases(
        self,
        account: str,
        *,
        bid: str | None,
        market: str | None,
        state: str | None,
        before: Key,
        limit: int,
    ) -> Slice[LeaseRow]:
        condition = """WHERE l.account = $1 AND (l.awarded_at_us, l.id) < ($2, $3)
            AND ($4::text IS NULL OR l.bid = $4) AND ($5::text IS NULL OR l.market = $5)
            AND ($6::text IS NULL OR l.state = $6)
            ORDER BY l.awarded_at_us DESC, l.id DESC LIMIT $7"""
        return Slice.of(await self._leases(condition, account, *before, bid, market, state, limit + 1), limit)

    async def notice(self, account: str, notice: str) -> Notice | None:
        return _first(await self._select(Notice, "WHERE account = $1 AND id = $2", account, notice))

    async def notices(self, account: str, *, state: str | None, before: Key, limit: int) -> Slice[Notice]:
        condition = """WHERE account = $1 AND (issued_at_us, id) < ($2, $3)
            AND ($4::text IS NULL OR state = $4) ORDER BY issued_at_us DESC, id DESC LIMIT $5"""
        return Slice.of(await self._select(Notice, condition, account, *before, state, limit + 1), limit)

    async def notices_after(self, account: str, after: Key, limit: int) -> list[Notice]:
        """Return what was issued after `after`, oldest first."""
        condition = """WHERE account = $1 AND (issued_at_us, id) > ($2, $3)
            ORDER BY issued_at_us, id LIMIT $4"""
        return await self._select(Notice, condition, account, *after, limit)

    # -- owners ------------------------------------------------------------------------------------

    async def node(self, account: str, node: str) -> Node | None:
        return _first(await self._select(Node, "WHERE account = $1 AND id = $2", account, node))

    async def node_reliability(self, node: str, since_us: int) -> dict[str, int]:
        """Count what became of the leases that a node was given since then, by what went wrong."""
        return dict((await self._fetch(query("node_reliability"), node, since_us))[0])

    async def nodes(self, account: str, *, before: Key, limit: int) -> Slice[Node]:
        condition = """WHERE account = $1 AND (created_at_us, id) < ($2, $3) AND state <> 'retired'
            ORDER BY created_at_us DESC, id DESC LIMIT $4"""
        return Slice.of(await self._select(Node, condition, account, *before, limit + 1), limit)

    async def offer(self, account: str, offer: str) -> Offer | None:
        return _first(await self._select(Offer, "WHERE account = $1 AND id = $2", account, offer))

    async def offers(
        self, account: str, *, node: str | None, status: str | None, before_seq: int, limit: int
    ) -> Slice[Offer]:
        condition = """WHERE account = $1 AND seq < $2 AND ($3::text IS NULL OR node = $3)
            AND ($4::text IS NULL OR status = $4) ORDER BY seq DESC LIMIT $5"""
        rows = await self._select(Offer, condition, account, before_seq, node, status, limit + 1)
        return Slice.of(rows, limit)

    async def desired(self, account: str, node: str | None) -> tuple[list[Node], list[Lease], list[Notice]]:
        """Return an owner's nodes, the leases on them, and the live notices of those.

        Three statements, no snapshot: an agent acts on the newest of each and asks again on a change.
        """
        nodes = await self._select(
            Node,
            "WHERE account = $1 AND ($2::text IS NULL OR id = $2) AND state <> 'retired' ORDER BY id",
            account,
            node,
        )
        ids = [found.id for found in nodes]
        leases = await self._select(
            Lease,
            "WHERE node = ANY($1::text[]) AND state IN ('starting', 'running', 'noticed') ORDER BY id",
            ids,
        )
        notices = await self._select(
            Notice,
            "WHERE lease = ANY($1::text[]) AND closed_at_us IS NULL ORDER BY id",
            [lease.id for lease in leases],
        )
        return nodes, leases, notices

    async def workloads(self, bids: Sequence[str]) -> dict[str, bytes]:
        """Return what the nodes of these bids are to run, by bid; an owner needs everybody's scope for it."""
        return {row["id"]: row["content"] for row in await self._fetch(query("workloads"), bids)}

    async def owned_lease(self, account: str, lease: str) -> Lease | None:
        """Return a lease on one of this owner's nodes."""
        return _first(await self._select(Lease, "WHERE owner = $1 AND id = $2", account, lease))

    # -- accounts and money ------------------------------------------------------------------------

    async def key_by_public_id(self, public_id: str) -> ApiKey | None:
        """Return a key whoever owns it: this is what says who somebody is."""
        condition = "WHERE public_id = $1 OR previous_public_id = $1"
        return _first(await self._select(ApiKey, condition, public_id))

    async def key(self, account: str, key: str) -> ApiKey | None:
        return _first(await self._select(ApiKey, "WHERE account = $1 AND id = $2", account, key))

    async def keys(self, account: str, *, before: Key, limit: int) -> Slice[ApiKey]:
        condition = """WHERE account = $1 AND (created_at_us, id) < ($2, $3)
            ORDER BY created_at_us DESC, id DESC LIMIT $4"""
        return Slice.of(await self._select(ApiKey, condition, account, *before, limit + 1), limit)

    async def account(self, account: str) -> Account | None:
        return _first(await self._select(Account, "WHERE id = $1", account))

    async def accounts(self, *, before: Key, limit: int) -> Slice[Account]:
        """Return every account: for operators only."""
        condition = """WHERE (created_at_us, id) < ($1, $2)
            ORDER BY created_at_us DESC, id DESC LIMIT $3"""
        return Slice.of(await self._select(Account, condition, *before, limit + 1), limit)

    async def balance(self, account: str) -> tuple[Balance, Amount]:
        """Return the account's balances and what is metered but not posted yet, in one snapshot."""
        records = await self._fetch(query("balance"), account)
        by_code = {record["code"]: Amount(record["balance"]) for record in records}
        owed = Amount(records[0]["owed"]) if records else Amount(0)
        return Balance(*(by_code.get(code, Amount(0)) for code in CUSTOMER_CODES)), owed

    async def entries(
        self, account: str, *, before: int, balances: Sequence[int] | None, limit: int
    ) -> tuple[list[EntryRow], list[int] | None]:
        """Return ledger lines before a position, newest first, with the balance after each.

        `balances` are those of the ledger accounts at that position; None reads them as they are now,
        in the same snapshot. The second value is the same at the end of this page, None on the last.
        """
        records = await self._fetch(query("ledger_entries"), account, before, limit + 1)
        if not records:
            return [], None
        running = list(balances or records[0]["balances_now"])
        rows: list[EntryRow] = []
        for record in records[:limit]:
            code = record["ledger_account"] % CODES_PER_ACCOUNT
            rows.append(
                EntryRow(
                    position=record["entry"],
                    transfer=record["id"],
                    code=record["code"],
                    ledger_code=code,
                    amount=record["amount"],
                    balance=running[code],
                    reference=record["reference"],
                    interval_end_s=record["interval_end_s"],
                    at_us=record["at_us"],
                )
            )
            running[code] -= record["amount"]
        return rows, running if len(records) > limit else None

    async def usage(
        self, account: str, *, group_by: str, before: str | None, limit: int, from_s: int, to_s: int
    ) -> Slice[UsageRow]:
        """Return metered GPU time and its cost by lease, bid, market, UTC day or hour, last key first."""
        arguments = (account, group_by, before, limit + 1, from_s, to_s)
        records = await self._fetch(query("usage_groups"), *arguments)
        rows = [UsageRow(r["group_key"], int(r["gpu_seconds"]), int(r["amount"])) for r in records]
        return Slice.of(rows, limit)

    async def events_after(self, account: str, after_seq: int, limit: int) -> list[Event]:
        """Return an account's stored events after a sequence number, in order."""
        condition = "WHERE account = $1 AND account_seq > $2 ORDER BY account_seq LIMIT $3"
        return await self._select(Event, condition, account, after_seq, limit)

    async def payouts(self, account: str | None, *, before: Key, limit: int) -> Slice[Payout]:
        """Return an account's payouts, or (None) everybody's that are still to be paid."""
        condition = """WHERE ($1::text IS NULL AND state = 'created' OR account = $1)
            AND (created_at_us, id) < ($2, $3) ORDER BY created_at_us DESC, id DESC LIMIT $4"""
        return Slice.of(await self._select(Payout, condition, account, *before, limit + 1), limit)

    async def payout(self, payout: str) -> Payout | None:
        return _first(await self._select(Payout, "WHERE id = $1", payout))

    async def journal(self, after_seq: int, limit: int) -> list[JournalEntry]:
        """Return accepted commands in order; raises msgspec.DecodeError on one that cannot be read."""
        rows = await self._fetch(query("read_journal"), SHARD_ID, after_seq, limit)
        return [JournalEntry(row["seq"], row["at_us"], decode_command(row["payload"])) for row in rows]

    # -- how ---------------------------------------------------------------------------------------

    async def reconcile(self) -> list[Finding]:
        """Run every check of the audit over committed rows; raises Unavailable and TimeoutError."""
        try:
            async with self._pool.fixed(AUDITOR).acquire() as connection:
                return await audit(connection)
        except CONNECTION_ERRORS as error:
            raise Unavailable("storage_unavailable", "the database does not answer") from error

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a read of another file of this floor; raises Unavailable when the database is away."""
        return await self._fetch(statement, *arguments)

    async def _bids(self, condition: str, *arguments: Any) -> list[BidRow]:
        records = await self._fetch(f"{_BIDS} {condition}", *arguments)
        bids = decode_rows(Bid, records)
        return [
            BidRow(bid, _head(record), record["live_leases"])
            for bid, record in zip(bids, records, strict=True)
        ]

    async def _leases(self, condition: str, *arguments: Any) -> list[LeaseRow]:
        records = await self._fetch(f"{_LEASES} {condition}", *arguments)
        leases = decode_rows(Lease, records)
        return [LeaseRow(lease, _head(record)) for lease, record in zip(leases, records, strict=True)]

    async def _select(self, struct: type[S], condition: str, *arguments: Any) -> list[S]:
        statement = f"SELECT {select_columns(struct)} FROM {TABLES[struct].name} {condition}"
        return decode_rows(struct, await self._fetch(statement, *arguments))

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                return await self._pool.fetch(statement, *arguments)
        except (*CONNECTION_ERRORS, asyncpg.OperatorInterventionError) as error:
            raise Unavailable("storage_unavailable", "the database does not answer") from error


def _first(rows: list[T]) -> T | None:
    return rows[0] if rows else None


def _head(record: asyncpg.Record) -> Head:
    return Head(*(record[f"head_{name}"] for name in ("price", "tick", "next_tick_at_us", "fee_bps")))
