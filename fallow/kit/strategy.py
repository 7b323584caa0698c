"""What a bot is: four handlers and one desk. Decides nothing about where the ticks come from.

A handler is an ordinary method, called one at a time and in order: first what happened to the bot's bids,
leases and notices, then the tick. Money is Decimal, US dollars; prices are per GPU-hour. A handler that
raises ends the run. What a desk refuses it refuses in every mode with the same exception
(`fallow.client.RefusedError`).
"""

from abc import ABC, abstractmethod
from collections import deque
from datetime import datetime
from decimal import Decimal
from typing import Any

from fallow.client.model import Balance, Bid, Lease, Market, Notice, Tick
from fallow.client.money import Money
from fallow.kit.tally import Tally

TICKS_KEPT_MAX = 10_000
RUN_NAME_CHARACTERS_MAX = 48  # a client_bid_id has 64: the run's name and a number
LIVE_STATUSES = frozenset({"open", "partial", "filled", "preempting", "paused"})


class Desk(ABC):
    """Where a strategy reads and acts. Who runs again under the name `run` takes its bids over."""

    def __init__(self, market: Market, run: str) -> None:
        if not 1 <= len(run) <= RUN_NAME_CHARACTERS_MAX:
            raise ValueError(f"a run's name has 1..{RUN_NAME_CHARACTERS_MAX} characters, not {len(run)}")
        self.market = market
        self.run = run
        self.ticks: deque[Tick] = deque(maxlen=TICKS_KEPT_MAX)  # newest last
        self.tally = Tally()
        self.stopped: str | None = None  # why the strategy wants to end the run
        self.placed = 0

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The market's time."""

    @abstractmethod
    def bids(self) -> list[Bid]:
        """Return this run's live bids, oldest first."""

    @abstractmethod
    def leases(self) -> list[Lease]:
        """Return the live leases of this run's bids."""

    @abstractmethod
    def balance(self) -> Balance:
        """Return the account's money."""

    def place(
        self,
        *,
        gpus: int,
        limit: Money,
        min_gpus: int = 1,
        max_spend: Money | None = None,
        expires_at: datetime | None = None,
    ) -> Bid:
        """Place a bid. Raises RefusedError."""
        self.placed += 1
        return self._place(
            f"{self.run}-{self.placed}",
            gpus=gpus,
            limit=limit,
            min_gpus=min_gpus,
            max_spend=max_spend,
            expires_at=expires_at,
        )

    @abstractmethod
    def _place(self, client_bid_id: str, **terms: Any) -> Bid: ...

    @abstractmethod
    def amend(
        self,
        bid: str,
        *,
        limit: Money | None = None,
        gpus: int | None = None,
        paused: bool | None = None,
        max_spend: Money | None = None,
        expires_at: datetime | None = None,
    ) -> Bid:
        """Change a bid; None leaves a field as it is. Raises RefusedError, NotFoundError."""

    @abstractmethod
    def cancel(self, bid: str, *, release: bool = True) -> Bid:
        """Cancel a bid; without `release` its leases run on while they win."""

    @abstractmethod
    def release(self, lease: str) -> Lease:
        """Give a lease back: it, and its bill, end now."""

    @abstractmethod
    def ack(self, notice: str, *, ready: bool) -> Notice:
        """Acknowledge a notice; `ready` ends the lease and its bill now."""

    def stop(self, reason: str) -> None:
        """End the run after this handler."""
        self.stopped = reason

    def on_grid(self, price: Decimal) -> Decimal:
        """Return the highest legal price that is at most `price`: at least an increment, at most the cap."""
        increment = self.market.price_increment
        return min(max(price // increment * increment, increment), self.market.price_cap)


class Strategy:
    """A bot. Subclass it, override what it reacts to, act through `self.desk`."""

    desk: Desk

    def on_tick(self, tick: Tick) -> None:
        """A tick was cleared, and everything it did to this bot has been told."""

    def on_lease(self, lease: Lease) -> None:
        """A lease of this bot changed: awarded, starting, running, noticed, ended."""

    def on_notice(self, notice: Notice) -> None:
        """A preemption notice was issued, acknowledged or withdrawn."""

    def on_bid(self, bid: Bid) -> None:
        """A bid of this bot was accepted, changed, filled, outbid, or has ended."""
