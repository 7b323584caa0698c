"""One attempt at one request: the port, and the way of who blocks, by the standard library's http.client.

An exchange neither tries again, nor knows keys, nor reads answers: transport.py does. The plain one never
suspends, so its callers need no event loop (`completed`), and a command that asks once loads no framework.
pooled.py has the way of who awaits.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from fallow.client.errors import UnavailableError

IDLE_CONNECTIONS_MAX = 8
ANSWER_BYTES_MAX = 32 << 20

T = TypeVar("T")


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    retry_after: str | None
    body: bytes


class Exchange(Protocol):
    """A way to one server; raises OSError (TimeoutError too) where no whole answer came in time.

    Raises UnavailableError for an answer of more than ANSWER_BYTES_MAX, which no repetition makes smaller.
    """

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered: ...

    async def pause(self, seconds: float) -> None: ...

    async def close(self) -> None: ...


class PlainExchange:
    """By the standard library, on the thread that calls: whatever interrupts that thread ends the request."""

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
        due_s = time.monotonic() + timeout_seconds
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            if connection.sock is None:
                connection.timeout = timeout_seconds
                connection.connect()
            connection.sock.settimeout(_left_s(due_s))
            connection.response_class = _response_by(due_s)
            connection.request(method, self._prefix + target, body=body, headers=dict(headers))
            response = connection.getresponse()
            told = response.read(ANSWER_BYTES_MAX + 1)
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"{type(error).__name__} {error}".strip()) from error
        except BaseException:
            connection.close()
            raise
        if len(told) > ANSWER_BYTES_MAX:
            connection.close()
            raise answer_too_large(method, target)
        if response.length:
            connection.close()
            raise ConnectionError(f"the answer ended {response.length} bytes early")
        if response.will_close or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            self._idle.append(connection)
        return Answered(response.status, response.headers.get("Retry-After"), told)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop that it could hold up

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)


def completed(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, as all of a client's are over PlainExchange; return its result."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError(f"{work!r} waits for an event loop")


def answer_too_large(method: str, target: str) -> UnavailableError:
    """Return the error for an answer that nobody reads to its end."""
    return UnavailableError(f"{method} {target} was answered with more than {ANSWER_BYTES_MAX:,} bytes")


class _TimedReader(io.RawIOBase):
    """What a socket says until a moment: one time-out for all reads, and not one for each."""

    def __init__(self, sock: socket.socket, due_s: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._due_s = due_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left_s(self._due_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """The one thing of a socket that http.client.HTTPResponse uses."""

    def __init__(self, sock: socket.socket, due_s: float) -> None:
        self._sock = sock
        self._due_s = due_s

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_TimedReader(self._sock, self._due_s))


def _response_by(due_s: float) -> Any:
    def response(sock: socket.socket, method: str | None = None) -> http.client.HTTPResponse:
        timed: Any = _TimedSocket(sock, due_s)
        return http.client.HTTPResponse(timed, method=method)

    return response


def _left_s(due_s: float) -> float:
    left_s = due_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s
