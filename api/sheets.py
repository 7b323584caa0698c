"""CSV as spreadsheets read it (RFC 4180). What they could take for a formula gets a quote before it."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import msgspec

CSV_TYPE = "text/csv; charset=utf-8"

_FIGURE = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """Return a text that is no formula. Figures need none of this: a minus sign is theirs."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Return rows, the header first, as UTF-8."""
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()


def sheet(rows: Sequence[Any], columns: Sequence[str]) -> bytes:
    """Return the fields of these structs as CSV; what is itself a list or an object is JSON in its cell."""
    return write_csv([columns, *([_cell(getattr(row, name)) for name in columns] for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value if _FIGURE.fullmatch(value) else safe_cell(value)
    if isinstance(value, int | float):
        return str(value).lower()
    return msgspec.json.encode(value).decode()
