"""The same client for programs that block: an `AsyncClient` whose requests are made on the calling thread.

Its methods have the names, arguments and results of AsyncClient's; what is an asynchronous iterator there is
an ordinary one here. Only a stream has an event loop, in a thread of its own.
"""

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fallow.client.asynchronous import AsyncClient
from fallow.client.exchange import completed
from fallow.client.model import (
    Balance,
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
from fallow.client.owner_model import (
    Candle,
    Delivery,
    Entry,
    Key,
    Node,
    Offer,
    OwnerSummary,
    Recall,
    Replay,
    Statement,
    StatementHead,
    Usage,
    Webhook,
)
from fallow.client.transport import Trace

if TYPE_CHECKING:
    from fallow.client.signing import SigningKey
    from fallow.client.stream import Message

T = TypeVar("T")


class Client:
    """One account's way to a market; see AsyncClient."""

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        signing_key: "SigningKey | str | Path | None" = None,
        timeout_seconds: float = 30.0,
        trace: Trace | None = None,
    ) -> None:
        self._client = AsyncClient(
            server,
            key=key,
            signing_key=signing_key,
            timeout_seconds=timeout_seconds,
            trace=trace,
            blocks=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every idle connection."""
        self._run(self._client.close())

    def markets(self) -> list[Market]:
        return self._run(self._client.markets())

    def market(self, market: str) -> Market:
        return self._run(self._client.market(market))

    def tick(self, market: str, tick: int | None = None) -> Tick:
        return self._run(self._client.tick(market, tick))

    def quote(self, market: str, gpus: int, *, min_gpus: int = 1) -> Quote:
        return self._run(self._client.quote(market, gpus, min_gpus=min_gpus))

    def place_bid(self, market: str | None = None, **terms: Any) -> Bid:
        return self._run(self._client.place_bid(market, **terms))

    def preview_bid(self, market: str | None = None, **terms: Any) -> Preview:
        return self._run(self._client.preview_bid(market, **terms))

    def amend_bid(self, bid: str, **terms: Any) -> Bid:
        return self._run(self._client.amend_bid(bid, **terms))

    def cancel_bid(self, bid: str, *, release: bool = True) -> Bid:
        return self._run(self._client.cancel_bid(bid, release=release))

    def batch(self, operations: Sequence[Mapping[str, Any]], *, atomic: bool = False) -> list[Result]:
        return self._run(self._client.batch(operations, atomic=atomic))

    def cancel_bids(self, market: str, *, release: bool = True) -> list[Result]:
        return self._run(self._client.cancel_bids(market, release=release))

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

    def curve(self, market: str, tick: int | None = None) -> Curve:
        return self._run(self._client.curve(market, tick))

    def candles(self, market: str, *, interval: str = "1m") -> Iterator[Candle]:
        return self._iterate(self._client.candles(market, interval=interval))

    def create_node(self, name: str, market: str, **terms: Any) -> Node:
        return self._run(self._client.create_node(name, market, **terms))

    def node(self, node: str) -> Node:
        return self._run(self._client.node(node))

    def nodes(self) -> Iterator[Node]:
        return self._iterate(self._client.nodes())

    def cordon(self, node: str) -> Node:
        return self._run(self._client.cordon(node))

    def uncordon(self, node: str) -> Node:
        return self._run(self._client.uncordon(node))

    def recall(self, node: str, **terms: Any) -> Recall:
        return self._run(self._client.recall(node, **terms))

    def preview_recall(self, node: str, *, notice_seconds: int | None = None) -> Recall:
        return self._run(self._client.preview_recall(node, notice_seconds=notice_seconds))

    def create_offer(self, node: str, **terms: Any) -> Offer:
        return self._run(self._client.create_offer(node, **terms))

    def offer(self, offer: str) -> Offer:
        return self._run(self._client.offer(offer))

    def offers(self, *, node: str | None = None, status: str | None = None) -> Iterator[Offer]:
        return self._iterate(self._client.offers(node=node, status=status))

    def amend_offer(self, offer: str, **terms: Any) -> Offer:
        return self._run(self._client.amend_offer(offer, **terms))

    def withdraw_offer(self, offer: str, *, version: int | None = None) -> Offer:
        return self._run(self._client.withdraw_offer(offer, version=version))

    def owner_summary(self, **terms: Any) -> OwnerSummary:
        return self._run(self._client.owner_summary(**terms))

    def create_key(self, name: str, scopes: Sequence[str], **terms: Any) -> Key:
        return self._run(self._client.create_key(name, scopes, **terms))

    def keys(self) -> Iterator[Key]:
        return self._iterate(self._client.keys())

    def rotate_key(self, key: str, **terms: Any) -> Key:
        return self._run(self._client.rotate_key(key, **terms))

    def revoke_key(self, key: str) -> Key:
        return self._run(self._client.revoke_key(key))

    def create_webhook(self, url: str, **terms: Any) -> Webhook:
        return self._run(self._client.create_webhook(url, **terms))

    def webhooks(self) -> Iterator[Webhook]:
        return self._iterate(self._client.webhooks())

    def delete_webhook(self, webhook: str) -> Webhook:
        return self._run(self._client.delete_webhook(webhook))

    def test_webhook(self, webhook: str) -> Delivery:
        return self._run(self._client.test_webhook(webhook))

    def replay_webhook(self, webhook: str, **terms: Any) -> Replay:
        return self._run(self._client.replay_webhook(webhook, **terms))

    def webhook_deliveries(self, webhook: str, *, state: str | None = None) -> Iterator[Delivery]:
        return self._iterate(self._client.webhook_deliveries(webhook, state=state))

    def usage(self, **terms: Any) -> Iterator[Usage]:
        return self._iterate(self._client.usage(**terms))

    def statements(self) -> list[StatementHead]:
        return self._run(self._client.statements())

    def statement(self, statement: str) -> Statement:
        return self._run(self._client.statement(statement))

    def ledger(self) -> Iterator[Entry]:
        return self._iterate(self._client.ledger())

    def stream(self, **channels: Any) -> "Iterator[Message]":
        """Yield what AsyncClient.stream does, for ever; stop by leaving the loop, or by Ctrl-C.

        `markets=[...]` gives a Tick of each market at each tick, `account=True` an event of your account with
        its `event` and `data`; with both, tell them apart by isinstance.
        """
        from fallow.client.following import followed

        return followed(self._client.stream(**channels))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return completed(work)

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        while True:
            try:
                value = completed(_step(source))
            except StopAsyncIteration:
                return
            yield value


async def _step(source: AsyncIterator[T]) -> T:
    return await anext(source)
