"""The agent's line to the market: one request at a time is tried, whoever needs it tries again."""

from typing import Any

import aiohttp
import msgspec

from api.wire import ProblemView
from fallow.agent.market_clock import MarketClock

REQUEST_SECONDS_MAX = 10.0


class ContactLost(Exception):
    """The market cannot be reached, or cannot answer now."""


class Refused(Exception):
    """The market says no, and will say so again. `code` is of its problem."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Link:
    """Requests to one market with one key."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, key: str, clock: MarketClock | None = None
    ) -> None:
        """`clock` is told the time of every answer."""
        self._session = session
        self._clock = clock
        self._server = server.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}

    async def ask(
        self, method: str, path: str, body: Any = None, *, view: Any = None, wait_seconds: int = 0
    ) -> Any:
        """Send one request; return its answer as `view`. Raises ContactLost and Refused."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX + wait_seconds)
        data = None if body is None else msgspec.json.encode(body)
        headers = self._headers if data is None else self._headers | {"Content-Type": "application/json"}
        asked_us = 0 if self._clock is None else self._clock.own_us()
        try:
            async with self._session.request(
                method, f"{self._server}{path}", data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
                status = response.status
                if self._clock is not None and "Date" in response.headers:
                    self._clock.hear(response.headers["Date"], asked_us, self._clock.own_us())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ContactLost(str(error) or type(error).__name__) from error
        if status < 300:
            return None if view is None else msgspec.json.decode(raw, type=view)
        if status >= 500 or status == 429:
            raise ContactLost(f"status {status}")
        try:
            problem = msgspec.json.decode(raw, type=ProblemView)
        except msgspec.DecodeError:
            raise Refused("no_problem", f"status {status} without a problem document") from None
        raise Refused(problem.code, problem.detail)
