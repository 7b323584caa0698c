"""Signed-in browsers: a cookie in place of a key.

A session may do what its key may, and ends with it, after SESSION_SECONDS_MAX, or unused for
IDLE_SECONDS_MAX. Only the SHA-256 of a token is kept. A browser sends the cookie whoever asked it to, so
whatever may change something must come from a page of this server, as its Origin says; SameSite=Strict says
it once more. A proxy must pass the Host on. Invariant: the memory of sessions is bounded.
"""

import hashlib
from collections import OrderedDict

from aiohttp import web

from api.config import Config
from auction.errors import Rejection
from auction.ids import random_id, random_token
from auction.units import MICROSECONDS_PER_SECOND
from sql.session_store import Session, SessionStore

SESSION_SECONDS_MAX = 12 * 3_600
IDLE_SECONDS_MAX = 2 * 3_600
USE_NOTED_SECONDS = 60
LINK_SECONDS_MAX = 600
CACHED_SESSIONS_MAX = 10_000
TOKEN_CHARACTERS = 43  # 43 * log2(62) = 256 bits
COOKIE = "fallow_session"

_IDLE_US = IDLE_SECONDS_MAX * MICROSECONDS_PER_SECOND


class Sessions:
    """Opens, finds and ends sessions; what was found is remembered for a short time."""

    def __init__(self, store: SessionStore, *, cache_seconds: float) -> None:
        self.store = store
        self._cache_us = int(cache_seconds * MICROSECONDS_PER_SECOND)
        self._cache: OrderedDict[bytes, tuple[int, Session]] = OrderedDict()

    async def find(self, token_sha256: bytes, now_us: int) -> Session | None:
        """Return the session of a token and note that it is in use; None for one that is over."""
        cached = self._cache.get(token_sha256)
        session = cached[1] if cached is not None and cached[0] > now_us else None
        if session is None:
            self._cache.pop(token_sha256, None)
            session = await self.store.session(token_sha256)
            if session is None:
                return None
            self._cache[token_sha256] = (now_us + self._cache_us, session)
            while len(self._cache) > CACHED_SESSIONS_MAX:
                self._cache.popitem(last=False)
        if session.expires_at_us <= now_us or session.last_used_at_us <= now_us - _IDLE_US:
            return None
        if session.last_used_at_us <= now_us - USE_NOTED_SECONDS * MICROSECONDS_PER_SECOND:
            self._cache.pop(token_sha256, None)
            await self.store.used(session.id, now_us)
        return session

    async def open(
        self, account: str, key: str, public_id: str, *, address: str, now_us: int
    ) -> tuple[Session, str]:
        """Make a session of a key; return it with its token. Raises Rejection (`sessions_reached`)."""
        await self.sweep(now_us)
        token = random_token(TOKEN_CHARACTERS)
        session = Session(
            id=random_id("sess"),
            account=account,
            key=key,
            public_id=public_id,
            token_sha256=hash_token(token),
            address=address,
            created_at_us=now_us,
            expires_at_us=now_us + SESSION_SECONDS_MAX * MICROSECONDS_PER_SECOND,
            last_used_at_us=now_us,
        )
        await self.store.open(session, used_after_us=now_us - _IDLE_US)
        return session, token

    async def sessions(self, account: str, now_us: int) -> list[Session]:
        """Return an account's sessions that are not over, newest first."""
        return await self.store.sessions(account, used_after_us=now_us - _IDLE_US, now_us=now_us)

    async def close(self, account: str, session: str) -> Session | None:
        """End a session at once; None when there is no such one."""
        closed = await self.store.close(account, session)
        if closed is not None:
            self._cache.pop(closed.token_sha256, None)
        return closed

    async def sweep(self, now_us: int) -> None:
        """Delete what is over."""
        await self.store.sweep(used_before_us=now_us - _IDLE_US, now_us=now_us)


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def token_of(request: web.Request, config: Config) -> str | None:
    """Return what the session's cookie holds."""
    return request.cookies.get(_cookie_name(config))


def set_cookie(token: str, config: Config) -> dict[str, str]:
    """Return the headers that give a browser its session; an empty token takes it away."""
    seconds = SESSION_SECONDS_MAX if token else 0
    cookie = f"{_cookie_name(config)}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return {"Set-Cookie": cookie + ("; Secure" if config.is_https else ""), "Cache-Control": "no-store"}


def refuse_other_origin(request: web.Request, config: Config) -> None:
    """Refuse what no page of this server has asked for; raises Rejection (`origin_refused`)."""
    own = f"{'https' if config.is_https else 'http'}://{request.headers.get('Host', '')}"
    if request.headers.getall("Origin", []) != [own]:
        raise Rejection("origin_refused", f"expected the Origin {own}")


def _cookie_name(config: Config) -> str:
    # With the prefix browsers take it over TLS only, from this host only.
    return f"__Host-{COOKIE}" if config.is_https else COOKIE
