"""Reads of an account's events by what they tell of."""

from collections.abc import Sequence

from auction.model import Event
from sql.reads import Reader
from sql.rows import decode_rows, select_columns


async def events_of(
    reader: Reader, account: str, *, after_seq: int, types: Sequence[str], limit: int
) -> list[Event]:
    """Return events behind a sequence number, in order; `types` are kinds or their first words, none is all.

    Raises Unavailable when the database is away.
    """
    statement = f"""SELECT {select_columns(Event)} FROM events
        WHERE account = $1 AND account_seq > $2
            AND (cardinality($3::text[]) = 0 OR kind = ANY($3) OR split_part(kind, '.', 1) = ANY($3))
        ORDER BY account_seq LIMIT $4"""
    return decode_rows(Event, await reader.fetch(statement, account, after_seq, list(types), limit))
