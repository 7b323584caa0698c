"""The store's conformance suite: the same promises on PostgreSQL and in memory."""

import asyncio

import msgspec
import pytest

from auction.commands import Deposit
from auction.core import Core
from auction.errors import Fenced
from auction.ledger import TransferCode
from auction.memory import MemoryShard, MemoryStore
from auction.ports import Answer, Changes, KeyedRequest, StoredAnswer
from sql import query
from sql.store import FIND_CLIENT_BIDS
from tests.simulation.driver import Crowd
from tests.support import assert_audit_passes


@pytest.fixture(params=["memory", "postgres"])
async def open_store(request, server):
    """A function that opens one more store on the same shard."""
    if request.param == "memory":
        shard = MemoryShard()
        yield Opener(lambda: MemoryStore(shard), MemoryStore.acquire)
        return
    database = await server.new_database()
    opened = []

    def open_one():
        opened.append(database.store())
        return opened[-1]

    async def steal(_):
        """Take the shard as an engine does whose rival has lost its lock without noticing."""
        connection = await database.connect()
        await connection.fetchrow(query("take_shard"), 0)
        await connection.close()

    yield Opener(open_one, steal)
    for store in opened:
        await store.close()
    await assert_audit_passes(database)


class Opener:
    """Opens one more store on the same shard; `steal` takes the shard from whoever has it."""

    def __init__(self, open_one, steal):
        self._open_one = open_one
        self.steal = steal

    def __call__(self):
        return self._open_one()


async def crowded(store, seed=1, steps=80):
    await store.acquire()
    crowd = Crowd(Core.restore(await store.load()), seed)
    for _ in range(steps):
        crowd.step()
        await store.commit(crowd.core.take_changes())
    return crowd


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_written_is_what_is_read_back(open_store, seed):
    """After every few commits a second reader of the rows is in the same state, and goes on alike."""
    store = open_store()
    await store.acquire()
    crowd = Crowd(Core.restore(await store.load()), seed)
    for step in range(120):
        crowd.step()
        await store.commit(crowd.core.take_changes())
        if step % 10 == 0:
            before = crowd.core.state_hash()
            crowd.core = Core.restore(await store.load())
            assert before == crowd.core.state_hash()
    assert crowd.accepted > 100


async def test_both_stores_and_no_store_give_the_same_digests(open_store):
    alone = Crowd(Core(), 5)
    for _ in range(80):
        alone.step()
    crowd = await crowded(open_store(), seed=5)
    digests = [market.digest for market in alone.core.markets.values()]
    assert digests == [market.digest for market in crowd.core.markets.values()]


async def test_the_journal_replays_to_the_same_state(open_store):
    store = open_store()
    crowd = await crowded(store)
    replayed = Core()
    after = 0
    while entries := await store.read_journal(after, 50):
        for entry in entries:
            assert entry.seq == after + 1
            replayed.apply(entry.command, entry.at_us)
            after = entry.seq
    assert crowd.core.state_hash() == replayed.state_hash()


async def test_an_older_epoch_is_fenced(open_store):
    """Whoever took the shard last writes; the older engine's next transaction is refused, whole."""
    first, second = open_store(), open_store()
    crowd = await crowded(first, steps=5)
    await open_store.steal(second)
    crowd.do(Deposit("dep_late", crowd.buyers[0], 1))
    with pytest.raises(Fenced):
        await first.commit(crowd.core.take_changes())
    assert (await first.load()).seq < crowd.core.seq


async def test_a_second_engine_cannot_start_beside_a_live_one(server):
    """The advisory lock tells the second one at once; the epoch alone would let it take over."""
    database = await server.new_database()
    first, second = database.store(), database.store()
    await first.acquire()
    with pytest.raises(Fenced, match="another engine is running"):
        await second.acquire()
    await second.close()
    await first.close()


async def test_a_store_waits_for_its_own_old_session_and_is_not_fenced_by_it(server):
    """A session lives on for a while behind a lost socket: here it sleeps, and holds the shard's lock."""
    database = await server.new_database()
    store = database.store()
    await store.acquire()
    busy = asyncio.create_task(store._writer().execute("SELECT pg_sleep(0.7)"))
    await asyncio.sleep(0.1)
    await store.acquire()
    await asyncio.gather(busy, return_exceptions=True)
    assert (await store.load()).seq == 0
    await store.close()


async def test_answers_are_kept_with_their_request(open_store):
    store = open_store()
    await crowded(store, steps=2)
    request = KeyedRequest("acct_a", "key-1", b"h" * 32)
    answer = Answer(201, "application/json", b'{"id":"bid_1"}')
    await store.commit(Changes(answers=[StoredAnswer(request, answer, 7)]))
    found = await store.find_answers([request, KeyedRequest("acct_b", "key-1", b"h" * 32)])
    assert {("acct_a", "key-1"): StoredAnswer(request, answer, 7)} == found


@pytest.mark.parametrize(
    ("statement", "index"),
    [(FIND_CLIENT_BIDS, "bids_client_bid_id_unique"), (query("find_answers"), "idempotency_keys_pkey")],
)
@pytest.mark.parametrize("rows", [0, 100])
async def test_what_is_looked_up_for_every_bid_is_looked_up_in_its_index(server, statement, index, rows):
    """The first plan stays with the writer's connection, so it must be right while the tables are small."""
    database = await server.new_database()
    store = database.store()
    crowd = await crowded(store, steps=rows)
    connection = store._writer()
    if rows:
        owner = await database.connect()
        await owner.execute("ANALYZE")
        await owner.close()
        assert crowd.accepted
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", ["a"], ["b"]))
    await store.close()
    assert index in plan and "Filter" not in plan, plan


async def test_the_newest_snapshot_is_loaded(open_store):
    store = open_store()
    crowd = await crowded(store, steps=1)
    for number in range(2):
        crowd.do(Deposit(f"dep_{number}", crowd.buyers[0], 5))
        await store.commit(crowd.core.take_changes())
        payload = msgspec.msgpack.encode(crowd.core.live())
        await store.save_snapshot(crowd.core.seq, crowd.core.state_hash(), payload)
    newest = (crowd.core.seq, crowd.core.state_hash(), payload)
    assert newest == await store.load_snapshot()


async def test_a_second_charge_for_one_interval_is_refused_whole(open_store):
    """The unique key is the second lock: the transaction that breaks it leaves nothing behind."""
    store = open_store()
    crowd = await crowded(store, seed=3, steps=120)
    charges = []
    while not charges:
        crowd.step()
        changes = crowd.core.take_changes()
        charges = [t for t in changes.transfers if t.code is TransferCode.CHARGE]
        await store.commit(changes)
    before = await store.load()
    crowd.do(Deposit("dep_x", crowd.buyers[0], 10))
    changes = crowd.core.take_changes()
    changes.transfers.append(charges[0])
    with pytest.raises(Exception, match="charged_once"):
        await store.commit(changes)
    after = await store.load()
    assert (before.balances, before.seq) == (after.balances, after.seq)
