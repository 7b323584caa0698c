"""`fallow bill`: what is there, what was used, what a month came to, every line behind it."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import click

from fallow.command import Found, Moment, connected, remote, show, show_json

if TYPE_CHECKING:
    from fallow.client import Client
    from fallow.client.owner_model import Statement

USAGE_COLUMNS = ("group", "gpu_seconds", "amount", "currency")
ENTRY_COLUMNS = (
    "id", "transfer", "code", "ledger_account", "amount", "balance", "currency", "reference", "created_at",
)  # fmt: skip


class Line(NamedTuple):
    """A line of a statement: its opening and closing balance are lines too."""

    pocket: str
    line: str
    market: str | None
    transfers: int | None
    amount: Decimal
    currency: str


class Month(NamedTuple):
    """A statement's name and time."""

    id: str
    state: str
    begins: datetime
    ends: datetime


@click.group()
def bill() -> None:
    """Your money."""


@bill.command("balance")
@remote
def bill_balance(client: "Client") -> Found:
    """Show what is available, held, and earned."""
    return ("available", "held", "owed", "earning", "payable", "currency"), [client.balance()]


@bill.command("usage")
@click.option(
    "--by",
    "group_by",
    type=click.Choice(["lease", "bid", "market", "day", "hour", "label"]),
    default="day",
    show_default=True,
)
@click.option("--label", help="With --by label: the label of your bids whose values are the groups.")
@click.option("--from", "from_time", type=Moment, help="Like 2026-11-01T00:00Z.")
@click.option("--to", "to_time", type=Moment)
@remote
def bill_usage(
    client: "Client", group_by: str, label: str | None, from_time: datetime | None, to_time: datetime | None
) -> Found:
    """Sum up metered GPU time and its cost."""
    return USAGE_COLUMNS, client.usage(group_by=group_by, label=label, from_time=from_time, to_time=to_time)


@bill.command("statement")
@click.argument("month", required=False)
@connected
def bill_statement(client: "Client", output: str, month: str | None) -> None:
    """Show a MONTH (2026-11): what it began with, what moved, what it ended with. Without one: list them."""
    if month is None:
        heads = client.statements()
        if output == "json":
            show(heads, (), output)
        else:
            months = [Month(head.id, head.state, head.from_, head.to) for head in heads]
            show(months, Month._fields, output)
        return
    statement = client.statement(month)
    if output == "json":
        show_json(statement)
    else:
        show(list(_lines(statement)), Line._fields, output)


@bill.command("ledger")
@remote
def bill_ledger(client: "Client") -> Found:
    """List the newest 1,000 lines of your ledger, each with the balance after it."""
    return ENTRY_COLUMNS, client.ledger()


def _lines(statement: "Statement") -> Iterator[Line]:
    for pocket in statement.pockets:
        yield Line(pocket.name, "opening", None, None, pocket.opening, statement.currency)
        for line in pocket.lines:
            yield Line(pocket.name, line.kind, line.market, line.transfers, line.amount, statement.currency)
        yield Line(pocket.name, "closing", None, None, pocket.closing, statement.currency)
