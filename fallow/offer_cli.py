"""`fallow offer`: GPUs of a node at no less than a reserve."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from fallow.command import Dollars, Found, Moment, final, remote

if TYPE_CHECKING:
    from fallow.client import Client

OFFER_COLUMNS = (
    "id", "node", "market", "gpus", "reserve_price_per_gpu_hour", "gross_reserve_price_per_gpu_hour",
    "notice_seconds", "available_until", "status", "version",
)  # fmt: skip
STATUSES = ("listed", "partly_leased", "leased", "withdrawing", "withdrawn")

_version = click.option(
    "--version", type=click.IntRange(min=1), help="Only if it is still this version. [default: the newest]"
)


@click.group()
def offer() -> None:
    """Offer your GPUs: post, look, change, withdraw."""


@offer.command("post")
@click.argument("node")
@click.option("--gpus", type=int, required=True)
@click.option("--reserve", type=Dollars, required=True, help="Dollars per GPU-hour that must reach you.")
@click.option("--from", "available_from", type=Moment, help="Like 2026-11-24T06:00Z. [default: now]")
@click.option("--until", "available_until", type=Moment)
@click.option("--notice-seconds", type=int, help="What tenants are promised. [default: the market's]")
@remote
def offer_post(
    client: "Client",
    node: str,
    gpus: int,
    reserve: str,
    available_from: datetime | None,
    available_until: datetime | None,
    notice_seconds: int | None,
) -> Found:
    """Offer GPUs of NODE."""
    made = client.create_offer(
        node,
        gpus=gpus,
        reserve_price_per_gpu_hour=reserve,
        available_from=available_from,
        available_until=available_until,
        notice_seconds=notice_seconds,
    )
    return OFFER_COLUMNS, [made]


@offer.command("ls")
@click.option("--node")
@click.option("--status", type=click.Choice(STATUSES))
@remote
def offer_ls(client: "Client", node: str | None, status: str | None) -> Found:
    """List your offers, newest first."""
    return OFFER_COLUMNS, client.offers(node=node, status=status)


@offer.command("amend")
@click.argument("offer")
@click.option("--reserve", type=Dollars)
@click.option("--until", "available_until", type=Moment)
@_version
@remote
def offer_amend(
    client: "Client", offer: str, reserve: str | None, available_until: datetime | None, version: int | None
) -> Found:
    """Change an offer's reserve or end."""
    amended = client.amend_offer(
        offer, reserve_price_per_gpu_hour=reserve, available_until=available_until, version=version
    )
    return OFFER_COLUMNS, [amended]


@offer.command("withdraw")
@click.argument("offer")
@_version
@final("Withdraw {offer}? Its leases get their notice.")
@remote
def offer_withdraw(client: "Client", offer: str, version: int | None) -> Found:
    """Withdraw an offer: leases on it get the notice it promised."""
    return OFFER_COLUMNS, [client.withdraw_offer(offer, version=version)]
