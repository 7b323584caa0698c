"""A bid on which the tick fails: what holds today (RULES.md R12's first half), and what it costs.

The tick that fails is void: nothing of it is written, nobody is charged or preempted by it. But the writer
ends with it, and the next one meets the same bid: quarantine (FAULTS.md F26) is not built.
"""

import asyncio

import pytest

from auction import clearing
from auction.clock import ManualClock
from auction.commands import CreateAccount, CreateMarket, Deposit, PlaceBid
from auction.engine import Engine
from auction.memory import MemoryShard, MemoryStore
from auction.model import Bid, BidStatus
from tests.simulation.driver import START_US, make_market
from tests.simulation.planted import exchanged


def failing_on_poison():
    honest = clearing.run_tick

    def run_tick(state, market):
        tick = honest(state, market)
        assert "bid_poison" not in state.bids, "the rule fails on this bid"
        return tick

    return exchanged(clearing, "run_tick", run_tick)


async def failing_life(shard, commands):
    """Start an engine, have it decide, and go to the tick; return what ended it."""
    clock = ManualClock(START_US)
    engine = Engine(MemoryStore(shard), clock)
    await engine.start()
    for command in commands:
        await engine.execute(command)
    clock.advance(11)
    with pytest.raises(AssertionError, match="fails on this bid") as ended:
        await engine.run_until(asyncio.Event())
    return ended


async def test_a_tick_that_fails_is_void_and_stops_every_writer_after_it():
    shard = MemoryShard()
    opening = [
        CreateMarket(make_market()),
        CreateAccount("acct_a", "a", ["buyer"]),
        Deposit("dep_a", "acct_a", 10_000_000),
        PlaceBid("bid_good", "acct_a", "h100.us", 1, 1_000_000),
        PlaceBid("bid_poison", "acct_a", "h100.us", 1, 1_000_000),
    ]
    with failing_on_poison():
        await failing_life(shard, opening)
        seq, balances = shard.next_seq, dict(shard.balances)
        await failing_life(shard, [])
    assert shard.ticks == {}
    assert (shard.next_seq, shard.balances) == (seq, balances)
    assert shard.rows[Bid]["bid_good"].status is BidStatus.OPEN
