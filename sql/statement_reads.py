"""Reads behind statements and usage: what moved in an account's ledger in a time, and what is behind a line.

One statement reads one snapshot, so its lines and its balances are of the same moment. Must not decide what a
line is called or what a month is.
"""

from dataclasses import dataclass

import msgspec

from auction.ledger import CODES_PER_ACCOUNT
from auction.units import Amount
from sql import query
from sql.reads import EntryRow, Reader, Slice, UsageRow

GROUPS_MAX = 10_000  # of usage in one answer
LABEL_SETS_MAX = 10_000
# What only moves money inside a pocket; its two legs are no line.
WITHIN_A_POCKET = frozenset({"hold", "release", "payout", "payout_failed"})


class DoesNotAddUp(Exception):
    """The ledger's legs and its balances disagree: nothing is shown, and `fallow audit` says more."""


@dataclass(frozen=True, slots=True)
class LineRow:
    """What moved: `pocket` 0 is a buyer's money, 1 an owner's earnings; `amount` is signed microusd."""

    pocket: int
    kind: str
    market: str | None
    legs: int
    amount: Amount


@dataclass(frozen=True, slots=True)
class PocketRow:
    pocket: int
    opening: Amount
    closing: Amount


@dataclass(frozen=True, slots=True)
class LegRow:
    """One leg behind a line. `leg` orders all legs."""

    leg: int
    transfer: int
    code: str
    amount: Amount
    reference: str
    interval_end_s: int
    at_us: int


async def statement(
    reader: Reader, account: str, *, from_us: int, to_us: int
) -> tuple[list[PocketRow], list[LineRow]]:
    """Return both pockets with their balances at both ends, and the lines between.

    Raises DoesNotAddUp when opening, lines and what moved since do not come to the balances of now.
    """
    rows = await reader.fetch(query("statement_lines"), account, from_us, to_us)
    lines = [row for row in rows if row["row"] == "line"]
    pockets = []
    for row in rows:
        if row["row"] == "balance":
            own = [line for line in lines if line["pocket"] == row["pocket"]]
            closing = row["earlier"] + sum(line["amount"] for line in own)
            if closing + sum(line["later"] for line in own) != row["amount"]:
                raise DoesNotAddUp(f"{account}, pocket {row['pocket']}, {from_us} to {to_us}")
            pockets.append(PocketRow(row["pocket"], Amount(row["earlier"]), Amount(closing)))
    shown = [
        LineRow(row["pocket"], row["kind"], row["market"], row["legs"], Amount(row["amount"]))
        for row in lines
        if row["legs"] and (row["amount"] or row["kind"] not in WITHIN_A_POCKET)
    ]
    return pockets, shown


async def line_legs(
    reader: Reader,
    account: str,
    *,
    from_us: int,
    to_us: int,
    pocket: int,
    kind: str,
    market: str | None,
    before: int,
    limit: int,
) -> Slice[LegRow]:
    """Return the legs behind a line, newest first; their sum is the line."""
    arguments = (account, from_us, to_us, pocket, kind, market, before, limit + 1)
    rows = await reader.fetch(query("statement_transfers"), *arguments)
    return Slice.of([LegRow(*row.values()) for row in rows], limit)


async def transfer(reader: Reader, account: str, transfer_id: int) -> list[EntryRow]:
    """Return the account's legs of one transfer; none if it is another's, or is not there."""
    rows = await reader.fetch(query("transfer_legs"), account, transfer_id)
    return [
        EntryRow(
            position=row["entry"],
            transfer=row["id"],
            code=row["code"],
            ledger_code=row["ledger_account"] % CODES_PER_ACCOUNT,
            amount=row["amount"],
            balance=row["balance"],
            reference=row["reference"],
            interval_end_s=row["interval_end_s"],
            at_us=row["at_us"],
        )
        for row in rows
    ]


async def usage_by_label(
    reader: Reader, account: str, label: str, *, from_s: int, to_s: int
) -> list[UsageRow] | None:
    """Return metered GPU time and cost by the value of one label ("" for bids without it), sorted by value.

    None when the bids carry more than LABEL_SETS_MAX different sets of labels.
    """
    rows = await reader.fetch(query("usage_labels"), account, from_s, to_s, LABEL_SETS_MAX + 1)
    if len(rows) > LABEL_SETS_MAX:
        return None
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        value = msgspec.msgpack.decode(row["labels"], type=dict[str, str]).get(label, "")
        seconds, amount = sums.get(value, (0, 0))
        sums[value] = seconds + int(row["gpu_seconds"]), amount + int(row["amount"])
    return [UsageRow(value, *sums[value]) for value in sorted(sums)]
