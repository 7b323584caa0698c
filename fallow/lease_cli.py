"""`fallow lease`: the GPUs you have, and had; watching one says by its exit code how it ended."""

import csv
import sys
from typing import TYPE_CHECKING

import click

from fallow.command import EXIT_PREEMPTED, Found, cells_of, connected, final, remote, show_json

if TYPE_CHECKING:
    from fallow.client import Client

NOTICE_WAIT_SECONDS = 2  # what comes without a notice is seen this late
# Not preempted: given back, or its own bid's terms.
ENDED_AS_AGREED = frozenset({"released", "expired", "max_spend"})
LEASE_COLUMNS = ("id", "market", "state", "gpus", "price", "cost", "started_at", "end_reason")


@click.group()
def lease() -> None:
    """The GPUs you have, and had."""


@lease.command("ls")
@click.option("--state")
@remote
def lease_ls(client: "Client", state: str | None) -> Found:
    """List your leases, newest first."""
    return LEASE_COLUMNS, client.leases(state=state)


@lease.command("release")
@click.argument("lease")
@final("Give {lease} back? What runs there ends now.")
@remote
def lease_release(client: "Client", lease: str) -> Found:
    """Give a lease back: it, and its bill, end now."""
    return LEASE_COLUMNS, [client.release_lease(lease)]


@lease.command("watch")
@click.argument("lease")
@connected
def lease_watch(client: "Client", output: str, lease: str) -> None:
    """Print a line whenever a lease changes, until it ends.

    Exit code 0 when it was released or its bid's terms were met, 6 when it was preempted.
    """
    shown, newest = "", next((notice.id for notice in client.notices()), None)
    writer = csv.writer(sys.stdout)
    if output == "csv":
        writer.writerow(LEASE_COLUMNS)
    while True:
        found = client.lease(lease)
        if (state := f"{found.state} {found.version}") != shown:
            shown = state
            if output == "json":
                show_json(found)
            elif output == "csv":
                writer.writerow(cells_of(found, LEASE_COLUMNS))
            else:
                click.echo("  ".join(cells_of(found, LEASE_COLUMNS)))
            sys.stdout.flush()
        if found.state == "ended":
            if found.end_reason not in ENDED_AS_AGREED:
                sys.exit(EXIT_PREEMPTED)
            return
        for notice in client.notices(after=newest, wait_seconds=NOTICE_WAIT_SECONDS):
            newest = notice.id
