"""`fallow login`: keep a server and a key for the commands to come. The key is never an argument."""

import sys

import click

from fallow.command import EXIT_AUTH, EXIT_UNAVAILABLE, fail

KEY_CHARACTERS_MAX = 256


@click.command()
@click.option("--server", default="http://127.0.0.1:8080", show_default=True, envvar="FALLOW_URL")
@click.option("--profile", default="default", show_default=True, help="The name to store it under.")
def login(server: str, profile: str) -> None:
    """Store a server and a key, in a file that only you can read.

    Asks for the key, or reads it from standard input where that is no terminal; stores it once the server
    has taken it.
    """
    from fallow.client import AuthError, Client, ProblemError, UnavailableError
    from fallow.profiles import Profile, save_profile

    if not server.startswith(("https://", "http://")):
        raise click.UsageError(f"--server {server}: expected https:// or http://")
    if sys.stdin.isatty():
        key = str(click.prompt("Key", hide_input=True, err=True)).strip()
    else:
        key = sys.stdin.readline(KEY_CHARACTERS_MAX + 1).strip()
    if not key.isascii() or not key.isprintable() or not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise click.UsageError(f"the key: expected 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    try:
        with Client(server, key=key) as client:
            client.balance()
    except AuthError as error:
        # A key that may not see the money is a key all the same.
        if error.code != "scope_missing":
            fail(error, EXIT_AUTH)
    except (ProblemError, UnavailableError) as error:
        fail(error, EXIT_UNAVAILABLE)
    try:
        path = save_profile(profile, Profile(server.rstrip("/"), key))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"stored as {profile} in {path}")
