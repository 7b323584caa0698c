"""What can go wrong, sorted by what a caller does about it."""

from typing import Any

from msgspec import Struct


class Problem(Struct, frozen=True):
    """The server's problem document (RFC 9457) with the numbers that explain it."""

    code: str
    detail: str
    status: int
    request_id: str = ""
    retryable: bool = False
    errors: list[dict[str, str]] = []
    accepted: dict[str, Any] = {}
    required: str | None = None
    available: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    current: int | None = None


class FallowError(Exception):
    """Anything that this client raises."""


class UnavailableError(FallowError):
    """The market could not be reached, or could not answer, in all the time that was given."""


class ProblemError(FallowError):
    """The market said no. `problem.code` is stable; `/problems/{code}` says what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem

    @property
    def code(self) -> str:
        return self.problem.code


class AuthError(ProblemError):
    """No valid key, or one that may not do this (401, 403)."""


class NotFoundError(ProblemError):
    """Absent, or another account's (404)."""


class RefusedError(ProblemError):
    """Well understood, and no: funds, state, a value (402, 409, 412, 422)."""


class RateLimitedError(ProblemError):
    """Too many requests (429), and so for longer than this client waits."""


def error_of(problem: Problem) -> ProblemError:
    """Return the exception for a problem."""
    if problem.status in (401, 403):
        return AuthError(problem)
    if problem.status == 404:
        return NotFoundError(problem)
    if problem.status == 429:
        return RateLimitedError(problem)
    return RefusedError(problem) if problem.status < 500 else ProblemError(problem)
