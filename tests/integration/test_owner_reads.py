"""What an owner's sums are made of: rows placed by hand around midnight, on a real PostgreSQL."""

import pytest

from auction.price_history import PriceShare
from sql.owner_reads import NodeDay, node_days, price_record
from sql.reads import Reader
from sql.scope import acting, tenant
from tests.integration.test_schema_refusals import TRANSFER, USAGE, insert

DAY = 20_000
BEGIN_S = DAY * 86_400
MIDNIGHT_S = BEGIN_S + 86_400
HOUR_S = 3_600


def us(second):
    return second * 1_000_000


# A lease that was never split is summed up by its own figures, any other from its usage.
@pytest.fixture(params=[130, 131], ids=["whole", "split"])
async def reader(request, server):
    database = await server.new_database()
    connection = await database.connect()
    await build(connection, request.param)
    await connection.close()
    pool = await database.create_pool()
    with acting(tenant("owner")):
        yield Reader(pool)
    await pool.close()


async def build(connection, gpu_seconds):
    """Two nodes of one owner: `a` on offer from 10:15 to 11:45, `b` from before the day to 1:00 of the next.

    Prices: 100 at 10:00, nothing traded at 10:30, 300 from 11:00 on.
    """
    for number, account in enumerate(("buyer", "owner"), 1):
        await insert(connection, "accounts", id=account, number=number, state="open")
        for code in range(4):
            await insert(connection, "ledger_balances", ledger_account=number * 8 + code, floored=True)
    await insert(
        connection, "markets", id="market", kind="gpu", status="open", price_increment=100, price_cap=1000,
        tick_seconds=10, settlement_seconds=60,
    )  # fmt: skip
    for tick, (half_hour, price) in enumerate([(20, 100), (21, None), (22, 300), (24, 300)], 1):
        await insert(
            connection, "ticks", market="market", tick=tick, previous_digest=str(tick - 1), digest=str(tick),
            cleared_at_us=us(BEGIN_S + half_hour * 1_800), price=price, low=price, high=price,
        )  # fmt: skip
    owned = {"account": "owner", "market": "market"}
    for name in ("a", "b"):
        await insert(connection, "nodes", id=name, name=name, gpus=8, state="online", **owned)
    a_from, a_to = BEGIN_S + 10 * HOUR_S + 900, BEGIN_S + 11 * HOUR_S + 2_700
    await insert(
        connection, "offers", id="offer_a", node="a", gpus=2, status="withdrawn", seq=1, reserve=190,
        gross_reserve=200, available_from_us=us(a_from), updated_at_us=us(a_to), **owned,
    )  # fmt: skip
    await insert(
        connection, "offers", id="offer_b", node="b", gpus=1, status="listed", seq=2, reserve=50,
        gross_reserve=50, available_from_us=us(BEGIN_S - 5), available_until_us=us(MIDNIGHT_S + HOUR_S),
        **owned,
    )  # fmt: skip
    await build_leases(connection, gpu_seconds)


async def build_leases(connection, gpu_seconds):
    """One lease settled 30 s before midnight, 30 s after, and at its end 10 s later; one that cost nothing;
    and one that runs and is not settled yet."""
    bid = {"account": "buyer", "market": "market"}
    await insert(
        connection, "bids", id="bid", gpus=1, limit_price=1000, min_gpus=1, colocate="none", status="open",
        seq=1, **bid,
    )  # fmt: skip
    lease = {"bid": "bid", "owner": "owner", "end_reason": "released", "state": "ended", **bid}
    free_s = BEGIN_S + 11 * HOUR_S
    await insert(
        connection, "leases", id="across", node="b", offer="offer_b", gpu_count=1,
        started_at_us=us(MIDNIGHT_S - 90), ended_at_us=us(MIDNIGHT_S + 40), settled_to_s=MIDNIGHT_S + 40,
        metered_to_s=MIDNIGHT_S + 40, gpu_seconds=gpu_seconds, **lease,
    )  # fmt: skip
    await insert(
        connection, "leases", id="free", node="a", offer="offer_a", gpu_count=2, started_at_us=us(free_s),
        ended_at_us=us(free_s + 600), settled_to_s=free_s + 600, metered_to_s=free_s + 600,
        gpu_seconds=1_200, **lease,
    )  # fmt: skip
    await insert(
        connection, "leases", id="fresh", node="b", offer="offer_b", gpu_count=1, gpus=[0], bid="bid",
        owner="owner", state="running", started_at_us=us(MIDNIGHT_S + 50), settled_to_s=MIDNIGHT_S + 50,
        **bid,
    )  # fmt: skip
    rows = [
        ("across", MIDNIGHT_S - 90, MIDNIGHT_S - 30, 1, True),
        ("across", MIDNIGHT_S - 30, MIDNIGHT_S - 10, 1, False),  # the price changed in between
        ("across", MIDNIGHT_S - 10, MIDNIGHT_S + 30, 1, False),
        ("across", MIDNIGHT_S + 30, MIDNIGHT_S + 40, 1, False),
        ("free", free_s, free_s + 600, 2, True),
        ("fresh", MIDNIGHT_S + 50, MIDNIGHT_S + 60, 1, True),
    ]
    await connection.executemany(f"{USAGE} ($1, $2, $3, $4, 0, 0, $5)", rows)
    posted = [(MIDNIGHT_S - 30, 95, 5), (MIDNIGHT_S + 30, 95, 5), (MIDNIGHT_S + 40, 19, 1)]
    transfers = [(0, "deposit", 4, 9, 1_000, "dep", 0)]
    for end_s, net, fee in posted:
        transfers += [(0, "charge", 9, 18, net, "across", end_s), (0, "fee", 9, 5, fee, "across", end_s)]
    await connection.executemany(
        f"{TRANSFER} ($1, 1, $2, $3, $4, $5, $6, $7, $8, 0)",
        [(shard, i, *rest) for i, (shard, *rest) in enumerate(transfers)],
    )


async def test_a_day_tells_what_was_offered_sold_and_earned(reader):
    """Goal: every column by hand; a settlement is in the day in which its interval ends, with its seconds.

    `a` has 2 GPUs on offer for 45 minutes of the hour that stood half below its reserve and half without
    trade, and for 45 minutes of an hour above it. `b`: 60 s settled before midnight, 70 s after it.
    """
    rows = await node_days(reader, "owner", node=None, from_s=BEGIN_S, to_s=BEGIN_S + 2 * 86_400)
    assert rows == [
        NodeDay("b", DAY + 1, offered=3_600, leased=70, net=114, fee=6),
        NodeDay("a", DAY, offered=10_800, leased=1_200, no_trade=2_700, below_reserve=2_700),
        NodeDay("b", DAY, offered=86_400, leased=60, no_trade=1_800, net=95, fee=5),
    ]


async def test_windows_cut_days_and_add_up(reader):
    async def sums(from_s, to_s, node=None):
        rows = await node_days(reader, "owner", node=node, from_s=from_s, to_s=to_s)
        return [sum(getattr(row, name) for row in rows) for name in ("offered", "leased", "net", "fee")]

    end_s = MIDNIGHT_S + 86_400
    whole = await sums(BEGIN_S, end_s)
    for cut_s in (BEGIN_S + 11 * HOUR_S, MIDNIGHT_S - 31, MIDNIGHT_S - 30, MIDNIGHT_S + 1, MIDNIGHT_S + 30):
        parts = zip(await sums(BEGIN_S, cut_s), await sums(cut_s, end_s), strict=True)
        assert [before + after for before, after in parts] == whole, cut_s
    assert await sums(MIDNIGHT_S + 30, end_s) == [3_570, 10, 19, 1]
    assert await sums(BEGIN_S, end_s, node="a") == [10_800, 1_200, 0, 0]
    assert await sums(end_s, end_s + 86_400) == [0, 0, 0, 0]


async def test_another_account_sees_nothing(reader):
    window = {"from_s": BEGIN_S, "to_s": BEGIN_S + 2 * 86_400}
    assert await node_days(reader, "buyer", node=None, **window) == []
    assert await node_days(reader, "buyer", node="a", **window) == []


async def test_a_price_stands_until_the_next_tick_and_an_hour_at_most(reader):
    """10:00 to 10:30 at 100, nothing to 11:00, 300 from 11:00 to 12:00 and, at most, to 13:00."""
    record = await price_record(reader, "market", from_us=us(BEGIN_S), to_us=us(MIDNIGHT_S))
    half = us(1_800)
    assert {share.price: share.stood_us for share in record.shares} == {100: half, None: half, 300: 4 * half}
    assert (record.ticks, record.from_us) == (4, us(BEGIN_S + 10 * HOUR_S))
    cut = await price_record(
        reader, "market", from_us=us(BEGIN_S + 12 * HOUR_S), to_us=us(BEGIN_S + 12 * HOUR_S + 60)
    )
    assert cut.shares == [PriceShare(300, us(60))]
    assert (await price_record(reader, "nowhere", from_us=0, to_us=us(MIDNIGHT_S))).shares == []
