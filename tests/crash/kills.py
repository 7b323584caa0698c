"""kill -9 at random instants under load: of the server, the postmaster, one of its sessions, or both.

Clients bid, cancel and deposit over HTTP, each request with a key, and ask again through every outage until
they are told. The claims: what was acknowledged is there, once; the books audit and the journal replays to
the stored state; and soon after the kill, or after the restart of a killed server, a write is acknowledged
again. What was acknowledged is written down before the tables are read: the other order reports losses
that are none.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from sql.embedded import connect_arguments
from sql.pool import DATABASE_NAME, Database
from sql.process import servers_on
from tests.crash import books
from tests.crash.planted import command
from tests.integration.test_market_process import Demo
from tests.proof.promise import Outcome, Promise, Size

KILLS = {Size.SHORT: 4, Size.FULL: 200}
VICTIMS = ("server", "postmaster", "session", "both")
ROOT = Path(__file__).parents[2]
MARKET = "h100-sxm.us"
CLIENTS = 4
LIVE_BIDS_MAX = 5
DELAY_MS_MAX = 1_500  # of load before a kill
PAUSE_SECONDS = 0.02
REQUEST_SECONDS_MAX = 15.0
READY_SECONDS_P99 = 5.0
READY_SECONDS_MAX = 60.0  # then it counts as not coming back
RETRIED = frozenset({409, 429, 503})


class Market(Demo):
    """`fallow demo` without bots, perhaps with a planted bug."""

    def __init__(self, data_dir: Path, plant: str | None = None) -> None:
        super().__init__(data_dir)
        self._plant = plant
        self.database = Database({**connect_arguments(data_dir), "database": DATABASE_NAME})

    async def start(self, *options: str) -> None:
        fixed = ["demo", "--json", "--no-bots", "--port", "18240", "--tick-seconds", "1"]
        words = [*command(self._plant), *fixed, "--notice-seconds", "3", "--data-dir", str(self.data_dir)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = await asyncio.create_subprocess_exec(*words, *options, cwd=ROOT, **pipes)
        async with asyncio.timeout(READY_SECONDS_MAX):
            self.facts = json.loads(await self.process.stdout.readline())

    async def check(self, verb: str) -> str | None:
        """Run `fallow audit` or `fallow replay` beside nobody; return its words where it objects."""
        done = await asyncio.create_subprocess_exec(
            *command(None), verb, "--data-dir", str(self.data_dir), stdout=subprocess.PIPE, cwd=ROOT
        )
        words, _ = await done.communicate()
        return None if done.returncode == 0 else f"fallow {verb}: {words.decode()[-500:]}"


@dataclass
class Told:
    """What was acknowledged so far."""

    bids: dict[str, str] = field(default_factory=dict)  # by key
    deposits: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    newest_s: float = 0.0  # when the newest acknowledged attempt was sent


class Client:
    """One buyer's program: it never gives a request up."""

    def __init__(self, market: Market, name: str, dice: random.Random, told: Told) -> None:
        self._market = market
        self._name = name
        self._dice = dice
        self._told = told
        self._live: list[str] = []
        self._count = 0
        self.is_stopped = False

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not self.is_stopped:
                await self._act(session)
                await asyncio.sleep(self._dice.random() * PAUSE_SECONDS)

    async def _act(self, session: aiohttp.ClientSession) -> None:
        self._count += 1
        key = f"{self._name}:{self._count}"
        if self._dice.random() < 0.2:
            made = await self._ask(session, key, "POST", "/v1/deposits", {"amount": "1.00"})
            self._told.deposits.add(made["id"])
        elif len(self._live) >= LIVE_BIDS_MAX or (self._live and self._dice.random() < 0.4):
            bid = self._live.pop(self._dice.randrange(len(self._live)))
            await self._ask(session, key, "DELETE", f"/v1/bids/{bid}?release=true")
        else:
            body = {
                "market": MARKET,
                "gpus": 1,
                "limit_price_per_gpu_hour": "4.000000",
                "labels": {"key": key},
            }
            made = await self._ask(session, key, "POST", "/v1/bids", body)
            self._told.bids[key] = made["id"]
            self._live.append(made["id"])

    async def _ask(
        self, session: aiohttp.ClientSession, key: str, method: str, path: str, body: Any = None
    ) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            facts, began_s = self._market.facts, loop.time()
            headers = {"Authorization": f"Bearer {facts['keys']['buyer']}", "Idempotency-Key": key}
            try:
                async with session.request(
                    method, facts["api"] + path, json=body, headers=headers
                ) as response:
                    answer = await response.json(content_type=None)
                    if response.status < 300:
                        self._told.newest_s = max(self._told.newest_s, began_s)
                        return answer
                    if response.status not in RETRIED or not answer["retryable"]:
                        self._told.refused.append(f"{method} {path}: {response.status} {answer}")
                        return {"id": f"refused {key}"}
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                pass  # nobody there, or gone in the middle: the next attempt has the same key
            await asyncio.sleep(PAUSE_SECONDS)


@dataclass
class Found:
    """What a run of kills found."""

    kills: dict[str, int] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)

    def ready_p99_s(self) -> float:
        return sorted(self.ready_s)[max(0, -(-99 * len(self.ready_s) // 100) - 1)] if self.ready_s else 0.0


async def kill_often(
    directory: Path, kills: int, seed: int, *, plant: str | None = None, victims: tuple[str, ...] = VICTIMS
) -> Found:
    """Run a market under load, kill so many times, and hold what was acknowledged against what is there."""
    dice, found, told = random.Random(seed), Found(), Told()
    market = Market(directory, plant)
    await market.start()
    earlier = set(await books.deposits(market.database))
    clients = [Client(market, f"c{n}", random.Random(f"{seed}:{n}"), told) for n in range(CLIENTS)]
    running = [asyncio.create_task(client.run()) for client in clients]
    try:
        for number in range(kills):
            await asyncio.sleep(dice.randrange(DELAY_MS_MAX) / 1_000)
            # Every kind of victim equally often, in an order of the seed.
            victim = victims[number % len(victims)] if number else dice.choice(victims)
            found.kills[victim] = found.kills.get(victim, 0) + 1
            found.ready_s.append(await _kill(market, victim, dice, told))
            found.wrong += await _missing(market.database, dict(told.bids))
            if found.wrong or told.refused:
                break
        for client in clients:
            client.is_stopped = True
        await asyncio.wait_for(asyncio.gather(*running), READY_SECONDS_MAX)
        found.acknowledged = len(told.bids) + len(told.deposits)
        found.wrong += told.refused + await _compare(market.database, told, earlier)
        status = await market.stop(signal.SIGTERM)
        if status != 0:
            found.wrong.append(f"the server ended with status {status} when it was asked to stop")
        for verb in ("audit", "replay"):
            found.wrong += filter(None, [await market.check(verb)])
    except TimeoutError:
        found.wrong.append(f"not ready again in {READY_SECONDS_MAX:.0f} s")
    finally:
        for task in running:
            task.cancel()
        if market.process is not None and market.process.returncode is None:
            await market.stop(signal.SIGKILL)
    return found


async def _kill(market: Market, victim: str, dice: random.Random, told: Told) -> float:
    """Kill; return the seconds until a write that was sent afterwards is acknowledged."""
    loop = asyncio.get_running_loop()
    cluster = market.data_dir / "pg"
    if victim != "server":
        sessions = [pid for pid in servers_on(cluster) if pid != market.postmaster()]
        # The list is a moment old: who has ended since needs no kill.
        pid = dice.choice(sorted(sessions)) if victim == "session" and sessions else market.postmaster()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(market.postmaster(), signal.SIGKILL)
    began_s = loop.time()
    if victim in ("server", "both"):
        await market.stop(signal.SIGKILL)
        began_s = loop.time()
        await market.start()
    async with asyncio.timeout(READY_SECONDS_MAX):
        while told.newest_s < began_s:
            await asyncio.sleep(0.01)
    return loop.time() - began_s


async def _missing(database: Database, acknowledged: dict[str, str]) -> list[str]:
    """Return which of these bids are not there."""
    connection = await database.connect()
    try:
        rows = await connection.fetch("SELECT id FROM bids WHERE id = ANY($1)", list(acknowledged.values()))
    finally:
        await connection.close()
    there = {row["id"] for row in rows}
    lost = [bid for bid in acknowledged.values() if bid not in there]
    return [f"{len(lost)} acknowledged bids are not there, first {lost[0]}"] if lost else []


async def _compare(database: Database, told: Told, earlier: set[str]) -> list[str]:
    wrong = []
    held = await books.bids_by_key(database)
    for key in sorted(told.bids.keys() | held.keys()):
        if held.get(key, []) != [told.bids.get(key)]:
            wrong.append(f"bid under {key}: acknowledged {told.bids.get(key)}, there are {held.get(key, [])}")
    credited = await books.deposits(database)
    wrong += [f"deposit {name}: {credited[name]} times" for name in told.deposits if credited[name] != 1]
    untold = credited.keys() - told.deposits - earlier
    wrong += [f"deposit {name} was credited and nobody was told" for name in sorted(untold)]
    connection = await database.connect()
    try:
        twice = await connection.fetchval(
            "SELECT count(*) FROM (SELECT 1 FROM transfers WHERE code = 'charge' "
            "GROUP BY reference, interval_end_s, credit_account HAVING count(*) > 1) t"
        )
    finally:
        await connection.close()
    return [*wrong, f"{twice} intervals are charged twice"] if twice else wrong


def run(size: Size, seed: int) -> Outcome:
    """Kill as often as the size says; the p99 counts where there are enough kills for one."""
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(kill_often(Path(directory) / "market", KILLS[size], seed))
    ready = sorted(found.ready_s)
    middle = ready[len(ready) // 2] if ready else 0.0
    figure = f"{sum(found.kills.values())} kills {found.kills}, {found.acknowledged:,} acknowledged, "
    figure += f"{len(found.wrong)} wrong; a write acknowledged again after {middle:.1f} s (median), "
    figure += f"{found.ready_p99_s():.1f} s (p99)"
    if found.wrong:
        figure += ": " + "; ".join(found.wrong[:5])
    is_soon = size is Size.SHORT or found.ready_p99_s() < READY_SECONDS_P99
    return Outcome(not found.wrong and is_soon and len(ready) == KILLS[size], figure)


PROMISES = [
    Promise(
        name="kills",
        promise="What was acknowledged survives kill -9 of server and database, and the market is soon back",
        method="kill -9 of server, postmaster, session or both at random instants under load; audit, replay",
        target="200 kills: nothing lost, nothing twice, replay matches, back in under 5 s at p99",
        run=run,
    )
]
