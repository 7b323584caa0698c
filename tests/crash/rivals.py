"""Two engines started together, again and again, and the leader stopped until another one leads.

Each is a `fallow serve` process on one database. Of two that start together one leads and the other one says
so and ends. Then the leader is frozen, its sessions are ended (which frees its lock, as a lost network
would), a new one takes over and ticks, and the old one is let go on: it must notice and end. In every second
round the shard is taken while the old leader's sessions live, so that only the epoch can stop it. The claim:
every journal entry and every tick was written by exactly one epoch, and epochs never go back.
"""

import asyncio
import os
import random
import signal
import subprocess
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auction.clock import SystemClock
from auction.commands import ClearMarket, decode_command
from auction.engine import Engine
from sql import query
from sql.pool import DATABASE_NAME, Database, open_database
from sql.store import ADVISORY_LOCK, SHARD_ID
from tests.crash import books
from tests.crash.planted import command
from tests.proof.promise import Outcome, Promise, Size

ROUNDS = {Size.SHORT: 2, Size.FULL: 100}
ROOT = Path(__file__).parents[2]
FENCED = ("another engine is running", "no longer holds shard", "has taken shard")  # what a fenced one says
PORT = 18260
WAIT_SECONDS = 60.0
FROZEN_SECONDS_MAX = 0.5


@dataclass
class Found:
    """What the rounds found."""

    rounds: int = 0
    ended: dict[str, int] = field(default_factory=dict)  # by what who had to go said
    wrong: list[str] = field(default_factory=list)


async def start(url: str, plant: str | None = None) -> asyncio.subprocess.Process:
    """Start a server on this database."""
    words = [*command(plant), "serve", "--port", str(PORT), "--metrics-port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    environment = {**os.environ, "DATABASE_URL": url}
    return await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=environment, **pipes)


class Rivalry:
    """A database, and the servers that want it."""

    def __init__(self, database: Database, url: str, seed: int, plant: str | None) -> None:
        self._plant = plant
        self._database = database
        self._url = url
        self._dice = random.Random(seed)
        self._processes: list[asyncio.subprocess.Process] = []
        self.found = Found()

    async def round(self) -> None:
        """Two start together; the one that leads is frozen, replaced, and let go on."""
        pair = [await start(self._url, self._plant), await start(self._url, self._plant)]
        self._processes += pair
        await self._until_epoch_ticks(after=await self._head())
        loser = await _first_end(pair)
        leader = pair[1 - pair.index(loser)]
        await self._hear(loser)
        leader.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._dice.random() * FROZEN_SECONDS_MAX)
        before = await self._head()
        if self.found.rounds % 2:
            # The shard is taken though the leader's sessions and lock live: only the epoch stands guard.
            await self._fetch(query("take_shard"), SHARD_ID)
            if not await self._ends(leader, before):
                return
            heir = await self._heir(before)
        else:
            await self._end_sessions()
            heir = await self._heir(before)
            if not await self._ends(leader, await self._head()):
                return
        await self._until_epoch_ticks(after=await self._head(), is_new=False)
        if heir.returncode is not None:
            self.found.wrong.append(f"the new leader ended with status {heir.returncode}")
            return
        heir.send_signal(signal.SIGTERM)
        await asyncio.wait_for(heir.wait(), WAIT_SECONDS)
        self.found.rounds += 1

    async def _heir(self, before: tuple[int, int]) -> asyncio.subprocess.Process:
        """Start another server, and return it when it has ticked."""
        heir = await start(self._url, self._plant)
        self._processes.append(heir)
        await self._until_epoch_ticks(after=before)
        return heir

    async def _ends(self, leader: asyncio.subprocess.Process, before: tuple[int, int]) -> bool:
        """Let a frozen leader go on; return whether it ends by itself, without having written."""
        leader.send_signal(signal.SIGCONT)
        written = "SELECT seq, epoch FROM journal WHERE seq > $1 AND epoch < (SELECT epoch FROM shards)"
        async with asyncio.timeout(WAIT_SECONDS):
            while leader.returncode is None:
                for row in await self._fetch(written, before[1]):
                    self.found.wrong.append(
                        f"epoch {row['epoch']} wrote entry {row['seq']} behind its successor"
                    )
                    return False
                await asyncio.sleep(0.02)
        await self._hear(leader)
        return True

    async def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _hear(self, ended: asyncio.subprocess.Process) -> None:
        """Count what one that has ended said last; anything but that another one leads is wrong."""
        assert ended.stderr is not None
        words = (await ended.stderr.read()).decode().strip()
        last = words.rpartition("\n")[2]
        for sentence in FENCED:
            if sentence in last:
                self.found.ended[sentence] = self.found.ended.get(sentence, 0) + 1
                return
        self.found.wrong.append(f"a server ended with status {ended.returncode}: {words[-300:]}")

    async def _head(self) -> tuple[int, int]:
        """Return the epoch of the newest journal entry, and its place."""
        rows = await self._fetch("SELECT epoch, seq FROM journal ORDER BY seq DESC LIMIT 1")
        return rows[0]["epoch"], rows[0]["seq"]

    async def _until_epoch_ticks(self, after: tuple[int, int], *, is_new: bool = True) -> None:
        """Return when an epoch after that one, or with `is_new` False any, has written."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (head := await self._head()) <= after or (is_new and head[0] == after[0]):
                await asyncio.sleep(0.02)

    async def _end_sessions(self) -> None:
        """End the sessions of whoever leads: its lock is free, and it does not know."""
        await self._fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1",
            ADVISORY_LOCK,
        )

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await self._database.connect()
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def written_twice(self) -> list[str]:
        """Return where epochs went back or a tick was written by two."""
        wrong, newest = [], 0
        ticks: dict[tuple[str, int], int] = {}
        for row in await self._fetch("SELECT seq, epoch, payload FROM journal ORDER BY seq"):
            if row["epoch"] < newest:
                wrong.append(f"entry {row['seq']} is of epoch {row['epoch']} behind epoch {newest}")
            newest = max(newest, row["epoch"])
            command = decode_command(row["payload"])
            if isinstance(command, ClearMarket):
                first = ticks.setdefault((command.market, command.tick), row["epoch"])
                if first != row["epoch"]:
                    wrong.append(f"tick {command.tick} is of epochs {first} and {row['epoch']}")
        told = await self._fetch("SELECT market, tick FROM ticks")
        if {(row["market"], row["tick"]) for row in told} != ticks.keys() or len(told) != len(ticks):
            wrong.append(f"{len(told)} ticks are stored, {len(ticks)} are in the journal")
        return wrong


async def _first_end(pair: list[asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """Return the one of two that ends; raises TimeoutError where both lead."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            for process in pair:
                if process.returncode is not None:
                    return process
            await asyncio.sleep(0.02)


async def rival(rounds: int, seed: int, plant: str | None = None) -> Found:
    """Play the rounds on a database of their own."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = await stack.enter_async_context(open_database(url=None, data_dir=directory))
        await database.prepare(apply_migrations=True)
        engine = Engine(database.store(), SystemClock())
        await engine.start()
        await books.open_market(engine, ["acct_buyer"])
        await engine.stop()
        where = database.arguments
        url = f"postgresql://{where['user']}@/{DATABASE_NAME}?host={where['host']}&port={where['port']}"
        rivalry = Rivalry(database, url, seed, plant)
        try:
            for number in range(rounds):
                try:
                    await rivalry.round()
                except TimeoutError:
                    rivalry.found.wrong.append(f"round {number}: nobody moved for {WAIT_SECONDS:.0f} s")
                if rivalry.found.wrong:
                    break
        finally:
            await rivalry.close()
        found = rivalry.found
        found.wrong += await rivalry.written_twice() + await books.what_is_wrong(database)
        return found


def run(size: Size, seed: int) -> Outcome:
    """Play as many rounds as the size says."""
    found = asyncio.run(rival(ROUNDS[size], seed))
    figure = f"{found.rounds} rounds, who had to go said {found.ended}, {len(found.wrong)} wrong"
    if found.wrong:
        figure += ": " + "; ".join(found.wrong[:5])
    return Outcome(not found.wrong and found.rounds == ROUNDS[size], figure)


PROMISES = [
    Promise(
        name="rivals",
        promise="However many engines want one market, each tick is written by one of them",
        method="two servers started together, the leader frozen, replaced and let go on; the journal read",
        target="100 rounds: no tick of two epochs, every old leader ends by itself",
        run=run,
    )
]
