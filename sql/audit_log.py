"""The audit log: who changed what outside the auction's own flow, in one chain of hashes.

The database numbers and chains what is appended (0017_audit_log.sql); nothing here can change a row, and
`fallow audit` names the first that does not follow from the one before.
"""

from collections.abc import Sequence

import asyncpg
from msgspec import Struct

from sql.once import answering
from sql.reads import Reader, Slice
from sql.scope import Pool

_APPEND = """INSERT INTO audit_log (at_us, account, key, scope, address, request_id, method, path,
    request_sha256, request, status, subject, answer, before)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING id, hash"""
_HEAD = "SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1"
_SELECT = """SELECT id, at_us, account, key, scope, address, request_id, method, path, request_sha256,
    request, status, subject, answer, before, previous_hash, hash FROM audit_log"""


class Act(Struct, frozen=True):
    """One request that changed something. `request` and `answer` are JSON, None where they were long.

    `before` is what a setting was, as JSON; None where there is nothing to compare.
    """

    at_us: int
    account: str
    key: str
    scope: str
    address: str
    request_id: str
    method: str
    path: str
    request_sha256: bytes
    request: str | None
    status: int
    subject: str | None
    answer: str | None
    before: str | None = None


class Entry(Struct, frozen=True):
    """An act in its place in the chain."""

    id: int
    act: Act
    previous_hash: bytes
    hash: bytes


class AuditLog:
    """Appends to the log and reads it; whose entries are seen is the scope's to say."""

    def __init__(self, pool: Pool, reader: Reader) -> None:
        self._pool = pool
        self._reader = reader
        self._head = (0, b"")

    @property
    def head(self) -> str | None:
        """The newest entry's hash, hex; None while there is none. Who has it knows all entries before it."""
        return self._head[1].hex() or None

    async def read_head(self, reader: Reader) -> None:
        """Read where the chain ends; `reader` sees everybody's entries."""
        for record in await reader.fetch(_HEAD):
            self._head = record["id"], record["hash"]

    async def append(self, act: Act) -> None:
        """Write one act down; raises Unavailable."""
        async with answering():
            (row,) = await self._pool.fetch(_APPEND, *(getattr(act, name) for name in Act.__struct_fields__))
        self._head = max(self._head, (row["id"], row["hash"]))

    async def entries(self, account: str | None, *, before: int, limit: int) -> Slice[Entry]:
        """Return an account's entries, or (None) all that the scope shows, newest first."""
        condition = "WHERE ($1::text IS NULL OR account = $1) AND id < $2 ORDER BY id DESC LIMIT $3"
        records = await self._reader.fetch(f"{_SELECT} {condition}", account, before, limit + 1)
        return Slice.of(_entries(records), limit)


def _entries(records: Sequence[asyncpg.Record]) -> list[Entry]:
    count = len(Act.__struct_fields__)
    return [
        Entry(
            record["id"], Act(*list(record.values())[1 : count + 1]), record["previous_hash"], record["hash"]
        )
        for record in records
    ]
