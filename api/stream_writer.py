"""What leaves on one WebSocket: one task writes, everything else only leaves messages with it.

What waits together leaves in one write: a system call for each frame was an eighth of what a bid cost here.
Decides what may wait, and for how long. Answers wait as long as their requests hold a place in flight
(stream_orders.py bounds those). What the market tells waits in a queue of 256 messages or 1 MiB; when
it is full its sources wait too, and go on from the store. Ticks are conflated: of each market only the
newest is written, behind a message that says which ones were not. A message that cannot be written in
time ends the session: 4008.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter
from msgspec import Struct

from auction.model import Tick

QUEUE_MESSAGES_MAX = 256
QUEUE_BYTES_MAX = 1024 * 1024
WRITE_BYTES_ENOUGH = 64 * 1024  # then what was written must leave before more is
CLOSE_SECONDS_MAX = 2.0

CLOSE_UNAUTHENTICATED = 4001
CLOSE_FORBIDDEN = 4003
CLOSE_SLOW = 4008
CLOSE_PROTOCOL = 4010
CLOSE_RESTART = WSCloseCode.SERVICE_RESTART
CLOSE_TOO_BIG = WSCloseCode.MESSAGE_TOO_BIG
CLOSE_TRY_LATER = WSCloseCode.TRY_AGAIN_LATER

# A frame's first byte: the only one of its message, and what it carries.
_FINAL_TEXT = 0x80 | WSMsgType.TEXT
_FINAL_BINARY = 0x80 | WSMsgType.BINARY
_MEDIUM_HEAD = struct.Struct("!BBH").pack
_LONG_HEAD = struct.Struct("!BBQ").pack


class Closing(Exception):
    """The session ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def too_slow() -> Closing:
    """Return what a reader that cannot keep up is told."""
    return Closing(CLOSE_SLOW, "too slow: resume with after_seq")


class _Message(Struct, frozen=True):
    payload: bytes
    channel: str | None = None
    seq: int = 0
    on_sent: Callable[[], None] | None = None


class Writer:
    """The outgoing side of one connection. Exactly one task runs `run`."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        line: AbstractStreamWriter,
        *,
        is_text: bool,
        send_seconds_max: float,
        write_tick: Callable[[Tick], tuple[str, bytes]],
        write_gap: Callable[[str, int, int], bytes],
        write_heartbeat: Callable[[dict[str, int]], bytes],
    ) -> None:
        self.seqs: dict[str, int] = {}  # the last one sent on each channel
        self.waiting_bytes = 0
        self._socket = socket
        self._line = line  # the connection that the socket was opened on
        self._first_byte = _FINAL_TEXT if is_text else _FINAL_BINARY
        self._send_seconds_max = send_seconds_max
        self._write_tick = write_tick
        self._write_gap = write_gap
        self._write_heartbeat = write_heartbeat
        self._answers: deque[_Message] = deque()
        self._told: deque[_Message] = deque()
        self._ticks: dict[str, Tick] = {}
        self._is_beat_due = False
        self._bell = asyncio.Event()
        self._sent = asyncio.Event()

    def answer(self, payloads: list[bytes], on_sent: Callable[[], None]) -> None:
        """Leave the answers to requests; `on_sent` gives their places in flight back."""
        last = len(payloads) - 1
        for i, payload in enumerate(payloads):
            self._leave(self._answers, _Message(payload, on_sent=on_sent if i == last else None))

    async def tell(self, payload: bytes, channel: str | None = None, seq: int = 0) -> None:
        """Leave a message that must arrive, in order; waits while the queue is full."""
        while len(self._told) >= QUEUE_MESSAGES_MAX or self.waiting_bytes >= QUEUE_BYTES_MAX:
            await self._until_sent()
        self._leave(self._told, _Message(payload, channel, seq))

    def tick(self, tick: Tick) -> None:
        """Leave a market's tick; it replaces one that still waits."""
        waiting = self._ticks.get(tick.market)
        if waiting is None or waiting.tick < tick.tick:
            self._ticks[tick.market] = tick
            self._bell.set()

    def beat(self) -> None:
        """Have a heartbeat written behind what waits now."""
        self._is_beat_due = True
        self._bell.set()

    async def flush(self) -> None:
        """Wait until everything left so far is written."""
        while self.waiting_bytes:
            await self._until_sent()

    async def run(self) -> None:
        """Write until the session ends; raises Closing (4008) when the reader does not read."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            # By rounds, so that neither answers nor events keep the others waiting for ever.
            while self._answers or self._told or self._ticks or self._is_beat_due:
                await self._round()

    async def _round(self) -> None:
        for queue in (self._answers, self._told):
            left = len(queue)
            while left:
                some = _some(queue, left)
                left -= len(some)
                await self._send([message.payload for message in some])
                for message in some:
                    self.waiting_bytes -= len(message.payload)
                    if message.channel is not None:
                        self.seqs[message.channel] = message.seq
                    if message.on_sent is not None:
                        message.on_sent()
                self._sent.set()
        for market in sorted(self._ticks):
            await self._send_tick(self._ticks.pop(market))
        if self._is_beat_due:
            self._is_beat_due = False
            await self._send([self._write_heartbeat(self.seqs)])

    async def _send_tick(self, tick: Tick) -> None:
        channel, payload = self._write_tick(tick)
        last = self.seqs.get(channel)
        if last is None or tick.tick > last:
            if last is not None and tick.tick > last + 1:
                await self._send([self._write_gap(channel, last, tick.tick)])
            await self._send([payload])
            self.seqs[channel] = tick.tick

    async def _send(self, payloads: list[bytes]) -> None:
        """Write messages in one go, a frame each; wait while the reader is behind with what was written.

        aiohttp writes frame by frame. It writes pings and the close itself, on the same connection.
        """
        transport = self._line.transport
        if transport is None or transport.is_closing() or self._socket.closed:
            raise ConnectionResetError("the connection is closing")
        frames: list[bytes] = []
        for payload in payloads:
            frames += (self._head(len(payload)), payload)
        transport.write(b"".join(frames))
        if transport.get_write_buffer_size():
            try:
                async with asyncio.timeout(self._send_seconds_max):
                    await self._line.drain()
            except TimeoutError:
                raise too_slow() from None

    def _head(self, length: int) -> bytes:
        """Return what stands before a message of this length (RFC 6455, 5.2); a server masks nothing."""
        if length < 126:
            return bytes((self._first_byte, length))
        if length < 1 << 16:
            return _MEDIUM_HEAD(self._first_byte, 126, length)
        return _LONG_HEAD(self._first_byte, 127, length)

    def _leave(self, queue: deque[_Message], message: _Message) -> None:
        queue.append(message)
        self.waiting_bytes += len(message.payload)
        self._bell.set()

    async def _until_sent(self) -> None:
        self._sent.clear()
        await self._sent.wait()


def _some(queue: deque[_Message], most: int) -> list[_Message]:
    """Take the next messages from a queue: at least one, then no more than are enough for one write."""
    some: list[_Message] = []
    size = 0
    while len(some) < most and size < WRITE_BYTES_ENOUGH:
        message = queue.popleft()
        some.append(message)
        size += len(message.payload)
    return some


async def close_socket(
    socket: web.WebSocketResponse, transport: asyncio.Transport | None, code: int, reason: str
) -> None:
    """Close with this code; a client that neither reads nor answers is cut off soon after."""
    # The close frame stands behind what the client has not read: there is no waiting for all of it.
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX * 2):
            await socket.close(code=code, message=reason.encode()[:120], drain=False)
    if transport is not None and transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(CLOSE_SECONDS_MAX, transport.abort)
