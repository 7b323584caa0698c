"""A bid on which the tick fails: rejected alone, or its market is halted, and every writer after it goes on.

RULES.md R12 and FAULTS.md F26 on the storage's twin; on PostgreSQL tests/integration/test_engine_faults.py.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from auction.clock import ManualClock
from auction.commands import (
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    PlaceBid,
)
from auction.engine import Engine
from auction.memory import MemoryShard, MemoryStore
from auction.model import Bid, Market, MarketStatus
from auction.quarantine import POISON_BIDS_MAX, Aside, Search
from tests.simulation.driver import START_US, make_market
from tests.simulation.poison import failing_tick

MARKET = "h100.us"
OPENING = [
    CreateMarket(make_market(MARKET)),
    CreateAccount("acct_a", "a", ["buyer"]),
    CreateAccount("acct_o", "o", ["owner"]),
    Deposit("dep_a", "acct_a", 1_000_000_000),
    CreateNode("node_1", "acct_o", MARKET, "one", 8, True),
    EnrolNode("node_1", "acct_o"),
    CreateOffer("offer_1", "acct_o", "node_1", 8, 500_000),
]


def bid(name, gpus=1):
    return PlaceBid(name, "acct_a", MARKET, gpus, 1_000_000)


@asynccontextmanager
async def engine_on(shard, clock):
    engine = Engine(MemoryStore(shard), clock)
    await engine.start()
    try:
        yield engine
    finally:
        await asyncio.wait_for(engine.stop(), 30)


async def live(commands, ticks=1, shard=None, clock=None):
    """Decide these commands on a new market, go past some ticks; return (engine, shard)."""
    shard, clock = shard or MemoryShard(), clock or ManualClock(START_US)
    async with engine_on(shard, clock) as engine:
        for command in commands:
            await engine.execute(command)
        for _ in range(ticks):
            clock.advance(10)
            await engine.settled()
    return engine, shard


def statuses(shard):
    return {name: row.status.value for name, row in shard.rows[Bid].items()}


async def test_a_bid_on_which_the_tick_fails_is_rejected_alone_and_the_tick_goes_on():
    shard, clock = MemoryShard(), ManualClock(START_US)
    with failing_tick(lambda state: "bid_poison" in state.bids):
        commands = [*OPENING, bid("bid_good"), bid("bid_poison"), bid("bid_better")]
        engine, _ = await live(commands, shard=shard, clock=clock)
        assert engine.fault_count == 1
        assert {"bid_good": "filled", "bid_poison": "rejected", "bid_better": "filled"} == statuses(shard)
        rejected = shard.rows[Bid]["bid_poison"]
        assert ("engine_error", 0) == (rejected.reason_code, rejected.held)
        assert (MarketStatus.OPEN, 1) == (shard.rows[Market][MARKET].status, shard.rows[Market][MARKET].tick)
        assert "bid.rejected" in [event.kind.value for event in shard.events]
        again, _ = await live([], shard=shard, clock=clock)
    assert again.fault_count == 0, "the same bid does not stop the next tick"
    assert shard.rows[Market][MARKET].tick == 2


async def test_a_bid_that_comes_with_the_tick_is_written_first_and_rejected_then():
    """What only the batch knows cannot be looked for in the state: the tick waits for one commit."""
    shard, clock = MemoryShard(), ManualClock(START_US)
    with failing_tick(lambda state: "bid_poison" in state.bids):
        async with engine_on(shard, clock) as engine:
            for command in [*OPENING, bid("bid_good")]:
                await engine.execute(command)
            late = asyncio.create_task(engine.execute(bid("bid_poison")))
            await asyncio.sleep(0)
            clock.advance(10)
            assert (await late).bid.id == "bid_poison"
            await engine.settled()
        assert {"bid_good": "filled", "bid_poison": "rejected"} == statuses(shard)
        assert shard.rows[Market][MARKET].tick == 1


@pytest.mark.parametrize(
    ("poison", "rejected"),
    [
        ({"bid_07"}, {"bid_07"}),
        ({"bid_00"}, {"bid_00"}),
        ({"bid_03", "bid_04", "bid_29"}, {"bid_03", "bid_04", "bid_29"}),
    ],
)
async def test_of_many_bids_those_are_found_that_are_the_cause(poison, rejected):
    names = [f"bid_{number:02}" for number in range(30)]
    with failing_tick(lambda state: not poison.isdisjoint(state.bids)):
        _, shard = await live([*OPENING, *map(bid, names)])
    assert rejected == {name for name, status in statuses(shard).items() if status == "rejected"}
    assert shard.rows[Market][MARKET].tick == 1


async def test_of_two_bids_that_fail_together_one_is_enough():
    names = [f"bid_{number:02}" for number in range(9)]
    with failing_tick(lambda state: {"bid_02", "bid_06"} <= state.bids.keys()):
        _, shard = await live([*OPENING, *map(bid, names)])
    assert ["bid_06"] == [name for name, status in statuses(shard).items() if status == "rejected"]


@pytest.mark.parametrize(
    ("where", "ticks"),
    [
        (lambda state: True, 0),  # whatever is bid
        (lambda state: bool(state.leases), 1),  # a tenant's bid: nobody loses GPUs for it
        (lambda state: len(state.bids) > 30 - POISON_BIDS_MAX - 1, 0),  # too many to be an accident
    ],
)
async def test_where_no_waiting_bid_is_the_cause_the_market_is_halted_and_all_bids_stay(where, ticks):
    shard, clock = MemoryShard(), ManualClock(START_US)
    names = [f"bid_{number:02}" for number in range(30)]
    await live([*OPENING, *map(bid, names)], ticks=ticks, shard=shard, clock=clock)
    before, balances = statuses(shard), dict(shard.balances)
    with failing_tick(where):
        engine, _ = await live([], shard=shard, clock=clock)
        again, _ = await live([], shard=shard, clock=clock)
    assert [engine.fault_count, again.fault_count] == [1, 0]
    market = shard.rows[Market][MARKET]
    assert (MarketStatus.HALTED, ticks) == (market.status, market.tick)
    assert "is void" in market.status_reason
    assert before == statuses(shard)
    assert ticks or balances == shard.balances


async def test_who_has_no_time_left_finds_nothing():
    engine, _ = await live([*OPENING, bid("bid_a"), bid("bid_poison")], ticks=0)
    at_us = engine.core.now_us + 10_000_000
    with failing_tick(lambda state: "bid_poison" in state.bids):
        search = Search(engine.core.live(), Aside(), [MARKET], at_us, None)
        assert ["bid_poison"] == await search.find(lambda: True)
        assert await search.find(lambda: False) is None
