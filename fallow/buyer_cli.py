"""The buyer's commands: quotes, bids, targets. Noun, then verb; over `fallow.Client`."""

from typing import TYPE_CHECKING, Any

import click

from fallow.command import Dollars, Found, Moment, final, remote

if TYPE_CHECKING:
    from fallow.client import Client

BID_COLUMNS = (
    "id", "market", "status", "gpus", "filled_gpus", "limit_price_per_gpu_hour", "current_price", "spent",
)  # fmt: skip
TARGET_COLUMNS = ("id", "kind", "market", "state", "reason", "running_gpus", "spent", "max_spend", "ends_at")


@click.command()
@click.argument("market")
@click.option("--gpus", type=int, default=1, show_default=True)
@remote
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
@click.option(
    "--or",
    "others",
    multiple=True,
    metavar="MARKET=LIMIT",
    help="Another market that would do as well, and its limit; up to 7. The bid gets one of them.",
)
@click.option("--colocate", type=click.Choice(["none", "node", "fabric"]))
@click.option("--max-spend", type=Dollars, help="Dollars in all; kept to the microdollar.")
@click.option("--on-preempt", type=click.Choice(["requeue", "cancel"]))
@click.option("--confirm-limit", is_flag=True, help="Yes, that far above the market's price.")
@remote
def bid_place(
    client: "Client", market: str, gpus: int, limit: str, others: tuple[str, ...], **terms: Any
) -> Found:
    """Place a bid on MARKET; it is durable when this returns."""
    terms["confirm_limit"] = terms["confirm_limit"] or None
    if others:
        named = {market: limit, **dict(_market_and_limit(other) for other in others)}
        return BID_COLUMNS, [client.place_bid(gpus=gpus, alternatives=named, **terms)]
    return BID_COLUMNS, [client.place_bid(market, gpus=gpus, limit_price_per_gpu_hour=limit, **terms)]


def _market_and_limit(text: str) -> tuple[str, str]:
    market, is_given, limit = text.partition("=")
    if not is_given or not market or not limit:
        raise click.BadParameter(f"expected MARKET=LIMIT, got {text!r}", param_hint="--or")
    return market, limit


@bid.command("preview")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True)
@remote
def bid_preview(client: "Client", market: str, gpus: int, limit: str) -> Found:
    """Say what a bid would get and tie up; nothing is placed."""
    columns = ("fill_gpus", "price", "hold", "worst_cost_per_hour", "effective_tick", "cutoff_at")
    return columns, [client.preview_bid(market, gpus=gpus, limit_price_per_gpu_hour=limit)]


@bid.command("ls")
@click.option("--market")
@click.option("--status")
@remote
def bid_ls(client: "Client", market: str | None, status: str | None) -> Found:
    """List your bids, newest first."""
    return BID_COLUMNS, client.bids(market=market, status=status)


@bid.command("show")
@click.argument("bid")
@remote
def bid_show(client: "Client", bid: str) -> Found:
    """Show one bid; of one that lost, why, and what would win now."""
    return (*BID_COLUMNS, "reason", "leases"), [client.bid(bid)]


@bid.command("amend")
@click.argument("bid")
@click.option("--limit", type=Dollars)
@click.option("--market", help="Where the limit changes, of a bid with several markets.")
@click.option("--gpus", type=int)
@click.option("--paused/--resumed", default=None)
@remote
def bid_amend(client: "Client", bid: str, limit: str | None, **terms: Any) -> Found:
    """Change a bid while it runs."""
    return BID_COLUMNS, [client.amend_bid(bid, limit_price_per_gpu_hour=limit, **terms)]


@bid.command("cancel")
@click.argument("bid")
@click.option("--keep-leases", is_flag=True, help="What it has runs on while it wins.")
@final("Cancel {bid}?")
@remote
def bid_cancel(client: "Client", bid: str, keep_leases: bool) -> Found:
    """Cancel a bid, and release what it has."""
    return BID_COLUMNS, [client.cancel_bid(bid, release=not keep_leases)]


@click.group()
def target() -> None:
    """Have the market bid for you: hold GPUs, buy work by a time, spend a budget evenly."""


@target.command("hold")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True)
@click.option("--max-spend", type=Dollars)
@remote
def target_hold(client: "Client", market: str, gpus: int, limit: str, max_spend: str | None) -> Found:
    """Hold so many GPUs of MARKET at no more than the limit."""
    held = client.hold(market, gpus=gpus, limit_price_per_gpu_hour=limit, max_spend=max_spend)
    return TARGET_COLUMNS, [held]


@target.command("deadline")
@click.argument("market")
@click.option("--gpu-hours", type=click.IntRange(min=1), required=True)
@click.option("--by", "ends_at", type=Moment, required=True)
@click.option("--max-spend", type=Dollars, required=True)
@remote
def target_deadline(client: "Client", market: str, gpu_hours: int, ends_at: Any, max_spend: str) -> Found:
    """Buy so much work on MARKET by a time (2026-11-24T06:00Z), for at most so many dollars."""
    bought = client.deadline(market, gpu_seconds=gpu_hours * 3_600, ends_at=ends_at, max_spend=max_spend)
    return TARGET_COLUMNS, [bought]


@target.command("pace")
@click.argument("market")
@click.option("--spend-per-day", type=Dollars, required=True)
@click.option("--limit", type=Dollars, required=True)
@remote
def target_pace(client: "Client", market: str, spend_per_day: str, limit: str) -> Found:
    """Spend so many dollars a UTC day on MARKET, evenly."""
    return TARGET_COLUMNS, [client.pace(market, spend_per_day=spend_per_day, limit_price_per_gpu_hour=limit)]


@target.command("ls")
@remote
def target_ls(client: "Client") -> Found:
    """List your targets, newest first."""
    return TARGET_COLUMNS, client.targets()


@target.command("cancel")
@click.argument("target")
@final("Cancel {target}, and the bids it looks after?")
@remote
def target_cancel(client: "Client", target: str) -> Found:
    """Cancel a target and its bid."""
    return TARGET_COLUMNS, [client.cancel_target(target)]
