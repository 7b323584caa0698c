"""The application: routes, services and background parts put together, started and stopped in pairs."""

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version

from aiohttp import web

from api import (
    accounts,
    agent,
    asyncapi,
    audit_log,
    bids,
    catalogs,
    event_feed,
    history,
    leases,
    limits,
    markets,
    operators,
    owner,
    payouts,
    risk,
    sessions,
    statements,
    supply,
    targets,
    watch,
    webhooks,
)
from api.auth import Authenticator
from api.browser import Sessions
from api.config import Config
from api.doorway import Doorway
from api.egress import open_session
from api.event_stream import serve_stream
from api.heartbeats import NodeWatch
from api.middleware import boundary, drop_server_header
from api.openapi import describe
from api.rate_limits import RateLimiter
from api.reconciliation import Reconciliation
from api.request_metrics import Requests, new_registry
from api.risk_record import Records
from api.routes import Route, routes_of
from api.services import SERVICES, Services
from api.simulator import Simulator
from api.stream import serve_socket
from api.system import ASYNCAPI, OPENAPI, SYSTEM_ROUTES
from api.target_runner import TargetRunner
from api.tickets import Tickets
from api.webhook_sender import WebhookSender
from auction.core import Core
from auction.engine import Engine
from sql.audit_log import AuditLog
from sql.reads import Reader
from sql.scope import EVERYBODY, Pool
from sql.session_store import SessionStore
from sql.target_store import TargetStore
from sql.webhook_outbox import WebhookOutbox
from sql.webhook_store import WebhookStore

KEEPALIVE_SECONDS = 75.0
SOCKETS_END_SECONDS_MAX = 4.0  # then they are cut

ROUTES: list[Route] = routes_of(
    history,
    markets,
    catalogs,
    risk,
    bids,
    targets,
    leases,
    event_feed,
    supply,
    owner,
    agent,
    accounts,
    statements,
    payouts,
    sessions,
    limits,
    operators,
    audit_log,
    watch,
    webhooks,
)


def build_app(engine: Engine, pool: Pool, config: Config) -> web.Application:
    """Return what serves `engine` in the running loop; the caller starts and stops engine and pool."""
    reader, everybody = Reader(pool), pool.fixed(EVERYBODY)
    system = Reader(everybody)
    browsers = Sessions(SessionStore(pool, everybody), cache_seconds=config.key_cache_seconds)
    authenticator = Authenticator(
        system, browsers, engine.clock, is_demo=config.is_demo, cache_seconds=config.key_cache_seconds
    )
    app = web.Application(
        middlewares=[boundary],
        client_max_size=config.batch_body_bytes_max,
        # A compressed body is refused by its header; it must not be unpacked before that.
        handler_args={"auto_decompress": False, "keepalive_timeout": KEEPALIVE_SECONDS},
    )
    nodes = NodeWatch(
        engine,
        degraded_seconds=config.node_degraded_seconds,
        offline_seconds=config.node_offline_seconds,
    )
    registry = new_registry()

    async def core() -> Core:
        return engine.core

    sender = WebhookSender(
        engine.clock,
        WebhookOutbox(everybody),
        lambda: open_session(config.reach),
        core,
        publisher=engine.publisher,
    )
    app[SERVICES] = Services(
        engine,
        reader,
        system,
        authenticator,
        config,
        nodes,
        {},
        WebhookStore(pool),
        sender,
        Records(system),
        Reconciliation(system),
        RateLimiter(config.rates, asyncio.get_running_loop().time),
        Doorway(config),
        TargetStore(pool, reader),
        TargetRunner(engine, TargetStore(everybody, system), system),
        AuditLog(pool, reader),
        registry,
        Requests(registry),
        browsers,
        Tickets(),
    )
    app.cleanup_ctx.append(_node_watch)
    app.on_startup.append(_read_audit_head)
    app[OPENAPI] = describe(ROUTES, version("fallow"))
    app[ASYNCAPI] = asyncapi.document(version("fallow"))
    app.router.add_routes(SYSTEM_ROUTES)
    app.router.add_get("/v1/ws", serve_socket)
    app.router.add_get("/v1/stream", serve_stream)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handle)
    app.on_response_prepare.append(drop_server_header)
    app.on_shutdown.append(_let_go)
    if config.sends_webhooks:
        app.cleanup_ctx.append(_sender)
    app.cleanup_ctx.append(_runner)
    if config.runs_simulator:
        app.cleanup_ctx.append(_simulator)
    return app


async def _let_go(app: web.Application) -> None:
    """Answer every long poll, and tell every socket to come back later: close code 1012."""
    services = app[SERVICES]
    services.end_waits()
    services.leaving.set()
    if services.sockets:
        await asyncio.wait(services.sockets.values(), timeout=SOCKETS_END_SECONDS_MAX)


async def _read_audit_head(app: web.Application) -> None:
    await app[SERVICES].audit_log.read_head(app[SERVICES].system)


async def _node_watch(app: web.Application) -> AsyncIterator[None]:
    app[SERVICES].watch.start()
    yield
    await app[SERVICES].watch.stop()


async def _simulator(app: web.Application) -> AsyncIterator[None]:
    services = app[SERVICES]
    simulator = Simulator(
        services.engine,
        start_seconds=services.config.simulator_start_seconds,
        drain_seconds=services.config.simulator_drain_seconds,
    )
    simulator.start()
    yield
    await simulator.stop()


async def _sender(app: web.Application) -> AsyncIterator[None]:
    sender = app[SERVICES].sender
    sender.start()
    yield
    await sender.stop()


async def _runner(app: web.Application) -> AsyncIterator[None]:
    runner = app[SERVICES].runner
    runner.start()
    yield
    await runner.stop()
