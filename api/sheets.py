"""CSV as spreadsheets read it (RFC 4180). What they could take for a formula gets a quote before it."""

import csv
import io
from collections.abc import Sequence

CSV_TYPE = "text/csv; charset=utf-8"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """Return a text that is no formula. Figures need none of this: a minus sign is theirs."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Return rows, the header first, as UTF-8."""
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()
