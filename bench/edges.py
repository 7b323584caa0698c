"""Does a crowd of bad clients cost an honest one much?

    python -m bench.edges [--seconds 20]

A market as its operator runs it (`fallow demo --no-bots`, a process of its own), first alone with one honest
client, then beside 200 clients that send their headers a byte a second, 200 sockets that subscribe to all
markets and never read, and 8 clients that post compressed bombs. Measured: the honest client's latencies (a
bid placed, read, cancelled over one connection) and the growth of the server. All of it shares two cores.
"""

import argparse
import asyncio
import gzip
import json
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress

from bench import report

SLOW_CLIENTS = 200
DEAF_SOCKETS = 200
BOMBERS = 8
BOMB = gzip.compress(bytes(10 * 1024 * 1024))
PORT = 18_290
START_SECONDS_MAX = 60
TARGETS = {"honest_p99_ms": 100.0, "growth_mib": 200.0}
BID = {"market": "h100-sxm.us", "gpus": 1, "limit_price_per_gpu_hour": "0.500000"}


async def main(seconds: float, console: Console) -> dict[str, Any]:
    """Run both halves against one server; return the figures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        server, facts = await _start(Path(directory))
        try:
            with Progress(console=console) as progress:
                return await _measure(server.pid, facts, seconds, progress)
        finally:
            server.terminate()
            await server.wait()


async def _measure(pid: int, facts: dict[str, Any], seconds: float, progress: Progress) -> dict[str, Any]:
    key, api = facts["keys"]["buyer"], facts["api"]
    port = int(api.rpartition(":")[2])
    task = progress.add_task("alone", total=2)
    await _honest(api, key, 3)
    before_mib = _rss_mib(pid)
    alone = await _honest(api, key, seconds)
    progress.update(task, advance=1, description="beside the crowd")
    crowd = [
        *(asyncio.create_task(_slow(port)) for _ in range(SLOW_CLIENTS)),
        *(asyncio.create_task(_deaf(port)) for _ in range(DEAF_SOCKETS)),
        *(asyncio.create_task(_bomb(api, key)) for _ in range(BOMBERS)),
    ]
    await asyncio.sleep(2)
    peak = asyncio.create_task(_peak_mib(pid))
    beside = await _honest(api, key, seconds)
    peak.cancel()
    sockets = await _sockets(api, facts["keys"]["operator"])
    for one in crowd:
        one.cancel()
    outcomes = await asyncio.gather(*crowd, return_exceptions=True)
    broken = [one for one in outcomes if isinstance(one, Exception)]
    if broken:
        raise broken[0]
    progress.update(task, advance=1)
    with suppress(asyncio.CancelledError):
        await peak
    return {
        "alone": _latencies(alone),
        "beside": _latencies(beside),
        "deaf_sockets_open": sockets,
        "growth_mib": round(_PEAK[0] - before_mib, 1),
        "targets": TARGETS,
    }


_PEAK = [0.0]


async def _peak_mib(pid: int) -> None:
    while True:
        _PEAK[0] = max(_PEAK[0], _rss_mib(pid))
        await asyncio.sleep(0.1)


async def _start(directory: Path) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    command = [sys.executable, "-m", "fallow.cli", "demo", "--no-bots", "--json", "--port", str(PORT)]
    command += ["--data-dir", str(directory / "demo")]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    )
    assert server.stdout is not None
    async with asyncio.timeout(START_SECONDS_MAX):
        return server, json.loads(await server.stdout.readline())


async def _honest(api: str, key: str, seconds: float) -> list[float]:
    """Place, read and cancel bids, one request after the other; return the latencies in milliseconds."""
    took_ms: list[float] = []
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(api, headers=headers) as session:

        async def ask(method: str, path: str, body: Any = None) -> Any:
            began_s = perf_counter()
            async with session.request(method, path, json=body) as response:
                answer = await response.json(content_type=None)
                assert response.status < 300, answer
            took_ms.append((perf_counter() - began_s) * 1_000)
            return answer

        end_s = perf_counter() + seconds
        while perf_counter() < end_s:
            bid = await ask("POST", "/v1/bids", BID)
            await ask("GET", f"/v1/bids/{bid['id']}")
            await ask("DELETE", f"/v1/bids/{bid['id']}")
            await asyncio.sleep(0.02)  # under the rate limit
    return took_ms


async def _sockets(api: str, operator: str) -> int:
    """Return how many sockets the server has open."""
    headers = {"Authorization": f"Bearer {operator}"}
    async with aiohttp.request("GET", f"{api}/v1/operator/engine", headers=headers) as response:
        return int((await response.json())["sockets"])


async def _slow(port: int) -> None:
    """Send headers a byte a second; come again when the server has had enough."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in b"GET /v1/time HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 3_600:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        await asyncio.sleep(0.1)


async def _deaf(port: int) -> None:
    """Open a socket, subscribe to every market, and never read."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(
                b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            writer.write(_frame(b'{"type":"subscribe","channels":["markets"]}'))
            await writer.drain()
            await asyncio.sleep(3_600)


def _frame(payload: bytes) -> bytes:
    """Return a masked text frame (RFC 6455, section 5.2) of fewer than 126 bytes."""
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([0x81, 0x80 | len(payload)]) + mask + masked


async def _bomb(api: str, key: str) -> None:
    headers = {
        "Authorization": f"Bearer {key}", "Content-Type": "application/json", "Content-Encoding": "gzip",
    }  # fmt: skip
    async with aiohttp.ClientSession(api, headers=headers) as session:
        while True:
            async with session.post("/v1/bids", data=BOMB) as response:
                assert response.status in (413, 415, 429), response.status
            await asyncio.sleep(0.2)


def _latencies(took_ms: list[float]) -> dict[str, float]:
    cuts = quantiles(took_ms, n=1_000)
    return {
        "requests": len(took_ms), "p50_ms": round(cuts[499], 2), "p99_ms": round(cuts[989], 2),
        "p999_ms": round(cuts[998], 2),
    }  # fmt: skip


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each half")
    options = parser.parse_args()
    out = Console()
    figures = asyncio.run(main(options.seconds, out))
    report.write("edges", f"python -m bench.edges --seconds {options.seconds:g}", figures)
    rows = [
        [f"honest client, {name}", *(str(figures[half][cut]) for cut in ("p50_ms", "p99_ms", "p999_ms"))]
        for half, name in (("alone", "alone"), ("beside", "beside the crowd"))
    ]
    out.print(report.table(["", "p50 ms", "p99 ms", "p99.9 ms"], rows))
    out.print(f"deaf sockets still open: {figures['deaf_sockets_open']}")
    out.print(f"growth of the server: {figures['growth_mib']} MiB (at most {TARGETS['growth_mib']:g})")
