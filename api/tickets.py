"""Tickets: what a browser, which knows no key, sends in its socket's `auth` message.

They are kept in memory, by their SHA-256: a ticket is good once, for TICKET_SECONDS_MAX, in the process
that gave it, and speaks for whoever asked for it. Invariant: bounded, also for each account.
"""

from collections import Counter, OrderedDict

from api.auth import Principal
from api.browser import TOKEN_CHARACTERS, hash_token
from auction.errors import Rejection
from auction.ids import random_token
from auction.units import MICROSECONDS_PER_SECOND

TICKET_SECONDS_MAX = 30
TICKETS_MAX = 10_000
TICKETS_PER_ACCOUNT_MAX = 100


class Tickets:
    """The tickets that were given and not used."""

    def __init__(self) -> None:
        self._given: OrderedDict[bytes, tuple[int, Principal]] = OrderedDict()
        self._by_account: Counter[str] = Counter()

    def give(self, principal: Principal, now_us: int) -> tuple[str, int]:
        """Return a new ticket and the microsecond of its end; raises Rejection (`too_many_tickets`)."""
        self._forget(now_us)
        if len(self._given) >= TICKETS_MAX or self._by_account[principal.account] >= TICKETS_PER_ACCOUNT_MAX:
            raise Rejection(
                "too_many_tickets", f"at most {TICKETS_PER_ACCOUNT_MAX} unused ones of an account"
            )
        ticket = random_token(TOKEN_CHARACTERS)
        until_us = now_us + TICKET_SECONDS_MAX * MICROSECONDS_PER_SECOND
        self._given[hash_token(ticket)] = (until_us, principal)
        self._by_account[principal.account] += 1
        return ticket, until_us

    def take(self, ticket: str, now_us: int) -> Principal:
        """Use a ticket up; raises Rejection (`unauthenticated`) for one that is over or was used."""
        self._forget(now_us)
        digest = hash_token(ticket)
        if digest not in self._given:
            raise Rejection("unauthenticated", "no valid ticket was presented")
        return self._drop(digest)

    def _forget(self, now_us: int) -> None:
        while self._given and next(iter(self._given.values()))[0] <= now_us:
            self._drop(next(iter(self._given)))

    def _drop(self, digest: bytes) -> Principal:
        _, principal = self._given.pop(digest)
        self._by_account[principal.account] -= 1
        if not self._by_account[principal.account]:
            del self._by_account[principal.account]
        return principal
