"""What a durable bid costs beside bare aiohttp over HTTP, a socket and in batches; ledger and fan-out too.

    python -m bench.bench_http [--rows single,socket,batch,ledger,...] [--seconds 4] [--rounds 5]

Both sides answer on the same core (0), each in a process of its own, and are loaded in alternating rounds
from the other one (1) by the same client; PostgreSQL runs where the system puts it, with fsync. Every bid
is whole: key checked, limits, hold, journal, idempotency key or client_bid_id, answered when it is durable;
after each round the database must hold exactly as many bids more as were acknowledged. Ratios are medians of
the rounds' ratios; latencies are an open-loop client's at half the rate of the closed loop. Processor time is
the server process's alone: it says more than a rate where others use the cores.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.progress import Progress

from bench import http_gateway, http_settlement, report
from bench.http_fanout import fan_out
from bench.http_ledger import ledger_against_pgbench
from bench.http_load import Outcome, closed_loop, open_loop, pipelined
from bench.http_server import MARKET, TICK_SECONDS

LOAD_CORE = 1
START_SECONDS_MAX = 90
CONNECTIONS = 64
OUTSTANDING = 512  # orders in flight on the socket
SOCKET_ORDERS_MAX = 9_500  # of one round: an account may have 10,000 live bids in a market
BATCHES_MAX = 9
BATCH_CONNECTIONS = 4
BATCH_BIDS = 1_000
FANOUT_SOCKETS = 1_000
ROWS = ("single", "socket", "batch", "ledger", "fanout", "settlement", "gateway")
TARGETS = {
    "single": "x bare aiohttp, >= 0.55",
    "socket": "x bare aiohttp, >= 3",
    "batch": "x bare aiohttp, >= 10",
    "ledger": "x pgbench, >= 25",
    "ledger_hot": "x uniform, >= 0.8",
    "fanout": "ms to 1,000 sockets, <= 100",
    "settlement": "s, <= 0.5",
    "gateway": "x matching-engine's gateway, >= 2.5",
}
_NAMES = count()


def bid_body(name: int) -> bytes:
    """Return the JSON of one bid; each has another price."""
    return (
        b'{"market":"%s","gpus":2,"limit_price_per_gpu_hour":"%d.%04d00","min_gpus":1,"time_in_force":"gtc"'
        % (MARKET.encode(), 1 + name % 7, name * 7_919 % 10_000)
    )


def posts(key: str) -> Iterator[bytes]:
    """Yield requests that place one bid each, every one with its own idempotency key."""
    for name in _NAMES:
        body = bid_body(name) + b',"labels":{"job":"bench-%08d"}}' % name
        yield (
            b"POST /v1/bids HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"
            b"Idempotency-Key: b%015d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (key.encode(), name, len(body), body)
        )


def orders() -> Iterator[bytes]:
    """Yield socket messages that place one bid each, every one with its own client_bid_id."""
    for name in _NAMES:
        yield bid_body(name)[:-1] + b'","type":"bid.place","id":%d,"client_bid_id":"b%015d"}' % (name, name)


def batches(key: str) -> Iterator[bytes]:
    """Yield requests that place 1,000 bids each."""
    for _ in count():
        operations = b",".join(
            bid_body(name) + b',"op":"place","client_bid_id":"b%015d"}' % name
            for name in (next(_NAMES) for _ in range(BATCH_BIDS))
        )
        body = b'{"operations":[%s]}' % operations
        yield (
            b"POST /v1/bids/batch HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (key.encode(), len(body), body)
        )


class Side:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, facts: dict[str, Any]) -> None:
        self._process = process
        self.facts = facts
        self.port: int = facts["port"]

    def cpu_us(self) -> float:
        """Return the processor time that all its threads have used."""
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1_000

    async def look(self) -> dict[str, Any]:
        """Return what its database holds now."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(START_SECONDS_MAX):
            return json.loads(await self._process.stdout.readline())  # type: ignore[no-any-return]


@asynccontextmanager
async def side(*arguments: str) -> AsyncIterator[Side]:
    """Start one side; end it by closing its standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.http_server", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"{arguments[0]} did not start; it says why above")
        yield Side(process, json.loads(line))
    finally:
        process.stdin.close()
        await process.wait()


class Comparison:
    """Alternating rounds of one row against bare POSTs."""

    def __init__(self, bare: Side, fallow: Side, seconds: float) -> None:
        self._bare = bare
        self._fallow = fallow
        self._keys = cycle(fallow.facts["keys"])
        self._seconds = seconds

    def key(self) -> str:
        return next(self._keys)

    async def bare_round(self) -> Outcome:
        sources = [posts("x" * 64) for _ in range(CONNECTIONS)]
        return await closed_loop(self._bare.port, sources, self._seconds)

    async def row(self, name: str, rounds: int, progress: Progress) -> dict[str, Any]:
        """Return both sides' rates, round by round, and the median of their ratios."""
        task = progress.add_task(name, total=rounds)
        bare, ours, bare_cpu_us, cpu_us = [], [], [], []
        for _ in range(rounds):
            before = self._bare.cpu_us(), self._fallow.cpu_us()
            bare_outcome = await self.bare_round()
            outcome = await self.counted(name)
            bare.append(bare_outcome.rate)
            ours.append(outcome.rate)
            bare_cpu_us.append((self._bare.cpu_us() - before[0]) / bare_outcome.accepted)
            cpu_us.append((self._fallow.cpu_us() - before[1]) / outcome.accepted)
            progress.advance(task)
        ratios = [b / a for a, b in zip(bare, ours, strict=True)]
        return {
            "bare_per_s": bare,
            "fallow_per_s": ours,
            "ratio": median(ratios),
            "ratios": ratios,
            "bare_cpu_us": bare_cpu_us,
            "cpu_us": cpu_us,
        }

    async def counted(self, name: str) -> Outcome:
        """Load one path; check that the database holds what was acknowledged, and nothing else."""
        before = (await self._fallow.look())["bids"]
        outcome = await self._load(name)
        held = (await self._fallow.look())["bids"] - before
        if held != outcome.accepted or outcome.refused:
            raise RuntimeError(
                f"{name}: {outcome.accepted} acknowledged, {held} held, {outcome.refused} refused"
            )
        return outcome

    async def _load(self, name: str) -> Outcome:
        port = self._fallow.port
        if name == "single":
            return await closed_loop(port, [posts(self.key()) for _ in range(CONNECTIONS)], self._seconds)
        if name == "socket":
            auth = b'{"type":"auth","key":"%s"}' % self.key().encode()
            limited = islice(orders(), SOCKET_ORDERS_MAX)
            return await pipelined(port, auth, limited, outstanding=OUTSTANDING, seconds=self._seconds)
        sources = [islice(batches(self.key()), BATCHES_MAX) for _ in range(BATCH_CONNECTIONS)]
        return await closed_loop(port, sources, self._seconds, unit=BATCH_BIDS)

    async def latencies(self, rate: float) -> dict[str, float]:
        """Return p50, p99 and p99.9 in milliseconds of single bids that come at this rate."""
        await asyncio.sleep(2 * TICK_SECONDS)  # what the closed loop left is told at the next tick
        sources = [posts(self.key()) for _ in range(CONNECTIONS)]
        outcome = await open_loop(self._fallow.port, sources, rate, 2 * self._seconds)
        cuts = quantiles(outcome.latencies_s, n=1_000)
        named = zip(("p50_ms", "p99_ms", "p99_9_ms"), (cuts[499], cuts[989], cuts[998]), strict=True)
        return {"rate_per_s": rate, **{name: round(cut * 1_000, 2) for name, cut in named}}


async def measure(rows: list[str], seconds: float, rounds: int, progress: Progress) -> dict[str, Any]:
    """Run the chosen rows against one pair of servers."""
    figures: dict[str, Any] = {"load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        async with side("fallow", str(Path(directory) / "data")) as fallow:
            os.sched_setaffinity(0, {LOAD_CORE})
            size = await _answer_bytes(fallow)
            os.sched_setaffinity(0, {0, 1})
            async with side("bare", str(size)) as bare:
                os.sched_setaffinity(0, {LOAD_CORE})
                settings = ("fsync", "synchronous_commit", "server_version")
                figures |= {name: fallow.facts[name] for name in settings}
                figures["answer_bytes"] = size
                compared = Comparison(bare, fallow, seconds)
                await compared.bare_round()  # warms both
                for name in rows:
                    if name in ("single", "socket", "batch"):
                        figures[name] = await compared.row(name, rounds, progress)
                if "single" in figures:
                    half = median(figures["single"]["fallow_per_s"]) / 2
                    figures["single"]["open_loop"] = await compared.latencies(half)
                if "fanout" in rows:
                    figures["fanout"] = await fan_out(
                        fallow.port, MARKET, FANOUT_SOCKETS, rounds, TICK_SECONDS, progress
                    )
                if "gateway" in rows:
                    figures["gateway"] = await http_gateway.against_gateway(
                        lambda: compared.counted("single"),
                        seconds,
                        rounds,
                        Path(directory) / "gateway",
                        progress,
                    )
            os.sched_setaffinity(0, {0, 1})
            if "settlement" in rows:
                figures["settlement"] = await http_settlement.settlement(fallow.facts, rounds, progress)
            if "ledger" in rows:
                figures["ledger"] = await ledger_against_pgbench(fallow.facts, seconds, rounds, progress)
    figures["load_after"] = os.getloadavg()
    return figures


async def _answer_bytes(fallow: Side) -> int:
    """Place one bid and return the length of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fallow.port)
    writer.write(next(posts(fallow.facts["keys"][0])))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(f"the first bid was refused: {head!r}")
    at = head.lower().index(b"content-length:") + 15
    length = int(head[at : head.index(b"\r\n", at)])
    msgspec.json.decode(await reader.readexactly(length))
    writer.close()
    return length


def lines(figures: dict[str, Any]) -> list[list[str]]:
    """Return the table's rows: path, what it made, the server's time for one, the figure, the target."""
    table = []
    for name in ("single", "socket", "batch"):
        if name in figures:
            found = figures[name]
            made = f"{median(found['fallow_per_s']):,.0f} against {median(found['bare_per_s']):,.0f}/s"
            cpu = f"{median(found['cpu_us']):.0f} against {median(found['bare_cpu_us']):.0f} us"
            table.append([name, made, cpu, f"{found['ratio']:.2f}", TARGETS[name]])
    if "ledger" in figures:
        found = figures["ledger"]
        made = f"{median(found['transfers_per_s']):,.0f} against {median(found['pgbench_per_s']):,.0f}/s"
        table.append(["ledger", made, "", f"{found['ratio']:.1f}", TARGETS["ledger"]])
        made = f"{median(found['hot_per_s']):,.0f}/s"
        table.append(
            ["ledger, one hot account", made, "", f"{found['hot_ratio']:.2f}", TARGETS["ledger_hot"]]
        )
    if "fanout" in figures:
        found = figures["fanout"]
        table.append(["fanout", f"{found['ticks']} ticks", "", f"{found['last_ms']:.0f}", TARGETS["fanout"]])
    others = (
        http_settlement.rows(figures["settlement"], TARGETS["settlement"]) if "settlement" in figures else []
    )
    if "gateway" in figures:
        others.append(http_gateway.row(figures["gateway"], TARGETS["gateway"]))
    table += [[*row[:2], "", *row[2:]] for row in others]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", default=",".join(http_gateway.if_there(ROWS)), help="which, by comma (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each row (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    console = Console(stderr=True)
    with Progress(console=console) as progress, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        figures = loop.run(measure(rows, options.seconds, options.rounds, progress))
    # The whole table has a file of its own, which a run of some rows leaves alone.
    name = "http" if set(rows) >= set(http_gateway.if_there(ROWS)) else f"http_{'_'.join(rows)}"
    report.write(name, f"python -m bench.bench_http {' '.join(sys.argv[1:])}".strip(), figures)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print(report.table(["path", "bids a second", "server CPU a bid", "figure", "target"], lines(figures)))
    if "single" in figures:
        print(f"\nopen loop, single bids: {figures['single']['open_loop']}")


if __name__ == "__main__":
    main()
