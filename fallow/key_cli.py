"""`fallow key`: keys with less than all rights, new secrets, the end of a key."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fallow.command import Dollars, Found, Moment, final, remote

if TYPE_CHECKING:
    from fallow.client import Client
    from fallow.client.owner_model import Key

KEY_COLUMNS = ("id", "name", "scopes", "created_at", "expires_at", "revoked_at", "allowed_networks")
NewFile = click.Path(dir_okay=False, path_type=Path)
PAIR_HELP = "Sign instead of sending a secret: the new pair's private half goes into this new file only."


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
@click.option("--ed25519", "file", type=NewFile, help=PAIR_HELP)
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
    file: Path | None,
) -> Found:
    """Make a key with some of this key's scopes; its secret is printed this once."""
    register = partial(
        client.create_key,
        name,
        scopes,
        expires_at=expires_at,
        allowed_networks=networks or None,
        max_price_per_gpu_hour=max_price,
        max_open_notional_per_hour=max_open_notional,
        spend_cap_per_day=spend_cap_per_day,
    )
    made = register() if file is None else _with_pair(file, register)
    return ("id", "name", "scopes", "expires_at", "secret" if file is None else "public_key"), [made]


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
@click.option("--ed25519", "file", type=NewFile, help=PAIR_HELP)
@remote
def key_rotate(client: "Client", key_id: str, overlap_seconds: int, file: Path | None) -> Found:
    """Give a key a new secret, printed this once; or a pair that takes the place of one before."""
    register = partial(client.rotate_key, key_id, overlap_seconds=overlap_seconds)
    rotated = register() if file is None else _with_pair(file, register)
    return ("id", "name", "previous_valid_until", "secret" if file is None else "public_key"), [rotated]


@key.command("revoke")
@click.argument("key_id", metavar="KEY")
@final("Revoke {key_id}? Whatever uses it is refused from now on.")
@remote
def key_revoke(client: "Client", key_id: str) -> Found:
    """Revoke a key: it stops working now."""
    return KEY_COLUMNS, [client.revoke_key(key_id)]


def _with_pair(path: Path, register: Callable[..., "Key"]) -> "Key":
    """Make a key pair in a new file and have its public half registered."""
    from fallow.client.signing import NewKeyFile

    file = NewKeyFile(path)
    try:
        made = register(public_key=file.public_key)
    except BaseException:
        file.drop()
        raise
    file.name(made.public_id)
    return made
