"""Who uses the simulated server: bots, buyers, an owner, a node's agent, readers, and a webhook receiver.

Bots send raw requests and repeat each under its idempotency key until the answer is definite; buyers use
`fallow.AsyncClient`. Whatever they are told they compare: with the storage (P3), with what they were told
under the same key (P4), with the sequence numbers of their events (P11).
"""

import asyncio
import random
from contextlib import suppress
from decimal import Decimal

import aiohttp
import msgspec
from aiohttp import web

from fallow.client import AsyncClient
from fallow.client.errors import ProblemError, UnavailableError
from tests.simulation.poison import AT_ONCE, AT_THE_TICK
from tests.simulation.server import URL

MARKET = "h100.sim"
REQUEST_SECONDS_MAX = 30.0
BIDS_MAX = 8  # of one person at a time: a market that stays in motion
NOT_DEFINITE = frozenset({429, 503})
NOT_KEPT = frozenset({401, 422, 429, 503})


class Answer(msgspec.Struct):
    status: int
    body: bytes
    is_repeat: bool

    def field(self, name):
        return msgspec.json.decode(self.body).get(name)


class Person:
    """Somebody with a key and dice of its own."""

    def __init__(self, world, name, account, key):
        self.world = world
        self.dice = random.Random(f"{world.seed} {name}")
        self.account = account
        self.key = key
        self.asked = 0
        self.session = None

    async def rest(self, least_s, most_s):
        await asyncio.sleep(self.dice.uniform(least_s, most_s))

    async def try_once(self, method, path, body, key):
        """Send one request; return its answer, None where there was none."""
        headers = {"Authorization": f"Bearer {self.key}"}
        data = None
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        self.world.requests += 1
        try:
            async with self.session.request(
                method, URL + path, data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
                is_repeat = response.headers.get("Idempotency-Replayed") == "true"
                answer = Answer(response.status, raw, is_repeat)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        allowed = answer.status < 500 or answer.status == 503 or self.may_fail(answer)
        self.world.oracle.require(allowed, f"no 5xx but 503: {method} {path}: {answer.status} {raw[:300]}")
        return answer

    def may_fail(self, answer):
        """Say whether this answer of 5xx is one that it asked for."""
        return False

    async def ask(self, method, path, body=None, *, key=None):
        """Repeat a request until its answer is definite."""
        while True:
            answer = await self.try_once(method, path, body, key)
            if answer is not None and answer.status not in NOT_DEFINITE:
                if answer.status != 409 or answer.field("code") != "idempotency_in_progress":
                    return answer
                self.world.sometimes("key in progress")
            await self.rest(0.2, 5.0)


class Bot(Person):
    """Places, amends and cancels under keys of its own; says things twice, at once and later."""

    async def run(self):
        self.bids = []
        async with aiohttp.ClientSession() as self.session:
            while not self.world.is_closing:
                await self.act()
                await self.rest(5, 60)

    async def act(self):
        roll = self.dice.random() if len(self.bids) < BIDS_MAX else 1.0
        if roll < 0.55 or not self.bids:
            terms = {
                "market": MARKET,
                "gpus": self.dice.choice([1, 1, 2, 4]),
                "limit_price_per_gpu_hour": f"{self.dice.randint(60, 300) / 100:.2f}",
            }
            if self.dice.random() < 0.3:
                terms["max_run_seconds"] = self.dice.choice([300, 1_800])
            answer = await self.write("POST", "/v1/bids", terms)
            if answer.status < 300:
                self.bids.append(answer.field("id"))
                self.world.oracle.acknowledge(self.account, self.bids[-1], answer.status)
            return
        bid = self.dice.choice(self.bids)
        if roll < 0.75:
            body = {"limit_price_per_gpu_hour": f"{self.dice.randint(60, 300) / 100:.2f}"}
            await self.write("PATCH", f"/v1/bids/{bid}", body)
        else:
            await self.write("DELETE", f"/v1/bids/{bid}", None)
            self.bids.remove(bid)

    async def write(self, method, path, body):
        """Ask under a new key, sometimes twice at once, and sometimes again afterwards."""
        self.asked += 1
        key = f"op-{self.asked}"
        if self.dice.random() < 0.1:
            self.world.sometimes("same key at once")
            answer, other = await asyncio.gather(
                self.ask(method, path, body, key=key), self.ask(method, path, body, key=key)
            )
            self.compare(answer, other, key)
        else:
            answer = await self.ask(method, path, body, key=key)
        if answer.status in NOT_KEPT:
            return answer
        if self.dice.random() < 0.1:
            await self.rest(0, 30)
            again = await self.ask(method, path, body, key=key)
            self.world.oracle.require(again.is_repeat, f"P4: {key} of {self.account} was decided twice")
            self.compare(answer, again, key)
            self.world.sometimes("same key again")
        if body is not None and self.dice.random() < 0.03:
            other = await self.ask(method, path, body | {"labels": {"other": "body"}}, key=key)
            self.world.oracle.require(other.status == 422, f"F18: {key} with another body: {other.status}")
            self.world.sometimes("same key, other body")
        return answer

    def compare(self, one, other, key):
        if one.status not in NOT_KEPT:
            same = (one.status, one.body) == (other.status, other.body)
            self.world.oracle.require(same, f"P4: two answers to {key} of {self.account}: {one} {other}")


class Buyer(Person):
    """Trades with the client library, and follows its events."""

    async def run(self):
        self.bids = []
        async with AsyncClient(URL, key=self.key) as self.market:
            following = asyncio.create_task(self.follow())
            while not self.world.is_closing:
                try:
                    await self.act()
                except ProblemError as problem:
                    allowed = problem.problem.status < 500
                    self.world.oracle.require(allowed, f"no 5xx but 503: {problem}")
                except UnavailableError:
                    self.world.sometimes("client gave up")
                await self.rest(10, 120)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def act(self):
        roll = self.dice.random() if len(self.bids) < BIDS_MAX else 1.0
        market = self.market
        self.world.requests += 1
        if roll < 0.4 or not self.bids:
            limit = Decimal(self.dice.randint(60, 350)) / 100
            gpus = self.dice.choice([1, 2, 8])
            bid = await market.place_bid(MARKET, gpus=gpus, limit_price_per_gpu_hour=limit)
            self.world.oracle.acknowledge(self.account, bid.id, 201)
            self.bids.append(bid.id)
        elif roll < 0.55:
            notices = await market.notices()
            for notice in notices[:2]:
                await market.ack_notice(notice.id, ready=self.dice.random() < 0.5)
        elif roll < 0.65:
            async for lease in market.leases(state="running"):
                await market.release_lease(lease.id)
                break
        elif roll < 0.8:
            await market.bid(self.dice.choice(self.bids))
            await market.balance()
        else:
            bid = self.dice.choice(self.bids)
            self.bids.remove(bid)
            await market.cancel_bid(bid)

    async def follow(self):
        """P11: every event of the account comes once, in order, whatever breaks."""
        seq = 0
        async for event in self.market.stream(account=True, after_seq=0):
            self.world.oracle.require(event.seq == seq + 1, f"P11: {self.account}: {event.seq} after {seq}")
            seq = event.seq
            self.world.sometimes("event heard")


class Poisoner(Person):
    """Bids on which rules of the market fail (poison.py): F26, each fails alone, whatever else happens."""

    async def run(self):
        async with aiohttp.ClientSession() as self.session:
            while not self.world.is_closing:
                await self.rest(300, 1_500)
                if not self.world.network.weather.is_fair and self.world.has_faults:
                    await self.poison(self.dice.choice([AT_ONCE, AT_THE_TICK]))

    def may_fail(self, answer):
        return answer.status == 500 and answer.field("code") == "engine_error"

    async def poison(self, when):
        self.asked += 1
        terms = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "3.00", "labels": {"poison": when}}
        answer = await self.ask("POST", "/v1/bids", terms, key=f"poison-{self.asked}")
        if when == AT_ONCE:
            self.world.oracle.require(answer.status == 500, f"F26: {answer.status} for a rule that failed")
            self.world.sometimes("poison refused")
            return
        self.world.oracle.require(answer.status == 201, f"F26: {answer.status} for what fails later")
        bid = answer.field("id")
        self.world.oracle.acknowledge(self.account, bid, answer.status)
        while (shown := (await self.ask("GET", f"/v1/bids/{bid}")).field("status")) == "open":
            await self.rest(5, 60)
        self.world.oracle.require(shown == "rejected", f"F26: {bid} is {shown}")
        self.world.sometimes("poison rejected")


class Owner(Person):
    """Offers what its nodes have, and takes it back at times."""

    async def run(self):
        async with aiohttp.ClientSession() as self.session:
            while not self.world.is_closing:
                for node in self.world.nodes:
                    if node not in {offer.node for offer in self.world.oracle.core.offers.values()}:
                        self.asked += 1
                        price = f"{self.dice.randint(50, 150) / 100:.2f}"
                        terms = {"node": node, "gpus": 8, "reserve_price_per_gpu_hour": price}
                        answer = await self.ask("POST", "/v1/offers", terms, key=f"offer-{self.asked}")
                        if answer.status == 201:
                            told = {act.subject for act in self.world.acts}
                            is_told = answer.field("id") in told
                            self.world.oracle.require(is_told, "an offer without an audit row")
                if self.dice.random() < 0.1:
                    node = self.dice.choice(self.world.nodes)
                    await self.ask("POST", f"/v1/nodes/{node}/recall", {}, key=f"recall-{self.asked}")
                for node in self.world.nodes:
                    if self.world.oracle.core.nodes[node].state == "cordoned":
                        await self.ask("POST", f"/v1/nodes/{node}/uncordon", {})
                await self.rest(60, 600)


class SlowReader(Person):
    """Subscribes to everything and then does not read: it costs the market nothing, and is told to go."""

    async def run(self):
        async with aiohttp.ClientSession() as self.session:
            while not self.world.is_closing:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await self.listen()
                await self.rest(5, 60)

    async def listen(self):
        async with self.session.ws_connect(URL + "/v1/ws") as socket:
            await socket.send_json({"type": "auth", "id": 1, "key": self.key})
            channels = {"type": "subscribe", "id": 2, "channels": ["account", "markets"], "after_seq": 0}
            await socket.send_json(channels)
            transport = socket._response.connection.transport
            transport.pause_reading()
            for _ in range(60):
                await self.rest(30, 120)
                if transport.is_closing():
                    self.world.sometimes("slow reader cut off")
                    return


class Receiver:
    """A webhook receiver that is often not well; it remembers when it heard of what."""

    def __init__(self, world):
        self.world = world
        self.dice = random.Random(f"{world.seed} receiver")
        self.heard_us = {}

    async def run(self):
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 9000)
        await asyncio.Event().wait()

    async def answer(self, request):
        body = await request.json()
        if not self.world.network.weather.is_fair and self.dice.random() < 0.3:
            self.world.sometimes("webhook refused")
            if self.dice.random() < 0.3:
                await asyncio.sleep(40)
            return web.Response(status=503)
        self.heard_us.setdefault(body["data"]["id"], self.world.now_us())
        self.world.sometimes("webhook heard")
        return web.Response(status=204)
