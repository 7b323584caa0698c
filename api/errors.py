"""From exceptions to problems: the one place where a "no" of any kind becomes an HTTP answer.

Statuses come from problems.py by code. A code that is missing there is our own bug and is answered
as `internal_error`, never as a success. No text of a driver, no SQL and no stack trace leaves here.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from msgspec import ValidationError

from api.codec import Codec
from api.fields import format_instant
from api.problems import PROBLEMS
from api.rate_limits import RateLimited
from api.wire import ErrorItem, ProblemView
from auction.errors import Rejection, Unavailable
from auction.ports import Answer
from auction.units import format_microusd

RETRY_AFTER_S = 1

_logger = logging.getLogger("fallow.api")

_MONEY_EXTRAS = frozenset({"required", "available", "below", "above", "minimum", "maximum"})
_PLAIN_EXTRAS = frozenset({"current", "scope"})
_MONEY_FIELDS = frozenset({"max_spend", "spend_per_day", "limit_price_per_gpu_hour"})

# msgspec names the place behind the message: "Expected `int`, got `str` - at `$.operations[0].gpus`".
_AT = re.compile(r"^(?P<detail>.*?)(?: - at `(?P<key>key in )?\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+|\.\.\.)\]")
_NAMED = re.compile(r"^Object (?P<what>contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)

_HTTP_CODES: dict[int, str] = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
}


def problem_of(error: BaseException, request_id: str) -> ProblemView:
    """Describe any exception; what is not expected is logged and becomes `internal_error`."""
    match error:
        case Rejection():
            if error.code in PROBLEMS:
                return _rejection(error, request_id)
        case Unavailable():
            if error.code in PROBLEMS:
                return make_problem(error.code, error.detail, request_id)
        case RateLimited():
            return make_problem("rate_limited", str(error), request_id)
        case ValidationError():
            return _validation(str(error), request_id)
        # A document that nests deeper than the interpreter's stack is malformed, not our fault; one
        # that is not UTF-8 is told by the codec or, inside a string, by Python.
        case msgspec.DecodeError() | UnicodeDecodeError() | RecursionError():
            return make_problem("malformed", "the body is not a well-formed document", request_id)
        case web.HTTPException():
            if error.status in _HTTP_CODES:
                code = _HTTP_CODES[error.status]
                return make_problem(code, PROBLEMS[code].title, request_id)
    _logger.error("request %s failed", request_id, exc_info=error)
    return make_problem("internal_error", "an unexpected fault; it has been logged", request_id)


def make_problem(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: list[ErrorItem] | None = None,
    extras: Mapping[str, Any] | None = None,
) -> ProblemView:
    """Build the problem of a code of problems.py."""
    kind = PROBLEMS[code]
    return ProblemView(
        type=f"/problems/{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=code,
        request_id=request_id,
        retryable=kind.is_retryable,
        errors=errors or [],
        **_extras(extras or {}),
    )


def problem_answer(problem: ProblemView, codec: Codec) -> Answer:
    """Write a problem down."""
    return Answer(problem.status, codec.problem_type, codec.encode(problem))


def retry_after(error: BaseException) -> int:
    """Return the seconds for Retry-After of a refusal that passes."""
    return error.retry_after_s if isinstance(error, Unavailable | RateLimited) else RETRY_AFTER_S


def _rejection(error: Rejection, request_id: str) -> ProblemView:
    errors = [] if error.pointer is None else [ErrorItem(error.pointer, error.detail)]
    return make_problem(error.code, error.detail, request_id, errors=errors, extras=error.extras)


def _extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in extras.items():
        if name in _MONEY_EXTRAS and value is not None:
            shown[name] = format_microusd(value)
        elif name in _PLAIN_EXTRAS:
            shown[name] = value
        elif name == "accepted":
            shown[name] = {field: _as_sent(field, number) for field, number in value.items()}
    return shown


def _as_sent(field: str, number: int) -> str | int:
    """Write a value in the form in which its field is sent."""
    if field in _MONEY_FIELDS:
        return format_microusd(number)
    return format_instant(number) if field == "ends_at" else number


def _validation(message: str, request_id: str) -> ProblemView:
    match = _AT.fullmatch(message)
    assert match is not None, "the pattern ends in an optional group"
    detail, pointer = match["detail"], _pointer(match["path"] or "")
    named = _NAMED.fullmatch(detail)
    code = "invalid_value"
    if named is not None:
        code = "unknown_field" if named["what"] == "contains unknown" else "missing_field"
        pointer = f"{pointer}/{_escape(named['name'])}"
    return make_problem(code, detail[:500], request_id, errors=[ErrorItem(pointer[:500], detail[:500])])


def _pointer(path: str) -> str:
    """Turn msgspec's `.operations[0].gpus` into the JSON pointer `/operations/0/gpus`."""
    steps = []
    for step in _STEP.finditer(path):
        # "[...]" is a place inside a map, whose key msgspec does not tell.
        steps.append(step["name"] or ("-" if step["index"] == "..." else step["index"]))
    return "".join(f"/{_escape(step)}" for step in steps)


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
