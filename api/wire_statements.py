"""The shapes of statements and usage: as structs, as CSV, and as a page to print. See wire.py."""

import html
from collections.abc import Sequence

from msgspec import Struct

from api.fields import CURRENCY, format_instant
from api.sheets import safe_cell, write_csv
from auction.units import format_microusd
from sql.statement_reads import LineRow, PocketRow

POCKETS = ("money", "earnings")
KINDS = {
    "deposit": "Deposits",
    "charge": "GPU time",
    "refund": "Refunds",
    "adjustment": "Adjustments by the operator",
    "payout_paid": "Payouts",
}


class StatementLineView(Struct, frozen=True):
    """`amount` is signed, as the account sees it, and the sum of the transfers at `transfers_url`."""

    id: str
    kind: str
    market: str | None
    transfers: int
    amount: str
    transfers_url: str


class PocketView(Struct, frozen=True):
    """`money` is a buyer's, available and held; `earnings` an owner's, earned and being paid out.

    opening + lines = closing, to the microdollar.
    """

    name: str
    opening: str
    lines: list[StatementLineView]
    closing: str


class StatementView(Struct, frozen=True, rename={"from_": "from"}):
    """A month in UTC, by the time of booking: a later correction is a line of its own month."""

    id: str
    account: str
    state: str  # open; final a minute after the month's end: it never changes again
    from_: str
    to: str
    currency: str
    pockets: list[PocketView]


class StatementHead(Struct, frozen=True, rename={"from_": "from"}):
    id: str
    state: str
    from_: str
    to: str


class LegView(Struct, frozen=True):
    """A transfer behind a line of a statement, signed."""

    transfer: str
    code: str
    amount: str
    currency: str
    reference: str
    interval_end: str | None
    created_at: str


class UsageView(Struct, frozen=True):
    """GPU time as metered, in the group of the span's beginning; refunds are on the statement."""

    group: str
    gpu_seconds: int
    amount: str
    currency: str


def statement_view(
    head: StatementHead, account: str, pockets: Sequence[PocketRow], lines: Sequence[LineRow]
) -> StatementView:
    return StatementView(
        id=head.id,
        account=account,
        state=head.state,
        from_=head.from_,
        to=head.to,
        currency=CURRENCY,
        pockets=[
            PocketView(
                POCKETS[pocket.pocket],
                format_microusd(pocket.opening),
                [_line(head.id, line) for line in lines if line.pocket == pocket.pocket],
                format_microusd(pocket.closing),
            )
            for pocket in pockets
        ],
    )


def _line(statement: str, line: LineRow) -> StatementLineView:
    name = ":".join((POCKETS[line.pocket], line.kind, *([] if line.market is None else [line.market])))
    url = f"/v1/statements/{statement}/lines/{name}"
    return StatementLineView(name, line.kind, line.market, line.legs, format_microusd(line.amount), url)


def head_of(statement: str, from_us: int, to_us: int, *, is_final: bool) -> StatementHead:
    state = "final" if is_final else "open"
    return StatementHead(statement, state, format_instant(from_us), format_instant(to_us))


def statement_csv(view: StatementView) -> bytes:
    rows: list[Sequence[object]] = [("pocket", "line", "market", "transfers", "amount", "currency")]
    for pocket in view.pockets:
        rows.append((pocket.name, "opening", "", "", pocket.opening, view.currency))
        rows += [
            (pocket.name, line.kind, safe_cell(line.market or ""), line.transfers, line.amount, view.currency)
            for line in pocket.lines
        ]
        rows.append((pocket.name, "closing", "", "", pocket.closing, view.currency))
    return write_csv(rows)


def usage_csv(rows: Sequence[UsageView]) -> bytes:
    shown = [(safe_cell(row.group), row.gpu_seconds, row.amount, row.currency) for row in rows]
    return write_csv([("group", "gpu_seconds", "amount", "currency"), *shown])


def statement_html(view: StatementView) -> bytes:
    """Return the statement as one page that prints on paper and loads nothing."""
    parts = []
    for pocket in view.pockets:
        rows = [_row("Opening balance", "", pocket.opening, "total")]
        for line in pocket.lines:
            text = KINDS.get(line.kind, line.kind) + (f", {line.market}" if line.market else "")
            rows.append(_row(text, f"{line.transfers:,}", line.amount, ""))
        rows.append(_row("Closing balance", "", pocket.closing, "total"))
        parts.append(
            f"<h2>{html.escape(pocket.name.capitalize())}</h2><table><thead><tr><th>Line</th>"
            f"<th class=n>Transfers</th><th class=n>{view.currency}</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )
    return _PAGE.format(
        id=html.escape(view.id),
        account=html.escape(view.account),
        state=html.escape(view.state),
        from_=html.escape(view.from_),
        to=html.escape(view.to),
        body="".join(parts),
    ).encode()


def _row(text: str, transfers: str, amount: str, kind: str) -> str:
    return (
        f'<tr class="{kind}"><td>{html.escape(text)}</td><td class=n>{transfers}</td>'
        f"<td class=n>{amount}</td></tr>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Statement {id}</title>
<style>
body {{ font: 11pt/1.4 system-ui, sans-serif; max-width: 44em; margin: 2em auto; color: #111; }}
h1 {{ font-size: 1.5em; margin-bottom: .2em; }} h2 {{ font-size: 1.1em; margin-top: 1.6em; }}
table {{ border-collapse: collapse; width: 100%; }} th, td {{ text-align: left; padding: .3em .4em; }}
th {{ border-bottom: 1px solid #888; font-weight: 600; }} td {{ border-bottom: 1px solid #ddd; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.total td {{ font-weight: 600; }} p {{ color: #444; }}
@media print {{ body {{ margin: 0; max-width: none; }} tr {{ break-inside: avoid; }} }}
</style></head><body>
<h1>Statement {id}</h1>
<p>Account {account}<br>{from_} to {to} (UTC, by booking time), {state}</p>
{body}
<p>Opening balance and lines add up to the closing balance, to the microdollar. Every line's transfers:
GET /v1/statements/{id}/lines/…</p>
</body></html>
"""
