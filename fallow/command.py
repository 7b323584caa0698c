"""What every command over the client shares: which server and key, the call shown, output, exit codes.

Exit codes: 0 ok, 2 usage, 3 refused, 4 auth, 5 unavailable, 6 preempted.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from fallow.client import Client

EXIT_REFUSED = 3
EXIT_AUTH = 4
EXIT_UNAVAILABLE = 5
EXIT_PREEMPTED = 6
ROWS_SHOWN_MAX = 1_000
PIPE_COLUMNS = 250  # a pipe has no width: nothing is cut

Found = tuple[tuple[str, ...], Iterable[Any]]
Dollars = click.STRING
Moment = click.DateTime(["%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%z"])


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what the client raises into a line on standard error and an exit code."""
    from fallow.client import AuthError, ProblemError, UnavailableError

    try:
        yield
    except AuthError as error:
        fail(error, EXIT_AUTH)
    except ProblemError as error:
        fail(error, EXIT_REFUSED)
    except UnavailableError as error:
        fail(error, EXIT_UNAVAILABLE)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def located(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the server and the key: as asked for, else the environment's, else the profile's."""

    @click.option("--server", help="[env: FALLOW_URL; else the profile's, else http://127.0.0.1:8080]")
    @click.option("--key", help="Your key. [env: FALLOW_KEY; else the profile's]")
    @click.option("--profile", help="What `fallow login` stored. [env: FALLOW_PROFILE]")
    @wraps(function)
    def command(server: str | None, key: str | None, profile: str | None, **options: Any) -> None:
        from fallow.profiles import resolve

        with exit_codes():
            server, key = resolve(server, key, profile)
            function(server=server, key=key, **options)

    return command


def connected(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command a client and the kind of output."""

    @located
    @click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table")
    @click.option("--explain", is_flag=True, help="Also print the HTTP call, as curl, on standard error.")
    @wraps(function)
    def command(server: str, key: str | None, output: str, explain: bool, **options: Any) -> None:
        from fallow.client import Client

        def trace(call: str) -> None:
            click.echo(call, err=True)

        with Client(server, key=key, trace=trace if explain else None) as client:
            function(client, output, **options)

    return command


def remote(function: Callable[..., Found]) -> Callable[..., None]:
    """Make a command of a function that returns columns and rows."""

    @wraps(function)
    def printed(client: "Client", output: str, **options: Any) -> None:
        columns, rows = function(client, **options)
        if isinstance(rows, list) and len(rows) == 1 and output == "table":
            show_one(rows[0], columns)
        else:
            show(list(islice(rows, ROWS_SHOWN_MAX)), columns, output)

    return connected(printed)


def final(question: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command that nothing takes back ask first, if somebody sits at a terminal; `--yes` does not.

    `question` may name the command's arguments in braces.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--yes", is_flag=True, help="Do not ask.")
        @wraps(command)
        def asked(yes: bool, **options: Any) -> None:
            if not yes and sys.stdin.isatty():
                click.confirm(question.format(**options), abort=True, err=True)
            command(**options)

        return asked

    return decorate


def show(found: list[Any], columns: tuple[str, ...], output: str) -> None:
    """Print rows: the columns as a table or CSV, or everything as JSON, one object a line."""
    if output == "json":
        for row in found:
            show_json(row)
        return
    cells = [cells_of(row, columns) for row in found]
    if output == "csv":
        csv.writer(sys.stdout).writerows([columns, *cells])
        return
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    Console(width=width, markup=False, highlight=False).print(table_of(columns, cells))


def show_one(row: Any, columns: tuple[str, ...]) -> None:
    """Print one object, a line for each column. Needs no rich: most commands answer with one object."""
    width = max(map(len, columns))
    for name, cell in zip(columns, cells_of(row, columns), strict=True):
        click.echo(f"{name:<{width}}  {cell}")


def show_json(row: Any) -> None:
    """Print one object on one line."""
    import msgspec

    click.echo(msgspec.json.encode(row))


def table_of(columns: tuple[str, ...], cells: Iterable[list[str]]) -> Any:
    """Return a rich table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    for line in cells:
        table.add_row(*line)
    return table


def cells_of(row: Any, columns: tuple[str, ...]) -> list[str]:
    """Return the columns of a row as text."""
    return [_cell(getattr(row, name)) for name in columns]


def fail(error: Exception, code: int) -> NoReturn:
    """Say what went wrong, and what would be accepted, on standard error; then exit."""
    click.echo(f"fallow: {error}", err=True)
    accepted = getattr(getattr(error, "problem", None), "accepted", None)
    if accepted:
        click.echo("accepted: " + ", ".join(f"{name} {value}" for name, value in accepted.items()), err=True)
    sys.exit(code)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if hasattr(value, "__struct_fields__"):
        given = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return " ".join(f"{name}={part}" for name, part in given if part is not None)
    text = value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else str(value)
    # A name may hold what a terminal would obey.
    return "".join(letter if letter.isprintable() else "?" for letter in text)
