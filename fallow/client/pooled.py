"""One attempt at one request by aiohttp, for who awaits: many at once over one pool of connections."""

import asyncio
from collections.abc import Mapping

import aiohttp
from yarl import URL

from fallow.client.exchange import ANSWER_BYTES_MAX, Answered, answer_too_large


class PooledExchange:
    """By aiohttp, on the loop that awaits it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Answered:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        url = URL(self._server + target, encoded=True)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                told = bytearray()
                async for part in response.content.iter_any():
                    told += part
                    if len(told) > ANSWER_BYTES_MAX:
                        raise answer_too_large(method, target)
                return Answered(response.status, response.headers.get("Retry-After"), bytes(told))
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
