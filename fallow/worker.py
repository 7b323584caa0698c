"""A process that sends webhooks and nothing else, beside a server that runs with `--role market`.

It needs the database only. One at a time sends, as an advisory lock says; others wait and take over. Who
loses its connection stops sending before it asks for the lock again.
"""

import asyncio
import logging
from collections.abc import Mapping

from msgspec import Struct

from api.config import Reach
from api.egress import open_session
from api.webhook_sender import WebhookSender
from auction.clock import Clock
from auction.model import Market
from sql.pool import Database
from sql.reads import Reader
from sql.scope import EVERYBODY
from sql.store import CONNECTION_ERRORS
from sql.webhook_outbox import WebhookOutbox

SENDER_LOCK = 0x0FA111  # beside the engine's
RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Stored(Struct, frozen=True):
    """What is told beside an event, as the database has it."""

    markets: Mapping[str, Market]
    now_us: int


async def work(database: Database, clock: Clock, reach: Reach) -> None:
    """Send webhooks until it is cancelled."""
    pool = await database.create_pool()
    try:
        everybody = pool.fixed(EVERYBODY)
        reader, outbox = Reader(everybody), WebhookOutbox(everybody)

        async def stored() -> Stored:
            return Stored({market.id: market for market in await reader.markets()}, clock.now_us())

        while True:
            sender = WebhookSender(clock, outbox, lambda: open_session(reach), stored)
            try:
                await _send_while_alone(database, sender)
            except CONNECTION_ERRORS as error:
                log.warning("webhooks wait: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
    finally:
        await pool.close()


async def _send_while_alone(database: Database, sender: WebhookSender) -> None:
    """Wait for the lock and send for as long as its connection lives."""
    connection = await database.connect()
    try:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        # Asked again and again: a statement that waits holds vacuum back for as long.
        is_told = False
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1, 0)", SENDER_LOCK):
            if not is_told:
                log.warning("another worker sends webhooks: standing by")
                is_told = True
            await asyncio.sleep(RETRY_SECONDS)
        log.info("sending webhooks")
        sender.start()
        try:
            await ended.wait()
        finally:
            await sender.stop()
    finally:
        connection.terminate()
