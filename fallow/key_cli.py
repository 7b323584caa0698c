"""`fallow key`: keys with less than all rights, new secrets, the end of a key."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from fallow.command import Dollars, Found, Moment, remote

if TYPE_CHECKING:
    from fallow.client import Client

KEY_COLUMNS = ("id", "name", "scopes", "created_at", "expires_at", "revoked_at", "allowed_networks")


@click.group()
def key() -> None:
    """Keys to your account."""


@key.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="Like bids:read; may be repeated.")
@click.option("--expires", "expires_at", type=Moment, help="Like 2026-12-31T00:00Z. [default: never]")
@click.option("--network", "networks", multiple=True, help="May only be used from there; may be repeated.")
@click.option("--max-price", type=Dollars, help="No bid above so many dollars per GPU-hour.")
@click.option("--max-open-notional", type=Dollars, help="Open bids may cost so many dollars an hour.")
@click.option("--spend-cap-per-day", type=Dollars, help="So many dollars a UTC day.")
@remote
def key_create(
    client: "Client",
    name: str,
    scopes: tuple[str, ...],
    expires_at: datetime | None,
    networks: tuple[str, ...],
    max_price: str | None,
    max_open_notional: str | None,
    spend_cap_per_day: str | None,
) -> Found:
    """Make a key with some of this key's scopes; its secret is printed this once."""
    made = client.create_key(
        name,
        scopes,
        expires_at=expires_at,
        allowed_networks=networks or None,
        max_price_per_gpu_hour=max_price,
        max_open_notional_per_hour=max_open_notional,
        spend_cap_per_day=spend_cap_per_day,
    )
    return ("id", "name", "scopes", "expires_at", "secret"), [made]


@key.command("ls")
@remote
def key_ls(client: "Client") -> Found:
    """List your keys, newest first; never their secrets."""
    return KEY_COLUMNS, client.keys()


@key.command("rotate")
@click.argument("key_id", metavar="KEY")
@click.option(
    "--overlap-seconds",
    type=click.IntRange(0, 604_800),
    default=3_600,
    show_default=True,
    help="So long the old secret stays good.",
)
@remote
def key_rotate(client: "Client", key_id: str, overlap_seconds: int) -> Found:
    """Give a key a new secret, printed this once."""
    rotated = client.rotate_key(key_id, overlap_seconds=overlap_seconds)
    return ("id", "name", "previous_valid_until", "secret"), [rotated]


@key.command("revoke")
@click.argument("key_id", metavar="KEY")
@remote
def key_revoke(client: "Client", key_id: str) -> Found:
    """Revoke a key: it stops working now."""
    return KEY_COLUMNS, [client.revoke_key(key_id)]
