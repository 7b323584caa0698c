"""Targets as rows, and what their bids have bought.

Must not know what a target wants (auction/targets.py). A target's bids are found by the ids that derive
from its own; sums are over committed rows only.
Invariant: a target is changed by its version, so that of two who change it at once one is told.
"""

from collections.abc import Awaitable, Callable, Sequence

from auction.errors import NotFound
from auction.ports import Answer, KeyedRequest
from auction.targets import Target
from auction.units import Amount
from sql.once import Connection, answering, once
from sql.reads import Key, Reader, Slice
from sql.rows import TABLES, decode_rows, select_columns
from sql.scope import Pool

_TABLE = TABLES[Target]
_COLUMNS = select_columns(Target)
_SAVE = f"{_TABLE.upsert_statement()} WHERE targets.version = $22"
assert len(_TABLE.columns) == 21, "the version that is expected comes behind the columns"


class TargetStore:
    """Targets: an account's for the API, those that are under way for their runner."""

    def __init__(self, pool: Pool, reader: Reader) -> None:
        self._pool = pool
        self._reader = reader

    async def target(self, account: str, target: str) -> Target | None:
        statement = f"SELECT {_COLUMNS} FROM targets WHERE account = $1 AND id = $2"
        found = decode_rows(Target, await self._reader.fetch(statement, account, target))
        return found[0] if found else None

    async def targets(self, account: str, *, before: Key, limit: int) -> Slice[Target]:
        """Return an account's targets, newest first."""
        statement = f"""SELECT {_COLUMNS} FROM targets WHERE account = $1 AND (created_at_us, id) < ($2, $3)
            ORDER BY created_at_us DESC, id DESC LIMIT $4"""
        rows = await self._reader.fetch(statement, account, *before, limit + 1)
        return Slice.of(decode_rows(Target, rows), limit)

    async def unsettled(self) -> list[Target]:
        """Return every target that is still to be looked after."""
        statement = f"SELECT {_COLUMNS} FROM targets WHERE NOT is_settled ORDER BY id"
        return decode_rows(Target, await self._reader.fetch(statement))

    async def save(self, target: Target, *, expected_version: int) -> bool:
        """Write a changed target; return False when somebody else has changed it."""
        async with answering():
            status = await self._pool.execute(_SAVE, *_TABLE.arrays([target]), expected_version)
        return status.endswith(" 1")

    async def spent(self, bids: Sequence[str]) -> Amount:
        """Return what was charged to these bids."""
        statement = "SELECT coalesce(sum(spent), 0)::bigint FROM bids WHERE id = ANY($1)"
        ((spent,),) = await self._reader.fetch(statement, bids)
        return Amount(spent)

    async def delivered_s(self, bids: Sequence[str]) -> int:
        """Return the GPU-seconds of these bids' ended leases."""
        statement = """SELECT coalesce(sum(gpu_seconds), 0)::bigint FROM leases
            WHERE bid = ANY($1) AND state = 'ended'"""
        ((gpu_seconds,),) = await self._reader.fetch(statement, bids)
        return int(gpu_seconds)

    async def spent_before(self, bids: Sequence[str], until_s: int) -> Amount:
        """Return what these bids' leases were metered for in usage rows that end by `until_s`."""
        statement = """SELECT coalesce(sum(u.amount), 0)::bigint FROM leases l JOIN usage u ON u.lease = l.id
            WHERE l.bid = ANY($1) AND u.to_s <= $2"""
        ((spent,),) = await self._reader.fetch(statement, bids, until_s)
        return Amount(spent)

    async def once(
        self,
        account: str,
        keyed: KeyedRequest | None,
        now_us: int,
        act: Callable[["TargetEditor"], Awaitable[Answer]],
    ) -> tuple[Answer, bool]:
        """Let `act` change targets in one transaction that also keeps its answer (sql/once.py)."""
        return await once(
            self._pool, account, keyed, now_us, lambda connection: act(TargetEditor(connection, account))
        )


class TargetEditor:
    """What one transaction may do to the targets of one account."""

    def __init__(self, connection: Connection, account: str) -> None:
        self._connection = connection
        self._account = account

    async def count_unsettled(self) -> tuple[int, int]:
        """Return how many targets are under way: the account's, and all."""
        row = await self._connection.fetchrow(
            "SELECT count(*) FILTER (WHERE account = $1), count(*) FROM targets WHERE NOT is_settled",
            self._account,
        )
        assert row is not None
        return row[0], row[1]

    async def find(self, target: str) -> Target:
        """Return a target, locked; raise NotFound when it is absent or another account's."""
        statement = f"SELECT {_COLUMNS} FROM targets WHERE account = $1 AND id = $2 FOR UPDATE"
        found = decode_rows(Target, await self._connection.fetch(statement, self._account, target))
        if not found:
            raise NotFound("target")
        return found[0]

    async def put(self, target: Target) -> None:
        """Write a new target, or one that `find` returned, changed."""
        assert target.account == self._account
        await self._connection.execute(_TABLE.upsert_statement(), *_TABLE.arrays([target]))
