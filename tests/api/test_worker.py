"""Webhooks sent by a process of their own: nothing but the database between it and the market."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from auction.clock import SystemClock
from fallow.worker import SENDER_LOCK, work
from tests.api.conftest import MARKET, serving
from tests.api.webhook_receiver import receiving, verify

QUIET_SECONDS = 0.6  # in which a second sender would have sent


@pytest.fixture
async def venue(database, config):
    """A venue that sends no webhooks itself."""
    async with serving(database, replace(config, sends_webhooks=False)) as venue:
        await venue.open_market()
        _, venue.buyer = await venue.open_account("buyer")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


@pytest.fixture
async def receiver():
    async with receiving() as running:
        yield running


@asynccontextmanager
async def worker(database):
    working = asyncio.create_task(work(database, SystemClock(), "loopback"))
    try:
        yield working
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def holders(venue):
    return await venue.pool.fetch(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND granted",
        SENDER_LOCK,
    )


async def sending(venue):
    return (await venue.until(lambda: holders(venue), "somebody sends"))[0]["pid"]


async def bid(venue):
    terms = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    return await venue.ok("POST", "/v1/bids", venue.buyer, terms)


async def told(receiver, number):
    async with asyncio.timeout(20):
        while len(receiver.seen) < number:
            await asyncio.sleep(0.02)
    return receiver.seen[number - 1]


async def test_a_worker_sends_what_the_market_does_not(venue, database, receiver):
    hook = {"url": receiver.url, "types": ["bid.accepted"]}
    made = await venue.ok("POST", "/v1/webhooks", venue.buyer, hook)
    first = await bid(venue)
    await asyncio.sleep(QUIET_SECONDS)
    assert receiver.seen == [], "the market's own sender is off"
    async with worker(database):
        document = verify(made["secret"], *await told(receiver, 1))
        assert (document["type"], document["data"]["id"]) == ("bid.accepted", first["id"])
        second = await bid(venue)
        document = verify(made["secret"], *await told(receiver, 2))
        assert document["data"]["id"] == second["id"]


async def test_of_two_workers_one_sends_and_the_other_takes_over(venue, database, receiver):
    hook = {"url": receiver.url, "types": ["bid.accepted"]}
    await venue.ok("POST", "/v1/webhooks", venue.buyer, hook)
    async with worker(database) as first:
        await sending(venue)
        async with worker(database):
            await bid(venue)
            await told(receiver, 1)
            await asyncio.sleep(QUIET_SECONDS)
            assert len(receiver.seen) == 1, "each message is sent by one of them"
            first.cancel()
            await bid(venue)
            await told(receiver, 2)


async def test_a_worker_that_loses_its_connection_goes_on_with_another(venue, database, receiver):
    hook = {"url": receiver.url, "types": ["bid.accepted"]}
    await venue.ok("POST", "/v1/webhooks", venue.buyer, hook)
    async with worker(database):
        lost = await sending(venue)
        await venue.pool.execute("SELECT pg_terminate_backend($1)", lost)
        await bid(venue)
        await told(receiver, 1)
        assert await sending(venue) != lost
