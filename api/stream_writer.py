"""What leaves on one WebSocket: one task writes, everything else only leaves messages with it.

Decides what may wait, and for how long. Answers wait as long as their requests hold a place in flight
(stream_orders.py bounds those). What the market tells waits in a queue of 256 messages or 1 MiB; when
it is full its sources wait too, and go on from the store. Ticks are conflated: of each market only the
newest is written, behind a message that says which ones were not. A message that cannot be written in
time ends the session: 4008.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSCloseCode, web

from auction.model import Tick

QUEUE_MESSAGES_MAX = 256
QUEUE_BYTES_MAX = 1024 * 1024
CLOSE_SECONDS_MAX = 2.0

CLOSE_UNAUTHENTICATED = 4001
CLOSE_FORBIDDEN = 4003
CLOSE_SLOW = 4008
CLOSE_PROTOCOL = 4010
CLOSE_RESTART = WSCloseCode.SERVICE_RESTART
CLOSE_TOO_BIG = WSCloseCode.MESSAGE_TOO_BIG
CLOSE_TRY_LATER = WSCloseCode.TRY_AGAIN_LATER


class Closing(Exception):
    """The session ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def too_slow() -> Closing:
    """Return what a reader that cannot keep up is told."""
    return Closing(CLOSE_SLOW, "too slow: resume with after_seq")


@dataclass(frozen=True, slots=True)
class _Message:
    payload: bytes
    channel: str | None = None
    seq: int = 0
    on_sent: Callable[[], None] | None = None


class Writer:
    """The outgoing side of one connection. Exactly one task runs `run`."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
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
        self._is_text = is_text
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

    def answer(self, payload: bytes, on_sent: Callable[[], None]) -> None:
        """Leave the answer to a request; `on_sent` gives its place in flight back."""
        self._leave(self._answers, _Message(payload, on_sent=on_sent))

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
            for _ in range(len(queue)):
                message = queue.popleft()
                await self._send(message.payload)
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
            await self._send(self._write_heartbeat(self.seqs))

    async def _send_tick(self, tick: Tick) -> None:
        channel, payload = self._write_tick(tick)
        last = self.seqs.get(channel)
        if last is None or tick.tick > last:
            if last is not None and tick.tick > last + 1:
                await self._send(self._write_gap(channel, last, tick.tick))
            await self._send(payload)
            self.seqs[channel] = tick.tick

    async def _send(self, payload: bytes) -> None:
        try:
            async with asyncio.timeout(self._send_seconds_max):
                if self._is_text:
                    await self._socket.send_str(payload.decode())
                else:
                    await self._socket.send_bytes(payload)
        except TimeoutError:
            raise too_slow() from None

    def _leave(self, queue: deque[_Message], message: _Message) -> None:
        queue.append(message)
        self.waiting_bytes += len(message.payload)
        self._bell.set()

    async def _until_sent(self) -> None:
        self._sent.clear()
        await self._sent.wait()


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
