"""The client against a real market: a whole life, retries that happen once, a stream without a gap."""

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from aiohttp import web

from api import wire, wire_market, wire_money, wire_targets
from fallow import AsyncClient, Client
from fallow.client import (
    AuthError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
    model,
)
from fallow.client.money import write_money
from fallow.client.stream import Event
from tests.api.conftest import MARKET, serving

VIEWS = (wire, wire_market, wire_money, wire_targets)
NAMES = {"IdleGpus": "IdleView"}


@pytest.fixture
async def venue(database, config):
    """A demo venue whose notices are long enough for a slow machine."""
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=30)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


def test_every_value_has_the_fields_that_the_server_writes():
    found = {
        name: value
        for name, value in vars(model).items()
        if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
    }
    assert len(found) >= 12
    for name, mine in found.items():
        view = NAMES.get(name, f"{name}View")
        theirs = next(getattr(module, view) for module in VIEWS if hasattr(module, view))
        assert mine.__struct_fields__ == theirs.__struct_fields__, name


@pytest.mark.parametrize("value", [2.4, True, None, b"2"])
def test_money_is_never_a_float(value):
    with pytest.raises(TypeError, match="limit"):
        write_money(value, "limit")


def test_money_goes_out_with_six_places_or_not_at_all():
    assert write_money(Decimal("2.4"), "x") == write_money("2.40", "x") == "2.400000"
    assert write_money(3, "x") == "3.000000"
    for value in ("2.4000001", "nan", "1e999999", "two", Decimal("Infinity")):
        with pytest.raises(ValueError, match="x:"):
            write_money(value, "x")


def client_of(venue, key=None, **options):
    return AsyncClient(str(venue.client.make_url("/")), key=key or venue.buyer, **options)


async def leased(client, state="running"):
    async with asyncio.timeout(20):
        while True:
            async for lease in client.leases(state=state):
                return lease
            await asyncio.sleep(0.05)


async def test_a_life_from_the_quote_to_the_bill(venue):
    await venue.offer_node()
    async with client_of(venue) as client:
        (market,) = await client.markets()
        assert market.id == MARKET and market.price_cap > Decimal(9)
        quote = await client.quote(MARKET, 2)
        assert isinstance(quote.price_to_fill, Decimal)
        preview = await client.preview_bid(MARKET, gpus=2, limit_price_per_gpu_hour="2.40")
        assert preview.worst_cost_per_hour == Decimal("4.80")
        bid = await client.place_bid(
            MARKET, gpus=2, limit_price_per_gpu_hour=Decimal("2.40"), labels={"run": "7"},
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        assert (bid.limit_price_per_gpu_hour, bid.labels) == (Decimal("2.40"), {"run": "7"})
        assert bid.created_at.tzinfo is not None
        lease = await leased(client)
        assert lease.price == (await client.tick(MARKET)).price
        notice = await client.test_notice(lease.id)
        (listed,) = await client.notices()
        assert listed.id == notice.id and listed.limit == Decimal("2.40")
        waiting = asyncio.create_task(client.notices(after=notice.id, wait_seconds=1))
        await client.ack_notice(notice.id, ready=True)
        assert await waiting == [], "no other came in that second"
        ended = await client.lease(lease.id)
        assert (ended.state, ended.end_reason) == ("ended", "test")
        amended = await client.amend_bid(bid.id, limit_price_per_gpu_hour="2.50", paused=True)
        assert amended.paused
        assert (await client.cancel_bid(bid.id)).status == "cancelled"
        assert [one.id async for one in client.bids()] == [bid.id]
        balance = await client.balance()
        # Before it was paused the bid may have won again.
        cost = sum([lease.cost async for lease in client.leases()], Decimal(0))
        assert balance.held == 0 and balance.available + cost == Decimal(1_000)
        target = await client.hold(MARKET, gpus=1, limit_price_per_gpu_hour=2)
        assert [one.id async for one in client.targets()] == [target.id]
        assert (await client.cancel_target(target.id)).state == "cancelled"


def terms(limit):
    return {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": limit}


async def test_a_batch_says_of_each_operation_what_became_of_it(venue):
    async with client_of(venue) as client:
        first, refused, second = await client.batch(
            [terms(Decimal("1.10")), {"op": "cancel", "id": "bid_none"}, terms("1.20")]
        )
        assert (first.status, refused.status) == (201, 404)
        assert first.done().limit_price_per_gpu_hour == Decimal("1.10")
        with pytest.raises(NotFoundError):
            refused.done()
        changed, gone = await client.batch(
            [
                {"op": "amend", "id": first.done().id, "limit_price_per_gpu_hour": Decimal("1.30")},
                {"op": "cancel", "id": second.done().id},
            ]
        )
        assert changed.done().limit_price_per_gpu_hour == Decimal("1.30")
        assert gone.done().status == "cancelled"
        with pytest.raises(TypeError, match="limit_price_per_gpu_hour"):
            await client.batch([terms(1.1)])
        one, other = await client.batch([terms("1.40"), {"op": "cancel", "id": "bid_none"}], atomic=True)
        assert (one.problem.code, other.status) == ("batch_aborted", 404)
        assert len([bid async for bid in client.bids(status="open")]) == 1
        (cancelled,) = await client.cancel_bids(MARKET)
        assert cancelled.done().id == first.done().id


async def test_a_no_has_its_kind(venue):
    async with client_of(venue) as client:
        with pytest.raises(NotFoundError):
            await client.bid("bid_none")
        with pytest.raises(RefusedError) as refused:
            await client.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour="900")
        assert refused.value.code == "price_out_of_range"
        with pytest.raises(ValueError, match="with its zone"):
            await client.place_bid(
                MARKET, gpus=1, limit_price_per_gpu_hour=2, expires_at=datetime(2030, 1, 1)
            )
    async with client_of(venue, "fal_test_wrong") as nobody:
        assert "fal_test_wrong" not in repr(nobody._transport)
        with pytest.raises(AuthError):
            await nobody.balance()
        with pytest.raises(AuthError):
            async for _ in nobody.stream(account=True):
                pass


class Proxy:
    """A server in front of the market that loses the first answers on their way."""

    def __init__(self, venue, losses):
        self.venue, self.losses, self.keys = venue, losses, []

    async def answer(self, request):
        self.keys.append(request.headers.get("Idempotency-Key"))
        body = await request.read()
        headers = {
            name: request.headers[name] for name in ("Authorization", "Content-Type", "Idempotency-Key")
        }
        async with self.venue.client.request(
            request.method, request.path_qs, data=body, headers=headers
        ) as response:
            raw = await response.read()
        if len(self.keys) <= self.losses:
            request.transport.abort()
        return web.Response(status=response.status, body=raw, content_type="application/json")


@pytest.fixture
async def front():
    runners = []

    async def start(handler):
        runner = web.AppRunner(web.Application(middlewares=[]))
        runner.app.router.add_route("*", "/{tail:.*}", handler)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_an_answer_that_was_lost_is_given_again_and_nothing_happens_twice(venue, front):
    proxy = Proxy(venue, losses=2)
    async with AsyncClient(await front(proxy.answer), key=venue.buyer) as client:
        bid = await client.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour=1)
    assert len(proxy.keys) == 3 and len(set(proxy.keys)) == 1
    (stored,) = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    assert stored["id"] == bid.id


async def test_it_waits_as_it_is_told_and_gives_up_in_time(front):
    loop, asked = asyncio.get_running_loop(), []

    async def busy(request):
        asked.append(loop.time())
        problem = {"code": "rate_limited", "detail": "slowly", "status": 429}
        if len(asked) < 3:
            return web.json_response(problem, status=429, headers={"Retry-After": "1"})
        return web.json_response({"data": []})

    async with AsyncClient(await front(busy), key="k") as client:
        assert await client.markets() == []
    assert asked[1] - asked[0] > 0.95 and asked[2] - asked[1] > 0.95
    asked.clear()
    async with AsyncClient(await front(busy), key="k", timeout_seconds=0.5) as client:
        with pytest.raises(RateLimitedError):
            await client.markets()
    async with AsyncClient("http://127.0.0.1:9", key="k", timeout_seconds=0.5) as client:
        with pytest.raises(UnavailableError):
            await client.markets()


async def test_a_stream_goes_on_where_it_was_when_the_server_comes_back(database, config):
    seen, ticks = [], []
    async with serving(database, config) as venue:
        await venue.open_market()
        _, buyer = await venue.open_account("buyer")
        venue.buyer = buyer
        await venue.ok("POST", "/v1/deposits", buyer, {"amount": "100.00"})
        operator, port = venue.operator, venue.client.port
        client = client_of(venue)

        async def listen():
            async for message in client.stream(account=True, markets=[MARKET], after_seq=0):
                (seen if isinstance(message, Event) else ticks).append(message)

        listener = asyncio.create_task(listen())
        await venue.place(gpus=1, limit_price_per_gpu_hour="1.00")
        await venue.until(_has(seen, "bid.accepted"), "the first event")
        await venue.until(_length(ticks, 1), "a tick")
    before = len(ticks)
    async with serving(database, config, operator, port=port) as venue:
        venue.buyer = buyer
        await venue.place(gpus=2, limit_price_per_gpu_hour="1.00")
        await venue.until(_length(ticks, before + 1), "a tick after the restart")

        async def all_seen():
            return sum(event.event == "bid.accepted" for event in seen) == 2

        await venue.until(all_seen, "the second bid")
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await client.close()
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1)), "without a gap, each once"


def _has(seen, kind):
    async def read():
        return any(event.event == kind for event in seen)

    return read


def _length(seen, least):
    async def read():
        return len(seen) >= least

    return read


async def test_the_blocking_client_does_the_same_from_a_thread(venue):
    await venue.offer_node()

    def work():
        with Client(str(venue.client.make_url("/")), key=venue.buyer) as market:
            bid = market.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour=Decimal("2.00"))
            assert [one.id for one in market.bids()] == [bid.id]
            for message in market.stream(account=True, after_seq=0):
                if message.event == "lease.started":
                    break
            with pytest.raises(TypeError):
                market.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour=2.4)
            return market.balance()

    balance = await asyncio.to_thread(work)
    assert balance.held > 0


def test_both_clients_have_the_same_methods():
    def methods(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
