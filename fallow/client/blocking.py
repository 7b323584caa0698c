"""The same client for programs that block: an `AsyncClient` on its own event loop, in its own thread.

Its methods have the names, arguments and results of AsyncClient's; what is an asynchronous iterator there is
an ordinary one here.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from fallow.client.asynchronous import AsyncClient
from fallow.client.model import Balance, Bid, Lease, Market, Notice, Preview, Quote, Target, Tick
from fallow.client.stream import Message
from fallow.client.transport import Trace

T = TypeVar("T")


class Client:
    """One account's way to a market; see AsyncClient."""

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        timeout_seconds: float = 30.0,
        trace: Trace | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="fallow client")
        self._thread.start()
        self._client = AsyncClient(server, key=key, timeout_seconds=timeout_seconds, trace=trace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, and the thread."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def markets(self) -> list[Market]:
        return self._run(self._client.markets())

    def market(self, market: str) -> Market:
        return self._run(self._client.market(market))

    def tick(self, market: str, tick: int | None = None) -> Tick:
        return self._run(self._client.tick(market, tick))

    def quote(self, market: str, gpus: int, *, min_gpus: int = 1) -> Quote:
        return self._run(self._client.quote(market, gpus, min_gpus=min_gpus))

    def place_bid(self, market: str, **terms: Any) -> Bid:
        return self._run(self._client.place_bid(market, **terms))

    def preview_bid(self, market: str, **terms: Any) -> Preview:
        return self._run(self._client.preview_bid(market, **terms))

    def amend_bid(self, bid: str, **terms: Any) -> Bid:
        return self._run(self._client.amend_bid(bid, **terms))

    def cancel_bid(self, bid: str, *, release: bool = True) -> Bid:
        return self._run(self._client.cancel_bid(bid, release=release))

    def bid(self, bid: str) -> Bid:
        return self._run(self._client.bid(bid))

    def bids(self, *, market: str | None = None, status: str | None = None) -> Iterator[Bid]:
        return self._iterate(self._client.bids(market=market, status=status))

    def cancel_after(self, timeout_seconds: int, *, release: bool = False) -> None:
        self._run(self._client.cancel_after(timeout_seconds, release=release))

    def leases(self, *, state: str | None = None) -> Iterator[Lease]:
        return self._iterate(self._client.leases(state=state))

    def lease(self, lease: str) -> Lease:
        return self._run(self._client.lease(lease))

    def release_lease(self, lease: str) -> Lease:
        return self._run(self._client.release_lease(lease))

    def test_notice(self, lease: str) -> Notice:
        return self._run(self._client.test_notice(lease))

    def notices(self, *, after: str | None = None, wait_seconds: int = 0) -> list[Notice]:
        return self._run(self._client.notices(after=after, wait_seconds=wait_seconds))

    def ack_notice(self, notice: str, *, ready: bool) -> Notice:
        return self._run(self._client.ack_notice(notice, ready=ready))

    def hold(self, market: str, **terms: Any) -> Target:
        return self._run(self._client.hold(market, **terms))

    def deadline(self, market: str, **terms: Any) -> Target:
        return self._run(self._client.deadline(market, **terms))

    def pace(self, market: str, **terms: Any) -> Target:
        return self._run(self._client.pace(market, **terms))

    def target(self, target: str) -> Target:
        return self._run(self._client.target(target))

    def targets(self) -> Iterator[Target]:
        return self._iterate(self._client.targets())

    def cancel_target(self, target: str) -> Target:
        return self._run(self._client.cancel_target(target))

    def balance(self) -> Balance:
        return self._run(self._client.balance())

    def stream(self, **channels: Any) -> Iterator[Message]:
        return self._iterate(self._client.stream(**channels))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        while True:
            is_more, value = self._run(step())
            if not is_more:
                return
            assert value is not None
            yield value
