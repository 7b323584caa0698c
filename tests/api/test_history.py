"""Candles and the summary, against the ticks they are made of."""

import pytest

from auction.clock import ManualClock
from auction.units import parse_microusd
from tests.api.conftest import MARKET, serving

SECOND = 1_000_000
START_US = 1_798_000_020 * SECOND  # on a whole minute


@pytest.fixture
def clock():
    return ManualClock(START_US)


@pytest.fixture
async def venue(database, config, clock):
    async with serving(database, config, clock=clock) as venue:
        await venue.open_market(tick_seconds=20, notice_seconds=10)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


async def run(venue, clock, seconds):
    for _ in range(0, seconds, 10):
        clock.advance(10)

        async def done():
            return venue.engine.core.next_due_us() > clock.now_us()

        await venue.until(done, "the tick")


async def ticks_of(venue):
    return (await venue.ok("GET", f"/v1/markets/{MARKET}/ticks?limit=500"))["data"]


async def test_candles_are_what_their_ticks_say(venue, clock):
    assert (await venue.ok("GET", f"/v1/markets/{MARKET}/candles"))["data"] == []
    await run(venue, clock, 120)
    _, offer = await venue.offer_node()
    await venue.place(limit_price_per_gpu_hour="9.00")
    await run(venue, clock, 120)
    version = venue.engine.core.offers[offer["id"]].version
    await venue.ok(
        "PATCH", f"/v1/offers/{offer['id']}", venue.owner, {"reserve_price_per_gpu_hour": "2.00"},
        If_Match=f'"{version}"',
    )  # fmt: skip
    await run(venue, clock, 120)
    ticks = list(reversed(await ticks_of(venue)))
    prices = [tick["price"] for tick in ticks if tick["price"] is not None]
    assert len(set(prices)) == 2
    candles = (await venue.ok("GET", f"/v1/markets/{MARKET}/candles?interval=1m"))["data"]
    assert [candle["start_at"] for candle in candles] == sorted(
        {tick["cleared_at"][:16] + ":00.000000Z" for tick in ticks}, reverse=True
    )
    for candle in candles:
        own = [tick for tick in ticks if tick["cleared_at"][:16] == candle["start_at"][:16]]
        paid = [tick["price"] for tick in own if tick["price"] is not None]
        assert candle["ticks"] == len(own)
        assert (candle["open"], candle["close"]) == ((paid[0], paid[-1]) if paid else (None, None))
        assert candle["high"] == max(paid, key=parse_microusd, default=None)
        assert candle["low"] == min(paid, key=parse_microusd, default=None)
    url, paged = f"/v1/markets/{MARKET}/candles?interval=1m&limit=2", []
    cursor = ""
    while cursor is not None:
        found = await venue.ok("GET", url + (f"&cursor={cursor}" if cursor else ""))
        paged += found["data"]
        cursor = found["next_cursor"]
    assert paged == candles
    (hour,) = (await venue.ok("GET", f"/v1/markets/{MARKET}/candles?interval=1h"))["data"]
    assert (hour["open"], hour["close"], hour["ticks"]) == (prices[0], prices[-1], len(ticks))


async def test_a_window_that_is_too_long_is_refused(venue):
    path = f"/v1/markets/{MARKET}/candles"
    for query in ("from=2026-01-01T00:00:00Z&interval=1m", "interval=2m", "limit=501", "cursor=x"):
        assert (await venue.call("GET", f"{path}?{query}")).status == 422, query
    assert (await venue.call("GET", "/v1/markets/none/candles")).status == 404


async def test_the_summary_shows_every_market_now_and_its_day(venue, clock):
    await venue.open_market("a100.test")
    await venue.offer_node()
    await venue.place(limit_price_per_gpu_hour="9.00")
    await run(venue, clock, 60)
    shown = {one["market"]: one for one in (await venue.ok("GET", "/v1/markets/summary"))["data"]}
    assert set(shown) == {MARKET, "a100.test"}
    busy, empty = shown[MARKET], shown["a100.test"]
    last = (await ticks_of(venue))[0]
    assert (busy["price"], busy["leased_gpus"], busy["idle_gpus"]) == (last["price"], 2, 6)
    assert (busy["day_change"], busy["day_high"], busy["day_low"]) == (
        "0.000000",
        last["price"],
        last["price"],
    )
    assert (empty["price"], empty["day_change"], empty["leased_gpus"]) == (None, None, 0)
