"""The `fallow` command. Noun then verb; every command says what it does and what its exit code means.

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 refused, 4 auth, 5 unavailable, 6 preempted.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from fallow.local import EXIT_CHECK_FAILED, DataDir
from fallow.local import database_url as _url
from fallow.local import directory_of as _directory
from fallow.local import run_work as _run

if TYPE_CHECKING:
    from api.config import Reach

PemFile = click.Path(exists=True, dir_okay=False, path_type=Path)


class LazyGroup(click.Group):
    """Commands of other modules are imported when they are asked for: a bid should not wait for numpy."""

    elsewhere: ClassVar[dict[str, str]] = {
        "agent": "fallow.agent_cli",
        "backup": "fallow.backup_cli",
        "bid": "fallow.buyer_cli",
        "bill": "fallow.bill_cli",
        "bot": "fallow.bot_cli",
        "commands": "fallow.tree_cli",
        "completion": "fallow.tree_cli",
        "demo": "fallow.demo_cli",
        "doctor": "fallow.doctor_cli",
        "key": "fallow.key_cli",
        "lease": "fallow.lease_cli",
        "login": "fallow.login_cli",
        "market": "fallow.market_cli",
        "node": "fallow.node_cli",
        "offer": "fallow.offer_cli",
        "quote": "fallow.buyer_cli",
        "reserve": "fallow.reserve",
        "restore": "fallow.backup_cli",
        "run": "fallow.run_cli",
        "target": "fallow.buyer_cli",
        "webhook": "fallow.webhook_cli",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self.elsewhere.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(module), cmd_name)
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fallow")
def main() -> None:
    """Fallow, the spot market for idle GPUs.

    \b
    fallow demo            a whole market on this machine, with bots and a day of history; demo squeeze
    fallow audit           check every invariant of the books beside a running market
    fallow doctor          is this machine fit for a market; then backup, restore --verify
    fallow login           keep a server and a key; or set FALLOW_URL and FALLOW_KEY
    fallow market ls       what is for sale; then quote, bid, lease, target, bill
    fallow run             a command on leased GPUs: bid, wait, run, stop on notice, start again
    fallow node enrol      lend: then offer, key, webhook
    fallow bot run         a bot: live, on paper, over a recording, simulated
    fallow agent run       lend this machine's GPUs: the agent of a node
    fallow reserve         which reserve to ask for an idle GPU, and what it has to earn
    fallow commands        every command there is
    """


@main.command()
@click.option("--port", default=8080, show_default=True)
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
@click.option(
    "--webhook-reach",
    type=click.Choice(["public", "loopback", "private"]),
    default="public",
    show_default=True,
    help="Where webhooks may be sent: public addresses only, or also to this machine or private networks.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--metrics-port", default=9464, show_default=True, help="For Prometheus; on loopback, always.")
@click.option(
    "--tls-certificate", type=PemFile, default=None, help="Serve TLS with this certificate chain (PEM)."
)
@click.option("--tls-key", type=PemFile, default=None, help="The certificate's key (PEM).")
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A proxy in front ends TLS and appends each client's address to X-Forwarded-For.",
)
@click.option(
    "--role",
    type=click.Choice(["all", "market", "worker"]),
    default="all",
    show_default=True,
    help="market: all but sending webhooks. worker: sends webhooks for a market on the same database.",
)
def serve(
    port: int,
    data_dir: Path | None,
    webhook_reach: "Reach",
    host: str,
    metrics_port: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    role: str,
) -> None:
    """Serve a market on DATABASE_URL, or on the embedded database of a directory.

    Refuses pending migrations: run `fallow migrate` first. `fallow init` makes the operator. Beyond loopback
    it serves with TLS only, or behind a proxy that has it.

    To keep sending webhooks apart, run one with `--role market` and others with `--role worker`: one of those
    sends, the rest stand by.
    """
    from api.config import Config
    from fallow.operate import send_webhooks
    from fallow.operate import serve as work

    try:
        config = Config(
            host=host,
            port=port,
            metrics_port=metrics_port,
            webhook_reach=webhook_reach,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            behind_proxy=behind_proxy,
            sends_webhooks=role != "market",
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    part = send_webhooks if role == "worker" else work
    _run(part(_url(), _directory(data_dir), config))


@main.command()
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
def migrate(data_dir: Path | None) -> None:
    """Bring the database's schema up to this version's."""
    from fallow.operate import migrate as work

    names = _run(work(_url(), _directory(data_dir)))
    click.echo("\n".join(f"applied {name}" for name in names) or "nothing to do")


@main.command()
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
def init(data_dir: Path | None) -> None:
    """Prepare a production database: migrations, and the operator's key, printed once."""
    from fallow.operate import init as work

    click.echo(_run(work(_url(), _directory(data_dir))))


@main.command()
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per check.")
def audit(data_dir: Path | None, as_json: bool) -> None:
    """Check every invariant of the books, the leases and the hash chain.

    Works beside a running server and alone. Exit code 0 when all hold, 1 with the first bad row named.
    """
    from fallow.operate import audit as work
    from sql.audit import exit_code, render

    findings = _run(work(_url(), _directory(data_dir)))
    if as_json:
        for finding in findings:
            click.echo(json.dumps({"name": finding.name, "claim": finding.claim, "checked": finding.checked,
                                   "bad": finding.bad, "first_bad": finding.first_bad}))  # fmt: skip
    else:
        click.echo(render(findings))
    sys.exit(exit_code(findings))


@main.command()
@click.option("--data-dir", type=DataDir, default=None, help="Embedded database, unless DATABASE_URL is set.")
@click.option("--from-snapshot", is_flag=True, help="Begin at the newest snapshot, not at the first command.")
def replay(data_dir: Path | None, from_snapshot: bool) -> None:
    """Replay the journal and compare its state hash with the stored state's.

    Exit code 0 when they are the same, 1 with the first difference.
    """
    from fallow.operate import replay as work

    report = _run(work(_url(), _directory(data_dir), from_snapshot))
    click.echo(f"entries {report.from_seq + 1} to {report.to_seq}")
    click.echo(f"stored    {report.stored_hash}")
    click.echo(f"replayed  {report.replayed_hash}")
    if not report.is_match:
        click.echo(f"DIFFERENT: {report.first_difference}")
        sys.exit(EXIT_CHECK_FAILED)
    click.echo("match")


if __name__ == "__main__":
    main(prog_name="fallow")
