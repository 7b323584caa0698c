"""The market's time, as far as a node can know it: its own clock, corrected by what the market's answers say.

Each answer has a date, in whole seconds, and was written between the request and its arrival: so it bounds by
how much the market is ahead. A correction changes only as far as the bounds demand, so a clock that is well
set stays as it is. Out of contact the last correction holds.
"""

from email.utils import parsedate_to_datetime

from auction.clock import SystemClock
from auction.units import MICROSECONDS_PER_SECOND


class MarketClock(SystemClock):
    """A node's clock. A correction may set it back."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_us = 0  # of this machine, the market

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us

    def own_us(self) -> int:
        """Return this machine's time, for `hear`."""
        return super().now_us()

    def hear(self, date: str, asked_us: int, answered_us: int) -> None:
        """Take note of an answer's `Date`, and when it was asked for and came by this machine's time."""
        try:
            date_us = int(parsedate_to_datetime(date).timestamp()) * MICROSECONDS_PER_SECOND
        except ValueError:
            return  # a proxy's nonsense is nobody's time
        least, most = date_us - answered_us, date_us + MICROSECONDS_PER_SECOND - asked_us
        self._ahead_us = min(max(self._ahead_us, least), most)
