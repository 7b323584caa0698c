"""Days of the whole server: its people, its faults from the seed, and fair weather at the end.

Everything runs on one loop in virtual time; one seed is one history. In fair weather everybody must get on:
definite answers for all, ticks on time, notices told before their deadline.
"""

import asyncio
import logging
import random
import tempfile
from contextlib import suppress
from pathlib import Path

import aiohttp

from api.keys import mint_key, scopes_of
from auction.clock import SystemClock
from auction.commands import CreateAccount, CreateMarket, CreateNode, Deposit, EnrolNode
from auction.ids import random_id
from auction.model import Notice, NoticeState
from fallow.agent.inventory import find_inventory
from fallow.agent.link import Link, Refused
from fallow.agent.node import Agent, read_journal
from tests.simulation.coverage import Coverage
from tests.simulation.database import Database, SimulatedStore
from tests.simulation.driver import SECOND, make_market
from tests.simulation.memory_network import Network, Weather
from tests.simulation.oracle import Oracle
from tests.simulation.outbox_twin import Endpoint, OutboxRows
from tests.simulation.outside import machine_of
from tests.simulation.people import MARKET, Bot, Buyer, Owner, Poisoner, Receiver, SlowReader
from tests.simulation.poison import poisonous
from tests.simulation.server import URL, Server
from tests.simulation.virtual_loop import Process, VirtualLoop

TICK_SECONDS = 60
SETTLE_SECONDS = 600
FAIR_SECONDS = 1_500
DAY_SECONDS = 86_400
NOTICE_KINDS = ("notice.issued", "notice.withdrawn", "lease.started", "lease.ended")

EXPECTED = (
    "request lost", "reply lost", "reply cut", "late", "commit lost", "commit unknown", "commit slow",
    "database down", "server killed", "server stopped", "server stalled", "rival server",
    "wall clock stepped", "owner vanished", "same key at once", "same key again",
    "same key, other body", "key in progress",
    "client gave up", "event heard", "webhook heard", "webhook refused", "slow reader held back",
    "slow reader cut off", "notice told in time", "preempted", "poison refused", "poison rejected",
)  # fmt: skip


class ServerDays:
    """One world of one seed."""

    def __init__(self, seed, *, calm_seconds=1_800):
        """Something big breaks every `calm_seconds` on average, nothing at all for None."""
        self.seed = seed
        self.calm_seconds = calm_seconds
        self.dice = random.Random(f"world {seed}")
        self.coverage = Coverage(EXPECTED)
        self.sometimes = self.coverage.sometimes
        self.has_faults = calm_seconds is not None
        self.oracle = Oracle()
        self.outbox = OutboxRows()
        self.acts = []
        self.requests = 0
        self.lives = 0
        self.is_closing = False
        self.nodes = []

    def run(self, days):
        """Live through so many days, and fair weather after them; return the hash. Raises AssertionError."""
        loop = VirtualLoop()
        weather = Weather(self.sometimes)
        self.network = loop.network = Network(loop, self.seed, weather)
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        asyncio.set_event_loop(loop)
        try:
            with machine_of(loop, self.seed) as self.time, _scratch() as self.state_dir, poisonous():
                self.loop = loop
                loop.run_until_complete(self._live(days))
                self._check_end()
                return self.oracle.digest()
        finally:
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False
            loop.bury()
            asyncio.set_event_loop(None)
            logging.disable(level)

    @property
    def steps(self):
        return self.requests

    def now_us(self):
        return self.oracle.core.now_us

    # -- the course of things ---------------------------------------------------------------------

    async def _live(self, days):
        self.database = Database(
            self.loop, random.Random(f"database {self.seed}"), self.sometimes, self.oracle.committed
        )
        self.oracle.shard = self.database.shard
        await self._open()
        self.server = self._start_server()
        self.crowd = [self._begin(person, person.run()) for person in self.people]
        self._begin(self.receiver, self.receiver.run())
        keepers = [asyncio.create_task(self._keep_server()), asyncio.create_task(self._play_agent())]
        if self.has_faults:
            self._worsen()
            keepers.append(asyncio.create_task(self._gremlins()))
        await self._watch(days * DAY_SECONDS)
        await self._mend(keepers)
        for keeper in keepers:
            keeper.cancel()

    async def _watch(self, seconds):
        """Let time pass; end at the first violation, or when something failed that nobody has heard of."""
        end_s = self.loop.time() + seconds
        while self.loop.time() < end_s:
            await asyncio.sleep(min(300, end_s - self.loop.time()))
            self._raise_violations()

    def _raise_violations(self):
        for violation in self.oracle.violations:
            raise violation
        assert not self.loop.failures, self.loop.failures[0]
        for work in self.crowd:
            if work.done() and not work.cancelled():
                work.result()

    async def _mend(self, keepers):
        """Fair weather: after a while everything must come right, and everybody come to an end."""
        for gremlin in keepers[2:]:
            gremlin.cancel()
        self.network.weather.is_fair = True
        self.database.lost = self.database.unknown = self.database.slow = 0.0
        self.database.is_down = False
        await self._watch(SETTLE_SECONDS)
        before_us, tick = self.now_us(), self.oracle.core.markets[MARKET].tick
        await self._watch(FAIR_SECONDS)
        ticks = self.oracle.core.markets[MARKET].tick - tick
        assert ticks >= FAIR_SECONDS // TICK_SECONDS - 2, f"{ticks} ticks in {FAIR_SECONDS} s of fair weather"
        self._check_notices(before_us)
        self.is_closing = True
        await asyncio.wait(self.crowd, timeout=3 * 3_600)
        assert all(work.done() for work in self.crowd), "somebody waits for an answer for ever"
        self._raise_violations()

    def _check_notices(self, since_us):
        """P8 as its tenant sees it: told before its deadline, of the notices of fair weather."""
        watched = {endpoint.account for endpoint in self.outbox.endpoints.values()}
        late_us = self.now_us() - 120 * SECOND
        for notice in self.database.shard.rows[Notice].values():
            is_fair = since_us <= notice.issued_at_us <= late_us
            is_kept = notice.closed_at_us is None or notice.closed_at_us >= notice.reclaim_at_us
            if (
                notice.account in watched
                and is_fair
                and is_kept
                and notice.state is not NoticeState.WITHDRAWN
            ):
                self.sometimes("notice told in time")
                heard_us = self.receiver.heard_us.get(notice.id)
                assert heard_us is not None and heard_us < notice.reclaim_at_us, f"P8: {notice.id} untold"

    def _check_end(self):
        self.oracle.check_end([bot.account for bot in self.bots])
        for lease in self.oracle.witness.leases.values():
            if lease.end_reason == "outbid":
                self.sometimes("preempted")

    # -- who is there -----------------------------------------------------------------------------

    async def _open(self):
        """The world before its first request, written by an engine of its own."""
        from auction.engine import Engine

        process = Process(self.loop, "opening")
        await process.start(self._write_opening(Engine(SimulatedStore(self.database), SystemClock())))
        process.kill()

    async def _write_opening(self, engine):
        await engine.start()
        market = make_market(
            MARKET,
            tick_seconds=TICK_SECONDS,
            notice_seconds=120,
            settlement_seconds=300,
            provisioning_seconds=600,
        )
        await engine.execute(CreateMarket(market))
        makers = [Bot, Bot, Bot, Buyer, Buyer, SlowReader, Poisoner]
        self.people = [
            maker(self, f"{maker.__name__} {number}", *await self._account(engine, "buyer"))
            for number, maker in enumerate(makers)
        ]
        self.bots = self.people[:3]
        # It reads what a busy account is told from the first event on: more than fits between two ends.
        self.people[5].account, self.people[5].key = self.bots[0].account, self.bots[0].key
        for person in self.people:
            await engine.execute(Deposit(random_id("dep"), person.account, 2_000_000_000))
        owner = Owner(self, "Owner", *await self._account(engine, "owner"))
        self.people.append(owner)
        for number in range(3):
            node = random_id("node")
            is_simulated = number > 0
            await engine.execute(CreateNode(node, owner.account, MARKET, f"n{number}", 8, is_simulated))
            if is_simulated:
                await engine.execute(EnrolNode(node, owner.account))
            self.nodes.append(node)
        self.owner = owner
        self.receiver = Receiver(self)
        for number, person in enumerate(self.people[:5]):
            name = f"wh_{number}"
            url = "http://127.0.0.1:9000/"
            self.outbox.endpoints[name] = Endpoint(name, person.account, url, b"secret" * 4, NOTICE_KINDS)
        await engine.stop()

    async def _account(self, engine, role):
        account = random_id("acct")
        now_us = engine.clock.now_us()
        key, text = mint_key(account, role, scopes_of([role]), is_live=False, now_us=now_us)
        await engine.execute(CreateAccount(account, role, [role], key))
        return account, text

    def _begin(self, who, work):
        return Process(self.loop, type(who).__name__).start(work)

    async def _play_agent(self):
        """The agent of the first node: it serves, vanishes, and is started again over its journal."""
        while True:
            process = Process(self.loop, "agent")
            process.start(self._serve_node())
            await asyncio.sleep(self.dice.uniform(900, 2_700))
            if not self.network.weather.is_fair and self.has_faults:
                self.sometimes("owner vanished")
                process.kill()
                await asyncio.sleep(self.dice.choice([10, 40, 900, 9_000]))
            else:
                await asyncio.sleep(2 * DAY_SECONDS)

    async def _serve_node(self):
        async with aiohttp.ClientSession() as session:
            inventory, gpus = find_inventory(8)
            journal = read_journal(Path(self.state_dir), self.nodes[0])
            with suppress(Refused):
                await Agent(Link(session, URL, self.owner.key), journal, inventory, gpus, SystemClock()).run()

    # -- what goes wrong --------------------------------------------------------------------------

    def _start_server(self):
        self.lives += 1
        return Server(self.loop, self.lives, self.database, self.outbox, self.acts)

    async def _keep_server(self):
        """What systemd does: whoever has ended is started again."""
        while True:
            await asyncio.sleep(0.5)
            if not self.server.process.is_alive:
                failure = self.server.failure
                if failure is not None:
                    self.oracle.violations.append(failure)
                await asyncio.sleep(self.dice.uniform(0.2, 15))
                # A wall clock that is far ahead at a start is believed; far behind, it is not.
                self.time.wall_step_us = min(self.time.wall_step_us, 20 * SECOND)
                self.server = self._start_server()

    def _worsen(self):
        weather = self.network.weather
        weather.lost_request = weather.lost_reply = 0.002
        weather.cut_reply, weather.late = 0.002, 0.003
        self.database.lost, self.database.unknown, self.database.slow = 0.002, 0.003, 0.002

    async def _gremlins(self):
        """Every now and then something breaks."""
        acts = [
            self._kill,
            self._kill,
            self._stop,
            self._stall,
            self._rival,
            self._set_clock,
            self._fail_database,
        ]
        while True:
            await asyncio.sleep(self.dice.expovariate(1 / self.calm_seconds))
            await self.dice.choice(acts)()

    async def _kill(self):
        """After so many more steps of the server, between whichever two awaits that is."""
        if self.server.is_serving:
            self.sometimes("server killed")
            self.server.process.steps_left = self.dice.randint(1, 3_000)

    async def _stop(self):
        if self.server.is_serving:
            self.sometimes("server stopped")
            await self.server.stop()

    async def _stall(self):
        if self.server.is_serving:
            self.sometimes("server stalled")
            self.server.process.stall(self.dice.uniform(1, 40))

    async def _rival(self):
        """A second engine takes the shard: the first one must end by itself."""
        self.sometimes("rival server")
        first, self.server = self.server, self._start_server()
        await asyncio.sleep(90)
        assert not first.is_serving or not first.process.is_alive, "P12: two engines go on"
        first.process.kill()

    async def _set_clock(self):
        self.sometimes("wall clock stepped")
        self.time.wall_step_us += self.dice.choice([-864_000, -3_600, -1, 1, 3_600, 864_000]) * SECOND

    async def _fail_database(self):
        self.sometimes("database down")
        self.database.is_down = True
        await asyncio.sleep(self.dice.uniform(1, 60))
        self.database.is_down = False


def _scratch():
    """Agents' journals go where writing through to the disk costs nothing, if there is such a place."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
