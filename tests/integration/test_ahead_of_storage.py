"""The engine decides one batch while the one before is written: what that may not change.

A commit is held up as in life: another session has the shard's row locked.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from auction.commands import CancelBid
from auction.errors import Unavailable
from auction.ports import KeyedRequest
from tests.integration.test_engine import BUYER, as_json, bid, open_market
from tests.support import running_market

ALONE = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@asynccontextmanager
async def held_up(database):
    """Keep every commit waiting; yields a connection that can see them wait."""
    connection = await database.connect()
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SELECT * FROM shards FOR UPDATE")
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def is_waiting(connection):
    """Return when a commit waits for the lock."""
    async with asyncio.timeout(10):
        while not await connection.fetchval(ALONE):
            await asyncio.sleep(0.005)


async def decided(engine, bid_id):
    async with asyncio.timeout(10):
        while bid_id not in engine.core.bids:
            await asyncio.sleep(0.005)


async def test_a_batch_is_decided_while_another_is_written_and_nobody_is_told_early(server):
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        one, two = bid(gpus=1), bid(gpus=1)
        async with held_up(database) as other:
            first = asyncio.create_task(engine.execute(one))
            await is_waiting(other)
            second = asyncio.create_task(engine.execute(two))
            await decided(engine, two.bid)
            await asyncio.sleep(0.05)
            assert not first.done() and not second.done()
            assert 0 == await other.fetchval("SELECT count(*) FROM bids")
        assert [one.bid, two.bid] == [(await first).bid.id, (await second).bid.id]


async def test_who_asks_again_for_what_is_being_written_gets_that_answer(server):
    """The client went away, its bid is on its way to the disk, and it comes back with the same key."""
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        request = KeyedRequest(BUYER, "key-1", b"a" * 32)
        mine = bid(gpus=1)
        async with held_up(database) as other:
            gone = asyncio.create_task(engine.submit([mine], encode=as_json, keyed=request))
            await is_waiting(other)
            gone.cancel()
            await asyncio.wait({gone})
            again = asyncio.create_task(engine.submit([bid(gpus=1)], encode=as_json, keyed=request))
            await asyncio.sleep(0.05)
            assert not again.done()
        answer, is_replay = await again
        assert is_replay and mine.bid.encode() in answer.body
        assert [mine.bid] == list(engine.core.bids)


async def test_a_client_bid_id_is_known_before_it_is_written(server):
    """Also where the bid has ended by then: neither the engine nor the database has it."""
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        mine = bid(gpus=1, client_bid_id="train-1")
        async with held_up(database) as other:
            both = [mine, CancelBid(mine.bid, BUYER)]
            first = asyncio.create_task(engine.submit(both, encode=lambda _: as_json([])))
            await is_waiting(other)
            again = asyncio.create_task(engine.execute(bid(gpus=1, client_bid_id="train-1")))
            await asyncio.sleep(0.05)
        await first
        repeat = await again
        assert (mine.bid, True) == (repeat.bid.id, repeat.is_repeat)


async def test_what_was_decided_on_a_lost_commit_is_lost_with_it(server):
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        one, two = bid(gpus=1), bid(gpus=1)
        async with held_up(database) as other:
            first = asyncio.create_task(engine.execute(one))
            await is_waiting(other)
            second = asyncio.create_task(engine.execute(two))
            await decided(engine, two.bid)
            await other.fetch(f"SELECT pg_terminate_backend(pid) FROM ({ALONE.replace('1', 'pid', 1)}) w")
        for lost in (first, second):
            with pytest.raises(Unavailable):
                await lost
        async with asyncio.timeout(20):
            while not engine.is_ready:
                await asyncio.sleep(0.01)
        assert {} == engine.core.bids
        assert await engine.execute(bid(gpus=1))
