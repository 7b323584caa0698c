"""Signed-in browsers and sign-in links as rows.

A token is looked up before anybody is known, so by everybody's scope; what an account does with its own rows
is done in its own. Must not know tokens, only their SHA-256, nor cookies. Invariants: an account's rows are
counted under its lock; a link is taken once, by whoever deletes its row.
"""

from collections.abc import Awaitable, Callable

import asyncpg
from msgspec import Struct

from auction.errors import Rejection
from auction.ports import Answer, KeyedRequest
from sql.once import Connection, answering, once
from sql.scope import Pool

SESSIONS_PER_ACCOUNT_MAX = 100
LINKS_PER_ACCOUNT_MAX = 100
SWEEP_ROWS_MAX = 1_000

# $1: unused since, $2: now. What ends a key ends its sessions; here, only how long their rows stay.
_IS_OPEN = """s.last_used_at_us > $1 AND s.expires_at_us > $2 AND EXISTS (
    SELECT 1 FROM api_keys k WHERE k.id = s.key AND k.revoked_at_us IS NULL
    AND (k.expires_at_us IS NULL OR k.expires_at_us > $2)
    AND (k.public_id = s.public_id OR (k.previous_public_id = s.public_id AND k.previous_until_us > $2)))"""


class Session(Struct, frozen=True):
    """A browser that has signed in."""

    id: str
    account: str
    key: str
    public_id: str
    token_sha256: bytes
    address: str
    created_at_us: int
    expires_at_us: int
    last_used_at_us: int


class SignInLink(Struct, frozen=True):
    """What signs a browser in once."""

    id: str
    account: str
    key: str
    public_id: str
    token_sha256: bytes
    expires_at_us: int


class SessionStore:
    """Sessions and sign-in links; `everybody` sees every account's rows."""

    def __init__(self, pool: Pool, everybody: Pool) -> None:
        self._pool = pool
        self._everybody = everybody

    async def session(self, token_sha256: bytes) -> Session | None:
        """Return the session of a token, also one that is over."""
        async with answering():
            rows = await self._everybody.fetch("SELECT * FROM sessions WHERE token_sha256 = $1", token_sha256)
        return _session(rows[0]) if rows else None

    async def sessions(self, account: str, *, used_after_us: int, now_us: int) -> list[Session]:
        """Return an account's sessions that are not over, newest first."""
        async with answering():
            rows = await self._pool.fetch(
                f"""SELECT * FROM sessions s WHERE {_IS_OPEN} AND account = $3
                ORDER BY created_at_us DESC, id DESC""",
                used_after_us,
                now_us,
                account,
            )
        return [_session(row) for row in rows]

    async def open(self, session: Session, *, used_after_us: int) -> None:
        """Write a new session down; raises Rejection (`sessions_reached`)."""

        async def act(connection: Connection) -> Answer:
            count = await connection.fetchval(
                f"SELECT count(*) FROM sessions s WHERE {_IS_OPEN} AND account = $3",
                used_after_us,
                session.created_at_us,
                session.account,
            )
            if count >= SESSIONS_PER_ACCOUNT_MAX:
                raise Rejection("sessions_reached", f"{SESSIONS_PER_ACCOUNT_MAX} at most")
            await _insert(connection, "sessions", session)
            return Answer(204, "", b"")

        await once(self._pool, session.account, None, session.created_at_us, act)

    async def used(self, session: str, now_us: int) -> None:
        """Note that a session is in use."""
        async with answering():
            await self._everybody.execute(
                "UPDATE sessions SET last_used_at_us = $2 WHERE id = $1 AND last_used_at_us < $2",
                session,
                now_us,
            )

    async def close(self, account: str, session: str) -> Session | None:
        """End one of an account's sessions; None when there is no such one."""
        async with answering():
            rows = await self._pool.fetch(
                "DELETE FROM sessions WHERE account = $1 AND id = $2 RETURNING *", account, session
            )
        return _session(rows[0]) if rows else None

    async def add_link(
        self,
        link: SignInLink,
        keyed: KeyedRequest | None,
        now_us: int,
        answer: Callable[[], Awaitable[Answer]],
    ) -> tuple[Answer, bool]:
        """Write a link down with the answer that is kept; return (answer, replayed).

        Raises Rejection (`sign_in_links_reached`, `idempotency_key_reused`).
        """

        async def act(connection: Connection) -> Answer:
            count = await connection.fetchval(
                "SELECT count(*) FROM sign_in_links WHERE account = $1 AND expires_at_us > $2",
                link.account,
                now_us,
            )
            if count >= LINKS_PER_ACCOUNT_MAX:
                raise Rejection("sign_in_links_reached", f"{LINKS_PER_ACCOUNT_MAX} at most")
            await _insert(connection, "sign_in_links", link)
            return await answer()

        return await once(self._pool, link.account, keyed, now_us, act)

    async def take_link(self, token_sha256: bytes, now_us: int) -> SignInLink | None:
        """Use a link up; None for one that is over, was used, or never was."""
        async with answering():
            rows = await self._everybody.fetch(
                "DELETE FROM sign_in_links WHERE token_sha256 = $1 AND expires_at_us > $2 RETURNING *",
                token_sha256,
                now_us,
            )
        return SignInLink(**rows[0]) if rows else None

    async def sweep(self, *, used_before_us: int, now_us: int) -> None:
        """Delete what is over, so many rows at a time."""
        async with answering():
            await self._everybody.execute(
                f"""DELETE FROM sessions WHERE id IN
                (SELECT id FROM sessions s WHERE NOT ({_IS_OPEN}) LIMIT $3)""",
                used_before_us,
                now_us,
                SWEEP_ROWS_MAX,
            )
            await self._everybody.execute(
                """DELETE FROM sign_in_links WHERE id IN (SELECT id FROM sign_in_links
                WHERE expires_at_us <= $1 LIMIT $2)""",
                now_us,
                SWEEP_ROWS_MAX,
            )


async def _insert(connection: Connection, table: str, row: Session | SignInLink) -> None:
    names = row.__struct_fields__
    places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    values = [getattr(row, name) for name in names]
    await connection.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", *values)


def _session(row: asyncpg.Record) -> Session:
    return Session(**row)
