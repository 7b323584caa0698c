"""Thousands of commits through a line that loses three of ten replies to them, and cuts and garbles others.

Clients place, cancel and deposit, each with a key of its own, and ask again until they are told. The claim:
every client ends with a definite answer, what was answered is there, and nothing is there twice.
"""

import asyncio
import json
import random
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auction.clock import SystemClock
from auction.commands import CancelBid, Command, Deposit, PlaceBid
from auction.engine import Engine
from auction.errors import Rejection, Unavailable
from auction.ids import random_id
from auction.ports import Answer, KeyedRequest
from sql.pool import Database, open_database
from tests.crash import books
from tests.crash.postgres_proxy import Fate, Flush, Proxy
from tests.proof.promise import Outcome, Promise, Size

COMMITS = {Size.SHORT: 200, Size.FULL: 10_000}
CLIENTS = 4
LIVE_BIDS_MAX = 20
ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.02

# In thousandths of the flushes, from the first to the last that applies.
COMMIT_FATES = ((300, Fate.CUT_AFTER), (30, Fate.CUT_BEFORE), (30, Fate.TRUNCATE), (60, Fate.DELAY))
OTHER_FATES = ((5, Fate.CUT_BEFORE), (5, Fate.CUT_AFTER), (5, Fate.TRUNCATE), (20, Fate.DELAY))


@dataclass
class Told:
    """What the clients were answered."""

    bids: dict[str, str] = field(default_factory=dict)  # by key
    deposits: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)
    retries: int = 0


class Weather:
    """Draws the fate of each flush from the seed, and counts."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.met: Counter[Fate] = Counter()

    def __call__(self, flush: Flush) -> Fate:
        number = self._dice.randrange(1_000)
        for share, fate in COMMIT_FATES if flush.commits else OTHER_FATES:
            number -= share
            if number < 0:
                self.met[fate] += flush.commits
                return fate
        return Fate.PASS


class Client:
    """One account that trades until told to stop."""

    def __init__(self, engine: Engine, account: str, market: str, dice: random.Random, told: Told) -> None:
        self._engine = engine
        self._account = account
        self._market = market
        self._dice = dice
        self._told = told
        self._live: list[str] = []
        self._count = 0

    async def act(self) -> None:
        """Do one thing, and record what was answered."""
        self._count += 1
        key = f"{self._account}:{self._count}"
        if self._dice.random() < 0.2:
            dep = await self._ask(key, Deposit(random_id("dep"), self._account, 1_000))
            if dep is not None:
                self._told.deposits.add(dep)
        elif len(self._live) >= LIVE_BIDS_MAX or (self._live and self._dice.random() < 0.4):
            bid = self._live.pop(self._dice.randrange(len(self._live)))
            if await self._ask(key, CancelBid(bid, self._account)) is not None:
                self._told.cancelled.add(bid)
        else:
            place = PlaceBid(random_id("bid"), self._account, self._market, 1, 1_000_000, labels={"key": key})
            bid_id = await self._ask(key, place)
            if bid_id is not None:
                self._told.bids[key] = bid_id
                self._live.append(bid_id)

    async def _ask(self, key: str, command: Command) -> str | None:
        """Ask with this key until there is a definite answer; None where there is none."""
        keyed = KeyedRequest(self._account, key, b"h" * 32)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    try:
                        answer, _ = await self._engine.submit([command], encode=_encode(command), keyed=keyed)
                    except (Unavailable, Rejection):
                        self._told.retries += 1
                        await asyncio.sleep(PAUSE_SECONDS)
                        command = _again(command)
                        continue
                    if answer.status == 200:
                        return str(json.loads(answer.body))
                    self._told.unanswered.append(f"{key}: {answer.body!r}")
                    return None
        except TimeoutError:
            self._told.unanswered.append(f"{key}: nothing for {ANSWER_SECONDS:.0f} s")
            return None


def _encode(command: Command) -> Any:
    name = command.deposit if isinstance(command, Deposit) else getattr(command, "bid", "")

    def encode(outcomes: list[Any]) -> Answer:
        if isinstance(outcomes[0], Rejection):
            return Answer(409, "application/json", json.dumps(outcomes[0].code).encode())
        return Answer(200, "application/json", json.dumps(name).encode())

    return encode


def _again(command: Command) -> Command:
    """What a server makes of the same request when it comes again: the same, under a new id."""
    match command:
        case Deposit():
            return Deposit(random_id("dep"), command.account, command.amount)
        case PlaceBid(account=account, market=market, labels=labels):
            return PlaceBid(random_id("bid"), account, market, 1, 1_000_000, labels=labels)
        case _:
            return command


async def trade(database: Database, proxy: Proxy, commits: int, seed: int) -> tuple[Told, Weather]:
    """Trade through the proxy until it has seen so many commits."""
    accounts = [f"acct_{number}" for number in range(CLIENTS)]
    engine = Engine(proxy.database.store(), SystemClock())
    await engine.start()
    told, weather = Told(), Weather(seed)
    try:
        market = await books.open_market(engine, accounts)
        proxy.decide = weather
        last = proxy.commits + commits

        async def keep_trading(account: str, dice: random.Random) -> None:
            client = Client(engine, account, market, dice, told)
            while proxy.commits < last and not told.unanswered:
                await client.act()

        clients = (keep_trading(a, random.Random(f"{seed}:{a}")) for a in accounts)
        trading = asyncio.gather(*clients)
        ending = asyncio.create_task(engine.run_until(asyncio.Event()))
        await asyncio.wait({trading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            told.unanswered.append(f"the writer ended: {ending.exception()!r}")
        ending.cancel()
        await trading
    finally:
        proxy.decide = lambda flush: Fate.PASS
        await engine.stop()
    return told, weather


async def compare(database: Database, told: Told) -> list[str]:
    """Hold what was told against what is there."""
    wrong = [f"no definite answer: {text}" for text in told.unanswered]
    held = await books.bids_by_key(database)
    for key in sorted(told.bids.keys() | held.keys()):
        there, answered = held.get(key, []), told.bids.get(key)
        if there != [answered]:
            wrong.append(f"bid under {key}: answered {answered}, there are {there}")
    credited = await books.deposits(database)
    for name in told.deposits:
        if credited.pop(name, 0) != 1:
            wrong.append(f"deposit {name} was answered and is not there once")
    if len(credited) != CLIENTS:  # the opening ones
        wrong.append(f"{len(credited) - CLIENTS} deposits are there that nobody was told of")
    connection = await database.connect()
    live = await connection.fetch("SELECT id FROM bids WHERE status NOT IN ('cancelled') ORDER BY id")
    await connection.close()
    wrong += [f"{row['id']} was cancelled and is not" for row in live if row["id"] in told.cancelled]
    return wrong + await books.what_is_wrong(database)


async def lose_replies(commits: int, seed: int) -> tuple[Told, Weather, int, list[str]]:
    """Run once on a server of its own; return what was told, met, how many commits, and what is wrong."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = await stack.enter_async_context(open_database(url=None, data_dir=directory / "data"))
        await direct.prepare(apply_migrations=True)
        (directory / "proxy").mkdir()
        proxy = await stack.enter_async_context(Proxy(direct, directory / "proxy"))
        told, weather = await trade(direct, proxy, commits, seed)
        return told, weather, proxy.commits, await compare(direct, told)


def run(size: Size, seed: int) -> Outcome:
    """Lose replies, and say how many and what came of it."""
    told, weather, commits, wrong = asyncio.run(lose_replies(COMMITS[size], seed))
    lost = weather.met[Fate.CUT_AFTER] + weather.met[Fate.TRUNCATE]
    figure = f"{commits:,} commits, {lost:,} replies lost ({lost / max(1, commits):.0%}), "
    figure += f"{len(told.bids) + len(told.deposits) + len(told.cancelled):,} answers, {len(wrong)} wrong"
    if wrong:
        figure += ": " + "; ".join(wrong[:5])
    return Outcome(not wrong and lost > 0, figure)


PROMISES = [
    Promise(
        name="lost-replies",
        promise="Where the reply to a commit is lost nothing happens twice and nothing acknowledged is lost",
        method="a proxy loses 30 % of the replies to commits, and cuts, delays and truncates others",
        target="10,000 commits: none duplicated, none lost, every client answered",
        run=run,
    )
]
