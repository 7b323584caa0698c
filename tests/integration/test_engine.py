"""The single writer on real PostgreSQL: durable answers, exact funds, idempotency, outages, restarts."""

import asyncio
import json
import random
import time

import pytest

from auction.clock import ManualClock, SystemClock
from auction.commands import (
    AckNotice,
    Adjust,
    AmendBid,
    CancelBid,
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    PlaceBid,
    ReleaseLease,
    ReportLease,
)
from auction.engine import Engine
from auction.errors import Rejection, Unavailable
from auction.ids import random_id
from auction.model import BidStatus, LeaseState
from auction.ports import Answer, KeyedRequest
from tests.simulation.driver import START_US, make_market
from tests.support import assert_audit_passes, running_market

BUYER, RIVAL, OWNER = "acct_buyer", "acct_rival", "acct_owner"


async def open_market(engine, *, gpus=8, deposit=10_000_000, **settings):
    """One market with one node of one owner, and two buyers with money."""
    market = make_market(**settings)
    await engine.execute(CreateMarket(market))
    for account, role in ((BUYER, "buyer"), (RIVAL, "buyer"), (OWNER, "owner")):
        await engine.execute(CreateAccount(account, account, [role]))
    for account in (BUYER, RIVAL):
        await engine.execute(Deposit(random_id("dep"), account, deposit))
    await engine.execute(CreateNode("node_1", OWNER, market.id, "n1", gpus, True))
    await engine.execute(CreateOffer("off_1", OWNER, "node_1", gpus, 1_000_000))
    return market


def bid(account=BUYER, *, gpus=8, limit=2_000_000, min_gpus=1, **more):
    return PlaceBid(random_id("bid"), account, "h100.us", gpus, limit, min_gpus, **more)


async def reach(engine, clock, seconds):
    """Let the clock move and the writer finish what fell due."""
    for _ in range(seconds):
        clock.advance(1)
        await settle(engine)


async def settle(engine):
    """Return when the writer has nothing left to do."""
    while engine.core.next_due_us() <= engine.clock.now_us() or engine._inbox:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)


async def start_leases(engine):
    for lease in list(engine.core.leases.values()):
        if lease.state is LeaseState.STARTING:
            await engine.execute(ReportLease(lease.id, OWNER, "started"))


def as_json(outcomes):
    """An answer that shows what was decided."""
    rejected = [outcome.code for outcome in outcomes if isinstance(outcome, Rejection)]
    body = json.dumps(rejected or [outcome.bid.id for outcome in outcomes]).encode()
    return Answer(402 if rejected else 201, "application/json", body)


async def test_the_life_of_a_bid(server):
    """Bid, lease, outbid, notice, end at the deadline, billed to the second."""
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        await open_market(engine)
        mine = (await engine.execute(bid())).bid
        await reach(engine, clock, 10)
        await start_leases(engine)
        assert engine.core.bids[mine.id].status is BidStatus.FILLED
        (lease,) = engine.core.leases.values()
        started_s = clock.now_us() // 1_000_000

        theirs = (await engine.execute(bid(RIVAL, limit=4_000_000))).bid
        await reach(engine, clock, 10)
        (notice,) = engine.core._state.notices.values()
        assert engine.core.bids[mine.id].status is BidStatus.PREEMPTING
        assert ("outbid", 30) == (notice.reason, (notice.reclaim_at_us - notice.issued_at_us) // 1_000_000)
        await reach(engine, clock, 30)
        assert lease.id not in engine.core.leases
        assert LeaseState.ENDED is lease.state
        assert lease.ended_at_us == notice.reclaim_at_us
        seconds = notice.reclaim_at_us // 1_000_000 - started_s
        assert 8 * seconds == lease.gpu_seconds
        # The reserve is $1.00 and the fee 3 %, so the price is ceil(1.00 / 0.97) on the increment.
        assert 1_040_000 * 8 * seconds // 3600 == lease.settled
        assert engine.core.bids[theirs.id].filled_gpus == 8


async def test_raising_inside_the_notice_withdraws_it(server):
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        await open_market(engine)
        mine = (await engine.execute(bid())).bid
        await reach(engine, clock, 10)
        await start_leases(engine)
        theirs = (await engine.execute(bid(RIVAL, limit=4_000_000))).bid
        await reach(engine, clock, 10)
        assert BidStatus.PREEMPTING is engine.core.bids[mine.id].status
        await engine.execute(AmendBid(mine.id, BUYER, limit=5_000_000))
        await reach(engine, clock, 10)
        assert BidStatus.FILLED is engine.core.bids[mine.id].status
        assert not engine.core._state.notices
        rival = engine.core.bids[theirs.id]
        assert (0, 0, BidStatus.OPEN) == (rival.filled_gpus, rival.spent, rival.status)


async def test_an_acknowledged_notice_hands_over_at_once(server):
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        await open_market(engine)
        await engine.execute(bid())
        await reach(engine, clock, 10)
        await start_leases(engine)
        await engine.execute(bid(RIVAL, limit=4_000_000))
        await reach(engine, clock, 10)
        (notice,) = engine.core._state.notices.values()
        await engine.execute(AckNotice(notice.id, BUYER, True))
        (lease,) = engine.core.leases.values()
        assert (RIVAL, LeaseState.STARTING) == (lease.account, lease.state)


async def test_concurrent_bids_take_exactly_what_the_balance_covers(server):
    """50 bids at once on a balance that covers 7: seven are accepted, the rest are 402."""
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine, deposit=1_000_000)
        one = engine.core.preview(bid(gpus=1)).hold
        covered = 1_000_000 // one
        assert 1 <= covered < 60
        results = await asyncio.gather(
            *(engine.execute(bid(gpus=1)) for _ in range(covered + 43)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, Rejection)]
        assert 43 == len(refused)
        assert {"insufficient_funds"} == {rejection.code for rejection in refused}
        assert 0 <= engine.core.balance(BUYER).available < one


@pytest.mark.parametrize("rounds", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_rounds_of_fifty_concurrent_bids_never_pass_the_balance(server, rounds):
    """Every round 50 bids at once on what is left of one balance: exactly as many win as it covers."""
    database = await server.new_database()
    dice = random.Random(3)
    async with running_market(database) as engine:
        await open_market(engine, deposit=1_000_000)
        one = engine.core.preview(bid(gpus=1)).hold
        for _ in range(rounds):
            covered = dice.randint(0, min(50, engine.core.balance(BUYER).available // one))
            blocker = engine.core.balance(BUYER).available - covered * one - dice.randrange(one)
            command = Adjust(random_id("adj"), BUYER, "available", -blocker, "round") if blocker > 0 else None
            if command:
                await engine.execute(command)
            covered = engine.core.balance(BUYER).available // one
            results = await asyncio.gather(
                *(engine.execute(bid(gpus=1)) for _ in range(50)), return_exceptions=True
            )
            placed = [result.bid for result in results if not isinstance(result, Rejection)]
            assert len(placed) == min(50, covered)
            assert {r.code for r in results if isinstance(r, Rejection)} <= {"insufficient_funds"}
            assert 0 <= engine.core.balance(BUYER).available
            await asyncio.gather(*(engine.execute(CancelBid(made.id, BUYER)) for made in placed))
            if command:
                await engine.execute(Adjust(random_id("adj"), BUYER, "available", blocker, "round"))
        assert engine.core.balance(BUYER).available == 1_000_000


async def test_bills_follow_the_time_that_passed_when_the_wall_clock_steps(server, monkeypatch):
    """The wall goes ten days ahead and ten back while a lease runs: the bill is of what passed."""
    database = await server.new_database()
    wall_ns, step_ns = time.time_ns, 864_000 * 10**9
    async with running_market(database) as engine:
        await open_market(engine, tick_seconds=1, settlement_seconds=1)
        await engine.execute(bid(gpus=1))
        while not engine.core.leases:
            await asyncio.sleep(0.02)
        (lease,) = engine.core.leases.values()
        began_s = time.monotonic()
        await engine.execute(ReportLease(lease.id, OWNER, "started"))
        for offset_ns in (step_ns, -step_ns, 0):
            monkeypatch.setattr(time, "time_ns", lambda offset_ns=offset_ns: wall_ns() + offset_ns)
            await asyncio.sleep(1.2)
        await engine.execute(ReleaseLease(lease.id, BUYER))
        passed_s = time.monotonic() - began_s
        assert abs(lease.gpu_seconds - passed_s) <= 1
        assert lease.settled == lease.metered > 0
        ticks = engine.core.markets["h100.us"].tick
        monkeypatch.setattr(time, "time_ns", lambda: wall_ns() - step_ns)
    async with running_market(database) as engine:
        await asyncio.sleep(1.2)
        assert engine.core.markets["h100.us"].tick > ticks, "it goes on though the wall is ten days behind"


async def test_one_key_is_one_bid_also_after_a_restart(server):
    database = await server.new_database()
    request = KeyedRequest(BUYER, "key-1", b"a" * 32)
    async with running_market(database) as engine:
        await open_market(engine)
        first, replayed = await engine.submit([bid()], encode=as_json, keyed=request)
        assert not replayed
        again, replayed = await engine.submit([bid()], encode=as_json, keyed=request)
        assert (first, True) == (again, replayed)
        with pytest.raises(Rejection) as other:
            await engine.submit([bid()], encode=as_json, keyed=KeyedRequest(BUYER, "key-1", b"b" * 32))
        assert "idempotency_key_reused" == other.value.code
        same_key_of_another, _ = await engine.submit(
            [bid(RIVAL)], encode=as_json, keyed=KeyedRequest(RIVAL, "key-1", b"a" * 32)
        )
        assert first != same_key_of_another
    async with running_market(database) as engine:
        assert (first, True) == await engine.submit([bid()], encode=as_json, keyed=request)
        assert 2 == len(engine.core.bids)


async def test_same_key_at_the_same_time_has_one_effect(server):
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        request = KeyedRequest(BUYER, "key-1", b"a" * 32)
        results = await asyncio.gather(
            *(engine.submit([bid(gpus=1)], encode=as_json, keyed=request) for _ in range(20)),
            return_exceptions=True,
        )
        codes = {result.code for result in results if isinstance(result, Rejection)}
        assert {"idempotency_in_progress"} == codes
        assert 1 == len(engine.core.bids)


async def test_client_bid_id_names_one_bid_for_ever(server):
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine)
        first = await engine.execute(bid(client_bid_id="train-1"))
        repeat = await engine.execute(bid(client_bid_id="train-1"))
        assert (first.bid.id, True) == (repeat.bid.id, repeat.is_repeat)
        with pytest.raises(Rejection) as conflict:
            await engine.execute(bid(gpus=2, client_bid_id="train-1"))
        assert "client_bid_id_conflict" == conflict.value.code


async def test_a_restart_keeps_the_state_hash(server):
    database = await server.new_database()
    clock = ManualClock(START_US)
    async with running_market(database, clock=clock) as engine:
        await open_market(engine)
        await engine.execute(bid(gpus=3))
        await engine.execute(bid(RIVAL, gpus=6, min_gpus=6, limit=3_000_000))
        await reach(engine, clock, 25)
        await start_leases(engine)
        before = engine.core.state_hash()
    async with running_market(database, clock=clock) as engine:
        assert before == engine.core.state_hash()


async def test_killed_sessions_lose_nothing_that_was_answered(server):
    """The writer's session is terminated again and again under load: answered bids are all there."""
    database = await server.new_database()
    async with running_market(database) as engine:
        await open_market(engine, deposit=10**12)
        answered, refused = [], 0
        stop = asyncio.Event()

        async def keep_bidding():
            nonlocal refused
            while not stop.is_set():
                try:
                    answered.append((await engine.execute(bid(gpus=1))).bid.id)
                except Unavailable:
                    refused += 1
                    await asyncio.sleep(0.02)

        async def keep_killing():
            connection = await database.connect()
            for _ in range(8):
                await asyncio.sleep(0.15)
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await connection.close()

        bidders = [asyncio.create_task(keep_bidding()) for _ in range(8)]
        await keep_killing()
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*bidders)
        assert len(answered) > 50
        assert refused > 0, "the kills were felt"
        connection = await database.connect()
        stored = {row["id"] for row in await connection.fetch("SELECT id FROM bids")}
        await connection.close()
        assert set(answered) <= stored


async def test_a_full_inbox_refuses_and_a_draining_one_too(server):
    database = await server.new_database()
    engine = Engine(database.store(), SystemClock())
    await engine.start()
    await open_market(engine, deposit=10**12)
    many = [bid(gpus=1) for _ in range(20_001)]
    with pytest.raises(Unavailable, match="are waiting"):
        await engine.submit(many, encode=as_json)
    await engine.stop()
    with pytest.raises(Unavailable, match="shutting down"):
        await engine.execute(bid(gpus=1))
    await assert_audit_passes(database)
