"""The database away for five seconds, in two ways, and the disk under it full: the market waits and goes on.

While it is away every request is answered or waits, none with a success that is none; afterwards a write is
acknowledged again without anybody's help, everything acknowledged is there once, and the books audit.
The full disk is a small tmpfs, so that part needs the right to mount one.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.config import Config
from auction.ids import random_id
from sql.embedded import EmbeddedPostgres
from sql.pool import DATABASE_NAME, Database
from sql.process import servers_on
from tests.api.conftest import MARKET, Venue, serving
from tests.crash import books
from tests.proof.promise import Outcome, Promise, Size

AWAY_SECONDS = {Size.SHORT: 1.5, Size.FULL: 5.0}
TICK_SECONDS = 1
CLIENTS = 3
BACK_SECONDS_MAX = 60.0
DISK_BYTES = 300 * 1024 * 1024
LEFT_BYTES = 256 * 1024  # of the disk, when the load begins to fill it
PAUSE_SECONDS = 0.02


@dataclass
class Told:
    """What clients were answered: bids by key, and how often each other status came."""

    bids: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)  # by code
    wrong: list[str] = field(default_factory=list)


@asynccontextmanager
async def loaded(venue: Venue, seed: int, *, label: str = "") -> AsyncIterator[Told]:
    """Keep clients bidding while the body runs; each asks until it is told."""
    told, stop = Told(), asyncio.Event()

    async def bid(client: int) -> None:
        number, dice = 0, random.Random(f"{seed}:{client}")
        while not stop.is_set():
            number += 1
            key = f"c{client}:{number}"
            labels = {"key": key, "filling": label} if label else {"key": key}
            limit = f"{1 + dice.randrange(1_000) / 1_000:.3f}000"
            body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": limit, "labels": labels}
            name = random_id("key")
            while True:
                answered = await venue.call("POST", "/v1/bids", venue.buyer, body, Idempotency_Key=name)
                if answered.status == 201:
                    told.bids[key] = answered.json["id"]
                    break
                code = answered.json["code"]
                told.refused[code] = told.refused.get(code, 0) + 1
                if answered.status not in (409, 503):
                    told.wrong.append(f"{key}: {answered.status} {code}")
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    clients = [asyncio.create_task(bid(client)) for client in range(CLIENTS)]
    try:
        yield told
    finally:
        stop.set()
        try:
            await asyncio.wait_for(asyncio.gather(*clients), BACK_SECONDS_MAX)
        except TimeoutError:
            told.wrong.append(f"a client has no answer after {BACK_SECONDS_MAX:.0f} s")


async def acknowledged(told: Told, more: int) -> float:
    """Return how long it takes until so many more bids are acknowledged; raises TimeoutError."""
    loop = asyncio.get_running_loop()
    began_s, wanted = loop.time(), len(told.bids) + more
    async with asyncio.timeout(BACK_SECONDS_MAX):
        while len(told.bids) < wanted:
            await asyncio.sleep(PAUSE_SECONDS)
    return loop.time() - began_s


@asynccontextmanager
async def venue_on(postgres: EmbeddedPostgres) -> AsyncIterator[tuple[Venue, Database]]:
    """Serve a market on this server."""
    arguments = postgres.connect_arguments()
    connection = await Database(arguments).connect()
    await connection.execute(f'CREATE DATABASE "{DATABASE_NAME}"')
    await connection.close()
    database = Database({**arguments, "database": DATABASE_NAME})
    await database.prepare(apply_migrations=True)
    async with serving(database, Config(port=0, is_demo=True)) as venue:
        await venue.open_market(tick_seconds=TICK_SECONDS)
        _, venue.buyer = await venue.open_account("buyer")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "100000000.00"})
        yield venue, database


async def compare(database: Database, told: Told) -> list[str]:
    """Hold what was acknowledged against what is there, and audit."""
    wrong, held = list(told.wrong), await books.bids_by_key(database)
    for key in sorted(told.bids.keys() | held.keys()):
        if held.get(key, []) != [told.bids.get(key)]:
            wrong.append(f"bid under {key}: acknowledged {told.bids.get(key)}, there are {held.get(key)}")
    return wrong + await books.what_is_wrong(database)


async def _stopped(postgres: EmbeddedPostgres, directory: Path, seconds: float) -> None:
    """Stop the server in order and start it again."""
    await postgres.stop()
    await asyncio.sleep(seconds)
    await postgres.start()


async def _frozen(postgres: EmbeddedPostgres, directory: Path, seconds: float) -> None:
    """Freeze every process of the server, and let them go on."""
    pids = servers_on(directory / "pg")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


Away = Callable[[EmbeddedPostgres, Path, float], Awaitable[None]]
AWAYS: dict[str, Away] = {"stopped": _stopped, "frozen": _frozen}


async def go_away(kind: str, seconds: float, seed: int) -> tuple[list[str], str]:
    """Take the database away under load; return what is wrong and what was seen."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with EmbeddedPostgres(directory) as postgres, venue_on(postgres) as (venue, database):
            async with loaded(venue, seed) as told:
                await acknowledged(told, 20)
                ticks_before = venue.engine.core.markets[MARKET].tick
                await AWAYS[kind](postgres, directory, seconds)
                back_s = await acknowledged(told, CLIENTS + 1)
                ticks = venue.engine.core.markets[MARKET].tick - ticks_before
                await acknowledged(told, 20)
            wrong = await compare(database, told)
        # A late tick runs once: never more of them than the time that passed has room for.
        passed_s = seconds + back_s
        if ticks > passed_s / TICK_SECONDS + 2:
            wrong.append(f"{ticks} ticks in {passed_s:.1f} s")
        seen = f"{kind} {seconds:.1f} s: {len(told.bids)} acknowledged, refused meanwhile {told.refused}, "
        return wrong, seen + f"a write acknowledged {back_s:.1f} s after"


def run_away(size: Size, seed: int) -> Outcome:
    """Take the database away in each way."""
    wrong, seen = [], []
    for kind in AWAYS:
        found, text = asyncio.run(go_away(kind, AWAY_SECONDS[size], seed))
        wrong += found
        seen.append(text)
    return Outcome(not wrong, "; ".join(seen + wrong[:5]))


@contextlib.contextmanager
def small_disk(directory: Path):
    """Mount a tmpfs; raises OSError with the reason where that is not allowed."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "fallow-test", str(directory)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(done.stderr.strip() or f"mount ended with status {done.returncode}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def fill_disk(directory: Path, seed: int) -> tuple[list[str], str]:
    """Let the disk run full under load, look what still works, and make room again."""
    async with EmbeddedPostgres(directory) as postgres, venue_on(postgres) as (venue, database):
        async with loaded(venue, seed, label="x" * 60) as told:
            await acknowledged(told, 20)
            ballast = directory / "ballast"
            refused_before = sum(told.refused.values())
            await asyncio.to_thread(_fill, ballast)
            async with asyncio.timeout(BACK_SECONDS_MAX):
                while sum(told.refused.values()) < refused_before + 20:
                    await asyncio.sleep(PAUSE_SECONDS)
            refused = dict(told.refused)
            reads = await venue.call("GET", "/v1/balance", venue.buyer)
            live = await venue.call("GET", "/livez")
            ballast.unlink()
            back_s = await acknowledged(told, CLIENTS + 1)
            await acknowledged(told, 20)
        wrong = await compare(database, told)
    if live.status != 200:
        wrong.append(f"/livez answered {live.status} on a full disk")
    if not refused:
        wrong.append("the disk was never full")
    seen = f"{len(told.bids)} acknowledged; full: refused {refused}, a read answered {reads.status}; "
    return wrong, seen + f"a write acknowledged {back_s:.1f} s after there was room"


def _fill(ballast: Path) -> None:
    """Write a file until only a little is left."""
    with ballast.open("wb") as file:
        while True:
            free = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
            if free <= LEFT_BYTES:
                return
            file.write(bytes(min(1 << 20, free - LEFT_BYTES)))
            file.flush()


def run_full(size: Size, seed: int) -> Outcome:
    """Fill a small disk; not run where none can be mounted."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            disk = contextlib.ExitStack()
            disk.enter_context(small_disk(directory))
        except OSError as refused:
            return Outcome(None, f"not run: no tmpfs can be mounted here ({refused})")
        with disk:
            wrong, seen = asyncio.run(fill_disk(directory, seed))
    return Outcome(not wrong, "; ".join([seen, *wrong[:5]]))


PROMISES = [
    Promise(
        name="database-away",
        promise="A database that is away for seconds loses nothing and needs nobody's help to be found again",
        method="PostgreSQL stopped and started, and frozen, for 5 s under load; audit, replay",
        target="no acknowledged bid lost or doubled, no ticks crowded together, writes go on by themselves",
        run=run_away,
    ),
    Promise(
        name="disk-full",
        promise="A full disk refuses writes, and they go on as soon as there is room",
        method="PostgreSQL on a tmpfs of 300 MiB, filled under load, then given room; audit, replay",
        target="503 while it is full, no acknowledged bid lost, no repair",
        run=run_full,
    ),
]
