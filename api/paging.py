"""Cursors: where a page ended, in a form that clients pass back and never read.

A cursor is the sort key of the last row shown, so a page stays right while rows arrive before it.
"""

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from api.codec import Page
from auction.errors import Rejection
from sql.reads import INT64_MAX, NEWEST, Key

_Number = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_Name = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")]
_Balance = Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]

T = TypeVar("T")


def write_cursor(key: object) -> str:
    """Write a sort key down."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(key)).rstrip(b"=").decode()


def read_number(cursor: str | None, start: int = INT64_MAX) -> int:
    """Read the cursor of a list that is sorted by one number."""
    return start if cursor is None else _read(cursor, _Number)


def read_key(cursor: str | None) -> Key:
    """Read the cursor of a list that is sorted by time and id."""
    return NEWEST if cursor is None else _read(cursor, tuple[_Number, _Name])


def read_name(cursor: str | None) -> str | None:
    """Read the cursor of a list that is sorted by a name."""
    return None if cursor is None else _read(cursor, _Name)


def read_entry(cursor: str | None, start: int) -> tuple[int, list[int] | None]:
    """Read the cursor of the ledger: a position, and the balances there."""
    if cursor is None:
        return start, None
    balances = Annotated[list[_Balance], Meta(min_length=4, max_length=4)]
    return _read(cursor, tuple[_Number, balances])


def page(data: list[T], last_key: object) -> Page[T]:
    """Build a page; `last_key` is None when nothing follows."""
    return Page(data, None if last_key is None else write_cursor(last_key))


def _read(cursor: str, kind: type[T]) -> T:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.msgpack.decode(raw, type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Rejection("invalid_value", "not a cursor of this list", pointer="/cursor") from None
