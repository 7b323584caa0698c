"""`fallow doctor`: whether this machine and its database are fit for a market, and what to do if not."""

import sys
from pathlib import Path

import click

from fallow.local import EXIT_CHECK_FAILED, DataDir, database_url, directory_of, run_work


@click.command()
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def doctor(data_dir: Path | None, output: str) -> None:
    """Look at this machine and its database, beside a running market or alone; change nothing.

    Exit code 0 when nothing fails (warnings are advice), 1 with what fails and what to do.
    """
    import msgspec

    from fallow.doctor import Check, Health, examine

    def show(check: Check) -> None:
        if output == "json":
            click.echo(msgspec.json.encode(check))
            return
        click.echo(f"{check.health:<5} {check.name:<20} {check.found}")
        if check.health is not Health.OK and check.advice:
            click.echo(f"{'':<5} {'':<20} to do: {check.advice}")

    async def look() -> bool:
        is_fit = True
        async for check in examine(database_url(), directory_of(data_dir)):
            show(check)
            is_fit = is_fit and check.health is not Health.FAIL
        return is_fit

    if not run_work(look()):
        sys.exit(EXIT_CHECK_FAILED)
