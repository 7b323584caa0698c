"""A receiver of webhooks on loopback, and a verifier written from the standard alone.

The verifier shares no code with the sender: https://www.standardwebhooks.com, "Verifying webhooks".
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.api.conftest import DEADLINE_SECONDS

TOLERANCE_SECONDS = 300


class Receiver:
    """Answers each request with `status`, or never while `hangs`; remembers what came."""

    def __init__(self):
        self.status = 204
        self.headers = {}
        self.body = b""
        self.hangs = False
        self.seen = []
        self.paths = []
        self._server = None
        self._came = asyncio.Event()
        self._let_go = asyncio.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def port(self):
        return self._server.port

    async def answer(self, request):
        self.seen.append((dict(request.headers), await request.read()))
        self.paths.append(request.path)
        self._came.set()
        if self.hangs:
            await self._let_go.wait()
        return web.Response(status=self.status, headers=self.headers, body=self.body)

    async def listen(self, port=None):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        self._server = TestServer(app, host="127.0.0.1", port=port)
        await self._server.start_server()

    async def stop_listening(self):
        self._let_go.set()
        await self._server.close()

    def of_type(self, kind):
        """Return what came of one type, as (headers, document)."""
        documents = ((headers, json.loads(body)) for headers, body in self.seen)
        return [(headers, document) for headers, document in documents if document["type"] == kind]

    async def first(self, kind):
        """Wait for a message of this type; return (headers, raw body)."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                self._came.clear()
                for headers, body in self.seen:
                    if json.loads(body)["type"] == kind:
                        return headers, body
                await self._came.wait()

    async def count(self, number):
        """Wait until this many requests have come."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.seen) < number:
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def receiving():
    receiver = Receiver()
    await receiver.listen()
    try:
        yield receiver
    finally:
        await receiver.stop_listening()


def verify(secret, headers, body, *, now_s=None):
    """Return the decoded message of a genuine webhook; raise AssertionError on anything else."""
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given["webhook-id"], int(given["webhook-timestamp"])
    assert abs((time.time() if now_s is None else now_s) - timestamp) < TOLERANCE_SECONDS
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join([message_id.encode(), str(timestamp).encode(), body])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    versions = [part.split(",", 1) for part in given["webhook-signature"].split(" ")]
    assert any(hmac.compare_digest(signature, expected) for version, signature in versions if version == "v1")
    document = json.loads(body)
    assert document["id"] == message_id
    return document
