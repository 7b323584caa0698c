"""`fallow market`: what is for sale, at what price, how deep, and how it came to that."""

import csv
import sys
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fallow.command import Found, cells_of, connected, remote, show, show_json, table_of

if TYPE_CHECKING:
    from fallow.client import Client
    from fallow.client.model import Curve, Tick

MARKETS_WATCHED_MAX = 64
BAR_CHARACTERS = 28

MARKET_COLUMNS = ("id", "gpu_model", "region", "price", "tick", "tick_seconds", "notice_seconds", "status")
TICK_COLUMNS = (
    "market", "tick", "cleared_at", "price", "entry_price", "cleared_gpus", "offered_gpus", "demanded_gpus",
    "started_gpus", "preempted_gpus", "status",
)  # fmt: skip
# A terminal of 80 columns shows these whole.
WATCHED = {
    "market": "market", "tick": "tick", "price": "price", "cleared_gpus": "leased", "offered_gpus": "offered",
    "demanded_gpus": "wanted", "preempted_gpus": "preempted", "status": "status",
}  # fmt: skip
CANDLE_COLUMNS = (
    "start_at", "open", "high", "low", "close", "ticks", "cleared_gpus", "offered_gpus", "preempted_gpus",
)  # fmt: skip


class Level(NamedTuple):
    """A price of the book, and how many GPUs are wanted or offered at it or better."""

    side: str
    price: Decimal
    cumulative_gpus: int


@click.group()
def market() -> None:
    """What is for sale, and at what price."""


@market.command("ls")
@remote
def market_ls(client: "Client") -> Found:
    """List the markets."""
    return MARKET_COLUMNS, client.markets()


@market.command("history")
@click.argument("market")
@click.option("--interval", type=click.Choice(["1m", "5m", "1h", "1d"]), default="1h", show_default=True)
@click.option("--count", type=click.IntRange(1, 1_000), default=24, show_default=True)
@remote
def market_history(client: "Client", market: str, interval: str, count: int) -> Found:
    """Show MARKET's prices by interval, newest first; GPUs are means over its ticks."""
    return CANDLE_COLUMNS, islice(client.candles(market, interval=interval), count)


@market.command("depth")
@click.argument("market")
@connected
def market_depth(client: "Client", output: str, market: str) -> None:
    """Draw how many GPUs are wanted and offered on MARKET at each price."""
    curve = client.curve(market)
    if output == "json":
        show_json(curve)
    elif output == "csv":
        show(levels_of(curve), Level._fields, output)
    else:
        click.echo("\n".join(draw(curve)))


def levels_of(curve: "Curve") -> list[Level]:
    """Return both sides of a curve, each best first."""
    wanted = [Level("demand", price, gpus) for price, gpus in curve.demand]
    return wanted + [Level("supply", price, gpus) for price, gpus in curve.supply]


def draw(curve: "Curve") -> list[str]:
    """Return a curve as lines of text, dearest price first."""
    levels = levels_of(curve)
    if not levels:
        return [f"{curve.market}, tick {curve.tick}: no bids and no offers"]
    most = max(level.cumulative_gpus for level in levels)
    digits = len(f"{most:,}")
    lines = [f"{curve.market}, tick {curve.tick}: GPUs wanted at the price or more | offered at it or less"]
    for price in sorted({level.price for level in levels}, reverse=True):
        wanted = max((gpus for at, gpus in curve.demand if at >= price), default=0)
        offered = max((gpus for at, gpus in curve.supply if at <= price), default=0)
        left, right = _bar(wanted, most), _bar(offered, most)
        lines.append(
            f"{price:>12f} {wanted:>{digits},} {left:>{BAR_CHARACTERS}}|{right:<{BAR_CHARACTERS}}"
            f" {offered:>{digits},}"
        )
    return lines


def _bar(gpus: int, most: int) -> str:
    return "#" * -(-gpus * BAR_CHARACTERS // most)  # rounded up: a single GPU is seen


@market.command("watch")
@click.argument("markets", nargs=-1)
@click.option("--ticks", type=click.IntRange(1, 1_000_000), help="Stop after so many. [default: never]")
@connected
def market_watch(client: "Client", output: str, markets: tuple[str, ...], ticks: int | None) -> None:
    """Watch MARKETS clear, all by default: a live table, or a line a tick; Ctrl-C ends it."""
    watched = list(markets) or [one.id for one in client.markets()]
    if len(watched) > MARKETS_WATCHED_MAX:
        raise ValueError(f"expected at most {MARKETS_WATCHED_MAX} markets; name those to watch")
    for name in markets:
        client.market(name)  # a name that is not there would never tick
    found = islice(client.stream(markets=watched), ticks)
    try:
        if output == "table" and sys.stdout.isatty():
            _watch_table(found, watched)
            return
        writer = csv.writer(sys.stdout)
        if output != "json":
            writer.writerow(TICK_COLUMNS)
        for tick in found:
            if output == "json":
                show_json(tick)
            else:
                writer.writerow(cells_of(tick, TICK_COLUMNS))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return  # this is how it ends


def _watch_table(found: Any, watched: list[str]) -> None:
    from rich.live import Live

    newest: dict[str, Tick] = {}
    with Live(auto_refresh=False) as live:
        for tick in found:
            newest[tick.market] = tick
            rows = [cells_of(newest[name], tuple(WATCHED)) for name in watched if name in newest]
            live.update(table_of(tuple(WATCHED.values()), rows), refresh=True)
