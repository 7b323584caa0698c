"""The storage twin as a process of its own: it answers after a while, late, or not at all.

`SimulatedStore` is the engine's port over it. A transaction that was sent is carried out whether or not its
engine still lives, and refused when another engine has taken the shard meanwhile, as PostgreSQL's would be.
"""

import asyncio

from auction.errors import Unavailable
from auction.memory import MemoryShard, MemoryStore
from tests.simulation.core_days import complete
from tests.simulation.virtual_loop import Process


class Database:
    """One shard that outlives every server; `on_commit(changes)` hears of each transaction."""

    def __init__(self, loop, dice, sometimes, on_commit):
        self.loop = loop
        self.dice = dice
        self.sometimes = sometimes
        self.on_commit = on_commit
        self.shard = MemoryShard()
        self.process = Process(loop, "database")
        self.lost = self.unknown = self.slow = 0.0  # chances of each commit
        self.is_down = False

    async def trip(self):
        """One question and its answer; raises Unavailable while the database is down."""
        await asyncio.sleep(self.dice.uniform(0.0002, 0.001))
        if self.is_down:
            raise Unavailable("storage_unavailable", "the database is down")

    def later(self, seconds, work):
        self.process.context().run(self.loop.call_later, seconds, work)


class SimulatedStore(MemoryStore):
    """One engine's connection to the database."""

    def __init__(self, database):
        super().__init__(database.shard)
        self._database = database

    async def acquire(self):
        await self._database.trip()
        await super().acquire()

    async def load(self):
        await self._database.trip()
        return await super().load()

    async def find_answers(self, requests):
        await self._database.trip()
        return await super().find_answers(requests)

    async def find_client_bids(self, pairs):
        await self._database.trip()
        return await super().find_client_bids(pairs)

    def commit(self, changes):
        return self._send(super().commit(changes), changes)

    async def _send(self, transaction, changes):
        """Send a transaction that was encoded already; wait for the word of it."""
        database, dice = self._database, self._database.dice
        roll = dice.random()
        if database.is_down or roll < database.lost:
            database.sometimes("commit lost")
            transaction.close()
            await asyncio.sleep(0.002)
            raise Unavailable("storage_unavailable", "the connection broke before the transaction")
        delay_s = dice.uniform(0.0005, 0.003)
        if dice.random() < database.slow:
            database.sometimes("commit slow")
            delay_s = dice.uniform(1.0, 8.0)
        done = database.loop.create_future()

        def carry_out():
            try:
                complete(transaction)
            except Exception as error:
                outcome = error
            else:
                outcome = None
                database.on_commit(changes)
            if not done.done():
                done.set_result(outcome)

        database.later(delay_s, carry_out)
        outcome = await done
        if outcome is not None:
            raise outcome
        if roll < database.lost + database.unknown:
            database.sometimes("commit unknown")
            raise Unavailable("storage_unavailable", "the word of the transaction was lost")
