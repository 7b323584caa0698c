"""One server process: engine, readers' pool and HTTP application on a loopback port.

Everything that is started here is stopped here, in the opposite order: sockets are told first, the
engine answers what it has taken in, the pool closes last.
"""

import errno
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from msgspec import Struct

from api.app import build_app
from api.config import Config
from auction.clock import SystemClock
from auction.engine import Engine
from sql.pool import Database

PORTS_TRIED_MAX = 20
DRAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Running(Struct, frozen=True):
    """A server that answers `/readyz`, and where."""

    engine: Engine
    url: str


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
                port = await _listen(runner, config)
                yield Running(engine, f"http://{config.host}:{port}")
            finally:
                await runner.cleanup()
        finally:
            await pool.close()
    finally:
        await engine.stop()


def _settle_collector() -> None:
    """What was loaded lives as long as the server, and what a tick makes is rarely a cycle.

    A tick that preempts half of 100,000 leases took 11 s with the collector's defaults, 6 s with these.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _listen(runner: web.AppRunner, config: Config) -> int:
    """Listen on the configured port, or, where it is taken, on the next free one."""
    for offset in range(PORTS_TRIED_MAX):
        port = config.port + offset if config.port else 0
        site = web.TCPSite(runner, config.host, port)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not config.port:
                raise
            log.warning("port %d is taken", port)
            continue
        if offset:
            log.warning("listening on port %d instead of %d", port, config.port)
        return int(runner.addresses[0][1])
    last = config.port + PORTS_TRIED_MAX - 1
    raise OSError(errno.EADDRINUSE, f"ports {config.port} to {last} are all taken")
