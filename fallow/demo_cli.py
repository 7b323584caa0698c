"""`fallow demo`: a market to try out, its sign-in links, and rivals who outbid you in it on demand."""

import json
import os
import sys
from pathlib import Path

import click

from fallow.command import EXIT_REFUSED
from fallow.local import EXIT_CHECK_FAILED, EXIT_USAGE, DataDir, directory_of, run_work

ROLES = ("buyer", "owner", "operator")


@click.group(invoke_without_command=True)
@click.option(
    "--port", default=8080, show_default=True, help="Where the API listens; the next free one if taken."
)
@click.option("--data-dir", type=DataDir, default=None, help="Where the database and the keys live.")
@click.option("--tick-seconds", type=click.IntRange(1, 3600), default=2, show_default=True)
@click.option("--notice-seconds", type=click.IntRange(0, 1800), default=10, show_default=True)
@click.option("--no-bots", is_flag=True, help="Empty markets: nobody bids but you.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
@click.option("--reset", is_flag=True, help="Forget what this data directory holds and begin anew.")
@click.option("--json", "as_json", is_flag=True, help="First line of standard output: one JSON object.")
@click.pass_context
def demo(
    context: click.Context,
    port: int,
    data_dir: Path | None,
    tick_seconds: int,
    notice_seconds: int,
    no_bots: bool,
    seed: int,
    reset: bool,
    as_json: bool,
) -> None:
    """Run a whole market on this machine.

    
    fallow demo            start it, or go on where it was
    fallow demo link       another one-time sign-in link for its page
    fallow demo squeeze    rivals outbid you in it, for you to watch and to answer

    Starts an embedded PostgreSQL, markets and owners out of real offers, a day of history, live bots and
    the API; prints a sign-in link, keys and curl lines that work. Started again, it goes on where it was.
    """
    if context.invoked_subcommand is not None:
        return
    from fallow.demo import Options, run_demo

    directory = directory_of(data_dir)
    if reset:
        _forget(directory)
    options = Options(
        port=port,
        data_dir=directory,
        tick_seconds=tick_seconds,
        notice_seconds=notice_seconds,
        with_bots=not no_bots,
        seed=seed,
        as_json=as_json,
    )
    run_work(run_demo(options))


def _directory(context: click.Context, data_dir: Path | None) -> Path:
    """Return the directory that a sub-command means: its own option, else the one before its name."""
    assert context.parent is not None
    return directory_of(data_dir or context.parent.params["data_dir"])


@demo.command("link")
@click.option("--data-dir", type=DataDir, default=None, help="Of the running demo.")
@click.option("--role", type=click.Choice(ROLES), default="buyer", show_default=True, help="Whom to sign in.")
@click.pass_context
def demo_link(context: click.Context, data_dir: Path | None, role: str) -> None:
    """Print a link that signs one browser in to the running demo, once, within 10 minutes."""
    from fallow.visits import NoDemo, Refused, open_link

    try:
        click.echo(run_work(open_link(_directory(context, data_dir), role)))
    except (NoDemo, Refused) as reason:
        click.echo(f"fallow: {reason}", err=True)
        sys.exit(EXIT_REFUSED if isinstance(reason, Refused) else EXIT_CHECK_FAILED)


@demo.command("squeeze")
@click.option("--data-dir", type=DataDir, default=None, help="Of the running demo.")
@click.option("--market", help="[default: where your newest lease runs]")
@click.option(
    "--seconds", type=click.IntRange(5, 3600), default=60, show_default=True, help="Then they give up."
)
@click.option("--json", "as_json", is_flag=True, help="What happened as one JSON object.")
@click.pass_context
def demo_squeeze(
    context: click.Context, data_dir: Path | None, market: str | None, seconds: int, as_json: bool
) -> None:
    """Have rivals bid above you in the running demo, until your lease gets its preemption notice.

    Answer it in the browser (the page counts down) or with the command it prints. The rivals' bids end by
    themselves.
    """
    from fallow.squeeze import NothingRuns, squeeze
    from fallow.visits import NoDemo, Refused

    try:
        told = run_work(squeeze(_directory(context, data_dir), market, seconds))
    except (NoDemo, NothingRuns, Refused) as reason:
        click.echo(f"fallow: {reason}", err=True)
        sys.exit(EXIT_REFUSED if isinstance(reason, Refused) else EXIT_CHECK_FAILED)
    click.echo(json.dumps(told.facts()) if as_json else told.words())


def _forget(directory: Path) -> None:
    """Delete a demo's data, and only what is recognisably that."""
    import shutil

    if not directory.exists():
        return
    if not (directory / "demo-keys.json").exists() and any(directory.iterdir()):
        raise click.UsageError(f"{directory} holds no demo's data; not deleting it")
    from sql.data_dir import lock
    from sql.embedded import DataDirectoryBusy

    try:
        held = lock(directory)
    except DataDirectoryBusy as busy:
        click.echo(f"fallow: {busy}", err=True)
        sys.exit(EXIT_USAGE)
    shutil.rmtree(directory)
    os.close(held)
