"""A whole venue for one test: PostgreSQL, engine, the application on loopback, and its people."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from api.app import build_app
from api.config import Config
from api.keys import mint_key, scopes_of
from auction.clock import Clock
from auction.commands import CreateAccount
from auction.engine import Engine
from tests.support import Server, forget_applications, running_market

DEADLINE_SECONDS = 20.0
MARKET = "h100-sxm.test"


@dataclass
class Answered:
    status: int
    headers: Any
    raw: bytes
    json: Any = field(default=None)


@dataclass
class Venue:
    """The running application, with a key per role."""

    engine: Engine
    client: TestClient
    config: Config
    pool: Any  # the tests' own, as whoever owns the tables
    app_pool: Any
    operator: str
    buyer: str = ""
    owner: str = ""

    async def call(
        self, method: str, path: str, key: str | None = None, body: Any = None, **headers: str
    ) -> Answered:
        """Send JSON, return what came."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            sent.setdefault("Content-Type", "application/json")
        async with self.client.request(method, path, data=data, headers=sent) as response:
            raw = await response.read()
            decoded = None
            if "json" in response.headers.get("Content-Type", "").replace("x-ndjson", ""):
                decoded = msgspec.json.decode(raw)
            return Answered(response.status, response.headers, raw, decoded)

    async def ok(
        self, method: str, path: str, key: str | None = None, body: Any = None, **headers: str
    ) -> Any:
        """Send JSON, expect success, return the document."""
        answered = await self.call(method, path, key, body, **headers)
        assert answered.status < 300, (method, path, answered.status, answered.raw)
        return answered.json

    async def until(self, read: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Read again until the answer is true, or the deadline passes."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = await read()
                if found:
                    return found
                await asyncio.sleep(0.02)
        raise AssertionError(what)

    async def open_account(self, *roles: str) -> tuple[str, str]:
        """Return (account id, key)."""
        made = await self.ok(
            "POST", "/v1/operator/accounts", self.operator, {"name": "someone", "roles": list(roles)}
        )
        return made["id"], made["key"]

    async def open_market(self, market: str = MARKET, **settings: Any) -> Any:
        body = {
            "id": market,
            "gpu_model": "H100",
            "gpu_memory_gib": 80,
            "gpus_per_node": 8,
            "interconnect": "sxm",
            "region": "test",
            "tick_seconds": 1,
            "notice_seconds": 1,
        } | settings
        return await self.ok("POST", "/v1/operator/markets", self.operator, body)

    async def offer_node(self, gpus: int = 8, reserve: str = "1.00", *, simulated: bool = True) -> Any:
        """Return (node, offer)."""
        node = await self.ok(
            "POST",
            "/v1/nodes",
            self.owner,
            {
                "name": f"node {len(self.engine.core.nodes)}",
                "market": MARKET,
                "gpus": gpus,
                "simulated": simulated,
            },
        )
        offer = await self.ok(
            "POST",
            "/v1/offers",
            self.owner,
            {"node": node["id"], "gpus": gpus, "reserve_price_per_gpu_hour": reserve},
        )
        return node, offer

    async def place(self, **fields: Any) -> Any:
        body = {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00"} | fields
        return await self.ok("POST", "/v1/bids", self.buyer, body)

    async def lease_in(self, state: str) -> Any:
        """Wait for the buyer's newest lease to be in this state."""

        async def read() -> Any:
            return (await self.ok("GET", f"/v1/leases?state={state}", self.buyer))["data"]

        return (await self.until(read, f"a lease in state {state}"))[0]


@asynccontextmanager
async def serving(
    database: Any,
    config: Config,
    operator: str | None = None,
    *,
    clock: Clock | None = None,
    port: int | None = None,
) -> AsyncIterator[Venue]:
    """Serve a database; `operator` is the key of an earlier run."""
    async with AsyncExitStack() as stack:
        stack.callback(forget_applications)
        engine = await stack.enter_async_context(running_market(database, clock=clock))
        if operator is None:
            key, operator = mint_key(
                "acct_operator", "test", scopes_of(["operator"]), is_live=False, now_us=engine.clock.now_us()
            )
            await engine.execute(CreateAccount("acct_operator", "operator", ["operator"], key))
        app_pool = await database.create_pool()
        stack.push_async_callback(app_pool.close)
        pool = await asyncpg.create_pool(**database.arguments, min_size=0, max_size=4)
        stack.push_async_callback(pool.close)
        client = TestClient(TestServer(build_app(engine, app_pool, config), host="127.0.0.1", port=port))
        await client.start_server()
        stack.push_async_callback(client.close)
        yield Venue(engine, client, config, pool, app_pool, operator)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("api_postgres"))
    yield running
    running.stop()


@pytest.fixture
def config():
    return Config(
        is_demo=True,
        port=0,
        runs_simulator=True,
        simulator_start_seconds=0,
        simulator_drain_seconds=0,
        heartbeat_seconds=0.2,
    )


@pytest.fixture
async def database(api_server):
    return await api_server.new_database()


@pytest.fixture
async def venue(database, config):
    """A demo venue with one market, a funded buyer and an owner."""
    async with serving(database, config) as venue:
        await venue.open_market()
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue
