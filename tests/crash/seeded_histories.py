"""Histories of a purse in virtual time, sound or with one seeded bug: what the checker itself is measured by.

Clients' calls overlap; each happens at one instant within it. A bug strikes a few calls in the middle: the
answer is as it should be, the purse is not; or a read tells an older purse than its caller may see.
"""

import heapq
import random
from enum import Enum

from tests.crash.linearizability import NEVER, Call, is_linearizable
from tests.crash.purse import Purse, Step, cancelled, deposited, placed, refused, was_read

CALLS = 200
CLIENTS = 5
HOLD = 10_000
DEPOSIT_MAX = 5_000
UNTOLD_SHARE = 0.02
STRIKES = 3  # calls that a bug strikes: one alone may hide among the calls that overlap it
OPENING: Purse = (3 * HOLD, 0, frozenset())


class Bug(Enum):
    """What may be wrong with one call."""

    LOST_HOLD = "a bid without its hold"
    DOUBLE_HOLD = "a hold taken twice"
    LOST_DEPOSIT = "an acknowledged deposit that is not there"
    DOUBLE_DEPOSIT = "a deposit credited twice"
    DOUBLE_RELEASE = "a hold given back twice"
    OVERDRAFT = "a bid accepted without the money"
    STALE_READ = "a read of what was before the last answered change"


class History:
    """One run of the clients; `calls` is what they record."""

    def __init__(self, dice: random.Random, bug: Bug | None) -> None:
        self._dice = dice
        self._bug = bug
        self._struck = 0
        self._reads = False
        self._purse = OPENING
        self._past: list[tuple[float, Purse]] = [(0.0, OPENING)]  # (answered at, what it left)
        self._own: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.calls: list[Call] = []
        self._run()

    @property
    def is_planted(self) -> bool:
        """Say whether the bug found a call to strike."""
        return self._struck > 0

    def _run(self) -> None:
        turns = [self._turn(0.0, client) for client in range(CLIENTS)]
        heapq.heapify(turns)
        for number in range(CALLS):
            _, client, began, ended = heapq.heappop(turns)
            is_ripe = CALLS // 5 < number < CALLS * 4 // 5 and self._struck < STRIKES
            before, struck = self._purse, self._struck
            step = self._call(client, number, began, self._bug if is_ripe else None)
            is_sound = not self._reads and self._struck == struck
            told = NEVER if is_sound and self._dice.random() < UNTOLD_SHARE else ended
            if self._purse != before:
                self._past.append((told, self._purse))
            self.calls.append(Call(began, told, step))
            heapq.heappush(turns, self._turn(ended, client))
        last = max(call.ended for call in self.calls if call.ended != NEVER)
        self.calls.append(Call(last + 1, last + 2, was_read(*self._purse[:2])))

    def _turn(self, after: float, client: int) -> tuple[float, int, float, float]:
        began = after + self._dice.random()
        at = began + self._dice.random()
        return at, client, began, at + self._dice.random()

    def _call(self, client: int, number: int, began: float, bug: Bug | None) -> Step:
        """Carry one call out, perhaps wrongly; return what its client may conclude from the answer."""
        draw, own = self._dice.random(), self._own[client]
        available, held, bids = self._purse
        self._reads = draw < 0.35
        if self._reads:
            if bug is Bug.STALE_READ:
                answered = [purse for ended, purse in self._past if ended < began]
                if len(answered) > 1 and answered[-1] == self._purse != answered[-2]:
                    self._struck += 1
                    return was_read(*answered[-2][:2])
            return was_read(available, held)
        if draw < 0.5:
            amount = self._dice.randrange(1, DEPOSIT_MAX)
            times = self._times(bug, Bug.LOST_DEPOSIT, Bug.DOUBLE_DEPOSIT)
            self._purse = (available + times * amount, held, bids)
            return deposited(amount)
        if own and draw >= 0.75:
            bid = own.pop(self._dice.randrange(len(own)))
            times = self._times(bug, None, Bug.DOUBLE_RELEASE)
            self._purse = (available + times * HOLD, held - times * HOLD, bids - {bid})
            return cancelled(bid, HOLD)
        if available < HOLD and not self._is_now(bug, Bug.OVERDRAFT):
            return refused(HOLD)
        times = self._times(bug, Bug.LOST_HOLD, Bug.DOUBLE_HOLD) if available >= HOLD else 1
        own.append(f"bid {number}")
        self._purse = (available - times * HOLD, held + times * HOLD, bids | {own[-1]})
        return placed(own[-1], HOLD)

    def _times(self, bug: Bug | None, never: Bug | None, twice: Bug) -> int:
        """Return how often the effect happens: once, or as the bug has it."""
        if never is not None and self._is_now(bug, never):
            return 0
        return 2 if self._is_now(bug, twice) else 1

    def _is_now(self, bug: Bug | None, wanted: Bug) -> bool:
        self._struck += bug is wanted
        return bug is wanted


def measure(count: int, seed: int) -> tuple[int, int]:
    """Return how many of `count` histories with a bug are rejected, and how many of as many without one."""
    dice, bugs = random.Random(seed), list(Bug)
    rejected = alarms = 0
    for number in range(count):
        history = History(dice, bugs[number % len(bugs)])
        while not history.is_planted:
            history = History(dice, bugs[number % len(bugs)])
        rejected += not is_linearizable(history.calls, OPENING)
        alarms += not is_linearizable(History(dice, None).calls, OPENING)
    return rejected, alarms
