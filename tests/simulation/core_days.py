"""Days of the core and the storage twin under a seeded crowd, with the faults that storage can have.

A step is one batch of the writer: decided, then written, lost, written without a word of it, or written just
before the process ends. What the store says happened, happened; the crowd goes on with what was read back.
Every committed step is looked at by `invariants.Witness`. Times are stretched: ticks of 100 to 300 s.
"""

import hashlib
import random

from auction.commands import decode_command, encode_command
from auction.core import Core
from auction.memory import MemoryStore
from auction.model import EndReason, NoticeState
from tests.simulation.coverage import Coverage
from tests.simulation.driver import SECOND, START_US, Crowd
from tests.simulation.invariants import Witness

STRETCH = 20
DAY_US = 86_400 * SECOND
DAYS_PER_SEED = 2  # then a new world with the next seed: what a witness remembers is looked at as a whole

FAULTS = ("commit lost", "commit unknown", "crash after commit", "outage", "clock back")
EXPECTED = (
    *FAULTS,
    *(f"ended: {reason.value}" for reason in EndReason if reason is not EndReason.OPERATOR),
    "notice withdrawn",
    "notice done",
    "refund",
    "replayed",
)


class CoreDays:
    """One world of one seed."""

    def __init__(self, seed, *, core=None):
        self.seed = seed
        self.dice = random.Random(f"faults {seed}")
        self.crowd = Crowd(core or Core(), seed, stretch=STRETCH)
        self.witness = Witness(self.crowd.core)
        self.store = MemoryStore()
        self.coverage = Coverage(EXPECTED)
        self.steps = 0

    def run(self, days):
        """Live through so many days; return the hash of all that was decided. Raises AssertionError."""
        complete(self.store.acquire())
        self.write(self.crowd.core.take_changes())  # the world as it opens
        end_us = START_US + days * DAY_US
        while self.crowd.at_us < end_us:
            self.step()
        self.witness.check_all()
        self.look_back()
        if self.seed % 8 == 0:
            self.replay()
        return self.hash()

    def step(self):
        self.steps += 1
        self.crowd.step()
        changes = self.crowd.core.take_changes()
        roll = self.dice.random()
        if roll < 0.004:
            self.coverage.sometimes("commit lost")
            self.read_back()
            return
        self.write(changes)
        if roll < 0.008:
            self.coverage.sometimes("commit unknown")
            self.read_back()
        elif roll < 0.012:
            self.coverage.sometimes("crash after commit")
            before = self.crowd.core.state_hash()
            self.read_back()
            assert before == self.crowd.core.state_hash(), "P3: what was committed is there after a crash"
        elif roll < 0.013:
            self.coverage.sometimes("outage")
            self.crowd.at_us += self.dice.choice([30, 600, 7_200]) * SECOND
        elif roll < 0.016:
            self.coverage.sometimes("clock back")
            self.crowd.at_us -= self.dice.choice([1, 60, 864_000]) * SECOND
            self.read_back()

    def write(self, changes):
        self.witness.see(changes)
        complete(self.store.commit(changes))
        self.witness.check_now()

    def read_back(self):
        """A new core of what the store has, as an engine that starts or has lost its storage makes it."""
        self.crowd.resume(Core.restore(complete(self.store.load())))
        state = self.crowd.core._state
        self.witness.core = self.crowd.core
        # What the witness has seen of them may have been changed by a step that was never written.
        for name in ("leases", "bids", "notices", "offers"):
            getattr(self.witness, name).update(getattr(state, name))

    def look_back(self):
        """Say what this world met."""
        seen = self.coverage.sometimes
        for lease in self.witness.leases.values():
            if lease.end_reason is not None and lease.end_reason is not EndReason.OPERATOR:
                seen(f"ended: {lease.end_reason.value}")
            if lease.refunded:
                seen("refund")
        for notice in self.witness.notices.values():
            if notice.state in (NoticeState.WITHDRAWN, NoticeState.DONE):
                seen(f"notice {notice.state.value}")

    def replay(self):
        """P9: the journal alone gives the same state, and the same ticks on the way."""
        again, digests = Core(), []
        for entry in self.store.shard.journal:
            again.apply(decode_command(encode_command(entry.command)), entry.at_us)
            digests += [tick.digest for tick in again.take_changes().ticks]
        assert digests == [tick.digest for tick in self.witness.ticks]
        assert again.state_hash() == self.crowd.core.state_hash()
        self.coverage.sometimes("replayed")

    def hash(self):
        digest = hashlib.sha256(self.crowd.core.state_hash().encode())
        for tick in self.witness.ticks:
            digest.update(tick.digest.encode())
        return digest.hexdigest()


def complete(work):
    """Run a coroutine of the storage twin, which never waits, without a loop."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError("the twin in memory waits for nothing")
