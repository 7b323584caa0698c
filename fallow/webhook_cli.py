"""`fallow webhook`: see what the market sends, send a test, have what was missed sent again."""

import asyncio
import csv
import signal
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fallow.command import Found, Moment, cells_of, connected, remote, show, show_json

if TYPE_CHECKING:
    from fallow.client import Client
    from fallow.client.webhooks import WebhookMessage
    from fallow.webhook_receiver import Receiver

EXIT_CHECK_FAILED = 1
MESSAGES_MAX = 100_000
REPLAY_CALLS_MAX = 1_000
TEST_LOOKS_MAX = 40
TEST_PAUSE_SECONDS = 0.25

WEBHOOK_COLUMNS = ("id", "url", "state", "reason", "types", "consecutive_failures", "created_at")
DELIVERY_COLUMNS = (
    "id",
    "event",
    "type",
    "state",
    "attempts",
    "last_status",
    "last_error",
    "last_attempt_at",
)
MESSAGE_COLUMNS = ("at", "type", "seq", "market", "tick", "id")


@click.group()
def webhook() -> None:
    """Have events sent to you."""


@webhook.command("ls")
@remote
def webhook_ls(client: "Client") -> Found:
    """List your endpoints, newest first."""
    return WEBHOOK_COLUMNS, client.webhooks()


@webhook.command("listen")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="[default: a free one]")
@click.option("--type", "types", multiple=True, help="Like bid.filled; may be repeated. [default: all]")
@click.option("--secret", envvar="FALLOW_WEBHOOK_SECRET", help="Of an endpoint that you point here yourself.")
@click.option("--messages", type=click.IntRange(1, MESSAGES_MAX), default=MESSAGES_MAX, help="Then stop.")
@connected
def webhook_listen(
    client: "Client", output: str, port: int, types: tuple[str, ...], secret: str | None, messages: int
) -> None:
    """Receive on this machine, check each signature, print what is genuine; Ctrl-C ends it.

    Without --secret an endpoint is made for the time being, which takes a market that may send to loopback,
    such as a demo.
    """
    from fallow.client.webhooks import key_of_secret
    from fallow.webhook_receiver import Receiver

    if secret is not None:
        key_of_secret(secret)

    def refused(why: str) -> None:
        click.echo(f"refused: {why}", err=True)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    receiver = Receiver(refused)
    made = None
    with asyncio.Runner() as runner:
        try:
            try:
                runner.run(receiver.start(port))
            except OSError as error:
                raise ValueError(f"--port {port}: {error.strerror}") from None
            if secret is None:
                made = client.create_webhook(receiver.url, types=types, description="fallow webhook listen")
                assert made.secret is not None
                secret = made.secret
            receiver.secret = secret
            click.echo(f"listening at {receiver.url}", err=True)
            runner.run(_print(receiver, output, messages))
        except KeyboardInterrupt:
            pass  # this is how it ends
        finally:
            runner.run(receiver.stop())
            if made is not None:
                client.delete_webhook(made.id)


@webhook.command("test")
@click.argument("webhook")
@connected
def webhook_test(client: "Client", output: str, webhook: str) -> None:
    """Send a signed test message and say how that went; exit code 1 unless it was delivered."""
    delivery = client.test_webhook(webhook)
    for _ in range(TEST_LOOKS_MAX):
        delivery = next(one for one in client.webhook_deliveries(webhook) if one.id == delivery.id)
        if delivery.attempts:
            break
        time.sleep(TEST_PAUSE_SECONDS)
    show([delivery], DELIVERY_COLUMNS, output)
    if delivery.state != "delivered":
        sys.exit(EXIT_CHECK_FAILED)


@webhook.command("replay")
@click.argument("webhook")
@click.option("--since", type=Moment, required=True, help="Like 2026-11-24T06:00Z.")
@click.option("--until", type=Moment, help="[default: now]")
@click.option("--all", "include_delivered", is_flag=True, help="Also what was delivered.")
@remote
def webhook_replay(
    client: "Client", webhook: str, since: datetime, until: datetime | None, include_delivered: bool
) -> Found:
    """Have what failed, or was never told, sent again, oldest first."""
    from fallow.client.owner_model import Replay

    scheduled, cursor = 0, None
    for _ in range(REPLAY_CALLS_MAX):
        part = client.replay_webhook(
            webhook, since=since, until=until, include_delivered=include_delivered, cursor=cursor
        )
        scheduled, cursor = scheduled + part.scheduled, part.next_cursor
        if cursor is None:
            break
    return ("scheduled", "next_cursor"), [Replay(scheduled, cursor)]


async def _print(receiver: "Receiver", output: str, messages: int) -> None:
    writer = csv.writer(sys.stdout)
    if output == "csv":
        writer.writerow(MESSAGE_COLUMNS)
    for _ in range(messages):
        message: WebhookMessage = await receiver.next()
        if output == "json":
            show_json(message)
        elif output == "csv":
            writer.writerow(cells_of(message, MESSAGE_COLUMNS))
        else:
            click.echo("  ".join(cells_of(message, MESSAGE_COLUMNS)))
        sys.stdout.flush()
