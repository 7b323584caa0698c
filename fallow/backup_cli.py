"""`fallow backup` and `fallow restore`: the whole market as one file, and back; also as a rehearsal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fallow.local import DataDir, database_url, directory_of, run_work

if TYPE_CHECKING:
    from sql.backup import Report

BackupFile = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=BackupFile)
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
def backup(file: Path, data_dir: Path | None) -> None:
    """Write the database into FILE, as it is at this moment; the market runs on.

    FILE appears when it is whole and on disk, readable by you alone: it holds balances and the webhooks'
    secrets. Nothing is overwritten. Exit codes: 0 ok, 1 failed, 5 no database.
    """
    from fallow.operate import backup as work

    with _steps() as report:
        byte_count = run_work(work(database_url(), directory_of(data_dir), file, report))
    click.echo(f"{file}: {byte_count:,} bytes; `fallow restore --verify {file}` proves it")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
@click.option(
    "--verify", is_flag=True, help="Into a scratch database of the same server, audited there, then dropped."
)
def restore(file: Path, data_dir: Path | None, verify: bool) -> None:
    """Read FILE into a database that is empty, in one transaction; or rehearse it with --verify.

    A backup runs as a program in the database: restore only what you have written yourself. Exit codes: 0 ok,
    1 refused or a check failed, 2 another process has the data directory, 5 no database.
    """
    from fallow.operate import restore as into_place
    from fallow.operate import verify as into_scratch

    if not verify:
        with _steps() as report:
            pending = run_work(into_place(database_url(), directory_of(data_dir), file, report))
        click.echo(f"restored {file}" + ("; run `fallow migrate` before `fallow serve`" if pending else ""))
        return
    from sql.audit import exit_code, render

    with _steps() as report:
        findings = run_work(into_scratch(database_url(), directory_of(data_dir), file, report))
    click.echo(render(findings))
    sys.exit(exit_code(findings))


@contextmanager
def _steps() -> "Iterator[Report]":
    """Show on a terminal what is being done now."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("connecting") as status:
        yield lambda step: status.update(escape(step))
