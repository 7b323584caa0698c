"""A receiver of webhooks on this machine, to see them while developing: loopback only, and only genuine ones.

It holds at most MESSAGES_WAITING_MAX that are not printed yet; beyond that the market is told to come again.
"""

import asyncio
from collections.abc import Callable
from typing import Self

from aiohttp import web

from fallow.client.webhooks import SignatureError, WebhookMessage, verify_webhook

BODY_BYTES_MAX = 1_048_576
MESSAGES_WAITING_MAX = 256
HOST = "127.0.0.1"


class Receiver:
    """An HTTP server at `url`; `secret` is set once the market has told it."""

    def __init__(self, refused: Callable[[str], None]) -> None:
        self.secret = ""
        self.url = ""
        self._refused = refused
        self._messages: asyncio.Queue[WebhookMessage] = asyncio.Queue(MESSAGES_WAITING_MAX)
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> Self:
        """Listen; port 0 lets the system choose. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}/"
        return self

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def next(self) -> WebhookMessage:
        """Wait for the next genuine message."""
        return await self._messages.get()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._messages.full():
            return web.Response(status=503)
        try:
            message = verify_webhook(self.secret, request.headers, body)
        except SignatureError as error:
            self._refused(str(error))
            return web.Response(status=401)
        self._messages.put_nowait(message)
        return web.Response(status=204)
