"""`fallow node`: machines to lend, and taking them back."""

from typing import TYPE_CHECKING

import click

from fallow.command import Found, connected, remote, show, show_json

if TYPE_CHECKING:
    from fallow.client import Client
    from fallow.client.owner_model import Recall

NODE_COLUMNS = ("id", "name", "market", "gpus", "state", "health", "fenced_gpus", "simulated")
NOTICE_COLUMNS = ("lease", "reason", "reclaim_at", "notice_seconds")


@click.group()
def node() -> None:
    """Machines to lend."""


@node.command("enrol")
@click.argument("name")
@click.argument("market")
@click.option("--gpus", type=int, required=True)
@click.option("--fabric", help="Nodes with the same fabric are wired together.")
@click.option("--simulated", is_flag=True, default=None, help="The server plays it; on demo markets only.")
@remote
def node_enrol(
    client: "Client", name: str, market: str, gpus: int, fabric: str | None, simulated: bool | None
) -> Found:
    """Register a machine called NAME on MARKET; `fallow agent run --node ID` then serves it."""
    return NODE_COLUMNS, [
        client.create_node(name, market, gpus=gpus, fabric=fabric, simulated=simulated or None)
    ]


@node.command("ls")
@remote
def node_ls(client: "Client") -> Found:
    """List your nodes, newest first."""
    return NODE_COLUMNS, client.nodes()


@node.command("cordon")
@click.argument("node")
@click.option("--off", is_flag=True, help="Allow new leases again.")
@remote
def node_cordon(client: "Client", node: str, off: bool) -> Found:
    """Stop new leases on a node; what runs goes on."""
    return NODE_COLUMNS, [client.uncordon(node) if off else client.cordon(node)]


@node.command("recall")
@click.argument("node")
@click.option("--notice-seconds", type=click.IntRange(min=0), help="[default: what each offer promised]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def node_recall(client: "Client", output: str, node: str, notice_seconds: int | None, yes: bool) -> None:
    """Take a node back: its offers are withdrawn and its leases get their notice.

    Lists whom that hits and asks first; refused if the node was changed in between.
    """
    preview = client.preview_recall(node, notice_seconds=notice_seconds)
    if not yes:
        click.echo(_warning(preview, notice_seconds), err=True)
        click.confirm("Recall it?", abort=True, err=True)
    recalled = client.recall(node, notice_seconds=notice_seconds, version=preview.node.version)
    if output == "json":
        show_json(recalled)
    else:
        show(recalled.notices, NOTICE_COLUMNS, output)


def _warning(preview: "Recall", notice_seconds: int | None) -> str:
    gpus = sum(lease.gpus for lease in preview.leases)
    notice = (
        "the notice that its offer promised" if notice_seconds is None else f"{notice_seconds} s of notice"
    )
    name = f"{preview.node.id} ({preview.node.name})"
    lines = [f"{name}: {len(preview.leases)} leases on {gpus} GPUs would end"]
    if preview.leases:
        lines[0] += f", each after {notice}:"
    for lease in preview.leases:
        price = "-" if lease.price is None else f"{lease.price} a GPU-hour"
        lines.append(f"  {lease.id}  {lease.gpus} GPUs  {lease.state}  {price}")
    return "\n".join(lines)
