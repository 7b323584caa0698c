"""A rule of ours that fails stops neither the market nor anybody else (FAULTS.md F26, RULES.md R12)."""

import asyncio

import pytest

from auction import bidding, clearing, core
from auction.clock import ManualClock
from auction.commands import CreateMarket, PlaceBid, SetMarketStatus
from auction.engine import Engine
from auction.errors import Rejection, TickFault
from auction.model import LeaseState, MarketStatus
from tests.integration.test_engine import BUYER, RIVAL, bid, open_market, reach
from tests.simulation.driver import START_US, make_market
from tests.support import assert_audit_passes, running_market

POISON = {"poison": "yes"}


@pytest.fixture
def poisoned(monkeypatch):
    """Bids with a label make a rule fail after it has changed half of the state."""

    def place(state, command):
        placed = bidding.place(state, command)
        assert command.labels != POISON, "planted"
        return placed

    monkeypatch.setitem(core._HANDLERS, PlaceBid, place)


async def outcome_of(asked):
    try:
        return (await asked).bid.id
    except Rejection as rejection:
        return rejection.code


async def test_a_poison_bid_is_refused_alone_and_leaves_no_trace(server, poisoned):
    database = await server.new_database()
    async with running_market(database, clock=ManualClock(START_US)) as engine:
        await open_market(engine)
        before = engine.core.balance(BUYER)
        bids = [
            bid(gpus=1),
            bid(gpus=1, labels=POISON),
            bid(RIVAL, gpus=1),
            bid(RIVAL, gpus=2, labels=POISON),
        ]
        asked = [outcome_of(engine.execute(command)) for command in bids]
        outcomes = await asyncio.gather(*asked)
        assert outcomes == [bids[0].bid, "engine_error", bids[2].bid, "engine_error"]
        assert engine.fault_count == 2
        assert sorted(engine.core.bids) == sorted([bids[0].bid, bids[2].bid])
        held = engine.core.bids[bids[0].bid].held
        assert engine.core.balance(BUYER).available == before.available - held
        assert await outcome_of(engine.execute(bid(gpus=1))) != "engine_error", "the market goes on"


async def test_an_answer_that_cannot_be_written_is_that_submissions_fault(server):
    database = await server.new_database()
    async with running_market(database, clock=ManualClock(START_US)) as engine:
        await open_market(engine)

        def encode(outcomes):
            raise ValueError("planted")

        with pytest.raises(Rejection, match="a rule of the market failed"):
            await engine.submit([bid()], encode=encode)
        assert engine.core.bids == {}


@pytest.fixture
def broken(monkeypatch):
    """The markets in the returned set cannot finish a tick; it fails after charges were settled."""
    names = set()
    run_tick = clearing.run_tick

    def failing(state, market):
        tick = run_tick(state, market)
        assert market.id not in names or market.status is MarketStatus.HALTED, "planted"
        return tick

    monkeypatch.setattr(clearing, "run_tick", failing)
    return names


async def test_a_tick_that_cannot_finish_is_void_and_halts_its_market_alone(server, broken):
    """Tenants run on at the last price, other markets clear on, the operator resumes."""
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        market = await open_market(engine)
        await engine.execute(CreateMarket(make_market("h100.eu")))
        placed = (await engine.execute(bid(gpus=4))).bid
        await reach(engine, clock, 12)
        lease = next(iter(engine.core.leases.values()))
        assert lease.state in (LeaseState.STARTING, LeaseState.RUNNING)
        cleared = {name: engine.core.markets[name].tick for name in engine.core.markets}

        broken.add(market.id)
        asked = asyncio.create_task(engine.execute(bid(RIVAL, gpus=1)))
        await asked
        await reach(engine, clock, 20)
        await engine.settled()
        halted = engine.core.markets[market.id]
        assert (halted.status, halted.tick) == (MarketStatus.HALTED, cleared[market.id])
        assert "is void" in halted.status_reason
        assert engine.core.markets["h100.eu"].tick > cleared["h100.eu"]
        assert engine.core.leases[lease.id].state is lease.state, "nobody is interrupted"
        assert engine.core.bids[placed.id].filled_gpus == 4
        assert engine.fault_count == 1

        broken.clear()
        await engine.execute(SetMarketStatus(market.id, MarketStatus.OPEN))
        await reach(engine, clock, 11)
        assert engine.core.markets[market.id].tick > cleared[market.id]


async def test_a_waiting_bid_on_which_the_tick_fails_is_rejected_and_its_hold_is_back(server, monkeypatch):
    """The books balance, the journal replays, and the next server clears on (audited when it stops)."""
    run_tick = clearing.run_tick

    def failing(state, market):
        poison = [bid.id for bid in state.bids.values() if bid.labels == POISON]
        tick = run_tick(state, market)
        assert not poison, "planted"
        return tick

    monkeypatch.setattr(clearing, "run_tick", failing)
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        market = await open_market(engine)
        good = (await engine.execute(bid(gpus=4))).bid
        before = engine.core.balance(RIVAL)
        poison = (await engine.execute(bid(RIVAL, gpus=1, labels=POISON))).bid
        await reach(engine, clock, 12)
        await engine.settled()  # the search has its awaits
        assert engine.fault_count == 1
        assert engine.core.markets[market.id].status is MarketStatus.OPEN
        assert engine.core.bids[good.id].filled_gpus == 4
        assert poison.id not in engine.core.bids
        assert engine.core.balance(RIVAL).available == before.available
    connection = await database.connect()
    row = await connection.fetchrow("SELECT status, held, reason_code FROM bids WHERE id = $1", poison.id)
    await connection.close()
    assert tuple(row) == ("rejected", 0, "engine_error")
    async with running_market(database, clock=clock) as engine:
        await reach(engine, clock, 10)
        assert engine.fault_count == 0


async def test_two_markets_that_fail_at_once_are_both_halted(server, broken):
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        await open_market(engine)
        await engine.execute(CreateMarket(make_market("h100.eu")))
        broken |= {"h100.us", "h100.eu"}
        await reach(engine, clock, 12)
        await engine.settled()
        assert {market.status for market in engine.core.markets.values()} == {MarketStatus.HALTED}
        assert engine.fault_count == 2


async def test_a_market_that_fails_while_halted_stops_the_writer(server, monkeypatch):
    """What cannot be contained is not hidden: the process ends, and its supervisor starts it again."""
    database = await server.new_database()
    clock = ManualClock(START_US)
    engine = Engine(database.store(), clock)
    await engine.start()
    await open_market(engine)
    stop = asyncio.Event()
    ended = asyncio.create_task(engine.run_until(stop))

    def failing(state, market):
        raise AssertionError("planted")

    monkeypatch.setattr(clearing, "run_tick", failing)
    clock.advance(20)
    with pytest.raises(TickFault):
        await asyncio.wait_for(ended, 10)
    monkeypatch.undo()
    await engine._store.close()
    await assert_audit_passes(database)
