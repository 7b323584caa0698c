"""One server process: engine, readers' pool and HTTP application on a loopback port.

Everything that is started here is stopped here, in the opposite order: sockets are told first, the
engine answers what it has taken in, the pool closes last.
"""

import asyncio
import errno
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from msgspec import Struct

from api.app import build_app
from api.config import Config
from api.doorway import Doorway
from api.metrics import metrics_app
from api.services import SERVICES
from auction.clock import SystemClock
from auction.engine import Engine
from sql.pool import Database

PORTS_TRIED_MAX = 20
DRAIN_SECONDS = 5.0
LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


class Running(Struct, frozen=True):
    """A server that answers `/readyz`, and where."""

    engine: Engine
    url: str
    metrics_url: str


@asynccontextmanager
async def running_server(database: Database, config: Config) -> AsyncIterator[Running]:
    """Serve this database; raises Fenced when another engine is alive on it."""
    engine = Engine(database.store(), SystemClock())
    await engine.start()
    _settle_collector()
    try:
        pool = await database.create_pool()
        try:
            app = build_app(engine, pool, config)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS)
            await runner.setup()
            try:
                listening = await _listen(runner, app[SERVICES].doorway, config)
                try:
                    scheme = "http" if config.tls_certificate is None else "https"
                    port = listening.sockets[0].getsockname()[1]
                    async with _metrics(app, config.metrics_port) as metrics_url:
                        yield Running(engine, f"{scheme}://{config.host}:{port}", metrics_url)
                finally:
                    app[SERVICES].doorway.close(listening)
            finally:
                await runner.cleanup()
        finally:
            await pool.close()
    finally:
        await engine.stop()


@asynccontextmanager
async def _metrics(app: web.Application, port: int) -> AsyncIterator[str]:
    """Answer Prometheus on loopback; where the port is taken, on one that the system chooses."""
    runner = web.AppRunner(metrics_app(app), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, LOOPBACK, port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            log.warning("port %d is taken: metrics are on another", port)
            await web.TCPSite(runner, LOOPBACK, 0).start()
        yield f"http://{LOOPBACK}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def _settle_collector() -> None:
    """What was loaded lives as long as the server, and what a tick makes is rarely a cycle.

    A tick that preempts half of 100,000 leases took 11 s with the collector's defaults, 6 s with these.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _listen(runner: web.AppRunner, doorway: Doorway, config: Config) -> asyncio.Server:
    """Listen on the configured port, or, where it is taken, on the next free one."""
    assert runner.server is not None, "the runner is set up"
    for offset in range(PORTS_TRIED_MAX):
        port = config.port + offset if config.port else 0
        try:
            listening = await doorway.listen(runner.server, config.host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not config.port:
                raise
            log.warning("port %d is taken", port)
            continue
        if offset:
            log.warning("listening on port %d instead of %d", port, config.port)
        return listening
    last = config.port + PORTS_TRIED_MAX - 1
    raise OSError(errno.EADDRINUSE, f"ports {config.port} to {last} are all taken")
