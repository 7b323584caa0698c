"""A hundred thousand preemptions while receivers fail, sockets break and the server restarts.

    python -m bench.preempt_chaos [--preemptions 100000] [--seed 1] [--quick]

Two groups of tenants outbid each other on every GPU of a market, wave after wave, in virtual time. Webhook
receivers are down 30 % of it (503 or a broken connection), sockets are cut at random and come back after up
to a minute, the server is restarted 20 times in the middle of notices, every other time without draining.
Measured: how many of the lost leases have a durable notice of the promised length that was kept, and how
many of the notices reached their tenant before their deadline, by webhook, by socket, by either. The
database, the engine, HTTP, sockets and webhooks are the real ones; only the clock is moved by hand.
"""

import argparse
import asyncio
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web
from rich.console import Console
from rich.progress import Progress

from auction.clock import ManualClock
from auction.commands import AmendBid, PlaceBid
from auction.units import MICROSECONDS_PER_SECOND, Price
from bench import report
from bench.preemption_world import CENT, GPUS_PER_NODE, START_US, TICK_SECONDS, Venue, settings
from sql.audit import audit
from sql.pool import Database, open_database

TENANTS_PER_GROUP = 20
GPUS = 1_000
DOWN_SHARE = 0.30
CYCLE_SECONDS = (60, 300)  # of a receiver's being up and down once
SOCKET_CUTS_PER_MINUTE = 0.5
AWAY_SECONDS_MAX = 60
RESTARTS = 20
TELLING_ROUNDS_MAX = 2_000
FIRST_LIMIT, LIMIT_STEP = 100 * CENT, 4 * CENT

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Receiver:
    """Everybody's webhook receiver: down by a schedule in virtual time, otherwise it notes what came."""

    def __init__(self, clock: ManualClock, dice: random.Random) -> None:
        self.arrivals_us: dict[str, int] = {}
        self.requests = self.refused = 0
        self._clock = clock
        self._dice = dice
        self._cycle_from_us = self._cycle_to_us = self._down_from_us = self._down_to_us = START_US

    def is_down(self) -> bool:
        now_us = self._clock.now_us()
        while now_us >= self._cycle_to_us:
            length_us = self._dice.randint(*CYCLE_SECONDS) * MICROSECONDS_PER_SECOND
            down_us = int(length_us * DOWN_SHARE)
            self._cycle_from_us, self._cycle_to_us = self._cycle_to_us, self._cycle_to_us + length_us
            self._down_from_us = self._cycle_from_us + self._dice.randint(0, length_us - down_us)
            self._down_to_us = self._down_from_us + down_us
        return self._down_from_us <= now_us < self._down_to_us

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.is_down():
            self.refused += 1
            if self._dice.random() < 0.5 and request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        told = _decode(await request.read())
        self.arrivals_us.setdefault(told["data"]["id"], self._clock.now_us())
        return web.Response(status=204)


class Tenant:
    """One account's socket: it resumes where it was, after every cut and every restart."""

    def __init__(self, venue: Venue, account: str, key: str, arrivals_us: dict[str, int]) -> None:
        self.account = account
        self.key = key
        self.cuts = 0
        self._venue = venue
        self._arrivals_us = arrivals_us
        self._seq = 0
        self._away_until_us = 0
        self._socket: ClientWebSocketResponse | None = None

    def cut(self, away_seconds: int) -> None:
        """Break the connection as a network does, and stay away."""
        if self._socket is not None and not self._socket.closed:
            self.cuts += 1
            self._away_until_us = self._venue.clock.now_us() + away_seconds * MICROSECONDS_PER_SECOND
            connection = self._socket._response.connection
            assert connection is not None and connection.transport is not None, "it is open"
            connection.transport.abort()

    async def run(self, http: ClientSession) -> None:
        while True:
            while self._venue.clock.now_us() < self._away_until_us:
                await self._venue.clock.wait(asyncio.Event(), self._away_until_us)
            with suppress(ClientError, OSError):  # the server is away, or the connection was cut: come back
                await self._listen(http)
            await asyncio.sleep(0.01)

    def is_behind(self) -> bool:
        """Say whether it should have heard of something that it has not: away is no excuse of ours."""
        head = self._venue.engine.core.accounts[self.account].event_seq
        return self._venue.clock.now_us() >= self._away_until_us and self._seq < head

    async def _listen(self, http: ClientSession) -> None:
        url = f"{self._venue.url}/v1/ws"
        async with http.ws_connect(url, protocols=["fallow.v1.json"], max_msg_size=0) as self._socket:
            for message in (
                {"type": "auth", "key": self.key},
                {"type": "subscribe", "channels": ["account"], "after_seq": self._seq},
            ):
                await self._socket.send_str(msgspec.json.encode(message).decode())
            async for frame in self._socket:
                if frame.type is not WSMsgType.TEXT:
                    return
                told = _decode(frame.data)
                if told.get("channel") == "account":
                    self._seq = told["seq"]
                    if told["event"] == "notice.issued":
                        self._arrivals_us.setdefault(told["data"]["id"], self._venue.clock.now_us())


class Storm:
    """The waves, and everything that goes wrong during them."""

    def __init__(self, venue: Venue, waves: int, seed: int) -> None:
        self.venue = venue
        self.dice = random.Random(seed)
        self.receiver = Receiver(venue.clock, random.Random(seed + 1))
        self.socket_arrivals_us: dict[str, int] = {}
        self.tenants: list[Tenant] = []
        self.groups: list[list[PlaceBid]] = []
        self.waves = waves
        self.restart_waves = set(self.dice.sample(range(waves), min(RESTARTS, waves)))
        self._limit = FIRST_LIMIT

    async def open(self, http: ClientSession, hook_url: str, gpus: int) -> None:
        """Fill the market with the first group's leases; the second group's bids wait."""
        await self.venue.open(nodes=gpus // GPUS_PER_NODE)
        for _ in range(2):
            keys = await self.venue.open_buyers(TENANTS_PER_GROUP)
            for account, key in keys.items():
                tenant = Tenant(self.venue, account, key, self.socket_arrivals_us)
                self.tenants.append(tenant)
                body = {"url": hook_url, "types": ["notice.issued"]}
                headers = {"Authorization": f"Bearer {key}"}
                async with http.post(f"{self.venue.url}/v1/webhooks", json=body, headers=headers) as response:
                    assert response.status == 201, await response.text()
            limit = FIRST_LIMIT if not self.groups else FIRST_LIMIT - CENT
            self.groups.append(await self.venue.place(list(keys), gpus // TENANTS_PER_GROUP, limit))
        self.venue.clock.advance(TICK_SECONDS)
        await self.venue.settle()
        await self.venue.start_leases()

    async def wave(self, number: int) -> None:
        """The group that has nothing outbids the other, which gets its notices and leaves."""
        self._limit += LIMIT_STEP
        losing = self.groups[(number + 1) % 2]
        await self.venue.do([
            AmendBid(bid.bid, bid.account, limit=Price(self._limit)) for bid in losing
        ])  # fmt: skip
        restart_after = self.dice.randint(1, 8) if number in self.restart_waves else None
        steps = 0
        while True:
            await self._advance()
            steps += 1
            if steps == restart_after:
                await self.venue.restart(is_drained=self.venue.restarts % 2 == 0)
                await self._settle()
            if await self.venue.start_leases():
                await self._settle()
                return

    async def _settle(self) -> None:
        """Let everything be told that can be told at this moment, so that lateness is the market's."""
        await self.venue.settle()
        for _ in range(TELLING_ROUNDS_MAX):
            if not any(tenant.is_behind() for tenant in self.tenants):
                return
            await asyncio.sleep(0.005)

    async def _advance(self) -> None:
        """Move time to whatever is due next, at most a tick, and let bad luck happen."""
        clock = self.venue.clock
        before_us = clock.now_us()
        clock.advance_to(
            max(
                before_us,
                min(await self.venue.next_instant_us(), before_us + TICK_SECONDS * MICROSECONDS_PER_SECOND),
            )
        )
        await self._settle()
        minutes = (clock.now_us() - before_us) / MICROSECONDS_PER_SECOND / 60
        for tenant in self.tenants:
            if self.dice.random() < SOCKET_CUTS_PER_MINUTE * minutes:
                tenant.cut(self.dice.randint(0, AWAY_SECONDS_MAX))


async def measure(
    database: Database, preemptions: int, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the waves on an empty migrated database; return the figures."""
    began_s = perf_counter()
    gpus = min(GPUS, preemptions // 2)
    venue = Venue(database)
    await venue.start()
    storm = Storm(venue, preemptions // gpus, seed)
    step = progress.add_task("waves", total=storm.waves) if progress else None
    hook = web.AppRunner(_receiving(storm.receiver), access_log=None)
    await hook.setup()
    await web.TCPSite(hook, "127.0.0.1", 0).start()
    async with ClientSession() as http:
        await storm.open(http, f"http://127.0.0.1:{hook.addresses[0][1]}/", gpus)
        readers = [asyncio.create_task(tenant.run(http)) for tenant in storm.tenants]
        for number in range(storm.waves):
            await storm.wave(number)
            if progress and step is not None:
                progress.advance(step)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    await venue.stop()
    await hook.cleanup()
    connection = await database.connect()
    try:
        findings = await audit(connection)
        figures = await _judge(connection, storm)
    finally:
        await connection.close()
    return figures | {
        "restarts": venue.restarts,
        "sockets_cut": sum(tenant.cuts for tenant in storm.tenants),
        "webhook_attempts": storm.receiver.requests,
        "webhook_attempts_refused": storm.receiver.refused,
        "virtual_hours": (venue.clock.now_us() - START_US) / MICROSECONDS_PER_SECOND / 3600,
        "wall_s": perf_counter() - began_s,
        "audit_failed": [finding.name for finding in findings if not finding.is_ok],
        "seed": seed,
        "settings": settings(),
    }


def _receiving(receiver: Receiver) -> web.Application:
    app = web.Application()
    app.router.add_post("/", receiver.answer)
    return app


async def _judge(connection: Any, storm: Storm) -> dict[str, Any]:
    """Compare what the database says of every lost lease with what its tenant was told, and when."""
    rows = await connection.fetch(
        """SELECT l.id, l.ended_at_us, n.id AS notice, n.issued_at_us, n.reclaim_at_us
        FROM leases l LEFT JOIN notices n ON n.id = l.notice
        WHERE l.end_reason = 'outbid' AND l.started_at_us IS NOT NULL ORDER BY l.id"""
    )
    promised_us = settings()["notice_seconds"] * MICROSECONDS_PER_SECOND
    kept = [
        row
        for row in rows
        if row["notice"] is not None
        and row["reclaim_at_us"] - row["issued_at_us"] >= promised_us
        and row["ended_at_us"] >= row["reclaim_at_us"]
    ]
    by_hook, by_socket = storm.receiver.arrivals_us, storm.socket_arrivals_us
    never = 1 << 62

    def in_time(*channels: dict[str, int]) -> int:
        return sum(
            min(channel.get(row["notice"], never) for channel in channels) < row["reclaim_at_us"]
            for row in kept
        )

    waits_s = sorted(
        (min(by_hook.get(row["notice"], never), by_socket.get(row["notice"], never)) - row["issued_at_us"])
        / MICROSECONDS_PER_SECOND
        for row in kept
    )
    return {
        "preempted": len(rows),
        "noticed_and_kept": len(kept),
        "reached_in_time": in_time(by_hook, by_socket),
        "reached_by_webhook": in_time(by_hook),
        "reached_by_socket": in_time(by_socket),
        "first_heard_after_s": {
            name: waits_s[min(len(waits_s) - 1, int(len(waits_s) * share))]
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
    }


def render(figures: dict[str, Any]) -> str:
    count = figures["preempted"]
    names = {
        "noticed_and_kept": "durable notice of the promised length, kept",
        "reached_in_time": "reached by at least one channel before its deadline",
        "reached_by_webhook": "  by webhook",
        "reached_by_socket": "  by socket",
    }
    rows = [
        [text, f"{figures[name]:,}", f"{100 * figures[name] / count:.3f} %"] for name, text in names.items()
    ]
    heard = ", ".join(f"{name} {value:.1f} s" for name, value in figures["first_heard_after_s"].items())
    return (
        f"{count:,} preemptions in {figures['virtual_hours']:.1f} virtual hours: "
        f"{figures['restarts']} restarts, {figures['sockets_cut']:,} sockets cut, "
        f"{figures['webhook_attempts']:,} webhook attempts, "
        f"of which {figures['webhook_attempts_refused']:,} were refused\n\n"
        + report.table(["", "notices", "share"], rows)
        + f"\n\nfirst heard after (virtual): {heard}; "
        f"audit: {'ok' if not figures['audit_failed'] else figures['audit_failed']}"
    )


async def _run(preemptions: int, seed: int) -> dict[str, Any]:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="fallow-bench-") as directory:
        async with open_database(url=None, data_dir=Path(directory)) as database:
            await database.prepare(apply_migrations=True)
            with Progress(console=console, disable=not console.is_terminal) as progress:
                return await measure(database, preemptions, seed, progress)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.preempt_chaos")
    parser.add_argument("--preemptions", type=int, default=100_000, help="a multiple of 1,000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="160 preemptions, writes nothing")
    options = parser.parse_args()
    preemptions = 160 if options.quick else options.preemptions
    if not options.quick and (preemptions % 1_000 or not 2_000 <= preemptions <= 200_000):
        parser.error("--preemptions: a multiple of 1,000 from 2,000 to 200,000")
    figures = asyncio.run(_run(preemptions, options.seed))
    print(render(figures))
    if not options.quick:
        path = report.write("preempt_chaos", f"python -m bench.preempt_chaos --seed {options.seed}", figures)
        print(f"written: bench/results/{path.name}")


if __name__ == "__main__":
    main()
