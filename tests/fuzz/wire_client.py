"""A small HTTP client on plain sockets: keep-alive, many requests in flight, bytes that are no HTTP.

It sends what it is told, byte for byte, and gives back status, headers and body. Loopback only.
"""

import asyncio
from dataclasses import dataclass

ANSWER_SECONDS_MAX = 60.0
BODY_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Reply:
    status: int
    head: bytes
    body: bytes

    @property
    def keeps_open(self) -> bool:
        return b"connection: close" not in self.head.lower()


class Connection:
    """One connection, opened again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def exchange(self, requests: list[bytes]) -> list[Reply]:
        """Send requests in one go; return a reply for each, fewer if the server closes in between."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        replies: list[Reply] = []
        try:
            self._writer.write(b"".join(requests))
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                for _ in requests:
                    replies.append(await self._reply())
                    if not replies[-1].keeps_open:
                        self.close()
                        break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
        return replies

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes, say that no more come, and return all that comes back."""
        self.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        try:
            writer.write(sent)
            writer.write_eof()
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await reader.read(BODY_BYTES_MAX)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _reply(self) -> Reply:
        assert self._reader is not None
        head = await self._reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):  # who asked for it; the answer follows
            head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lowered = head.lower()
        body = b""
        if b"transfer-encoding: chunked" in lowered:
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
        elif b"content-length:" in lowered:
            length = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await self._reader.readexactly(length)
        return Reply(status, head, body)
