"""The three kinds of "no": a rejection, an outage, and a bug of ours.

`Rejection` is an expected business answer with a stable code; `Unavailable` says try again later; anything
else that a rule raises is our own bug. It is caught in one place only, the engine, which drops the state that
it left and puts its cause aside. Which HTTP status a code gets is decided in `api/errors.py` alone.
"""

from typing import Any


class Rejection(Exception):
    """An expected refusal. `code` is part of the contract, `extras` are the numbers that explain it."""

    def __init__(self, code: str, detail: str, *, pointer: str | None = None, **extras: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.extras = extras


class NotFound(Rejection):
    """Absent, or not yours: the same answer for both."""

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"no such {what}")


class Unavailable(Exception):
    """The market cannot answer now; the same request may be sent again after `retry_after_s`."""

    def __init__(self, code: str, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


class CommandFault(Exception):
    """A rule of ours failed on a submission; the state is half changed and must be dropped."""

    def __init__(self, place: int) -> None:
        super().__init__(f"a rule failed on submission {place} of a batch")
        self.place = place


class TickFault(Exception):
    """A rule of ours failed while markets cleared; the state is half changed and must be dropped."""

    def __init__(self, markets: list[str]) -> None:
        super().__init__(f"a tick of {', '.join(markets)} failed")
        self.markets = markets


class Fenced(Exception):
    """Another engine has taken the shard: this one must stop and drop its state."""
