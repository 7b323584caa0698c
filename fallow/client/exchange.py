"""One attempt at one request, in two ways: aiohttp's for who awaits, http.client's for who blocks.

Neither tries again, knows keys or reads answers: transport.py does. The second one needs nothing but the
standard library, so that a command which asks once does not load an HTTP framework first.
"""

import asyncio
import http.client
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp

IDLE_CONNECTIONS_MAX = 8


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    retry_after: str | None
    body: bytes


class Exchange(Protocol):
    """A way to one server; raises OSError (TimeoutError too) where no whole answer came."""

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered: ...

    async def close(self) -> None: ...


class PooledExchange:
    """By aiohttp, on the loop that awaits it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered:
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = aiohttp.ClientSession()
        url = URL(self._server + target, encoded=True)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return Answered(response.status, response.headers.get("Retry-After"), await response.read())
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class PlainExchange:
    """By the standard library, in a thread for each request under way."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"server {server!r}: expected a URL such as https://market.example")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path
        self._idle: list[http.client.HTTPConnection] = []

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered:
        return await asyncio.to_thread(self._send, method, target, dict(headers), body, timeout_seconds)

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _send(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        try:
            connection.request(method, self._prefix + target, body=body, headers=headers)
            response = connection.getresponse()
            answered = Answered(response.status, response.headers.get("Retry-After"), response.read())
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"{type(error).__name__} {error}".strip()) from error
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        return answered

    def _open(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)
