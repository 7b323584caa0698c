"""`fallow agent`: the machine's side of lending."""

import asyncio
import logging
import sys
from pathlib import Path

import click

EXIT_REFUSED = 3
EXIT_AUTH = 4
EXIT_UNAVAILABLE = 5
AUTH_CODES = frozenset({"unauthenticated", "scope_missing", "address_not_allowed"})


@click.group()
def agent() -> None:
    """Lend this machine's GPUs: run the agent of a node."""


@agent.command("run")
@click.option("--server", envvar="FALLOW_URL", default="http://127.0.0.1:8080", show_default=True)
@click.option(
    "--key", envvar="FALLOW_KEY", required=True, help="A key with the scope `agent`. [env: FALLOW_KEY]"
)
@click.option("--node", required=True, help="The node's id, from POST /v1/nodes.")
@click.option("--fake-gpus", type=click.IntRange(1, 1024), help="Pretend to have so many GPUs.")
@click.option(
    "--hooks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory with the executables on_start, on_drain, on_stop.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/var/lib/fallow/agent"),
    show_default=True,
    help="Where the agent remembers its leases.",
)
@click.option(
    "--metadata-port",
    type=click.IntRange(0, 65_535),
    help="Serve EC2's spot metadata paths on this loopback port; 0 lets the system choose.",
)
@click.option(
    "--driver",
    type=click.Choice(["none", "exec", "docker", "podman"]),
    default="none",
    show_default=True,
    help="What runs tenants' payloads: nothing but your hooks, this machine itself, or containers.",
)
@click.option(
    "--run-as", metavar="USER", help="exec: the user that payloads run as; as root you must say one."
)
@click.option(
    "--public-host", help="Containers: where tenants reach published ports. [default: this host's name]"
)
@click.option("--default-image", help="Containers: for payloads that name none, and for ssh alone.")
@click.option(
    "--container-option", multiple=True, help="Containers: goes to every `run`, e.g. --shm-size=32g."
)
@click.option("--unfence", is_flag=True, help="The GPUs that did not come back clean are in order again.")
@click.option("--verbose", is_flag=True)
def run(
    server: str,
    key: str,
    node: str,
    fake_gpus: int | None,
    hooks: Path | None,
    state_dir: Path,
    metadata_port: int | None,
    driver: str,
    run_as: str | None,
    public_host: str | None,
    default_image: str | None,
    container_option: tuple[str, ...],
    unfence: bool,
    verbose: bool,
) -> None:
    """Serve a node: enrol, heartbeat, start and stop what the market decides.

    \b
    A lease that was won     on_start gets {"lease", "gpu_indices", "gpu_uuids"} on standard input and
                             CUDA_VISIBLE_DEVICES in its environment; what it prints may be
                             {"connect": {"host": ..., "port": ...}}, which its tenant sees.
    A preemption notice      on_drain, until `reclaim_at` at most; then on_stop.
    A payload (--driver)     runs after on_start, gets SIGTERM after on_drain and SIGKILL at `reclaim_at`;
                             when it ends by itself, so do its lease and the bill.
    A lease that has ended   on_stop. GPUs that do not come back clean are lent no more (--unfence).

    A hook may be run again after the agent has died. Exit codes: 0 stopped, 2 usage, 3 refused, 4 wrong key,
    5 no GPUs.
    """
    from fallow.agent.inventory import NoGpus
    from fallow.agent.link import Refused
    from fallow.agent.serve import Options, serve

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    options = Options(
        server,
        key,
        node,
        fake_gpus,
        hooks,
        state_dir,
        metadata_port,
        unfence,
        driver,
        run_as,
        public_host,
        default_image,
        container_option,
    )
    try:
        asyncio.run(serve(options))
    except NoGpus as reason:
        click.echo(f"fallow agent: {reason}", err=True)
        sys.exit(EXIT_UNAVAILABLE)
    except Refused as refusal:
        click.echo(f"fallow agent: {refusal}", err=True)
        sys.exit(EXIT_AUTH if refusal.code in AUTH_CODES else EXIT_REFUSED)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
