"""Single durable orders beside the gateway of matching-engine, the one engine on PyPI with HTTP and a log.

Theirs is `python -m matching_engine serve` (FastAPI, uvicorn, uvloop, checksummed log, fsync by group commit)
on the server's core, loaded by the same client with limit orders that rest; what its market has taken is
compared with what was acknowledged. Ours are the single bids of `bench_http`. Rounds alternate.

FALLOW_BENCH_PYTHON312 names a CPython 3.12 with `matching-engine[gateway]==0.1.1` and uvloop.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from rich.progress import Progress

from bench.http_load import Outcome, closed_loop
from bench.http_server import SERVER_CORE
from bench.report import median_ratio

CONNECTIONS = 64
START_SECONDS_MAX = 30.0
MARKET = "H100-USD"
MARKET_TERMS = f"{MARKET}:0.0001:1"  # what a market's price and quantity are multiples of


async def against_gateway(
    ours: Callable[[], Awaitable[Outcome]], seconds: float, rounds: int, directory: Path, progress: Progress
) -> dict[str, Any]:
    """Return both sides' rates, round by round, and the median of their ratios."""
    task = progress.add_task("gateway", total=rounds)
    theirs_per_s, ours_per_s = [], []
    async with _gateway(directory) as port:
        await _round(port, min(1.0, seconds))  # warms it
        for _ in range(rounds):
            theirs_per_s.append((await _round(port, seconds)).rate)
            ours_per_s.append((await ours()).rate)
            progress.advance(task)
    return {
        "gateway_per_s": theirs_per_s,
        "fallow_per_s": ours_per_s,
        "ratio": median_ratio(ours_per_s, theirs_per_s),
    }


def if_there(rows: Sequence[str]) -> list[str]:
    """Return the rows that can be run here: this one needs an interpreter that was named."""
    return [name for name in rows if name != "gateway" or "FALLOW_BENCH_PYTHON312" in os.environ]


def row(found: dict[str, Any], target: str) -> list[str]:
    """Return the table's row."""
    made = f"{median(found['fallow_per_s']):,.0f} against {median(found['gateway_per_s']):,.0f}/s"
    return ["gateway", made, f"{found['ratio']:.2f}", target]


async def _round(port: int, seconds: float) -> Outcome:
    """Load the gateway; check that it holds what it acknowledged, and nothing else."""
    before = await _held(port)
    outcome = await closed_loop(port, [_orders(n + 1) for n in range(CONNECTIONS)], seconds)
    held = await _held(port) - before
    if held != outcome.accepted or outcome.refused:
        raise RuntimeError(
            f"gateway: {outcome.accepted} acknowledged, {held} held, {outcome.refused} refused"
        )
    return outcome


def _orders(account: int) -> Iterator[bytes]:
    """Yield requests that place one buy order each, which nothing matches."""
    for name in count(account):
        price = b"%d.%04d" % (1 + name % 7, name * 7_919 % 10_000)
        body = b'{"account":%d,"side":"buy","price":"%s","quantity":"2"}' % (account, price)
        yield (
            b"POST /markets/%s/orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (MARKET.encode(), len(body), body)
        )


@asynccontextmanager
async def _gateway(directory: Path) -> AsyncIterator[int]:
    """Run the gateway on the server's core; give its port."""
    python = os.environ.get("FALLOW_BENCH_PYTHON312")
    if python is None:
        raise RuntimeError("FALLOW_BENCH_PYTHON312 names no Python with matching-engine[gateway]==0.1.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(python, "-I", "-m", "matching_engine", "serve", "--port", str(port)),
        env={**os.environ, "ME_DATA_DIR": str(directory), "ME_MARKETS": MARKET_TERMS, "ME_FSYNC": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            while not await _is_listening(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{python} -m matching_engine serve ended with {process.returncode}")
                await asyncio.sleep(0.1)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def _held(port: int) -> int:
    """Return how many orders the gateway's market has taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /markets HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    (market,) = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    return int(market["last_seq"])
