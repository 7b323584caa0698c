"""Metrics: what Prometheus reads is true, and bounded whatever is asked."""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import metrics_app


@pytest.fixture
async def scrape(venue):
    async with TestClient(TestServer(metrics_app(venue.client.app))) as client:

        async def read():
            async with client.get("/metrics") as answered:
                assert answered.status == 200
                text = await answered.text()
            return {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        yield read


async def test_the_engine_and_its_markets_are_as_they_are(venue, scrape):
    await venue.offer_node()
    await venue.place(gpus=2)
    lease = await venue.lease_in("running")
    found = await scrape()
    market = ("market", lease["market"])
    core = venue.engine.core
    assert found["fallow_ready",] == 1
    assert 0 < found["fallow_commands_total",] <= core.seq
    assert (found["fallow_live_bids",], found["fallow_live_leases",]) == (1, 1)
    assert found["fallow_ticks_total", market] >= 1
    assert found["fallow_price_usd_per_gpu_hour", market] == core.markets[lease["market"]].price / 1e6
    assert found["fallow_nodes", ("health", "ok"), market] == 1
    assert found["process_resident_memory_bytes",] > 1e6


async def test_requests_are_counted_by_route_and_made_up_ones_as_one(venue, scrape):
    for _ in range(3):
        await venue.ok("GET", "/v1/balance", venue.buyer)
    for path in ("/v1/nothing", "/v1/more/nothing", "/v1/balance/x"):
        assert (await venue.call("GET", path, venue.buyer)).status == 404
    assert (await venue.call("PATCH", "/v1/balance", venue.buyer)).status == 405
    found = await scrape()
    counts = {name[1][1]: value for name, value in found.items() if name[0] == "fallow_request_seconds_count"}
    assert counts["GET /v1/balance"] == 3
    assert set(counts) >= {"GET /v1/balance", "none"}
    assert sum(value for name, value in found.items() if name[0] == "fallow_request_seconds_count"
               and ("route", "none") in name) == 4  # fmt: skip
