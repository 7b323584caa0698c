"""Half of a market's leases lost in one tick: how long until every tenant has a durable notice, and hears it.

    python -m bench.preempt_half [--leases 100000] [--quick]

Measured, in real time from the moment the tick is due: the engine's decision, the commit of everything it
changes (notices, leases, bids, events, tick: one transaction), the arrival of each notice at its tenant's
WebSocket, and the growth of the process. Excluded: the network (loopback). The tenants' sockets are read by
the same process on the same core, which the arrivals include.
"""

import argparse
import asyncio
import gc
import resource
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import ClientSession, WSMsgType
from rich.console import Console
from rich.progress import Progress

from auction.ports import Changes
from auction.units import MICROSECONDS_PER_SECOND
from bench import report
from bench.preemption_world import CENT, GPUS_PER_NODE, TICK_SECONDS, Venue, settings
from sql.pool import Database, open_database
from sql.store import PostgresStore

BUYERS = 100
RIVALS = 50
READ_SECONDS_MAX = 300
TARGETS = {"committed_s": 1.0, "delivered_p99_s": 3.0, "growth_mib": 256.0}


class TimedStore(PostgresStore):
    """Remembers when the commit with the most notices began and ended, and what it wrote."""

    began_s = ended_s = 0.0
    rows: dict[str, int] | None = None

    def commit(self, changes: Changes) -> Awaitable[None]:
        return self._timed(changes, perf_counter(), super().commit(changes))

    async def _timed(self, changes: Changes, began_s: float, writing: Awaitable[None]) -> None:
        await writing
        if changes.notices and (self.rows is None or len(changes.notices) > self.rows["notices"]):
            self.began_s, self.ended_s = began_s, perf_counter()
            names = ("notices", "leases", "bids", "events", "usage")
            self.rows = {name: len(getattr(changes, name)) for name in names}


class Arrivals:
    """When each notice came; `complete` when all that were expected have."""

    def __init__(self, expected: int) -> None:
        self.at_s: list[float] = []
        self.complete = asyncio.Event()
        self._expected = expected

    def note(self) -> None:
        self.at_s.append(perf_counter())
        if len(self.at_s) == self._expected:
            self.complete.set()


async def listen(http: ClientSession, url: str, key: str, arrivals: Arrivals, ready: asyncio.Event) -> None:
    """Read one tenant's socket; note when each notice came. Resumes when it is told that it fell behind."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    seq: int | None = None
    while True:
        async with http.ws_connect(f"{url}/v1/ws", protocols=["fallow.v1.json"], max_msg_size=0) as socket:
            await socket.send_str(msgspec.json.encode({"type": "auth", "key": key}).decode())
            ask = {"type": "subscribe", "channels": ["account"]}
            await socket.send_str(
                msgspec.json.encode(ask if seq is None else ask | {"after_seq": seq}).decode()
            )
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                told = decode(message.data)
                if told["type"] == "ack" and told.get("channels"):
                    seq = told["seq"] if seq is None else seq
                    ready.set()
                elif told.get("channel") == "account":
                    seq = told["seq"]
                    if told["event"] == "notice.issued":
                        arrivals.note()


async def measure(database: Database, leases: int, progress: Progress | None = None) -> dict[str, Any]:
    """Fill a market with `leases` one-GPU leases, outbid half of them in one tick; return the figures."""
    stores: list[TimedStore] = []

    def make_store() -> TimedStore:
        stores.append(TimedStore(database.connect))
        return stores[-1]

    step = progress.add_task("filling the market", total=5) if progress else None

    def done() -> None:
        if progress and step is not None:
            progress.advance(step)

    venue = Venue(database, make_store)
    await venue.start()
    await venue.open(nodes=leases // GPUS_PER_NODE)
    buyers = await venue.open_buyers(BUYERS)
    done()
    await venue.place(list(buyers), leases // BUYERS, 100 * CENT)
    done()
    venue.clock.advance(TICK_SECONDS)
    await venue.settle()
    started = await venue.start_leases()
    done()
    rivals = await venue.open_buyers(RIVALS)
    await venue.place(list(rivals), leases // 2 // RIVALS, 200 * CENT)
    done()

    arrivals = Arrivals(leases // 2)
    async with ClientSession() as http:
        ready = [asyncio.Event() for _ in buyers]
        readers = [
            asyncio.create_task(listen(http, venue.url, key, arrivals, event))
            for key, event in zip(buyers.values(), ready, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in ready))
        before_kib = _rss_kib()
        began_s = perf_counter()
        venue.clock.advance(TICK_SECONDS)
        async with asyncio.timeout(READ_SECONDS_MAX):
            await arrivals.complete.wait()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    done()
    store = stores[-1]
    assert store.rows is not None
    counted = await _notices_in_time(database)
    await venue.stop()
    at_s = sorted(arrivals.at_s)
    return {
        "leases": started,
        "preempted": len(at_s),
        "rows_in_the_commit": store.rows,
        "decided_s": store.began_s - began_s,
        "committed_s": store.ended_s - began_s,
        "delivered_p50_s": at_s[len(at_s) // 2] - began_s,
        "delivered_p99_s": at_s[len(at_s) * 99 // 100] - began_s,
        "growth_mib": (peak_kib - before_kib) / 1024,
        "notices_as_promised": counted,
        "settings": settings(),
    }


async def _notices_in_time(database: Database) -> int:
    """Count the notices in the database whose length is at least the market's."""
    connection = await database.connect()
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM notices n JOIN markets m ON m.id = n.market "
            "WHERE n.reclaim_at_us - n.issued_at_us >= m.notice_seconds * $1::bigint",
            MICROSECONDS_PER_SECOND,
        )
        return count
    finally:
        await connection.close()


def _rss_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def render(figures: dict[str, Any]) -> str:
    rows = [
        [name, f"{figures[name]:.2f}", f"{target:.0f}", "met" if figures[name] <= target else "missed"]
        for name, target in TARGETS.items()
    ]
    head = f"{figures['preempted']:,} of {figures['leases']:,} leases preempted in one tick"
    shown = ", ".join(f"{number:,} {name}" for name, number in figures["rows_in_the_commit"].items())
    return (
        f"{head}; {figures['notices_as_promised']:,} durable notices of the promised length\n"
        f"decided after {figures['decided_s']:.2f} s, one transaction: {shown}\n\n"
        + report.table(["figure", "measured", "target", ""], rows)
    )


async def _run(leases: int) -> dict[str, Any]:
    gc.set_threshold(100_000, 50, 100)  # as `fallow serve` sets it
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="fallow-bench-") as directory:
        async with open_database(url=None, data_dir=Path(directory)) as database:
            await database.prepare(apply_migrations=True)
            with Progress(console=console, disable=not console.is_terminal) as progress:
                return await measure(database, leases, progress)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.preempt_half")
    parser.add_argument("--leases", type=int, default=100_000, help="one GPU each; a multiple of 800")
    parser.add_argument("--quick", action="store_true", help="800 leases, writes nothing")
    options = parser.parse_args()
    leases = 800 if options.quick else options.leases
    if leases % 800 or not 800 <= leases <= 200_000:
        parser.error("--leases: a multiple of 800 up to 200,000")
    figures = asyncio.run(_run(leases))
    print(render(figures))
    if not options.quick:
        path = report.write("preempt_half", f"python -m bench.preempt_half --leases {leases}", figures)
        print(f"written: bench/results/{path.name}")


if __name__ == "__main__":
    main()
