"""What Prometheus may read: the engine's pulse, each market, and what request_metrics.py counts.

Gauges are read from the engine when they are asked for, so a market that nobody watches pays for nothing.
Served beside the API on a port of its own, on loopback: it needs no key and tells what no tenant may know.
"""

from collections import Counter
from collections.abc import Iterator

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.services import SERVICES, Services
from auction.units import MICROSECONDS_PER_SECOND, MICROUSD_PER_USD


class EngineCollector(Collector):
    """The engine's state at the moment in which it is asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        engine, now_us = self._services.engine, self._services.engine.clock.now_us()
        core = engine.core
        yield GaugeMetricFamily("fallow_ready", "1 while the engine decides.", float(engine.is_ready))
        yield CounterMetricFamily("fallow_commands", "Accepted commands: the journal's length.", core.seq)
        yield GaugeMetricFamily(
            "fallow_waiting_commands", "Commands in the engine's inbox.", engine.waiting_commands
        )
        yield CounterMetricFamily(
            "fallow_engine_faults",
            "Rules that failed: commands put aside, ticks void.",
            engine.fault_count,
        )
        yield GaugeMetricFamily("fallow_sockets", "Open WebSockets.", len(self._services.sockets))
        yield GaugeMetricFamily("fallow_live_bids", "Bids that may win or run.", len(core.bids))
        yield GaugeMetricFamily("fallow_live_leases", "Leases that have not ended.", len(core.leases))
        tick = CounterMetricFamily("fallow_ticks", "Ticks cleared.", labels=("market",))
        late = GaugeMetricFamily(
            "fallow_tick_late_seconds", "By how much the next tick is overdue.", labels=("market",)
        )
        price = GaugeMetricFamily(
            "fallow_price_usd_per_gpu_hour",
            "Clearing price of the last tick that traded.",
            labels=("market",),
        )
        for name, market in sorted(core.markets.items()):
            tick.add_metric((name,), market.tick)
            late.add_metric((name,), max(0, now_us - market.next_tick_at_us) / MICROSECONDS_PER_SECOND)
            if market.price is not None:
                price.add_metric((name,), market.price / MICROUSD_PER_USD)
        nodes = GaugeMetricFamily("fallow_nodes", "Nodes by their health.", labels=("market", "health"))
        for (name, health), count in sorted(
            Counter((n.market, n.health) for n in core.nodes.values()).items()
        ):
            nodes.add_metric((name, str(health)), count)
        yield from (tick, late, price, nodes)


def metrics_app(api: web.Application) -> web.Application:
    """Return the application that answers `/metrics` for `api`."""
    services = api[SERVICES]
    services.registry.register(EngineCollector(services))

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(services.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    return app
