"""The writer's inbox: bounded, in order for each account, and fair between accounts.

A batch takes one submission of each account in turn, so a bot that sends thousands delays itself and
nobody else. What the market's own parts send (no account) goes first: the nodes' health, the agents.
Invariant: submissions of one account leave in the order in which they came.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from auction.errors import Unavailable

COMMANDS_MAX = 20_000
ACCOUNT_COMMANDS_MAX = 5_000


class Submission(Protocol):
    """What the inbox must know of an entry."""

    @property
    def commands(self) -> Sequence[Any]:
        """Return the commands, which stay together."""
        ...

    @property
    def account(self) -> str | None:
        """Return who asks; None: the market itself."""
        ...


S = TypeVar("S", bound=Submission)


class Inbox(Generic[S]):
    """Submissions that wait for the next batch."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[S]] = {}
        self._counts: dict[str | None, int] = {}
        self._total = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def command_count(self) -> int:
        """Return how many commands wait."""
        return self._total

    def __iter__(self) -> Iterator[S]:
        for queue in self._queues.values():
            yield from queue

    def add(self, submission: S) -> None:
        """Let a submission wait; raises Unavailable (`inbox_full`) when there is no room, or not for it."""
        account, count = submission.account, len(submission.commands)
        own = self._counts.get(account, 0)
        if self._total + count > COMMANDS_MAX:
            raise Unavailable("inbox_full", f"{COMMANDS_MAX} commands are waiting")
        if account is not None and own + count > ACCOUNT_COMMANDS_MAX:
            raise Unavailable("inbox_full", f"{ACCOUNT_COMMANDS_MAX} commands of this account are waiting")
        self._queues.setdefault(account, deque()).append(submission)
        self._counts[account] = own + count
        self._total += count

    def take(self, commands_max: int) -> list[S]:
        """Take a batch of at least one submission and, but for the last, at most so many commands."""
        batch: list[S] = []
        taken = 0
        turns: deque[str | None] = deque(self._queues)
        if None in self._queues:
            turns.remove(None)
            turns.appendleft(None)
        while turns and taken < commands_max:
            account = turns.popleft()
            queue = self._queues[account]
            submission = queue.popleft()
            batch.append(submission)
            taken += len(submission.commands)
            self._counts[account] -= len(submission.commands)
            if not queue:
                del self._queues[account], self._counts[account]
            elif account is None:
                turns.appendleft(None)
            else:
                turns.append(account)
        # Who was not reached, or only in part, comes first the next time.
        self._queues = {account: self._queues[account] for account in turns}
        self._total -= taken
        return batch

    def clear(self) -> list[S]:
        """Take everything."""
        waiting = list(self)
        self._queues, self._counts, self._total = {}, {}, 0
        return waiting
