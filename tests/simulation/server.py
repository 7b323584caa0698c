"""The real server as a process on the virtual loop: engine, application, webhook sender, node watch.

Its storage and its reads are the twins; everything else is what `fallow serve` runs: `build_app`, the
doorway, aiohttp's own server over connections in memory. Outside: targets, browser sessions, the audit
log's reading, statements, catalogues, odds (they live in SQL).
"""

import asyncio
from dataclasses import replace

from aiohttp import web

from api.app import build_app
from api.auth import Authenticator
from api.config import Config
from api.egress import open_session
from api.services import SERVICES
from api.target_runner import TargetRunner
from api.webhook_sender import WebhookSender
from auction.clock import SystemClock
from auction.engine import Engine
from auction.errors import Fenced, Unavailable
from tests.simulation.database import SimulatedStore
from tests.simulation.outbox_twin import OutboxTwin
from tests.simulation.read_twin import AuditLogTwin, NoSql, NoTargets, ReadTwin
from tests.simulation.virtual_loop import Process
from tests.support import forget_applications

HOST, PORT = "127.0.0.1", 8080
URL = f"http://{HOST}:{PORT}"


class Server:
    """One life of the server, from its start to its end by a stop, a kill or a rival."""

    def __init__(self, loop, number, database, outbox, acts):
        self.process = Process(loop, f"server {number}")
        self.engine = None
        self.failure = None
        self.is_serving = False
        self._database = database
        self._outbox = outbox
        self._acts = acts
        self._stop = asyncio.Event()
        self.life = self.process.start(self._live())

    async def stop(self):
        """Ask it to end as SIGTERM does, and wait for that."""
        self._stop.set()
        await asyncio.wait({self.life}, timeout=60)

    async def _live(self):
        try:
            await self._serve()
        except (Fenced, Unavailable):
            pass  # another engine has the shard, or the storage is not there yet: who watches starts it again
        except Exception as error:
            self.failure = error
        finally:
            self.is_serving = False
            self.process.kill()
            forget_applications()

    async def _serve(self):
        self.engine = Engine(SimulatedStore(self._database), SystemClock())
        await self.engine.start()
        app = self._application()
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await runner.setup()
        doorway = app[SERVICES].doorway
        listening = await doorway.listen(runner.server, HOST, PORT)
        self.is_serving = True
        await self.engine.run_until(self._stop)
        doorway.close(listening)
        await runner.cleanup()
        await self.engine.stop()

    def _application(self):
        config = Config(is_demo=True, port=0, runs_simulator=True, webhook_reach="loopback")
        app = build_app(self.engine, NoSql(), config)
        services, engine = app[SERVICES], self.engine
        shard, trip = self._database.shard, self._database.trip
        reader = ReadTwin(shard, trip)

        async def core():
            return engine.core

        app[SERVICES] = replace(
            services,
            reader=reader,
            system=reader,
            authenticator=Authenticator(
                reader,
                services.browsers,
                engine.clock,
                is_demo=config.is_demo,
                cache_seconds=config.key_cache_seconds,
            ),
            sender=WebhookSender(
                engine.clock,
                OutboxTwin(shard, self._outbox, trip),
                lambda: open_session("loopback"),
                core,
                publisher=engine.publisher,
            ),
            runner=TargetRunner(engine, NoTargets(), reader),
            audit_log=AuditLogTwin(self._acts, trip),
        )
        return app
