"""`fallow run [options] MARKET -- CMD...`: a command on leased GPUs, from its bid to its bill.

Exit codes: the command's own; 2 usage, 3 refused, 4 auth, 5 unavailable, 6 preempted, 126 not started,
128 and the signal's number when it or the command was ended by one.
"""

import asyncio
import shutil
import sys
from typing import Any

import click

from fallow.command import Dollars, located

RESTARTS_MAX = 10_000


@click.command()
@click.argument("market")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--gpus", type=int, required=True)
@click.option("--limit", type=Dollars, required=True, help="At most so many dollars per GPU-hour, e.g. 2.40.")
@click.option("--min-gpus", type=int, help="Fewer are of no use. [default: as many as --gpus]")
@click.option("--colocate", type=click.Choice(["none", "node", "fabric"]), default="node", show_default=True)
@click.option("--max-spend", type=Dollars, help="Dollars in all; kept to the microdollar.")
@click.option("--confirm-limit", is_flag=True, help="Yes, that far above the market's price.")
@click.option("--max-restarts", type=click.IntRange(0, RESTARTS_MAX), default=10, show_default=True)
@click.option("--no-requeue", is_flag=True, help="Exit with 6 when preempted.")
@located
def run(
    market: str,
    command: tuple[str, ...],
    limit: str,
    max_restarts: int,
    no_requeue: bool,
    server: str,
    key: str | None,
    **terms: Any,
) -> None:
    """Bid on MARKET, wait for the GPUs, run COMMAND on this machine with the way to them.

    COMMAND finds FALLOW_LEASE_ID, FALLOW_GPUS and FALLOW_LEASE_CONNECT_* (what the node reported, such as
    _HOST and _PORT) in its environment. On a notice it gets SIGTERM and has until its GPUs are reclaimed;
    then it waits in the market again and is started anew. At its end the bid is cancelled.
    """
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"{command[0]} is no program here")
    terms["min_gpus"] = terms["min_gpus"] or terms["gpus"]
    terms["confirm_limit"] = terms["confirm_limit"] or None
    terms["limit_price_per_gpu_hour"] = limit
    sys.exit(asyncio.run(_work(server, key, market, command, max_restarts, not no_requeue, terms)))


async def _work(
    server: str,
    key: str | None,
    market: str,
    command: tuple[str, ...],
    restarts_max: int,
    is_requeued: bool,
    terms: dict[str, Any],
) -> int:
    from fallow.client import AsyncClient
    from fallow.runner import Runner

    def tell(line: str) -> None:
        click.echo(f"fallow: {line}", err=True)

    async with AsyncClient(server, key=key) as client:
        runner = Runner(client, command, restarts_max=restarts_max, is_requeued=is_requeued, tell=tell)
        return await runner.run(market, **terms)
