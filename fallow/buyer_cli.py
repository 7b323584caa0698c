"""The buyer's commands: markets, quotes, bids, leases, targets, money. Noun, then verb; over `fallow.Client`.

Exit codes: 0 ok, 2 usage, 3 refused, 4 auth, 5 unavailable.
"""

import csv
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fallow.client import Client

EXIT_REFUSED = 3
EXIT_AUTH = 4
EXIT_UNAVAILABLE = 5
ROWS_SHOWN_MAX = 1_000

MARKET_COLUMNS = ("id", "gpu_model", "region", "price", "tick", "tick_seconds", "notice_seconds", "status")
BID_COLUMNS = (
    "id", "market", "status", "gpus", "filled_gpus", "limit_price_per_gpu_hour", "current_price", "spent",
)  # fmt: skip
LEASE_COLUMNS = ("id", "market", "state", "gpus", "price", "cost", "started_at", "end_reason")
TARGET_COLUMNS = ("id", "kind", "market", "state", "reason", "running_gpus", "spent", "max_spend", "ends_at")


def buyers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its server, key and output, and turn what the client raises into an exit code."""

    @click.option("--server", envvar="FALLOW_URL", default="http://127.0.0.1:8080", show_default=True)
    @click.option("--key", envvar="FALLOW_KEY", help="Your key. [env: FALLOW_KEY]")
    @click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table")
    @click.option("--explain", is_flag=True, help="Also print the HTTP call, as curl, on standard error.")
    @wraps(function)
    def command(server: str, key: str | None, output: str, explain: bool, **options: Any) -> None:
        from fallow.client import AuthError, Client, ProblemError, UnavailableError

        def trace(call: str) -> None:
            click.echo(call, err=True)

        try:
            with Client(server, key=key, trace=trace if explain else None) as market:
                columns, rows = function(market, **options)
                found = list(islice(rows, ROWS_SHOWN_MAX))
        except AuthError as error:
            fail(error, EXIT_AUTH)
        except ProblemError as error:
            fail(error, EXIT_REFUSED)
        except UnavailableError as error:
            fail(error, EXIT_UNAVAILABLE)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        else:
            show(found, columns, output)

    return command


Found = tuple[tuple[str, ...], Iterable[Any]]
Dollars = click.STRING


@click.group()
def market() -> None:
    """What is for sale, and at what price."""


@market.command("ls")
@buyers
def market_ls(client: "Client") -> Found:
    """List the markets."""
    return MARKET_COLUMNS, client.markets()


@click.command()
@click.argument("market")
@click.option("--gpus", type=int, default=1, show_default=True)
@buyers
def quote(client: "Client", market: str, gpus: int) -> Found:
    """Say what so many GPUs would cost at the next tick."""
    columns = ("market", "tick", "gpus", "price_to_fill", "available_gpus", "entry_price", "clearing_price")
    return columns, [client.quote(market, gpus)]


@click.group()
def bid() -> None:
    """Place bids, look at them, change them, cancel them."""


@bid.command("place")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True, help="At most so many dollars per GPU-hour, e.g. 2.40.")
@click.option("--min-gpus", type=int, help="Fewer are of no use. [default: 1]")
@click.option("--colocate", type=click.Choice(["none", "node", "fabric"]))
@click.option("--max-spend", type=Dollars, help="Dollars in all; kept to the microdollar.")
@click.option("--on-preempt", type=click.Choice(["requeue", "cancel"]))
@click.option("--confirm-limit", is_flag=True, help="Yes, that far above the market's price.")
@buyers
def bid_place(client: "Client", market: str, gpus: int, limit: str, **terms: Any) -> Found:
    """Place a bid on MARKET; it is durable when this returns."""
    terms["confirm_limit"] = terms["confirm_limit"] or None
    return BID_COLUMNS, [client.place_bid(market, gpus=gpus, limit_price_per_gpu_hour=limit, **terms)]


@bid.command("preview")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True)
@buyers
def bid_preview(client: "Client", market: str, gpus: int, limit: str) -> Found:
    """Say what a bid would get and tie up; nothing is placed."""
    columns = ("fill_gpus", "price", "hold", "worst_cost_per_hour", "effective_tick", "cutoff_at")
    return columns, [client.preview_bid(market, gpus=gpus, limit_price_per_gpu_hour=limit)]


@bid.command("ls")
@click.option("--market")
@click.option("--status")
@buyers
def bid_ls(client: "Client", market: str | None, status: str | None) -> Found:
    """List your bids, newest first."""
    return BID_COLUMNS, client.bids(market=market, status=status)


@bid.command("show")
@click.argument("bid")
@buyers
def bid_show(client: "Client", bid: str) -> Found:
    """Show one bid; of one that lost, why, and what would win now."""
    return (*BID_COLUMNS, "reason", "leases"), [client.bid(bid)]


@bid.command("amend")
@click.argument("bid")
@click.option("--limit", type=Dollars)
@click.option("--gpus", type=int)
@click.option("--paused/--resumed", default=None)
@buyers
def bid_amend(client: "Client", bid: str, limit: str | None, gpus: int | None, paused: bool | None) -> Found:
    """Change a bid while it runs."""
    return BID_COLUMNS, [client.amend_bid(bid, limit_price_per_gpu_hour=limit, gpus=gpus, paused=paused)]


@bid.command("cancel")
@click.argument("bid")
@click.option("--keep-leases", is_flag=True, help="What it has runs on while it wins.")
@buyers
def bid_cancel(client: "Client", bid: str, keep_leases: bool) -> Found:
    """Cancel a bid, and release what it has."""
    return BID_COLUMNS, [client.cancel_bid(bid, release=not keep_leases)]


@click.group()
def lease() -> None:
    """The GPUs you have, and had."""


@lease.command("ls")
@click.option("--state")
@buyers
def lease_ls(client: "Client", state: str | None) -> Found:
    """List your leases, newest first."""
    return LEASE_COLUMNS, client.leases(state=state)


@lease.command("release")
@click.argument("lease")
@buyers
def lease_release(client: "Client", lease: str) -> Found:
    """Give a lease back: it, and its bill, end now."""
    return LEASE_COLUMNS, [client.release_lease(lease)]


@click.group()
def target() -> None:
    """Have the market bid for you: hold GPUs, buy work by a time, spend a budget evenly."""


@target.command("hold")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True)
@click.option("--max-spend", type=Dollars)
@buyers
def target_hold(client: "Client", market: str, gpus: int, limit: str, max_spend: str | None) -> Found:
    """Hold so many GPUs of MARKET at no more than the limit."""
    held = client.hold(market, gpus=gpus, limit_price_per_gpu_hour=limit, max_spend=max_spend)
    return TARGET_COLUMNS, [held]


@target.command("deadline")
@click.argument("market")
@click.option("--gpu-hours", type=click.IntRange(min=1), required=True)
@click.option("--by", "ends_at", type=click.DateTime(["%Y-%m-%dT%H:%M%z"]), required=True)
@click.option("--max-spend", type=Dollars, required=True)
@buyers
def target_deadline(client: "Client", market: str, gpu_hours: int, ends_at: Any, max_spend: str) -> Found:
    """Buy so much work on MARKET by a time (2026-11-24T06:00Z), for at most so many dollars."""
    bought = client.deadline(market, gpu_seconds=gpu_hours * 3_600, ends_at=ends_at, max_spend=max_spend)
    return TARGET_COLUMNS, [bought]


@target.command("pace")
@click.argument("market")
@click.option("--spend-per-day", type=Dollars, required=True)
@click.option("--limit", type=Dollars, required=True)
@buyers
def target_pace(client: "Client", market: str, spend_per_day: str, limit: str) -> Found:
    """Spend so many dollars a UTC day on MARKET, evenly."""
    return TARGET_COLUMNS, [client.pace(market, spend_per_day=spend_per_day, limit_price_per_gpu_hour=limit)]


@target.command("ls")
@buyers
def target_ls(client: "Client") -> Found:
    """List your targets, newest first."""
    return TARGET_COLUMNS, client.targets()


@target.command("cancel")
@click.argument("target")
@buyers
def target_cancel(client: "Client", target: str) -> Found:
    """Cancel a target and its bid."""
    return TARGET_COLUMNS, [client.cancel_target(target)]


@click.group()
def bill() -> None:
    """Your money."""


@bill.command("balance")
@buyers
def bill_balance(client: "Client") -> Found:
    """Show what is available, held, and earned."""
    return ("available", "held", "owed", "earning", "payable", "currency"), [client.balance()]


def show(found: list[Any], columns: tuple[str, ...], output: str) -> None:
    """Print rows: the columns as a table or CSV, or everything as JSON, one object a line."""
    import msgspec

    if output == "json":
        for row in found:
            click.echo(msgspec.json.encode(row))
        return
    cells = [[_cell(getattr(row, name)) for name in columns] for row in found]
    if output == "csv":
        csv.writer(sys.stdout).writerows([columns, *cells])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    for line in cells:
        table.add_row(*line)
    width = None if sys.stdout.isatty() else 250  # a pipe has no width: nothing is cut
    Console(width=width, markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if hasattr(value, "__struct_fields__"):
        given = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return " ".join(f"{name}={part}" for name, part in given if part is not None)
    return value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else str(value)


def fail(error: Exception, code: int) -> None:
    """Print what went wrong, with what would be accepted, and exit."""
    click.echo(f"fallow: {error}", err=True)
    accepted = getattr(getattr(error, "problem", None), "accepted", None)
    if accepted:
        click.echo("accepted: " + ", ".join(f"{name} {value}" for name, value in accepted.items()), err=True)
    sys.exit(code)
