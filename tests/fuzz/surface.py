"""A real server, four tenants with canaries and the public, and very many requests, good and bad.

What is looked for: an answer of 5xx that is not 503, a canary in a reply to somebody else, somebody else's
object named with success, and a server that is not well afterwards. Who may see whose text: a tenant its
own; an owner, on the agent's routes, the workload that is to run on its node; a buyer, in its leases and
events, what the node told it. The public nothing. The server sends no webhooks, so nothing connects
anywhere.
"""

import asyncio
import json
import logging
import random
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from api.app import ROUTES, build_app
from api.config import Config
from api.keys import mint_key, scopes_of
from api.openapi import document
from api.rate_limits import Policies, Policy
from auction.commands import CreateAccount
from tests.fuzz.wire_client import Connection, Reply
from tests.fuzz.wire_requests import Request, Requests, Sender
from tests.support import Server, running_market

MARKET = "h100-sxm.test"
CONNECTIONS = 8
IN_FLIGHT = 16
SOCKET_SHARE = 5  # of so many requests one is a socket's message
FAULTS_KEPT = 20
_WIDE = 10_000_000
OPEN = Policies(
    requests=Policy("requests", _WIDE, _WIDE),
    exits=Policy("exits", _WIDE, _WIDE),
    agents=Policy("agents", _WIDE, _WIDE),
    public=Policy("public", _WIDE, _WIDE),
    refusals=Policy("refusals", _WIDE, _WIDE),
)
ROLES = {"red": "buyer", "blue": "buyer", "green": "owner", "amber": "owner"}
BUYERS_SEE_OWNERS = ("/v1/leases", "/v1/events", "/v1/bids", "/v1/notices", "/v1/targets", "socket")
SOCKET_KINDS = [
    "bid.place", "bid.place", "bid.amend", "bid.cancel", "bid.cancel_all", "bid.batch", "cancel_after",
    "notice.ack", "subscribe", "unsubscribe", "ping", "auth", "nonsense",
]  # fmt: skip


@dataclass
class Seen:
    """What came of it."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    not_well: str = ""  # what a newcomer was told afterwards, where it was not what it should be

    def fault(self, where: list[str], text: str) -> None:
        if len(where) < FAULTS_KEPT:
            where.append(text)


class Surface:
    """One run against one server."""

    def __init__(self, port: int, requests: Requests, senders: list[Sender], dice: random.Random) -> None:
        self._port = port
        self._requests = requests
        self._senders = senders
        self._dice = dice
        self.messages = 0
        self._until_s = 0.0
        self.seen = Seen()

    @property
    def tenants(self) -> list[Sender]:
        return [sender for sender in self._senders if sender.key is not None]

    async def run(self, count: int, seconds_max: float) -> Seen:
        """Send `count` requests over several connections and sockets, fewer if the time ends."""
        began_s = asyncio.get_running_loop().time()
        self._until_s = began_s + seconds_max
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._ask(count))
            for sender in self._senders:
                if sender.role == "buyer":
                    tasks.create_task(self._talk(sender, count))
        self.seen.seconds = asyncio.get_running_loop().time() - began_s
        return self.seen

    def _goes_on(self, count: int) -> bool:
        return self.seen.requests < count and asyncio.get_running_loop().time() < self._until_s

    async def _ask(self, count: int) -> None:
        connection = Connection(self._port)
        while self._goes_on(count):
            if self._dice.random() < 0.3:
                self.seen.requests += 1
                self._judge_raw(await connection.raw(self._requests.raw()))
                continue
            asked = [self._requests.structured() for _ in range(IN_FLIGHT)]
            self.seen.requests += len(asked)
            for request, reply in zip(
                asked, await connection.exchange([one.data for one in asked]), strict=False
            ):
                self._judge(request, reply)
        connection.close()

    def _judge(self, request: Request, reply: Reply) -> None:
        seen, told = (
            self.seen,
            f"{request.sender.name}: {_without_key(request.data)[:1500]!r} -> {reply.status}",
        )
        seen.statuses[reply.status] += 1
        if reply.status >= 500 and reply.status != 503:
            seen.fault(seen.faults, f"{told} {reply.body[:300]!r}")
        if request.foreign is not None and reply.status < 300:
            seen.fault(seen.leaks, f"{told} although {request.foreign} is somebody else's")
        self._look_for_canaries(request.sender, request.path, reply.head + reply.body, told)
        if reply.status < 300:
            request.sender.learn(reply.body)

    def _judge_raw(self, answer: bytes) -> None:
        seen = self.seen
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") and answer[9:12].isdigit() else 0
        seen.statuses[status] += 1
        if status >= 500 and status != 503:
            seen.fault(seen.faults, f"raw bytes -> {answer[:600]!r}")

    def _look_for_canaries(self, sender: Sender, path: str, text: bytes, told: str) -> None:
        for other in self._senders:
            if other is sender or not other.canary or other.canary.encode() not in text:
                continue
            if other.canary in path:
                continue  # it was asked for by name, and the refusal repeats the name
            if (sender.role, other.role) == ("owner", "buyer") and path.startswith("/v1/agent/"):
                continue
            if (sender.role, other.role) == ("buyer", "owner") and path.startswith(BUYERS_SEE_OWNERS):
                continue
            self.seen.fault(self.seen.leaks, f"{told} shows {other.name}'s text: {text[-1500:]!r}")

    async def _talk(self, sender: Sender, count: int) -> None:
        """Send messages over sockets until enough was asked; a socket that is closed is opened again."""
        async with aiohttp.ClientSession() as session:
            while self._goes_on(count):
                url = f"http://127.0.0.1:{self._port}/v1/ws"
                async with session.ws_connect(url, protocols=["fallow.v1.json"], max_msg_size=0) as socket:
                    hears = asyncio.create_task(self._hear(sender, socket))
                    await socket.send_str(json.dumps({"type": "auth", "id": "auth", "key": sender.key}))
                    for _ in range(200):
                        if hears.done() or not self._goes_on(count):
                            break
                        message = self._requests.message(sender, SOCKET_KINDS)
                        self.seen.requests += 1
                        try:
                            send = socket.send_str if isinstance(message, str) else socket.send_bytes
                            await send(message)
                        except (ConnectionError, aiohttp.ClientError):
                            break
                        self.messages += 1
                        while self.messages * SOCKET_SHARE > self.seen.requests and self._goes_on(count):
                            await asyncio.sleep(0.01)
                    await socket.close()
                    await hears

    async def _hear(self, sender: Sender, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
            self._look_for_canaries(sender, "socket", data, f"{sender.name}'s socket")
            if b'"code":"internal_error"' in data:
                self.seen.fault(self.seen.faults, f"{sender.name}'s socket: {data[:500]!r}")
            sender.learn(data)


def _without_key(data: bytes) -> bytes:
    """Leave out what must not stand in a table."""
    return re.sub(rb"Authorization: [^\r]*\r\n", b"", data)


class Log(logging.Handler):
    """Every fault that the server logged is one that was seen, whatever the client was told."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(logging.ERROR)
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._seen.fault(self._seen.faults, f"logged: {record.getMessage()}: {error!r}")


@asynccontextmanager
async def surface(server: Server, seed: int) -> AsyncIterator[tuple[Surface, aiohttp.ClientSession, str]]:
    """Serve a fresh database with tenants; at the end the engine is stopped, audited and replayed.

    Yields what attacks, a session at the server, and the operator's key.
    """
    database = await server.new_database()
    config = Config(
        is_demo=True, port=0, runs_simulator=True, simulator_start_seconds=0, simulator_drain_seconds=0,
        rates=OPEN, sends_webhooks=False,
    )  # fmt: skip
    async with running_market(database) as engine:
        key, operator = mint_key(
            "acct_operator", "test", scopes_of(["operator"]), is_live=False, now_us=engine.clock.now_us()
        )
        await engine.execute(CreateAccount("acct_operator", "operator", ["operator"], key))
        pool = await database.create_pool()
        app = build_app(engine, pool, config)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            dice = random.Random(seed)
            requests = Requests(dice, document(ROUTES, "fuzz"), MARKET)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                senders = await _people(session, operator, dice)
                for sender in senders:
                    requests.add(sender)
                yield Surface(port, requests, senders, dice), session, operator
        finally:
            await runner.cleanup()
            await pool.close()


async def _people(session: aiohttp.ClientSession, operator: str, dice: random.Random) -> list[Sender]:
    async def ok(method: str, path: str, key: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.request(method, path, json=body, headers=headers) as response:
            assert response.status < 300, (path, response.status, await response.text())
            return await response.json()

    market = {
        "id": MARKET, "gpu_model": "H100", "gpu_memory_gib": 80, "gpus_per_node": 8, "interconnect": "sxm",
        "region": "test", "tick_seconds": 1, "notice_seconds": 1,
    }  # fmt: skip
    await ok("POST", "/v1/operator/markets", operator, market)
    senders = [Sender("public", "public", None, "")]
    for name, role in ROLES.items():
        canary = f"canary{name}{dice.randrange(16**6):06x}"
        made = await ok("POST", "/v1/operator/accounts", operator, {"name": canary, "roles": [role]})
        sender = Sender(name, role, made["key"], canary)
        keys = await ok("GET", "/v1/keys", made["key"])
        sender.spared = {one["id"] for one in keys["data"]}
        senders.append(sender)
        if role == "buyer":
            await ok("POST", "/v1/deposits", made["key"], {"amount": "100000.00"})
            continue
        body = {"name": canary, "market": MARKET, "gpus": 8, "simulated": True}
        node = await ok("POST", "/v1/nodes", made["key"], body)
        offer = {"node": node["id"], "gpus": 8, "reserve_price_per_gpu_hour": "1.00"}
        await ok("POST", "/v1/offers", made["key"], offer)
    return senders


async def complaint(session: aiohttp.ClientSession, operator: str) -> str:
    """Return what does not work for somebody who comes now: opens an account, pays in, bids; "" for nothing.

    A newcomer, because the tenants may have set limits of their own or spent all that they had.
    """
    key = operator
    steps: list[tuple[str, str, Any]] = [
        ("GET", "/readyz", None),
        ("POST", "/v1/operator/accounts", {"name": "newcomer", "roles": ["buyer"]}),
        ("POST", "/v1/deposits", {"amount": "100.00"}),
        ("POST", "/v1/bids", {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "0.50"}),
    ]
    for method, path, body in steps:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.request(method, path, json=body, headers=headers) as response:
            if response.status >= 300:
                return f"{method} {path} -> {response.status} {(await response.text())[:300]}"
            key = (await response.json()).get("key", key)
    return ""


async def attack(server: Server, count: int, seed: int, seconds_max: float = 3_600) -> Seen:
    """Run a whole attack; raises if the audit or the replay afterwards fails."""
    async with surface(server, seed) as (running, session, operator):
        log = Log(running.seen)
        logging.getLogger("fallow").addHandler(log)
        try:
            seen = await running.run(count, seconds_max)
        finally:
            logging.getLogger("fallow").removeHandler(log)
        seen.not_well = await complaint(session, operator)
    return seen


def run_attack(count: int, seed: int, *, seconds_max: float) -> Seen:
    """Do it with a server of its own."""
    # aiohttp tells of every request that is no HTTP; what the product logs as its own fault is counted.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name) / "postgres")
        try:
            return asyncio.run(attack(server, count, seed, seconds_max))
        finally:
            server.stop()
