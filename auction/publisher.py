"""After the commit: hand what was written to whoever listens, without ever waiting for them.

A subscriber has one bounded queue. Account events are lossless up to that bound: a reader that falls
further behind is marked `overflowed` and must catch up from the stored events by its sequence number.
Public ticks are conflated: a slow reader gets the newest one of each market.
"""

import asyncio
from collections import deque

from auction.model import Event, Tick

SUBSCRIPTION_EVENTS_MAX = 256
SERVER_EVENTS_MAX = 100_000  # for the server's own parts, which keep up or look at the state again
SUBSCRIPTIONS_MAX = 10_000


class Subscription:
    """One listener: the events of one account (or of all, for the server's own parts) and ticks."""

    def __init__(self, *, all_accounts: bool = False) -> None:
        self.account: str | None = None  # set by Publisher.follow
        self.markets: set[str] = set()
        self.all_markets = False
        self.overflowed = False
        self._events_max = SERVER_EVENTS_MAX if all_accounts else SUBSCRIPTION_EVENTS_MAX
        self._events: deque[Event] = deque()
        self._ticks: dict[str, Tick] = {}
        self._ready = asyncio.Event()

    def _offer_events(self, events: list[Event]) -> None:
        for event in events:
            if len(self._events) >= self._events_max:
                self.overflowed = True
                self._events.clear()
            else:
                self._events.append(event)
        self._ready.set()

    def _offer_ticks(self, ticks: list[Tick]) -> None:
        for tick in ticks:
            if self.all_markets or tick.market in self.markets:
                self._ticks[tick.market] = tick
                self._ready.set()

    async def next(self) -> tuple[list[Event], list[Tick]]:
        """Wait for something new and return all of it, events in order, one tick a market."""
        await self._ready.wait()
        self._ready.clear()
        events, ticks = list(self._events), [self._ticks[market] for market in sorted(self._ticks)]
        self._events.clear()
        self._ticks.clear()
        return events, ticks


class Publisher:
    """The subscriptions, told in the order in which they came. `publish` is called after each commit."""

    def __init__(self) -> None:
        # Keys without values: sets of objects have another order in every run.
        self._subscriptions: dict[Subscription, None] = {}
        self._of_account: dict[str, dict[Subscription, None]] = {}
        self._of_all: dict[Subscription, None] = {}

    def subscribe(self, account: str | None, *, all_accounts: bool = False) -> Subscription:
        """Add a listener; raises OverflowError past SUBSCRIPTIONS_MAX."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise OverflowError(f"{SUBSCRIPTIONS_MAX} subscriptions are open")
        subscription = Subscription(all_accounts=all_accounts)
        self._subscriptions[subscription] = None
        if all_accounts:
            self._of_all[subscription] = None
        self.follow(subscription, account)
        return subscription

    def follow(self, subscription: Subscription, account: str | None) -> None:
        """From now on the listener hears of this account, and no longer of the one before."""
        listeners = self._of_account.get(subscription.account or "")
        if listeners is not None:
            listeners.pop(subscription, None)
            if not listeners:
                del self._of_account[subscription.account or ""]
        subscription.account = account
        if account is not None:
            self._of_account.setdefault(account, {})[subscription] = None

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a listener; removing it twice is allowed."""
        self.follow(subscription, None)
        self._subscriptions.pop(subscription, None)
        self._of_all.pop(subscription, None)

    def publish(self, events: list[Event], ticks: list[Tick]) -> None:
        """Hand committed events and ticks to whoever listens to them. Never blocks."""
        of_account: dict[str, list[Event]] = {}
        for event in events:
            if event.account in self._of_account:
                of_account.setdefault(event.account, []).append(event)
        for account, own in of_account.items():
            for subscription in self._of_account[account]:
                subscription._offer_events(own)
        if events:
            for subscription in self._of_all:
                subscription._offer_events(events)
        if ticks:
            for subscription in self._subscriptions:
                subscription._offer_ticks(ticks)
