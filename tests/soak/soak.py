"""A server under half of its load for long: what must not grow does not, and the beat is kept.

A short burst says what the server can carry; half of that rate is then asked of it, open-loop, while it
tells its memory, descriptors and tasks every second. The first part is warm-up. Ticks are read from the
database afterwards.
"""

import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from sql.pool import Database
from tests.fuzz.wire_client import Connection
from tests.support import Server, assert_audit_passes

MARKET = "h100-sxm.test"
TICK_S = 1
BURST_SECONDS = 4.0
BIDS_LIVE_MAX = 60
STOP_SECONDS_MAX = 30.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Health:
    """What a soak saw, after the warm-up."""

    seconds: float
    requests: int
    rate: float
    slope_mib_per_hour: float
    growth_mib: float
    rss_mib: float
    descriptors: tuple[int, int]  # mean of the first and of the last quarter
    tasks: tuple[int, int]
    jitter_p99_ms: float
    ticks: int
    failed: int


def slope(points: list[tuple[float, float]]) -> float:
    """Return the least-squares slope."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / max(1e-9, sum((x - mean_x) ** 2 for x, _ in points))


def jitter_p99_ms(cleared_at_us: list[int]) -> float:
    """Return the 99th percentile of how far the time between two ticks is from the period."""
    periods = itertools.pairwise(cleared_at_us)
    off = sorted(abs(b - a - TICK_S * 1_000_000) / 1_000 for a, b in periods)
    return off[min(len(off) - 1, len(off) * 99 // 100)] if off else float("inf")


class Load:
    """A buyer that bids, looks, and takes its oldest bid back."""

    def __init__(self, port: int, key: str) -> None:
        self._connections = [Connection(port) for _ in range(4)]
        self._key = key
        self._bids: list[str] = []
        self._turn = 0
        self.requests = self.failed = 0

    async def one(self, connection: Connection) -> None:
        self._turn += 1
        if len(self._bids) >= BIDS_LIVE_MAX:
            request = self._request("DELETE", f"/v1/bids/{self._bids.pop(0)}")
        elif self._turn % 3 == 0:
            limit = f"{1 + self._turn % 150 / 100:.2f}"
            body = {"market": MARKET, "gpus": 1 + self._turn % 3, "limit_price_per_gpu_hour": limit}
            request = self._request("POST", "/v1/bids", json.dumps(body))
        elif self._turn % 3 == 1:
            request = self._request("GET", "/v1/bids?limit=20")
        else:
            request = self._request("GET", f"/v1/markets/{MARKET}/quote?gpus=2")
        replies = await connection.exchange([request])
        self.requests += 1
        if not replies or replies[0].status >= 500:
            self.failed += 1
        elif replies[0].status == 201:
            self._bids.append(json.loads(replies[0].body)["id"])

    async def burst(self, seconds: float) -> float:
        """Ask as fast as it answers; return requests a second."""
        loop = asyncio.get_running_loop()
        end_s, before = loop.time() + seconds, self.requests

        async def ask(connection: Connection) -> None:
            while loop.time() < end_s:
                await self.one(connection)

        await asyncio.gather(*map(ask, self._connections))
        return (self.requests - before) / seconds

    async def steady(self, rate: float, seconds: float) -> None:
        """Ask at a rate, whatever the answers take: what is late is caught up with."""
        loop = asyncio.get_running_loop()
        began_s, planned = loop.time(), 0

        async def ask(connection: Connection) -> None:
            nonlocal planned
            while (now_s := loop.time() - began_s) < seconds:
                if planned > now_s * rate:
                    await asyncio.sleep(planned / rate - now_s)
                    continue
                planned += 1
                await self.one(connection)

        await asyncio.gather(*map(ask, self._connections))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _request(self, method: str, path: str, body: str = "") -> bytes:
        return (
            f"{method} {path} HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


async def _people(port: int, operator: str) -> str:
    """Open the market with an owner's nodes; return a funded buyer's key."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ok(path: str, key: str, body: Any) -> Any:
            async with session.post(path, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status < 300, (path, await response.text())
                return await response.json()

        market = {
            "id": MARKET, "gpu_model": "H100", "gpu_memory_gib": 80, "gpus_per_node": 8,
            "interconnect": "sxm", "region": "test", "tick_seconds": TICK_S, "notice_seconds": 1,
        }  # fmt: skip
        await ok("/v1/operator/markets", operator, market)
        owner = (await ok("/v1/operator/accounts", operator, {"name": "owner", "roles": ["owner"]}))["key"]
        buyer = (await ok("/v1/operator/accounts", operator, {"name": "buyer", "roles": ["buyer"]}))["key"]
        await ok("/v1/deposits", buyer, {"amount": "900000.00"})
        for number in range(4):
            body = {"name": f"node {number}", "market": MARKET, "gpus": 8, "simulated": True}
            node = await ok("/v1/nodes", owner, body)
            offer = {"node": node["id"], "gpus": 8, "reserve_price_per_gpu_hour": "1.00"}
            await ok("/v1/offers", owner, offer)
        return str(buyer)


async def soak(database: Database, seconds: float, planted: Sequence[str] = ()) -> Health:
    """Serve, load, listen, stop, audit."""
    command = [sys.executable, "-m", "tests.soak.served", *(["--plant", *planted] if planted else [])]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(database.arguments).encode() + b"\n")
    facts = json.loads(await process.stdout.readline())
    load = Load(facts["port"], await _people(facts["port"], facts["operator"]))
    loop = asyncio.get_running_loop()
    heard: list[tuple[float, dict[str, int]]] = []

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            heard.append((loop.time(), json.loads(line)))

    listening = asyncio.create_task(listen())
    try:
        rate = await load.burst(BURST_SECONDS) / 2
        began_s = loop.time()
        await load.steady(rate, seconds)
        ended_s = loop.time()
    finally:
        load.close()
        process.stdin.close()  # that is how it is told to stop
        await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
        await listening
    connection = await database.connect()
    rows = await connection.fetch("SELECT cleared_at_us FROM ticks WHERE market = $1 ORDER BY tick", MARKET)
    await connection.close()
    await assert_audit_passes(database)
    return _health(
        [(at - began_s, told) for at, told in heard if began_s <= at <= ended_s],
        # The last ticks of a stopping server are cut off with it.
        [row[0] for row in rows][-max(3, int(seconds / TICK_S)) : -1],
        load, rate, ended_s - began_s,
    )  # fmt: skip


def _health(
    told: list[tuple[float, dict[str, int]]], ticks: list[int], load: Load, rate: float, seconds: float
) -> Health:
    after = told[len(told) // 3 :]
    quarter = max(1, len(after) // 4)

    def ends(name: str) -> tuple[int, int]:
        first, last = after[:quarter], after[-quarter:]
        return tuple(round(sum(one[name] for _, one in part) / len(part)) for part in (first, last))  # type: ignore[return-value]

    rss = ends("rss")
    return Health(
        seconds, load.requests, rate,
        slope([(at, one["rss"] / MIB) for at, one in after]) * 3_600,
        (rss[1] - rss[0]) / MIB, rss[1] / MIB,
        ends("descriptors"), ends("tasks"), jitter_p99_ms(ticks), len(ticks), load.failed,
    )  # fmt: skip


def run_soak(seconds: float, planted: Sequence[str] = ()) -> Health:
    """Do it with a database of its own."""

    async def whole(server: Server) -> Health:
        return await soak(await server.new_database(), seconds, planted)

    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name) / "postgres")
        try:
            return asyncio.run(whole(server))
        finally:
            server.stop()
