"""The watch over the nodes: who has not been heard of for too long, and who is back.

Heartbeats themselves are kept here, in memory, and are not journalled; what they mean is: a node that is
late, lost or back becomes one command. Ages are monotonic, so a step of the wall clock loses no node, and
a server that was down itself gives every node a fresh start.
Invariant: one entry per node that exists and has an agent.
"""

import asyncio
import logging
from collections.abc import Callable

from auction.commands import ReportNode
from auction.engine import Engine
from auction.errors import Rejection, Unavailable
from auction.model import Node, NodeHealth, NodeState
from auction.units import MICROSECONDS_PER_SECOND

WATCH_SECONDS = 1.0

_logger = logging.getLogger("fallow.heartbeats")


class NodeWatch:
    """Hears heartbeats and reports nodes as degraded after so many seconds, as offline after more."""

    def __init__(
        self,
        engine: Engine,
        *,
        degraded_seconds: float,
        offline_seconds: float,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._engine = engine
        self._degraded_seconds = degraded_seconds
        self._offline_seconds = offline_seconds
        self._monotonic = monotonic or (lambda: asyncio.get_running_loop().time())
        self._heard: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at all nodes every second from now on."""
        self._task = asyncio.create_task(self._run(), name="node watch")

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def hear(self, node: Node) -> None:
        """A node's agent has given a sign of life."""
        if not node.simulated:
            self._heard[node.id] = self._monotonic()

    async def look(self) -> None:
        """Report every node whose health has changed."""
        now = self._monotonic()
        nodes = [
            node
            for node in self._engine.core.nodes.values()
            if not node.simulated and node.state is not NodeState.ENROLLING
        ]
        self._heard = {node.id: self._heard.get(node.id, now) for node in nodes}
        for node in nodes:
            age = now - self._heard[node.id]
            health = NodeHealth.OK
            if age >= self._degraded_seconds:
                health = NodeHealth.OFFLINE if age >= self._offline_seconds else NodeHealth.DEGRADED
            if health is not node.health:
                heard_us = self._engine.clock.now_us() - int(age * MICROSECONDS_PER_SECOND)
                await self._engine.execute(ReportNode(node.id, health, heard_us))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.look()
            except (Rejection, Unavailable) as error:
                _logger.warning("the nodes' health could not be reported: %s", error)  # the next look will
