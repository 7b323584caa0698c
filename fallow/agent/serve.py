"""One agent process: inventory, journal, link and metadata put together, until it is told to stop.

Stopping the agent stops no lease: payloads run on, and the next agent takes them over from the journal.
"""

import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from aiohttp import web
from msgspec import Struct

from fallow.agent.containers import ContainerDriver
from fallow.agent.inventory import find_inventory
from fallow.agent.link import Link
from fallow.agent.market_clock import MarketClock
from fallow.agent.metadata import metadata_app
from fallow.agent.node import Agent, read_journal
from fallow.agent.payloads import Driver, ExecDriver


class Options(Struct, frozen=True):
    """What `fallow agent run` was told."""

    server: str
    key: str
    node: str
    fake_gpus: int | None = None
    hooks: Path | None = None
    state_dir: Path = Path("/var/lib/fallow/agent")
    metadata_port: int | None = None
    unfence: bool = False
    driver: str = "none"
    run_as: str | None = None
    public_host: str | None = None
    default_image: str | None = None
    container_options: tuple[str, ...] = ()


def _driver(options: Options) -> Driver | None:
    if options.driver == "none":
        return None
    if options.driver == "exec":
        return ExecDriver(options.state_dir / "payloads", options.run_as)
    return ContainerDriver(
        options.driver,
        host=options.public_host or socket.getfqdn(),
        default_image=options.default_image,
        options=options.container_options,
        has_gpus=options.fake_gpus is None,
    )


async def serve(options: Options) -> None:
    """Serve until SIGINT or SIGTERM. Raises NoGpus, Refused, ValueError, OSError."""
    inventory, gpus = find_inventory(options.fake_gpus)
    journal = read_journal(options.state_dir, options.node)
    if options.unfence:
        journal.memory.fenced.clear()
        journal.save()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clock = MarketClock()
        link = Link(session, options.server, options.key, clock)
        driver = _driver(options)
        agent = Agent(link, journal, inventory, gpus, clock, hooks=options.hooks, driver=driver)
        port = None
        if options.metadata_port is not None:
            runner = web.AppRunner(metadata_app(lambda: agent.held), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", options.metadata_port).start()
            port = runner.addresses[0][1]
        serving = asyncio.create_task(agent.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        names = ", ".join(sorted({gpu.name for gpu in gpus}))
        print(f"node {options.node}: {len(gpus)} GPUs ({names})", file=sys.stderr)
        if port is not None:
            print(f"metadata http://127.0.0.1:{port}/latest/meta-data/spot/instance-action", file=sys.stderr)
        try:
            await serving
        except asyncio.CancelledError:
            return  # told to stop
