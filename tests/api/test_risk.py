"""Risk over the API: odds from the market's record, suggested limits, and what is refused."""

import pytest

from api import risk
from api.risk_record import Records
from api.services import SERVICES
from tests.api.conftest import MARKET

PATH = f"/v1/markets/{MARKET}/interruptions"
INSERT_TICKS = """INSERT INTO ticks SELECT made.*
    FROM (SELECT * FROM ticks WHERE market = $1 ORDER BY tick LIMIT 1) t
    CROSS JOIN (SELECT n, CASE WHEN n % 1000 < 100 THEN 3000000 ELSE 1000000 END AS price
        FROM generate_series(1, 60000) n) p
    CROSS JOIN LATERAL jsonb_populate_record(NULL::ticks, to_jsonb(t) || jsonb_build_object(
        'tick', t.tick - n, 'digest', 'd' || n, 'previous_digest', 'd' || (n + 1),
        'cleared_at_us', t.cleared_at_us - n * 1000000::bigint,
        'price', p.price, 'low', p.price, 'high', p.price, 'entry_price', p.price)) made"""


async def add_record(venue):
    """Write down 60,000 s in which a price of 1.00 rose to 3.00 for 100 s every 1,000 s."""
    async with venue.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE ticks SET tick = tick + 100000 WHERE market = $1", MARKET)
        await connection.execute(INSERT_TICKS, MARKET)
    venue.client.app[SERVICES].records._kept.clear()


async def forget_record(venue):
    """Take it away again: the audit knows that it never was."""
    async with venue.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM ticks WHERE digest LIKE 'd%' AND length(digest) < 8")
        await connection.execute("UPDATE ticks SET tick = tick - 100000 WHERE market = $1", MARKET)


@pytest.fixture
async def recorded(venue):
    await venue.offer_node()
    await venue.place(limit_price_per_gpu_hour="1.20", gpus=2)
    await venue.lease_in("running")
    body = {"status": "halted", "reason": "the record stands still"}
    await venue.ok("POST", f"/v1/operator/markets/{MARKET}/halt", venue.operator, body)
    await add_record(venue)
    yield venue
    await forget_record(venue)


async def ask(venue, limit, horizon):
    query = f"?limit_price_per_gpu_hour={limit}&horizon_seconds={horizon}"
    return await venue.ok("GET", PATH + query)


async def test_odds_fall_with_the_limit_and_rise_with_the_horizon(recorded):
    high = await ask(recorded, "4.00", 600)
    low = await ask(recorded, "1.50", 600)
    soon = await ask(recorded, "1.50", 60)
    assert 0 < float(high["probability"]) < 0.1 < float(low["probability"]) < 1
    assert float(soon["probability"]) < float(low["probability"])
    assert low["samples"] >= low["samples_min"] == risk.SAMPLES_MIN
    assert high["median_run_seconds"] is None, "nobody was ever outbid at that"
    assert 100 < low["median_run_seconds"] < 1_000
    assert low["record_seconds"] >= 60_000
    assert low["limit_price_per_gpu_hour"] == "1.500000"


async def test_suggested_limits_are_three_honest_ones(recorded):
    quote = await recorded.ok("GET", f"/v1/markets/{MARKET}/quote?gpus=1")
    shown = quote["suggested_limits"]
    assert [row["label"] for row in shown] == ["cheapest", "balanced", "safe"]
    limits = [float(row["limit"]) for row in shown]
    odds = [float(row["interruption_probability"]) for row in shown]
    assert limits == sorted(limits) and odds == sorted(odds, reverse=True)
    assert shown[0]["limit"] == quote["price_to_fill"]
    assert odds[0] > 0.5 and odds[2] <= 0.05


async def test_a_record_that_is_carried_on_is_what_a_fresh_one_would_be(venue, monkeypatch):
    """Whatever the pages: nothing twice, nothing left out, and what a week has passed is dropped."""
    monkeypatch.setattr("sql.risk_reads.PAGE_TICKS", 2)
    await venue.offer_node()
    await venue.place(limit_price_per_gpu_hour="1.20", gpus=2)
    await venue.lease_in("running")
    reader = venue.client.app[SERVICES].records._reader
    market = venue.engine.core.markets[MARKET]
    carried, now_us = Records(reader), venue.engine.clock.now_us()
    first = await carried.of(market, now_us)
    stands = await carried.of(market, now_us + 29_000_000)
    assert stands is first, "asked again within half a minute nothing is read"
    await venue.until(lambda: ticked(venue, first.tick + 3), "three more ticks")
    await venue.ok(
        "POST", f"/v1/operator/markets/{MARKET}/halt", venue.operator, {"status": "halted", "reason": "x"}
    )
    for later_us in (now_us + 31_000_000, first.at_us[0] + 7 * 86_400_000_000 + 1_500_000):
        kept, fresh = await carried.of(market, later_us), await Records(reader).of(market, later_us)
        assert kept.tick == fresh.tick >= first.tick + 3
        assert (kept.from_us, kept.step_seconds) == (fresh.from_us, fresh.step_seconds)
        for column in ("at_us", "keep", "grid"):
            assert getattr(kept, column).tolist() == getattr(fresh, column).tolist()
    assert kept.from_us > first.from_us, "what is older than a week is dropped"


async def ticked(venue, tick):
    return (await venue.ok("GET", f"/v1/markets/{MARKET}/ticks/latest"))["tick"] >= tick


async def test_without_a_record_there_are_no_odds_and_no_suggestions(venue):
    shown = await ask(venue, "1.00", 3_600)
    assert (shown["probability"], shown["samples"], shown["median_run_seconds"]) == (None, 0, None)
    quote = await venue.ok("GET", f"/v1/markets/{MARKET}/quote?gpus=1")
    assert quote["suggested_limits"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (PATH, 422, "missing_field"),
        (f"{PATH}?limit_price_per_gpu_hour=1&horizon_seconds=0", 422, "invalid_value"),
        (f"{PATH}?limit_price_per_gpu_hour=1&horizon_seconds=86401", 422, "invalid_value"),
        (f"{PATH}?limit_price_per_gpu_hour=x", 422, "invalid_value"),
        (f"{PATH}?limit_price_per_gpu_hour=1&days=3", 422, "unknown_field"),
        ("/v1/markets/none/interruptions?limit_price_per_gpu_hour=1", 404, "market_not_found"),
    ],
)
async def test_bad_questions_are_refused(venue, path, status, code):
    answered = await venue.call("GET", path)
    assert (answered.status, answered.json["code"]) == (status, code)
