"""The load of bench_http: HTTP/1.1 and WebSocket by hand, so that the client is never what is measured.

Requests are bytes made beforehand but for their two names; answers are parsed as far as their length and
status. The same code loads both sides. Times are seconds of `perf_counter`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import NamedTuple, cast

ANSWER_SECONDS_MAX = 30.0
UNMASKED = b"\0\0\0\0"  # a mask of zeros leaves a frame's bytes as they are


class Outcome(NamedTuple):
    """What a round brought: answers with status 2xx, all others, and how long it took."""

    accepted: int
    refused: int
    seconds: float
    latencies_s: list[float]

    @property
    def rate(self) -> float:
        """Accepted answers a second."""
        return self.accepted / self.seconds


class _Answers(asyncio.Protocol):
    """One connection; calls `on_answer` with each answer's status."""

    def __init__(self, on_answer: Callable[["_Answers", int], None]) -> None:
        self._on_answer = on_answer
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due_s: float) -> None:
        assert self._transport is not None
        self.sent_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (head := buffer.find(b"\r\n\r\n")) >= 0:
            at = buffer.lower().find(b"content-length:", 0, head)
            length = 0 if at < 0 else int(buffer[at + 15 : buffer.index(b"\r\n", at)])
            if len(buffer) < head + 4 + length:
                break
            status = int(buffer[9:12])
            buffer = buffer[head + 4 + length :]
            self._on_answer(self, status)
        self._buffer = buffer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def closed_loop(
    port: int, requests: list[Iterator[bytes]], seconds: float, *, unit: int = 1
) -> Outcome:
    """Keep one request of each iterator in flight on its own connection, until the time or they are over.

    `unit` bids are in each request.
    """
    loop = asyncio.get_running_loop()
    counts = {True: 0, False: 0}
    ended = loop.create_future()
    in_flight = 0
    latencies: list[float] = []

    def on_answer(connection: _Answers, status: int) -> None:
        nonlocal in_flight
        now_s = perf_counter()
        latencies.append(now_s - connection.sent_s)
        counts[200 <= status < 300] += unit
        following = next(of[connection], None) if now_s < end_s else None
        if following is not None:
            connection.send(following, now_s)
            return
        in_flight -= 1
        if in_flight == 0 and not ended.done():
            ended.set_result(None)

    of: dict[_Answers, Iterator[bytes]] = {}
    for iterator in requests:
        _, connection = await loop.create_connection(lambda: _Answers(on_answer), "127.0.0.1", port)
        of[connection] = iterator
    began_s = perf_counter()
    end_s = began_s + seconds
    in_flight = len(of)
    for connection, iterator in of.items():
        connection.send(next(iterator), perf_counter())
    await asyncio.wait_for(ended, seconds + ANSWER_SECONDS_MAX)
    took_s = perf_counter() - began_s
    for connection in of:
        connection.close()
    return Outcome(counts[True], counts[False], took_s, latencies)


async def open_loop(port: int, requests: list[Iterator[bytes]], rate: float, seconds: float) -> Outcome:
    """Send at a fixed rate whatever comes back; a latency counts from when its request was due."""
    loop = asyncio.get_running_loop()
    counts = {True: 0, False: 0}
    latencies: list[float] = []
    free: deque[_Answers] = deque()
    waiting: deque[float] = deque()

    def on_answer(connection: _Answers, status: int) -> None:
        latencies.append(perf_counter() - connection.sent_s)
        counts[200 <= status < 300] += 1
        if waiting:
            connection.send(next(of[connection]), waiting.popleft())
        else:
            free.append(connection)

    of: dict[_Answers, Iterator[bytes]] = {}
    for iterator in requests:
        _, connection = await loop.create_connection(lambda: _Answers(on_answer), "127.0.0.1", port)
        of[connection] = iterator
        free.append(connection)
    began_s = perf_counter()
    due = 0
    while (now_s := perf_counter()) < began_s + seconds:
        while due < (now_s - began_s) * rate:
            due_s = began_s + due / rate
            due += 1
            if free:
                connection = free.popleft()
                connection.send(next(of[connection]), due_s)
            else:
                waiting.append(due_s)
        await asyncio.sleep(0.001)
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        while len(latencies) < due:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for connection in of:
        connection.close()
    return Outcome(counts[True], counts[False], perf_counter() - began_s, latencies)


class Socket(asyncio.Protocol):
    """One WebSocket; `on_text` gets each message that comes."""

    def __init__(self, on_text: Callable[[bytes], None]) -> None:
        self._on_text = on_text
        self._buffer = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, port: int, on_text: Callable[[bytes], None]) -> "Socket":
        """Open one and wait for its handshake."""
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: cls(on_text), "127.0.0.1", port)
        await asyncio.wait_for(socket.opened, ANSWER_SECONDS_MAX)
        return socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("the handshake was refused"))

    def send(self, messages: list[bytes]) -> None:
        """Send text messages in one write."""
        assert self._transport is not None
        self._transport.write(b"".join(map(_frame, messages)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            head = buffer.find(b"\r\n\r\n")
            if head < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(buffer[:head].decode("ascii", "replace")))
                return
            self._is_open = True
            buffer = buffer[head + 4 :]
            self.opened.set_result(None)
        at, end = 0, len(buffer)
        while end - at >= 2:
            length, head = buffer[at + 1] & 0x7F, 2
            if length == 126:
                length, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
            if end - at < head + length:
                break
            if buffer[at] & 0x0F == 1:
                self._on_text(buffer[at + head : at + head + length])
            at += head + length
        self._buffer = buffer[at:]


def _frame(text: bytes) -> bytes:
    if len(text) < 126:
        return bytes((0x81, 0x80 | len(text))) + UNMASKED + text
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + UNMASKED + text


async def pipelined(
    port: int, auth: bytes, messages: Iterator[bytes], *, outstanding: int, seconds: float
) -> Outcome:
    """Keep so many orders in flight on one authenticated socket, until the time or the orders are over."""
    counts = {True: 0, False: 0}
    ended = asyncio.get_running_loop().create_future()
    begun = asyncio.get_running_loop().create_future()
    due: list[bytes] = []
    in_flight = 0
    loop = asyncio.get_running_loop()

    def flush() -> None:
        socket.send(due)
        due.clear()

    def on_text(text: bytes) -> None:
        nonlocal in_flight
        if not text.startswith((b'{"type":"ack"', b'{"type":"error"')):
            return
        if not begun.done():
            begun.set_result(text)
            return
        counts[text.startswith(b'{"type":"ack"')] += 1
        following = next(messages, None) if perf_counter() < end_s else None
        if following is not None:
            if not due:
                loop.call_soon(flush)
            due.append(following)
            return
        in_flight -= 1
        if in_flight == 0 and not ended.done():
            ended.set_result(None)

    end_s = 0.0
    socket = await Socket.connect(port, on_text)
    socket.send([auth])
    await asyncio.wait_for(begun, ANSWER_SECONDS_MAX)
    began_s = perf_counter()
    end_s = began_s + seconds
    in_flight = outstanding
    socket.send([next(messages) for _ in range(outstanding)])
    await asyncio.wait_for(ended, seconds + ANSWER_SECONDS_MAX)
    took_s = perf_counter() - began_s
    socket.close()
    return Outcome(counts[True], counts[False], took_s, [])
