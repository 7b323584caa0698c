"""The store port on PostgreSQL: one connection that writes, one transaction per batch or tick.

A second connection looks up, so that the next batch can be decided while the last one is written.

Every transaction begins with the fence: it moves the shard's sequence on if, and only if, this
engine's epoch still holds the shard and nobody wrote in between. Rows are written as sets, one array
per column. When the reply to COMMIT is lost, a new connection looks at the sequence: it is the old one
or the new one, and that is the answer; nothing is ever sent twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
from msgspec import Struct

from auction import ledger
from auction.commands import JournalEntry, decode_command, encode_command
from auction.errors import Fenced, Unavailable
from auction.market import MarketBook
from auction.model import (
    BID_FINAL,
    LEASE_BILLED,
    LEASE_ON_NODE,
    Account,
    ApiKey,
    Bid,
    Curve,
    Event,
    Lease,
    LeaseState,
    Limits,
    Market,
    Node,
    Notice,
    Offer,
    Tick,
)
from auction.money import Payout, Usage
from auction.ports import Answer, Changes, KeyedRequest, LiveState, StoredAnswer
from auction.units import MICROSECONDS_PER_SECOND, Price
from sql import query
from sql.combine import Statement, combined
from sql.rows import TABLES, decode_rows, select_columns, to_json

# Whatever asyncpg raises when the server goes away; anything without an SQLSTATE counts as that.
CONNECTION_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
CURVES_KEPT_TICKS = 50_000  # of each market
SQLSTATE_FENCED = "FA001"  # of require_fence
SHARD_ID = 0  # there is one so far
ADVISORY_LOCK = 0x0FA110  # with the shard's number: one live engine per shard

BID_FINAL_SQL = "(" + ", ".join(f"'{status}'" for status in sorted(BID_FINAL)) + ")"  # as bids_live has it

FIND_CLIENT_BIDS = (  # LATERAL with LIMIT for the reason that find_answers.sql gives
    f"SELECT {select_columns(Bid, 'b.')} FROM unnest($1::text[], $2::text[]) AS p(account, named) "
    "CROSS JOIN LATERAL (SELECT * FROM bids i "
    "WHERE i.account = p.account AND i.client_bid_id = p.named LIMIT 1) b"
)

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Connect = Callable[[], Awaitable[Connection]]


class PostgresStore:
    """The durable truth of one shard. `connect` gives a new connection to the primary."""

    def __init__(self, connect: Connect, *, shard_id: int = SHARD_ID) -> None:
        self._connect = connect
        self._shard_id = shard_id
        self._connection: Connection | None = None
        self._lookup: Connection | None = None
        self._epoch = 0
        self._next_seq = 1
        self._opened_to = 0  # accounts have their ledger accounts up to this number

    # -- life -------------------------------------------------------------------------------------

    async def acquire(self) -> None:
        await self._drop_connections()
        try:
            connection = await self._connect()
            self._connection = connection
            if self._epoch > 0:
                await self._lock_again(connection)
            elif not await connection.fetchval(
                "SELECT pg_try_advisory_lock($1, $2)", ADVISORY_LOCK, self._shard_id
            ):
                raise Fenced(f"another engine is running on shard {self._shard_id} of this database")
            row = await connection.fetchrow(query("take_shard"), self._shard_id)
            self._opened_to = await connection.fetchval("SELECT coalesce(max(number), 0) FROM accounts")
            self._lookup = await self._connect()
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error
        assert row is not None, "the migration has made the shard's row"
        self._epoch, self._next_seq = row["epoch"], row["next_seq"]

    async def attach(self) -> None:
        """Connect to read only: the shard stays with whoever has it, and `commit` is refused."""
        await self._drop_connections()
        try:
            self._connection = await self._connect()
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error
        self._epoch = -1

    async def close(self) -> None:
        connections = (self._connection, self._lookup)
        self._connection = self._lookup = None
        for connection in filter(None, connections):
            try:
                await connection.close(timeout=2)
            except CONNECTION_ERRORS:
                connection.terminate()

    async def _drop_connections(self) -> None:
        for connection in filter(None, (self._connection, self._lookup)):
            connection.terminate()
        self._connection = self._lookup = None

    def _writer(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            raise Unavailable("storage_unavailable", "the connection to the database was lost")
        return self._connection

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> Awaitable[None]:
        seq = self._next_seq + len(changes.journal)
        assert not changes.journal or changes.journal[0].seq == self._next_seq, "no gap in the journal"
        fence = (self._shard_id, self._epoch, self._next_seq, seq)
        groups = combined(self._statements(changes), query("fence"), fence)
        numbers = (account.number for account in changes.accounts.values())
        self._opened_to = max(self._opened_to, *numbers, 0)
        return self._commit(groups, seq)

    async def _commit(self, groups: list[Statement], seq: int) -> None:
        connection = self._writer()
        try:
            if len(groups) == 1:
                await connection.execute(groups[0].text, *groups[0].arguments)
            else:
                async with connection.transaction():
                    for text, arguments, _ in groups:
                        await connection.execute(text, *arguments)
        except CONNECTION_ERRORS as error:
            if not await self._happened(connection, seq):
                raise _unavailable(error) from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == SQLSTATE_FENCED:
                raise Fenced(f"epoch {self._epoch} no longer holds shard {self._shard_id}") from error
            raise
        self._next_seq = seq

    async def _happened(self, connection: Connection, seq: int) -> bool:
        """After a lost connection: ask a new one whether the transaction is there."""
        if seq == self._next_seq:
            return False  # it carried answers only; whoever asks again is decided again
        connection.terminate()
        try:
            await self._reacquire()
            connection = self._writer()
            row = await connection.fetchrow(query("read_shard"), self._shard_id)
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error
        assert row is not None
        if row["epoch"] != self._epoch:
            raise Fenced(f"epoch {row['epoch']} has taken shard {self._shard_id} from epoch {self._epoch}")
        return bool(row["next_seq"] == seq)

    async def _reacquire(self) -> None:
        """Get a new connection and the lock again, at the same epoch."""
        connection = await self._connect()
        self._connection = connection
        await self._lock_again(connection)

    async def _lock_again(self, connection: Connection) -> None:
        """Wait for the lock that this store had: its old session may live a moment longer than its socket."""
        await connection.execute("SET lock_timeout = '2s'")
        try:
            await connection.execute("SELECT pg_advisory_lock($1, $2)", ADVISORY_LOCK, self._shard_id)
        except asyncpg.LockNotAvailableError as error:
            raise Fenced(f"another engine is running on shard {self._shard_id}") from error
        await connection.execute("RESET lock_timeout")

    def _statements(self, changes: Changes) -> list[Statement]:
        """Encode a transaction: what the changes refer to may change again before it is written."""
        statements: list[Statement] = []
        if changes.journal:
            statements.append(self._journal(changes.journal))
        statements += _upsert(Account, changes.accounts)
        opened = [account for account in changes.accounts.values() if account.number > self._opened_to]
        if opened:
            statements.append(_ledger_accounts(opened))
        statements += _upsert(ApiKey, changes.keys)
        statements += _upsert(Market, changes.markets)
        statements += _upsert(Node, changes.nodes)
        statements += _upsert(Offer, changes.offers)
        if changes.workloads:
            accounts, digests = zip(*changes.workloads, strict=True)
            contents = list(changes.workloads.values())
            statements.append(Statement(query("insert_workloads"), [accounts, digests, contents]))
        statements += _upsert(Bid, changes.bids)
        statements += _upsert(Lease, changes.leases)
        if changes.leases:
            statements += _slots(list(changes.leases.values()))
        statements += _upsert(Notice, changes.notices)
        statements += _upsert(Payout, changes.payouts)
        statements += _upsert(Limits, changes.limits)
        if changes.transfers:
            statements.append(self._transfers(changes))
        if changes.usage:
            statements.append(_usage(changes.usage))
        for struct, rows in ((Tick, changes.ticks), (Event, changes.events)):
            if rows:
                table = TABLES[struct]
                statements.append(Statement(table.insert_statement(), table.arrays(rows)))
        if changes.curves:
            statements += _curves(changes.curves)
        if changes.answers:
            statements.append(_answers(changes.answers))
        return statements

    def _journal(self, entries: Sequence[JournalEntry]) -> Statement:
        arguments = [
            self._shard_id,
            self._epoch,
            [entry.seq for entry in entries],
            [entry.at_us for entry in entries],
            [encode_command(entry.command) for entry in entries],
        ]
        return Statement(query("insert_journal"), arguments)

    def _transfers(self, changes: Changes) -> Statement:
        transfers, last = changes.transfers, changes.journal[-1]
        arguments = [
            self._shard_id,
            last.seq,
            last.at_us,
            [str(transfer.code) for transfer in transfers],
            [transfer.debit for transfer in transfers],
            [transfer.credit for transfer in transfers],
            [transfer.amount for transfer in transfers],
            [transfer.reference for transfer in transfers],
            [transfer.interval_end_s for transfer in transfers],
        ]
        return Statement(query("insert_transfers"), arguments)

    # -- reading ----------------------------------------------------------------------------------

    async def load(self) -> LiveState:
        connection = self._writer()
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._load(connection)
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error

    async def _load(self, connection: Connection) -> LiveState:
        async def select(struct: type[Any], condition: str = "true") -> list[Any]:
            statement = (
                f"SELECT {select_columns(struct, 't.')} FROM {TABLES[struct].name} t "
                f"WHERE {condition} ORDER BY t.id"
            )
            return decode_rows(struct, await connection.fetch(statement))

        live_lease = "EXISTS (SELECT 1 FROM leases l WHERE l.{} = t.id AND l.state <> 'ended')"
        leases = await select(Lease, "t.state <> 'ended'")
        markets = await select(Market)
        counters = await connection.fetchrow(query("read_counters"), self._shard_id)
        assert counters is not None
        return LiveState(
            seq=counters["seq"],
            accounts=await select(Account),
            markets=markets,
            nodes=await select(Node, "t.state <> 'retired'"),
            offers=await select(Offer, "t.status <> 'withdrawn'"),
            bids=await select(Bid, f"t.status NOT IN {BID_FINAL_SQL} OR {live_lease.format('bid')}"),
            leases=leases,
            notices=await select(Notice, "t.closed_at_us IS NULL"),
            balances=[tuple(row) for row in await connection.fetch(query("read_balances"))],
            prices=await self._load_prices(connection, markets, leases),
            next_bid_seq=counters["next_bid_seq"],
            next_offer_seq=counters["next_offer_seq"],
            payouts=await select(Payout, "t.state = 'created'"),
            limits=await select(Limits),
            now_us=counters["now_us"],
        )

    async def _load_prices(
        self,
        connection: Connection,
        markets: list[Market],
        leases: list[Lease],
    ) -> dict[str, list[tuple[int, Price]]]:
        """Rebuild each market's recent prices: from before its oldest unmetered second until now."""
        prices = {}
        for market in markets:
            oldest_s = min(
                (
                    lease.metered_to_s
                    for lease in leases
                    if lease.market == market.id
                    and lease.state in LEASE_BILLED
                    and lease.metered_to_s is not None
                ),
                default=None,
            )
            before_us = None if oldest_s is None else (oldest_s + 1) * MICROSECONDS_PER_SECOND
            rows = await connection.fetch(query("read_prices"), market.id, before_us)
            book = MarketBook(market)
            for row in rows:
                book.set_price(row["cleared_at_us"] // MICROSECONDS_PER_SECOND, Price(row["price"]))
            prices[market.id] = book.prices
        return prices

    async def find_answers(self, requests: Sequence[KeyedRequest]) -> Mapping[tuple[str, str], StoredAnswer]:
        asked = [request.account for request in requests], [request.key for request in requests]
        rows = await self._look_up(query("find_answers"), *asked)
        return {
            (row["account"], row["key"]): StoredAnswer(
                KeyedRequest(row["account"], row["key"], row["request_hash"]),
                Answer(row["status"], row["content_type"], row["body"]),
                row["created_at_us"],
            )
            for row in rows
        }

    async def find_client_bids(self, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Bid]:
        rows = await self._look_up(FIND_CLIENT_BIDS, [a for a, _ in pairs], [c for _, c in pairs])
        bids = decode_rows(Bid, rows)
        return {(bid.account, bid.client_bid_id or ""): bid for bid in bids}

    async def read_journal(self, after_seq: int, limit: int) -> list[JournalEntry]:
        rows = await self._fetch("read_journal", self._shard_id, after_seq, limit)
        return [JournalEntry(row["seq"], row["at_us"], decode_command(row["payload"])) for row in rows]

    async def save_snapshot(self, seq: int, state_hash: str, payload: bytes) -> None:
        await self._fetch("save_snapshot", self._shard_id, seq, state_hash, payload)

    async def load_snapshot(self) -> tuple[int, str, bytes] | None:
        rows = await self._fetch("load_snapshot", self._shard_id)
        return (rows[0]["seq"], rows[0]["state_hash"], rows[0]["payload"]) if rows else None

    async def _look_up(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        if self._lookup is None:
            raise Unavailable("storage_unavailable", "there is no connection to the database")
        try:
            return await self._lookup.fetch(statement, *arguments)
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            return await self._writer().fetch(query(name), *arguments)
        except CONNECTION_ERRORS as error:
            raise _unavailable(error) from error


def _unavailable(error: BaseException) -> Unavailable:
    if isinstance(error, asyncpg.DiskFullError):
        return Unavailable("storage_full", "the database's disk is full", retry_after_s=10)
    return Unavailable("storage_unavailable", f"the database does not answer ({type(error).__name__})")


def _upsert(struct: type[Struct], entities: Mapping[str, Struct]) -> list[Statement]:
    if not entities:
        return []
    table = TABLES[struct]
    return [Statement(table.upsert_statement(), table.arrays(list(entities.values())))]


def _ledger_accounts(accounts: Sequence[Account]) -> Statement:
    numbers = [
        ledger.ledger_account(account.number, code) for account in accounts for code in ledger.CUSTOMER_CODES
    ]
    floored = [ledger.is_floored(number) for number in numbers]
    return Statement(query("open_ledger_accounts"), [numbers, floored], is_barrier=True)


def _slots(leases: Sequence[Lease]) -> list[Statement]:
    """Bring the GPUs that leases occupy in line; what the primary key refuses was sold twice."""
    occupied = [
        (lease.node, gpu, lease.id) for lease in leases if lease.state in LEASE_ON_NODE for gpu in lease.gpus
    ]
    columns = [list(column) for column in zip(*occupied, strict=True)] or [[], [], []]
    seen = [lease.id for lease in leases if lease.state is not LeaseState.PENDING]
    freed = Statement(query("free_slots"), [seen, *columns], is_barrier=bool(occupied))
    return [freed, Statement(query("take_slots"), columns)] if occupied else [freed]


def _usage(usage: Sequence[Usage]) -> Statement:
    arguments = [
        [row.lease for row in usage],
        [row.from_s for row in usage],
        [row.to_s for row in usage],
        [row.gpu_count for row in usage],
        [row.price for row in usage],
        [row.carry_in for row in usage],
        [row.is_first for row in usage],
    ]
    return Statement(query("insert_usage"), arguments)


def _curves(curves: Sequence[Curve]) -> list[Statement]:
    markets, ticks = [curve.market for curve in curves], [curve.tick for curve in curves]
    demand = [to_json(curve.demand) for curve in curves]
    supply = [to_json(curve.supply) for curve in curves]
    return [
        Statement(query("insert_curves"), [markets, ticks, demand, supply]),
        Statement(query("forget_curves"), [markets, ticks, CURVES_KEPT_TICKS]),
    ]


def _answers(answers: Sequence[StoredAnswer]) -> Statement:
    arguments = [
        [stored.request.account for stored in answers],
        [stored.request.key for stored in answers],
        [stored.request.request_hash for stored in answers],
        [stored.answer.status for stored in answers],
        [stored.answer.content_type for stored in answers],
        [stored.answer.body for stored in answers],
        [stored.created_at_us for stored in answers],
    ]
    return Statement(query("insert_answers"), arguments)
