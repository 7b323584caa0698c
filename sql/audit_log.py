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
    request_sha256, request, status, subject, answer)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""
_SELECT = """SELECT id, at_us, account, key, scope, address, request_id, method, path, request_sha256,
    request, status, subject, answer, previous_hash, hash FROM audit_log"""


class Act(Struct, frozen=True):
    """One request that changed something. `request` and `answer` are JSON, None where they were long."""

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

    async def append(self, act: Act) -> None:
        """Write one act down; raises Unavailable."""
        async with answering():
            await self._pool.execute(_APPEND, *(getattr(act, name) for name in Act.__struct_fields__))

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
