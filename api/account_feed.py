"""An account's own events as one unbroken line: first what is stored, then what is committed.

Decides what comes next, from a sequence number on: every event once, in order. What a listener missed
is read from the store, so a gap is never told. Must not know how events are written or sent.
"""

from collections.abc import Awaitable, Callable

from auction.model import Event
from sql.reads import Reader
from sql.scope import acting, tenant

CATCH_UP_EVENTS = 200


class AccountFeed:
    """Tells one account's events behind `seq`; `seq` is that of the last one told."""

    def __init__(
        self, reader: Reader, account: str, seq: int, tell: Callable[[Event], Awaitable[None]]
    ) -> None:
        self.account = account
        self.seq = seq
        self._reader = reader
        self._tell = tell

    async def catch_up(self) -> None:
        """Tell what is stored, page by page; raises Unavailable."""
        while True:
            with acting(tenant(self.account)):
                events = await self._reader.events_after(self.account, self.seq, CATCH_UP_EVENTS)
            for event in events:
                await self._next(event)
            if len(events) < CATCH_UP_EVENTS:
                return

    async def tell(self, event: Event) -> None:
        """Tell what was just committed; what is missing before it comes from the store."""
        if event.account != self.account:
            return  # committed before the listener began to follow this account
        if event.account_seq > self.seq + 1:
            await self.catch_up()
        if event.account_seq == self.seq + 1:
            await self._next(event)

    async def _next(self, event: Event) -> None:
        await self._tell(event)
        self.seq = event.account_seq
