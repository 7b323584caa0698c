"""When a webhook is tried again, and how many may be under way at once.

Notices go at 0, 1, 2, 5, 10, 20 s … after they were issued, counted from the record and not from the
last try, until the GPUs are reclaimed. Everything else backs off exponentially with full jitter (AWS,
"Exponential Backoff And Jitter": a uniform draw below the bound) for three days.
Invariant of the slots: nobody holds more than its share, and ordinary messages leave room for notices.
"""

from collections import Counter
from collections.abc import Callable

from auction.units import MICROSECONDS_PER_SECOND

NOTICE_OFFSETS_S = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)  # a notice is at most an hour
BACKOFF_FIRST_US = 5 * MICROSECONDS_PER_SECOND
BACKOFF_MOST_US = 12 * 3_600 * MICROSECONDS_PER_SECOND
BACKOFF_DOUBLINGS_MAX = 14  # 5 s doubled so often passes 12 h
PAUSE_LEAST_US = MICROSECONDS_PER_SECOND
ATTEMPTS_MAX = 64  # of an ordinary message; three days of full jitter take about 25

SENDS_MAX = 256
ORDINARY_SENDS_MAX = 192
ACCOUNT_SENDS_MAX = 32
ENDPOINT_SENDS_MAX = 16
ENDPOINT_ORDINARY_SENDS_MAX = 4

Draw = Callable[[int], int]  # a random integer in [0, bound)


def next_notice_us(at_us: int, now_us: int, deadline_us: int) -> int | None:
    """Return when a notice of `at_us` is tried next after `now_us`; None when that is too late."""
    for offset_s in NOTICE_OFFSETS_S:
        next_us = at_us + offset_s * MICROSECONDS_PER_SECOND
        if next_us > now_us:
            return next_us if next_us < deadline_us else None
    return None


def next_ordinary_us(attempts: int, now_us: int, deadline_us: int, draw: Draw) -> int | None:
    """Return when a message that failed `attempts` times is tried next; None when it is given up."""
    assert attempts >= 1
    if attempts >= ATTEMPTS_MAX:
        return None
    bound_us = min(BACKOFF_MOST_US, BACKOFF_FIRST_US << min(attempts - 1, BACKOFF_DOUBLINGS_MAX))
    next_us = now_us + PAUSE_LEAST_US + draw(bound_us)
    return next_us if next_us < deadline_us else None


class Slots:
    """How many sends are under way: in all, by account, by endpoint."""

    def __init__(self) -> None:
        self._all = 0
        self._ordinary = 0
        self._by_account: Counter[str] = Counter()
        self._by_endpoint: Counter[str] = Counter()
        self._ordinary_by_endpoint: Counter[str] = Counter()

    @property
    def free(self) -> int:
        return SENDS_MAX - self._all

    @property
    def only_urgent(self) -> bool:
        """Say whether what is left is kept for notices."""
        return self._ordinary >= ORDINARY_SENDS_MAX

    def take(self, account: str, endpoint: str, *, is_urgent: bool) -> bool:
        """Take a slot if there is one for this; whoever got one gives it back."""
        if (
            self._all >= SENDS_MAX
            or self._by_account[account] >= ACCOUNT_SENDS_MAX
            or self._by_endpoint[endpoint] >= ENDPOINT_SENDS_MAX
        ):
            return False
        if not is_urgent and (
            self.only_urgent or self._ordinary_by_endpoint[endpoint] >= ENDPOINT_ORDINARY_SENDS_MAX
        ):
            return False
        self._count(account, endpoint, is_urgent, 1)
        return True

    def give_back(self, account: str, endpoint: str, *, is_urgent: bool) -> None:
        self._count(account, endpoint, is_urgent, -1)

    def full_accounts(self) -> list[str]:
        return _at_least(self._by_account, ACCOUNT_SENDS_MAX)

    def full_endpoints(self) -> list[str]:
        return _at_least(self._by_endpoint, ENDPOINT_SENDS_MAX)

    def full_for_ordinary(self) -> list[str]:
        """Return the endpoints that may get only notices now."""
        return _at_least(self._ordinary_by_endpoint, ENDPOINT_ORDINARY_SENDS_MAX)

    def _count(self, account: str, endpoint: str, is_urgent: bool, change: int) -> None:
        self._all += change
        _add(self._by_account, account, change)
        _add(self._by_endpoint, endpoint, change)
        if not is_urgent:
            self._ordinary += change
            _add(self._ordinary_by_endpoint, endpoint, change)


def _add(counts: Counter[str], key: str, change: int) -> None:
    counts[key] += change
    assert counts[key] >= 0
    if not counts[key]:
        del counts[key]  # only who sends now is remembered


def _at_least(counts: Counter[str], bound: int) -> list[str]:
    return [key for key, count in counts.items() if count >= bound]
