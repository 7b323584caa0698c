"""The market's routes as coroutines. Money goes in as Decimal, int or str and comes out as Decimal."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fallow.client.account import AccountRoutes
from fallow.client.model import (
    Balance,
    Batch,
    Bid,
    Curve,
    Lease,
    Market,
    Notice,
    Preview,
    Quote,
    Result,
    Target,
    Tick,
)
from fallow.client.money import Money
from fallow.client.owner import OwnerRoutes
from fallow.client.owner_model import Candle
from fallow.client.requests import Page, terms_of
from fallow.client.transport import Trace, Transport

if TYPE_CHECKING:
    from fallow.client.signing import SigningKey
    from fallow.client.stream import Message

DEFAULT_SERVER = "http://127.0.0.1:8080"
KEY_FILE = "@"  # what a key begins with that is a signing key's file


class AsyncClient(OwnerRoutes, AccountRoutes):
    """One account's way to a market. Server and key default to FALLOW_URL and FALLOW_KEY.

    Every request is tried again for up to `timeout_seconds` (transport.py); a write happens once. `trace` is
    told each request, as curl, without the key. `signing_key` is the file that `fallow key create --ed25519`
    wrote: requests are signed with it, and no secret is sent. A key `@FILE` means the same.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        signing_key: "SigningKey | str | Path | None" = None,
        timeout_seconds: float = 30.0,
        trace: Trace | None = None,
        blocks: bool = False,
    ) -> None:
        server = server or os.environ.get("FALLOW_URL") or DEFAULT_SERVER
        if signing_key is not None and key is not None:
            raise ValueError("expected a key or a signing key, not both")
        if signing_key is None:
            key = key or os.environ.get("FALLOW_KEY")
            if key is not None and key.startswith(KEY_FILE):
                signing_key, key = key.removeprefix(KEY_FILE), None
        if signing_key is not None:
            from fallow.client.signing import loaded

            signing_key = loaded(signing_key)
        self._transport = Transport(
            server,
            key,
            signing_key=signing_key,
            timeout_seconds=timeout_seconds,
            trace=trace,
            blocks=blocks,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    # -- the market --------------------------------------------------------------------------------

    async def markets(self) -> list[Market]:
        """Return every market."""
        found: Page[Market] = await self._transport.ask("GET", "/v1/markets", Page[Market])
        return found.data

    async def market(self, market: str) -> Market:
        """Return one market."""
        return await self._get(f"/v1/markets/{market}", Market)

    async def tick(self, market: str, tick: int | None = None) -> Tick:
        """Return one tick's result, the latest for None."""
        return await self._get(f"/v1/markets/{market}/ticks/{'latest' if tick is None else tick}", Tick)

    async def quote(self, market: str, gpus: int, *, min_gpus: int = 1) -> Quote:
        """Return what so many GPUs would cost at the next tick."""
        return await self._get(f"/v1/markets/{market}/quote", Quote, gpus=gpus, min_gpus=min_gpus)

    async def curve(self, market: str, tick: int | None = None) -> Curve:
        """Return demand and supply: of the book now, or as a past tick cleared them."""
        return await self._get(f"/v1/markets/{market}/curve", Curve, tick=tick)

    def candles(self, market: str, *, interval: str = "1m") -> AsyncIterator[Candle]:
        """Iterate over a market's prices by 1m, 5m, 1h or 1d, newest first."""
        return self._all(f"/v1/markets/{market}/candles", Candle, interval=interval)

    # -- bids --------------------------------------------------------------------------------------

    async def place_bid(
        self,
        market: str | None = None,
        *,
        gpus: int,
        limit_price_per_gpu_hour: Money | None = None,
        alternatives: Mapping[str, Money] | None = None,
        min_gpus: int | None = None,
        colocate: str | None = None,
        time_in_force: str | None = None,
        expires_at: datetime | None = None,
        valid_until_tick: int | None = None,
        max_run_seconds: int | None = None,
        max_spend: Money | None = None,
        on_preempt: str | None = None,
        client_bid_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        confirm_limit: bool | None = None,
        ssh_public_key: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> Bid:
        """Place a bid; it is durable when this returns.

        `alternatives` instead of a market and its limit: {market: limit}, up to 8, of which it gets one.
        `payload` is what its nodes run: {"command": [...], "image": ..., "env": {...}}.
        """
        terms = terms_of(locals())
        found: Bid = await self._transport.ask("POST", "/v1/bids", Bid, body=terms)
        return found

    async def preview_bid(
        self,
        market: str | None = None,
        *,
        gpus: int,
        limit_price_per_gpu_hour: Money | None = None,
        alternatives: Mapping[str, Money] | None = None,
        min_gpus: int | None = None,
    ) -> Preview:
        """Return what a bid would get and tie up; nothing is placed."""
        terms = terms_of(locals())
        found: Preview = await self._transport.ask("POST", "/v1/bids/preview", Preview, body=terms)
        return found

    async def amend_bid(
        self,
        bid: str,
        *,
        limit_price_per_gpu_hour: Money | None = None,
        market: str | None = None,
        gpus: int | None = None,
        min_gpus: int | None = None,
        paused: bool | None = None,
        max_spend: Money | None = None,
        expires_at: datetime | None = None,
        max_run_seconds: int | None = None,
        on_preempt: str | None = None,
        confirm_limit: bool | None = None,
    ) -> Bid:
        """Change a bid while it runs; of one with alternatives, the limit in `market`."""
        terms = terms_of({name: value for name, value in locals().items() if name != "bid"})
        found: Bid = await self._transport.ask("PATCH", f"/v1/bids/{bid}", Bid, body=terms)
        return found

    async def cancel_bid(self, bid: str, *, release: bool = True) -> Bid:
        """Cancel a bid; without `release` its leases run on while they win."""
        query = {"release": str(release).lower()}
        found: Bid = await self._transport.ask("DELETE", f"/v1/bids/{bid}", Bid, query=query)
        return found

    async def batch(self, operations: Sequence[Mapping[str, Any]], *, atomic: bool = False) -> list[Result]:
        """Carry out up to 1,000 operations in their order; `atomic`: all of them or none.

        Each is the body of its route and its `op`: {"op": "place", "market": ..., "gpus": ...,
        "limit_price_per_gpu_hour": ...}, {"op": "amend", "id": ..., ...} or {"op": "cancel", "id": ...}.
        A refused operation raises nothing here; its result's `done()` does.
        """
        terms = {"operations": [terms_of(operation) for operation in operations], "atomic": atomic}
        return (await self._post("/v1/bids/batch", Batch, terms)).results

    async def cancel_bids(self, market: str, *, release: bool = True) -> list[Result]:
        """Cancel all your live bids of a market."""
        query = {"market": market, "release": str(release).lower()}
        found: Batch = await self._transport.ask("DELETE", "/v1/bids", Batch, query=query)
        return found.results

    async def bid(self, bid: str) -> Bid:
        """Return one bid; of one that lost, why, and what would win now."""
        return await self._get(f"/v1/bids/{bid}", Bid)

    def bids(self, *, market: str | None = None, status: str | None = None) -> AsyncIterator[Bid]:
        """Iterate over your bids, newest first."""
        return self._all("/v1/bids", Bid, market=market, status=status)

    async def cancel_after(self, timeout_seconds: int, *, release: bool = False) -> None:
        """Set the dead man's switch: all your bids are cancelled unless this comes again in time."""
        body = {"timeout_seconds": timeout_seconds, "release": release}
        await self._transport.ask("POST", "/v1/bids/cancel-after", dict, body=body)

    # -- leases and notices ------------------------------------------------------------------------

    def leases(self, *, state: str | None = None) -> AsyncIterator[Lease]:
        """Iterate over your leases, newest first."""
        return self._all("/v1/leases", Lease, state=state)

    async def lease(self, lease: str) -> Lease:
        """Return one lease."""
        return await self._get(f"/v1/leases/{lease}", Lease)

    async def release_lease(self, lease: str) -> Lease:
        """Give a lease back: it, and its bill, end now."""
        found: Lease = await self._transport.ask("POST", f"/v1/leases/{lease}/release", Lease)
        return found

    async def test_notice(self, lease: str) -> Notice:
        """Interrupt a lease of yours, for a drill."""
        found: Notice = await self._transport.ask("POST", f"/v1/leases/{lease}/test-notice", Notice)
        return found

    async def notices(self, *, after: str | None = None, wait_seconds: int = 0) -> list[Notice]:
        """Return your notices, newest first.

        With `wait_seconds` (60 at most) wait for the next one instead, or return those that came after the
        notice `after`, so that none is missed between two calls.
        """
        query = {"after": after, "wait_seconds": wait_seconds or None}
        found: Page[Notice] = await self._transport.ask(
            "GET", "/v1/notices", Page[Notice], query=query, wait_seconds=wait_seconds
        )
        return found.data

    async def ack_notice(self, notice: str, *, ready: bool) -> Notice:
        """Acknowledge a notice; `ready` ends the lease and its bill now."""
        found: Notice = await self._transport.ask(
            "POST", f"/v1/notices/{notice}/ack", Notice, body={"ready": ready}
        )
        return found

    # -- targets and money -------------------------------------------------------------------------

    async def hold(
        self,
        market: str,
        *,
        gpus: int,
        limit_price_per_gpu_hour: Money,
        min_gpus: int | None = None,
        ends_at: datetime | None = None,
        max_spend: Money | None = None,
    ) -> Target:
        """Have the market hold so many GPUs at no more than the limit."""
        return await self._aim("hold", terms_of(locals()))

    async def deadline(
        self,
        market: str,
        *,
        gpu_seconds: int,
        ends_at: datetime,
        max_spend: Money,
        gpus: int | None = None,
        limit_price_per_gpu_hour: Money | None = None,
    ) -> Target:
        """Have the market buy so much work by a time, within a budget."""
        return await self._aim("deadline", terms_of(locals()))

    async def pace(
        self,
        market: str,
        *,
        spend_per_day: Money,
        limit_price_per_gpu_hour: Money,
        gpus: int | None = None,
        ends_at: datetime | None = None,
        max_spend: Money | None = None,
    ) -> Target:
        """Have the market spend a budget a UTC day, evenly."""
        return await self._aim("pace", terms_of(locals()))

    async def target(self, target: str) -> Target:
        """Return one target and how far it has come."""
        return await self._get(f"/v1/targets/{target}", Target)

    def targets(self) -> AsyncIterator[Target]:
        """Iterate over your targets, newest first."""
        return self._all("/v1/targets", Target)

    async def cancel_target(self, target: str) -> Target:
        """Cancel a target and its bid."""
        found: Target = await self._transport.ask("DELETE", f"/v1/targets/{target}", Target)
        return found

    async def balance(self) -> Balance:
        """Return your money."""
        return await self._get("/v1/balance", Balance)

    # -- live --------------------------------------------------------------------------------------

    def stream(
        self,
        *,
        markets: Sequence[str] = (),
        account: bool = False,
        after_seq: int | None = None,
        curves: bool = False,
    ) -> "AsyncGenerator[Message, None]":
        """Iterate over ticks of these markets and your account's events, through reconnections.

        Events come in order, each once, from behind `after_seq` (or from now); of ticks the newest counts.
        With `curves` a tick comes as a TickWithCurve.
        """
        from fallow.client.stream import follow

        return follow(self._transport, markets=markets, account=account, after_seq=after_seq, curves=curves)

    # -- inside ------------------------------------------------------------------------------------

    async def _aim(self, kind: str, terms: dict[str, Any]) -> Target:
        found: Target = await self._transport.ask("POST", "/v1/targets", Target, body={"kind": kind} | terms)
        return found
