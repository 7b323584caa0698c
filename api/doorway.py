"""Which connections are let in, and for how long one may stay without having asked anything.

aiohttp waits for a first request for ever and takes any number of connections. Here a connection that has not
sent whole headers within `header_seconds_max` is closed, and one too many is told so and closed.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from api.config import Config

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s"
)
_FULL_BODY = (
    b'{"type":"/problems/too_many_connections","title":"Too many connections","status":503,'
    b'"detail":"this server has all the connections it takes","code":"too_many_connections",'
    b'"request_id":"","retryable":true}'
)


class Doorway:
    """Opens the server's port and watches who comes in."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._silent: set[asyncio.BaseProtocol] = set()
        self.is_closed = False

    async def listen(self, server: web.Server, host: str, port: int) -> asyncio.Server:
        """Listen; raises OSError where the port is taken."""

        def come_in() -> asyncio.BaseProtocol:
            if len(server.connections) >= self._config.connections_max:
                return _Full()
            handler = server()
            self._silent.add(handler)
            asyncio.get_running_loop().call_later(self._config.header_seconds_max, self._look, handler)
            return handler

        loop = asyncio.get_running_loop()
        return await loop.create_server(
            come_in, host, port, ssl=self._tls(), reuse_address=True, backlog=1_024
        )

    def close(self, listening: asyncio.Server) -> None:
        """Let nobody in any more; who is in and asks hears that the server is not ready."""
        self.is_closed = True
        listening.close()

    def heard(self, protocol: asyncio.BaseProtocol | None) -> None:
        """A connection has sent a whole request."""
        if protocol is not None:
            self._silent.discard(protocol)

    def _look(self, handler: "RequestHandler") -> None:
        if handler in self._silent:
            self._silent.discard(handler)
            handler.force_close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._config.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
        return context


class _Full(asyncio.Protocol):
    """One connection too many: it is told, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
        transport.close()
