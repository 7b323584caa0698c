"""The months of statements: their names, their bounds in UTC, and when one cannot change any more."""

import re
from datetime import UTC, datetime, timedelta

from auction.units import MICROSECONDS_PER_SECOND

# What was decided in the month has been committed by then, or never will be: a late settlement is booked
# when it happens, and a batch whose commit failed is forgotten.
FINAL_AFTER_US = 60 * MICROSECONDS_PER_SECOND

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_month(text: str) -> bool:
    """Say whether `text` names a month, such as 2026-11."""
    return _MONTH.fullmatch(text) is not None


def month_of(at_us: int) -> str:
    """Return the month of an instant."""
    at = _EPOCH + timedelta(seconds=at_us // MICROSECONDS_PER_SECOND)
    return f"{at.year}-{at.month:02}"


def window(month: str) -> tuple[int, int]:
    """Return the instants at which a month begins and ends, in microseconds."""
    year, number = map(int, month.split("-"))
    begin = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return _microseconds(begin), _microseconds(end)


def last_final(now_us: int) -> str:
    """Return the newest month whose statements are final."""
    this = month_of(now_us - FINAL_AFTER_US)
    return month_of(window(this)[0] - 1)


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
