"""A bid on which the tick fails: the tick is void, its market is halted, and every writer after it goes on.

RULES.md R12 and FAULTS.md F26 on the storage's twin; on PostgreSQL tests/integration/test_engine_faults.py.
"""

import asyncio

from auction import clearing
from auction.clock import ManualClock
from auction.commands import CancelBid, CreateAccount, CreateMarket, Deposit, PlaceBid, SetMarketStatus
from auction.engine import Engine
from auction.memory import MemoryShard, MemoryStore
from auction.model import Bid, BidStatus, MarketStatus
from tests.simulation.driver import START_US, make_market
from tests.simulation.planted import exchanged


def failing_on_poison():
    honest = clearing.run_tick

    def run_tick(state, market):
        tick = honest(state, market)
        is_halted = market.status is MarketStatus.HALTED
        assert is_halted or "bid_poison" not in state.bids, "the rule fails on this bid"
        return tick

    return exchanged(clearing, "run_tick", run_tick)


async def life(shard, clock, commands):
    """Start an engine, have it decide, go past a tick, and stop it; return it."""
    engine = Engine(MemoryStore(shard), clock)
    await engine.start()
    for command in commands:
        await engine.execute(command)
    clock.advance(11)
    await engine.settled()
    await engine.stop()
    return engine


async def test_a_tick_that_fails_is_void_and_its_market_is_halted_until_the_operator_has_looked():
    shard, clock = MemoryShard(), ManualClock(START_US)
    opening = [
        CreateMarket(make_market()),
        CreateAccount("acct_a", "a", ["buyer"]),
        Deposit("dep_a", "acct_a", 10_000_000),
        PlaceBid("bid_good", "acct_a", "h100.us", 1, 1_000_000),
        PlaceBid("bid_poison", "acct_a", "h100.us", 1, 1_000_000),
    ]
    with failing_on_poison():
        first = await asyncio.wait_for(life(shard, clock, opening), 30)
        balances = dict(shard.balances)
        second = await asyncio.wait_for(life(shard, clock, []), 30)
        assert [first.fault_count, second.fault_count] == [1, 0]
        assert second.core.markets["h100.us"].status is MarketStatus.HALTED
        assert shard.ticks == {}
        assert shard.balances == balances
        assert shard.rows[Bid]["bid_good"].status is BidStatus.OPEN

        out = [CancelBid("bid_poison", "acct_a"), SetMarketStatus("h100.us", MarketStatus.OPEN)]
        third = await asyncio.wait_for(life(shard, clock, out), 30)
    assert third.fault_count == 0
    assert third.core.markets["h100.us"].tick == 1
