"""One account's money as the linearizability checker sees it: what each answered call does to it.

A purse is what is available, what is held, and which bids are open.
"""

from collections.abc import Callable

Purse = tuple[int, int, frozenset[str]]  # (available, held, open bids)
Step = Callable[[Purse], Purse | None]  # to the next purse; None: that answer is impossible here


def deposited(amount: int) -> Step:
    """A deposit that was, or may have been, credited."""
    return lambda purse: (purse[0] + amount, purse[1], purse[2])


def placed(bid: str, hold: int) -> Step:
    """A bid that was accepted: its hold was there to be taken."""
    return lambda p: (p[0] - hold, p[1] + hold, p[2] | {bid}) if p[0] >= hold else None


def refused(hold: int) -> Step:
    """A bid that was refused for want of money."""
    return lambda purse: purse if purse[0] < hold else None


def cancelled(bid: str, hold: int) -> Step:
    """A cancel that was answered: its bid was open."""
    return lambda p: (p[0] + hold, p[1] - hold, p[2] - {bid}) if bid in p[2] else None


def was_read(available: int, held: int) -> Step:
    """A read, with what it said."""
    return lambda purse: purse if purse[:2] == (available, held) else None
