"""A venue for the two preemption benchmarks: database, engine, application on loopback, and its people.

Time is moved by hand (`ManualClock`), so minutes of notices pass as fast as the machine can tell them;
database, engine, HTTP, sockets and webhooks are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from api.app import build_app
from api.config import Config
from api.keys import mint_key, scopes_of
from api.services import SERVICES
from auction.clock import ManualClock
from auction.commands import (
    Command,
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    PlaceBid,
    ReportLease,
)
from auction.engine import Engine
from auction.ids import derived_id
from auction.model import LeaseState, Market
from auction.ports import Store
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price
from sql.pool import Database
from sql.scope import EVERYBODY, Pool
from sql.webhook_outbox import WebhookOutbox

START_US = 1_700_000_000 * MICROSECONDS_PER_SECOND
MARKET = "h100.bench"
TICK_SECONDS = 10
NOTICE_SECONDS = 120
GPUS_PER_NODE = 8
COMMANDS_AT_ONCE = 2_000
SEED = f"{7:064x}"
CENT = 10_000


_WEBHOOKS_DUE = """SELECT EXISTS (SELECT 1 FROM webhook_deliveries
    WHERE state = 'pending' AND next_attempt_at_us <= $1 AND deadline_us > $1)"""


class Venue:
    """One database and the application on it, which can be torn down and started again."""

    def __init__(self, database: Database, make_store: Callable[[], Store] | None = None) -> None:
        self.database = database
        self._make_store = make_store or database.store
        self.clock = ManualClock(START_US)
        self.engine: Engine
        self.app: web.Application
        self.url = ""
        self.restarts = 0
        self._numbers = 0
        self._stack = AsyncExitStack()
        self._pool: Pool
        self._outbox: WebhookOutbox

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        stack = AsyncExitStack()
        self.engine = Engine(self._make_store(), self.clock)
        await self.engine.start()
        pool = await self.database.create_pool()
        stack.push_async_callback(pool.close)
        everybody = pool.fixed(EVERYBODY)
        self._pool, self._outbox = everybody, WebhookOutbox(everybody)
        self.app = build_app(self.engine, pool, Config(is_demo=True, port=0, node_offline_seconds=10**9))
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._stack = stack

    async def stop(self) -> None:
        await self._stack.aclose()
        await self.engine.stop()

    async def restart(self, *, is_drained: bool) -> None:
        """Let the server go down and come back on the same database; without draining it just stops."""
        if is_drained:
            await self.stop()
        else:
            assert self.engine._task is not None
            self.engine._task.cancel()
            await self._stack.aclose()
            await self.engine._store.close()
        self.restarts += 1
        await self.start()

    # -- people and machines ----------------------------------------------------------------------

    def new_id(self, prefix: str) -> str:
        self._numbers += 1
        return derived_id(prefix, SEED, self._numbers)

    async def do(self, commands: Sequence[Command]) -> None:
        """Have commands decided, many to a commit; raises the first refusal."""
        for start in range(0, len(commands), COMMANDS_AT_ONCE):
            part = commands[start : start + COMMANDS_AT_ONCE]
            await asyncio.gather(*(self.engine.execute(command) for command in part))

    async def open(self, *, nodes: int) -> None:
        """Open the market with one owner and its nodes, all offered at one cent."""
        owner = self.new_id("acct")
        await self.do([CreateMarket(_market()), CreateAccount(owner, "owner", ["owner"])])
        ids = [self.new_id("node") for _ in range(nodes)]
        await self.do([
            CreateNode(node, owner, MARKET, f"n{i}", GPUS_PER_NODE, True) for i, node in enumerate(ids)
        ])  # fmt: skip
        await self.do([EnrolNode(node, owner) for node in ids])
        await self.do([
            CreateOffer(self.new_id("off"), owner, node, GPUS_PER_NODE, Price(CENT)) for node in ids
        ])  # fmt: skip

    async def open_buyers(self, count: int) -> dict[str, str]:
        """Open funded buyers; return their keys by account."""
        keys: dict[str, str] = {}
        commands: list[Command] = []
        for _ in range(count):
            account = self.new_id("acct")
            key, keys[account] = mint_key(
                account, "bench", scopes_of(["buyer"]), is_live=False, now_us=self.clock.now_us()
            )
            commands += [
                CreateAccount(account, "buyer", ["buyer"], key),
                Deposit(self.new_id("dep"), account, Amount(10**12)),
            ]
        await self.do(commands)
        return keys

    async def place(self, accounts: Sequence[str], each: int, limit: int) -> list[PlaceBid]:
        """Place `each` bids for one GPU per account at the same limit."""
        commands = [
            PlaceBid(self.new_id("bid"), account, MARKET, 1, Price(limit))
            for account in accounts
            for _ in range(each)
        ]
        await self.do(commands)
        return commands

    async def start_leases(self) -> int:
        """Report every lease ready that its node was told to start; return how many."""
        starting = [lease for lease in self.engine.core.leases.values() if lease.state is LeaseState.STARTING]
        await self.do([ReportLease(lease.id, lease.owner, "started") for lease in starting])
        return len(starting)

    def running(self) -> int:
        return sum(lease.state is LeaseState.RUNNING for lease in self.engine.core.leases.values())

    # -- time -------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait, in real time, until nothing is due or under way at this moment."""
        sender = self.app[SERVICES].sender
        while True:
            await asyncio.sleep(0.002)
            now_us, due_us = self.clock.now_us(), self.engine.core.next_due_us()
            if due_us is not None and due_us <= now_us:
                continue
            if sender._sends or sender._position != await self._outbox.head():
                continue
            if not (await self._pool.fetch(_WEBHOOKS_DUE, now_us))[0][0]:
                return

    async def next_instant_us(self) -> int:
        """Return when the market or a webhook is due next."""
        market_us = self.engine.core.next_due_us()
        assert market_us is not None
        return min(market_us, await self._outbox.next_due_us(self.clock.now_us(), []) or market_us)


def _market() -> Market:
    return Market(
        id=MARKET,
        kind="gpu",
        gpu_model="H100",
        gpu_memory_gib=80,
        gpus_per_node=GPUS_PER_NODE,
        interconnect="nvlink",
        region="bench",
        tick_seconds=TICK_SECONDS,
        price_increment=CENT,
        price_cap=Price(1_000 * CENT),
        notice_seconds=NOTICE_SECONDS,
        settlement_seconds=600,
        handicap_bps=0,
        fee_bps=300,
        is_demo=True,
        created_at_us=0,
        provisioning_seconds=7_200,
    )


def settings() -> dict[str, Any]:
    """Return what the figures depend on beside the machine."""
    return {"tick_seconds": TICK_SECONDS, "notice_seconds": NOTICE_SECONDS, "gpus_per_node": GPUS_PER_NODE}
