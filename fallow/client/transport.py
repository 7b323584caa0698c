"""Requests that may be sent again: with one key for all attempts, for as long as it makes sense.

A write carries an Idempotency-Key that its repeats carry too, so an answer that was lost on the way is given
again and nothing happens twice. Connection errors, time-outs, 429 and 503 are tried again: after Retry-After
where the server sends it, otherwise after a random part of a growing pause. Everything else is final.
"""

import asyncio
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from auction.ids import random_below, random_token
from fallow.client.errors import Problem, UnavailableError, error_of

if TYPE_CHECKING:
    from fallow.client.signing import SigningKey

ATTEMPTS_MAX = 8
PAUSE_SECONDS_MAX = 10.0
RETRY_AFTER_SECONDS_MAX = 60.0
Trace = Callable[[str], None]

RETRIED = frozenset({429, 503})
KEY_CHARACTERS = 32


class Transport:
    """One server, one key, one connection pool. With a signing key every attempt is signed anew."""

    def __init__(
        self,
        server: str,
        key: str | None,
        *,
        signing_key: "SigningKey | None" = None,
        timeout_seconds: float,
        trace: Trace | None = None,
    ) -> None:
        self._server = server.rstrip("/")
        self._key = key
        self._signing_key = signing_key
        self._timeout_seconds = timeout_seconds
        self._trace = trace
        self._fixed_headers: dict[str, str] = {}  # of every request
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Transport {self._server}>"

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the pool, opened at the first request."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    @property
    def socket_url(self) -> str:
        """Return where the WebSocket is."""
        return f"{self._server}/v1/ws"

    def proof(self, session: str) -> dict[str, str]:
        """Return what a socket's `auth` message says of who we are: the key, or the session signed."""
        if self._signing_key is not None:
            return self._signing_key.proof(session)
        return {"key": self._key or ""}

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        view: Any,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        wait_seconds: float = 0.0,
    ) -> Any:
        """Send a request until it is answered; return the answer as `view`.

        Raises ProblemError's kinds for a no, UnavailableError when the time is over.
        """
        headers = dict(self._fixed_headers)
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if method != "GET":
            headers["Idempotency-Key"] = random_token(KEY_CHARACTERS)
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        shown = {name: str(value) for name, value in (query or {}).items() if value is not None}
        now_s = asyncio.get_running_loop().time
        if self._trace is not None:
            self._trace(self._as_curl(method, path, shown, data))
        give_up_s = now_s() + self._timeout_seconds + wait_seconds
        why = ""
        for attempt in range(ATTEMPTS_MAX):
            left_s = give_up_s - now_s()
            if left_s <= 0:
                break
            pause_s = jittered(attempt)
            url = URL(self._server + path).update_query(shown)
            try:
                async with self.session.request(
                    method, url, data=data, headers=headers | self._signature(method, url, headers, data),
                    timeout=aiohttp.ClientTimeout(total=left_s),
                ) as response:  # fmt: skip
                    raw = await response.read()
                    if response.status < 300:
                        return msgspec.json.decode(raw, type=view)
                    problem = _problem(raw, response.status)
                    why = f"{problem.code}: {problem.detail}"
                    if response.status not in RETRIED:
                        raise error_of(problem)
                    pause_s = _retry_after(response.headers.get("Retry-After"), pause_s)
                    if response.status == 429 and now_s() + pause_s > give_up_s:
                        raise error_of(problem)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = str(error) or type(error).__name__
            await asyncio.sleep(min(pause_s, max(0.0, give_up_s - now_s())))
        raise UnavailableError(f"{method} {path} was not answered in {self._timeout_seconds:g} s: {why}")

    def _signature(
        self, method: str, url: URL, headers: dict[str, str], data: bytes | None
    ) -> dict[str, str]:
        if self._signing_key is None:
            return {}
        return self._signing_key.headers(method, url.raw_path_qs, headers, data or b"")

    def _as_curl(self, method: str, path: str, query: dict[str, str], data: bytes | None) -> str:
        """Write a request as a command that works in a shell where KEY is set."""
        words = ["curl", "-s", "-X", method, self._server + path + (f"?{urlencode(query)}" if query else "")]
        if data is not None:
            words += ["-H", "Content-Type: application/json", "-d", data.decode()]
        if self._signing_key is not None:
            return shlex.join(words) + "  # signed: curl cannot send it"
        return shlex.join(words) + ("" if self._key is None else ' -H "Authorization: Bearer $KEY"')


def jittered(attempt: int) -> float:
    """Return a random part of the pause before the next attempt, in seconds."""
    longest_s: float = min(PAUSE_SECONDS_MAX, 0.2 * 2 ** min(attempt, 10))
    return random_below(1_000) / 1_000 * longest_s


def _problem(raw: bytes, status: int) -> Problem:
    try:
        return msgspec.json.decode(raw, type=Problem)
    except msgspec.DecodeError:
        return Problem("no_problem", f"status {status} without a problem document", status)


def _retry_after(text: str | None, otherwise_s: float) -> float:
    if text is None or not text.isascii() or not text.isdecimal():
        return otherwise_s
    return min(RETRY_AFTER_SECONDS_MAX, float(text))
