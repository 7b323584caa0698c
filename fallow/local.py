"""What the commands on this machine's own database share: where it is, how they run, their exit codes."""

import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 5

DataDir = click.Path(file_okay=False, path_type=Path)


def default_data_dir() -> Path:
    """Return where a demo lives unless it is told otherwise."""
    if os.environ.get("XDG_DATA_HOME"):
        return Path(os.environ["XDG_DATA_HOME"]) / "fallow" / "demo"
    if os.geteuid() == 0:
        return Path("/var/lib/fallow/demo")  # a closed home would keep the database's user out
    return Path.home() / ".local" / "share" / "fallow" / "demo"


def database_url() -> str | None:
    """Return DATABASE_URL, None where it says nothing."""
    return os.environ.get("DATABASE_URL") or None


def directory_of(data_dir: Path | None) -> Path:
    """Return the data directory to use."""
    return (data_dir or default_data_dir()).absolute()


def run_work(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop; turn what a user can act on into one line and an exit code."""
    import asyncio
    import logging

    import asyncpg
    import uvloop

    from auction.errors import Fenced, Unavailable
    from sql.backup import BackupError
    from sql.embedded import DataDirectoryBusy, EmbeddedPostgresError
    from sql.migrate import MigrationError, UnsafeServerError

    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except DataDirectoryBusy as busy:
        click.echo(f"fallow: {busy}", err=True)
        sys.exit(EXIT_USAGE)
    except (BackupError, Fenced, MigrationError, UnsafeServerError) as refusal:
        click.echo(f"fallow: {refusal}", err=True)
        sys.exit(EXIT_CHECK_FAILED)
    except (
        EmbeddedPostgresError, Unavailable, OSError,
        asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError,
    ) as outage:  # fmt: skip
        click.echo(f"fallow: {outage}", err=True)
        sys.exit(EXIT_UNAVAILABLE)
