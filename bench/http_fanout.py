"""How long a tick takes to the last of many sockets: from when it was cleared to when it has come."""

import asyncio
from datetime import datetime
from statistics import median
from time import time_ns
from typing import Any

import msgspec
from rich.progress import Progress

from bench.http_load import Socket

SPARE_SECONDS = 20.0


async def fan_out(
    port: int, market: str, sockets: int, ticks: int, tick_seconds: int, progress: Progress
) -> dict[str, Any]:
    """Return medians over ticks, in milliseconds, of the first and the last socket's delay.

    A delay begins at the tick's `cleared_at`, which is before its commit; the clocks are the same machine's.
    """
    task = progress.add_task("fan-out", total=ticks)
    arrivals: dict[int, list[int]] = {}
    cleared_ns: dict[int, int] = {}
    subscribed = 0

    def on_text(text: bytes) -> None:
        nonlocal subscribed
        if not text.startswith(b'{"type":"tick"'):
            subscribed += text.startswith(b'{"type":"ack"')
            return
        now_ns = time_ns()
        at = text.index(b'"seq":') + 6
        number = int(text[at : text.index(b",", at)])
        arrivals.setdefault(number, []).append(now_ns)
        if number not in cleared_ns:
            cleared_ns[number] = _cleared_ns(text)

    opened = []
    for _ in range(sockets):
        socket = await Socket.connect(port, on_text)
        socket.send([b'{"type":"subscribe","channels":["market:%s"]}' % market.encode()])
        opened.append(socket)
    async with asyncio.timeout(ticks * tick_seconds + SPARE_SECONDS):
        while subscribed < sockets:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        arrivals.clear()  # what came while some were still connecting
        while (done := sum(len(times) == sockets for times in arrivals.values())) < ticks:
            progress.update(task, completed=done)
            await asyncio.sleep(0.05)
    progress.update(task, completed=ticks)
    for socket in opened:
        socket.close()
    whole = [number for number, times in sorted(arrivals.items()) if len(times) == sockets]
    firsts = [(min(arrivals[number]) - cleared_ns[number]) / 1e6 for number in whole]
    lasts = [(max(arrivals[number]) - cleared_ns[number]) / 1e6 for number in whole]
    return {"sockets": sockets, "ticks": len(whole), "first_ms": median(firsts), "last_ms": median(lasts),
            "lasts_ms": lasts}  # fmt: skip


def _cleared_ns(text: bytes) -> int:
    cleared_at = msgspec.json.decode(text)["tick"]["cleared_at"]
    return int(msgspec.convert(cleared_at, datetime).timestamp() * 1e9)
