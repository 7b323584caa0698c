"""The simulation's reads answer as `Reader` does: the same questions on a real PostgreSQL."""

import msgspec
import pytest

from auction.core import Core
from auction.memory import MemoryStore
from auction.model import Bid, Lease, Notice
from sql import query
from sql.reads import INT64_MAX, NEWEST, Reader
from sql.scope import EVERYBODY
from tests.simulation.driver import Crowd
from tests.simulation.read_twin import ReadTwin


async def at_once():
    """The twin's questions cost nothing here."""


@pytest.fixture(params=range(2))
async def world(request, server):
    """One crowd's history, committed to both stores, and a reader of each."""
    database = await server.new_database()
    real, twin = database.store(), MemoryStore()
    await real.acquire()
    await twin.acquire()
    crowd = Crowd(Core(), request.param)
    for _ in range(250):
        crowd.step()
        changes = crowd.core.take_changes()
        await real.commit(changes)
        await twin.commit(changes)
    pool = await database.create_pool()
    yield crowd, twin.shard, Reader(pool.fixed(EVERYBODY)), ReadTwin(twin.shard, at_once)
    await pool.close()
    await real.close()


def questions(crowd, shard):
    """Yield (name, arguments, named arguments) for every read that the twin has."""
    market, dice = crowd.market.id, crowd.dice
    yield "markets", (), {}
    for name in (market, "nowhere"):
        yield "market", (name,), {}
        for tick in (None, 3, 10_000):
            yield "tick", (name, tick), {}
    accounts = [*crowd.buyers, *crowd.owners]
    for account in accounts:
        yield "account", (account,), {}
        yield "balance", (account,), {}
        yield "events_after", (account, dice.choice([0, 3, 50]), dice.choice([1, 1_000])), {}
        yield "desired", (account, None), {}
        yield "desired", (account, dice.choice(sorted(crowd.nodes))), {}
        for limit in (1, 7, 200):
            for status in (None, "open", "cancelled"):
                bounds = {"market": dice.choice([None, market, "nowhere"]), "status": status}
                yield (
                    "bids",
                    (account,),
                    bounds | {"before_seq": dice.choice([INT64_MAX, 30]), "limit": limit},
                )
            for state in (None, "running", "ended"):
                bounds = {"bid": None, "market": market, "state": state, "before": NEWEST, "limit": limit}
                yield "leases", (account,), bounds
            for state in (None, "done"):
                yield "notices", (account,), {"state": state, "before": NEWEST, "limit": limit}
    for kind, name in ((Bid, "bid"), (Lease, "lease"), (Notice, "notice")):
        for row in dice.sample(sorted(shard.rows[kind].values(), key=lambda row: row.id), 12):
            yield name, (row.account, row.id), {}
            yield name, (dice.choice(accounts), row.id), {}
    for row in dice.sample(sorted(shard.rows[Lease].values(), key=lambda row: row.id), 12):
        yield "owned_lease", (dice.choice(crowd.owners), row.id), {}
        yield "leases", (row.account,), {
            "bid": row.bid, "market": None, "state": None, "before": (row.awarded_at_us, row.id), "limit": 5,
        }  # fmt: skip
    yield "bid_by_client_id", (crowd.buyers[0], "none"), {}
    yield "key_by_public_id", ("nobody",), {}
    yield "workloads", (sorted(shard.rows[Bid])[:5],), {}


def plain(value):
    """A read's answer without the difference between tuples and lists."""
    return msgspec.to_builtins(value)


async def test_the_twin_answers_every_question_as_postgresql_does(world):
    crowd, shard, reader, twin = world
    asked, told = set(), 0
    for name, arguments, named in questions(crowd, shard):
        expected = await getattr(reader, name)(*arguments, **named)
        actual = await getattr(twin, name)(*arguments, **named)
        assert plain(actual) == plain(expected), (name, arguments, named)
        asked.add(name)
        told += bool(expected)
    own = {name for name in vars(ReadTwin) if not name.startswith("_")}
    assert own - asked == {"fetch"}
    assert told > 100


@pytest.mark.parametrize("least", [1, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
async def test_the_twins_median_is_postgresqls(world, least, share):
    crowd, _, reader, twin = world
    arguments = (crowd.market.id, crowd.at_us - 300_000_000, least, share)
    (expected,) = await reader.fetch(query("price_quantile"), *arguments)
    (actual,) = await twin.fetch(query("price_quantile"), *arguments)
    assert actual["price"] == expected["price"]
    with pytest.raises(AssertionError, match="outside of the simulation"):
        await twin.fetch("SELECT 1")
