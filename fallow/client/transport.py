"""Requests that may be sent again: with one key for all attempts, for as long as it makes sense.

A write carries an Idempotency-Key that its repeats carry too, so an answer that was lost on the way is given
again and nothing happens twice. Connection errors, time-outs, 429 and 503 are tried again: after Retry-After
where the server sends it, otherwise after a random part of a growing pause. Everything else is final.
"""

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from auction.ids import random_below, random_token
from fallow.client.errors import Problem, UnavailableError, error_of
from fallow.client.exchange import Exchange, PlainExchange

if TYPE_CHECKING:
    from fallow.client.signing import SigningKey

ATTEMPTS_MAX = 8
PAUSE_SECONDS_MAX = 10.0
RETRY_AFTER_SECONDS_MAX = 60.0
Trace = Callable[[str], None]

RETRIED = frozenset({429, 503})
KEY_CHARACTERS = 32


class Transport:
    """One server, one key, one connection pool; with `blocks` nothing it awaits suspends.

    With a signing key every attempt is signed anew.
    """

    def __init__(
        self,
        server: str,
        key: str | None,
        *,
        signing_key: "SigningKey | None" = None,
        timeout_seconds: float,
        trace: Trace | None = None,
        blocks: bool = False,
    ) -> None:
        self._server = server.rstrip("/")
        self._key = key
        self._signing_key = signing_key
        self._timeout_seconds = timeout_seconds
        self._trace = trace
        self._exchange: Exchange
        if blocks:
            self._exchange = PlainExchange(self._server)
        else:
            from fallow.client.pooled import PooledExchange

            self._exchange = PooledExchange(self._server)

    def __repr__(self) -> str:
        return f"<Transport {self._server}>"

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
        await self._exchange.close()

    async def ask(
        self,
        method: str,
        path: str,
        view: Any,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        version: int | None = None,
        wait_seconds: float = 0.0,
    ) -> Any:
        """Send a request until it is answered; return the answer as `view`.

        With `version` it holds for that version of the object only. Raises ProblemError's kinds for a no,
        UnavailableError when the time, or the number of attempts, is over.
        """
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        if method != "GET":
            headers["Idempotency-Key"] = random_token(KEY_CHARACTERS)
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        shown = {name: str(value) for name, value in (query or {}).items() if value is not None}
        target = quote(path, safe="/-._~:@!$&'()*+,;=") + (f"?{urlencode(shown)}" if shown else "")
        if self._trace is not None:
            self._trace(self._as_curl(method, target, headers, data))
        began_s = time.monotonic()
        give_up_s = began_s + self._timeout_seconds + wait_seconds
        why = ""
        for attempt in range(ATTEMPTS_MAX):
            left_s = give_up_s - time.monotonic()
            pause_s = jittered(attempt)
            try:
                said = headers | self._authorization(method, target, headers, data)
                answered = await self._exchange.send(method, target, said, data, left_s)
            except OSError as error:
                why = str(error) or type(error).__name__
            else:
                if answered.status < 300:
                    return msgspec.json.decode(answered.body, type=view)
                problem = _problem(answered.body, answered.status)
                why = f"{problem.code}: {problem.detail}"
                if answered.status not in RETRIED:
                    raise error_of(problem)
                pause_s = _retry_after(answered.retry_after, pause_s)
                if answered.status == 429 and time.monotonic() + pause_s > give_up_s:
                    raise error_of(problem)
            if attempt + 1 == ATTEMPTS_MAX or time.monotonic() + pause_s >= give_up_s:
                break
            await self._exchange.pause(pause_s)
        tried = f"{attempt + 1} attempts in {time.monotonic() - began_s:.0f} s"
        raise UnavailableError(f"{method} {path} was not answered, {tried}: {why}")

    def _authorization(
        self, method: str, target: str, headers: dict[str, str], data: bytes | None
    ) -> dict[str, str]:
        if self._signing_key is not None:
            return self._signing_key.headers(method, target, headers, data or b"")
        return {} if self._key is None else {"Authorization": f"Bearer {self._key}"}

    def _as_curl(self, method: str, target: str, headers: dict[str, str], data: bytes | None) -> str:
        """Write a request as a command that works in a shell where KEY is set."""
        words = ["curl", "-s", "-X", method, self._server + target]
        for name in ("If-Match", "Content-Type"):
            if name in headers:
                words += ["-H", f"{name}: {headers[name]}"]
        if data is not None:
            words += ["-d", data.decode()]
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
