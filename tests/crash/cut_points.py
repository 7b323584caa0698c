"""Every cut point of every public operation: the connection to the database is cut at the k-th flush.

For k = 1, 2, 3, … the k-th time that anything waits for PostgreSQL the connection is cut, once before the
server saw the request and once after it has answered; then the client asks again with the same idempotency
key until it is told. The claim: the market is then as after one undisturbed execution, by a footprint that
counts every row, every journalled command and every version, and all books audit. Each trial begins with
cold connections, so connecting, preparing and looking up are among the cut points.
"""

import asyncio
import random
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.config import Config
from auction.clock import ManualClock
from auction.commands import decode_command
from auction.errors import Unavailable
from auction.ids import random_id
from auction.ports import Answer, KeyedRequest
from sql.pool import Database, open_database
from tests.api.conftest import serving
from tests.crash.operations import OPERATIONS, TICK, Request
from tests.crash.postgres_proxy import Fate, Flush, Proxy
from tests.crash.stage import Stage
from tests.proof.promise import Outcome, Promise, Size
from tests.simulation.driver import START_US

SHORT_OPERATIONS = ("tick", "place_bid", "create_webhook")
SHORT_SHARE = 0.3  # of their cuts
FLUSHES_MAX = 60  # of one operation; more means that the loop does not end
ANSWER_SECONDS = 20.0
RETRIED = frozenset({409, 503})

TABLES = (
    "accounts", "api_keys", "markets", "nodes", "offers", "bids", "leases", "notices", "payouts", "limits",
    "transfers", "usage", "ticks", "curves", "events", "journal", "idempotency_keys", "workloads", "targets",
    "webhook_endpoints", "sign_in_links",
)  # fmt: skip
# A target's bids are its runner's: what a cut keeps it from doing now it does at the next tick. Of these
# operations only what the request itself leaves is compared.
ATTENDED = frozenset({"create_target", "amend_target", "cancel_target"})
ATTENDED_KINDS = frozenset({"targets", "idempotency_keys"})
VERSIONED = ("targets", "webhook_endpoints")


@dataclass(frozen=True)
class Plan:
    """How each flush is cut, and which share of the cuts is made."""

    dice: random.Random
    fates: tuple[Fate, ...] = (Fate.CUT_BEFORE, Fate.CUT_AFTER)
    share: float = 1.0


class Trials:
    """One server behind one proxy, and what was found so far."""

    stage: Stage

    def __init__(self, proxy: Proxy, direct: Database) -> None:
        self.proxy = proxy
        self.direct = direct
        self.cuts = 0
        self.violations: list[str] = []
        self.flushes: dict[str, int] = {}
        self._commands: Counter[str] = Counter()  # journalled, by kind
        self._read_to = 0
        self._seen = 0  # flushes of the operation under way

    async def footprint(self) -> Counter[str]:
        """Count all that an operation may leave."""
        connection = await self.direct.connect()
        try:
            found: Counter[str] = Counter()
            for table in TABLES:
                found[table] = await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in VERSIONED:
                found[f"{table}.version"] = (
                    await connection.fetchval(f"SELECT sum(version) FROM {table}") or 0
                )
            fresh = await connection.fetch("SELECT seq, payload FROM journal WHERE seq > $1", self._read_to)
            for seq, payload in fresh:
                self._commands[type(decode_command(payload)).__name__] += 1
                self._read_to = max(self._read_to, seq)
            return found + self._commands
        finally:
            await connection.close()

    async def run(self, name: str, plan: Plan) -> None:
        """Cut every flush of one operation both ways, or a drawn share of them."""
        expected = await self._trial(name, None)
        if expected is None:
            return
        undisturbed = self._seen  # a cut may make more of them, which a whole run cuts too
        for k in range(1, FLUSHES_MAX):
            if plan.share < 1 and k > undisturbed:
                return
            fates = [fate for fate in plan.fates if plan.dice.random() < plan.share]
            reached = [await self._cut(name, (k, fate), expected) for fate in fates]
            if fates and not any(reached):
                self.flushes[name] = k - 1
                return
        self.violations.append(f"{name} has {FLUSHES_MAX} flushes and more")

    async def _cut(self, name: str, cut: tuple[int, Fate], expected: Counter[str]) -> bool:
        """Carry one operation out with a cut; return whether it had so many flushes."""
        found = await self._trial(name, cut)
        if self._seen < cut[0]:
            return False
        self.cuts += 1
        if found is not None and found != expected:
            kinds = sorted(kind for kind in found | expected if found[kind] != expected[kind])
            off = {kind: (found[kind], expected[kind]) for kind in kinds}
            self.violations.append(f"{name}, flush {cut[0]} {cut[1].value}: (found, expected) {off}")
        return True

    async def _trial(self, name: str, cut: tuple[int, Fate] | None) -> Counter[str] | None:
        """Carry one operation out; return what it left, None where it never came to a good answer."""
        await self._ready()
        await self.stage.clear()
        request = await OPERATIONS[name](self.stage)
        await self._cool()
        before = await self.footprint()
        self._seen = 0

        def decide(flush: Flush) -> Fate:
            self._seen += 1
            return cut[1] if cut is not None and self._seen == cut[0] else Fate.PASS

        self.proxy.decide = decide
        try:
            refused = await self._carry_out(request)
        except TimeoutError:
            refused = f"no definite answer in {ANSWER_SECONDS:.0f} s"
        finally:
            self.proxy.decide = lambda flush: Fate.PASS
        if refused is not None:
            at = "" if cut is None else f", flush {cut[0]} {cut[1].value}"
            self.violations.append(f"{name}{at}: {refused}")
            return None
        after = await self.footprint()
        kinds = after.keys() & ATTENDED_KINDS if name in ATTENDED else after.keys()
        return Counter({kind: after[kind] - before[kind] for kind in kinds if after[kind] != before[kind]})

    async def _carry_out(self, request: Request) -> str | None:
        """Ask until there is an answer; return it where it is none that an undisturbed client would get."""
        if request.method == TICK:
            await self.stage.reach_tick()
            return None
        headers = {**request.headers, "Idempotency-Key": random_id("key")}
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                answered = await self.stage.venue.call(
                    request.method, request.path, request.key, request.body, **headers
                )
                if answered.status < 300:
                    return None
                if answered.status not in RETRIED or not answered.json["retryable"]:
                    return f"answered {answered.status} {answered.raw[:200]!r}"
                self.stage.wait_once_more()
                await asyncio.sleep(0.01)

    async def _cool(self) -> None:
        """Cut every connection, and return when the engine has new ones that know no statement."""
        engine = self.stage.venue.engine
        self.proxy.cut_all()
        self.stage.clock.advance(3)  # beyond what the server remembers of a key
        await asyncio.sleep(0.01)
        probe = KeyedRequest("acct_nobody", "probe", b"")
        with suppress(Unavailable):
            await engine.submit([], encode=lambda _: Answer(503, "", b""), keyed=probe)
        await self._ready()

    async def _ready(self) -> None:
        """Return when the engine has its storage."""

        async def ready() -> bool:
            self.stage.wait_once_more()
            return self.stage.venue.engine.is_ready

        await self.stage.venue.until(ready, "the engine after a cut")


async def cut_everywhere(names: tuple[str, ...], plan: Plan) -> Trials:
    """Run the trials of these operations; what audit and replay object to is a violation too."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = await stack.enter_async_context(open_database(url=None, data_dir=directory / "data"))
        await direct.prepare(apply_migrations=True)
        (directory / "proxy").mkdir()
        proxy = await stack.enter_async_context(Proxy(direct, directory / "proxy"))
        clock = ManualClock(START_US)
        config = Config(
            port=0, is_demo=True, sends_webhooks=False, node_degraded_seconds=1e6, node_offline_seconds=2e6
        )
        trials = Trials(proxy, direct)
        try:
            async with serving(proxy.database, config, clock=clock) as venue:
                trials.stage = Stage(venue, clock)
                await trials.stage.open()
                for name in names:
                    await trials.run(name, plan)
        except AssertionError as failed:  # of the audit or the replay, or of a market that came to a stop
            trials.violations.append(f"afterwards: {str(failed)[:2_000]}")
        return trials


def run(size: Size, seed: int) -> Outcome:
    """Cut every operation everywhere; the short form a few of them."""
    is_short = size is Size.SHORT
    names = SHORT_OPERATIONS if is_short else tuple(OPERATIONS)
    plan = Plan(random.Random(seed), share=SHORT_SHARE if is_short else 1.0)
    trials = asyncio.run(cut_everywhere(names, plan))
    wrong = len(trials.violations)
    figure = f"{trials.cuts} cuts of {len(names)} operations, {wrong} without exactly one effect"
    if trials.violations:
        figure += ": " + "; ".join(trials.violations[:5])
    return Outcome(not trials.violations and trials.cuts > 0, figure)


PROMISES = [
    Promise(
        name="cut-points",
        promise="Whenever the connection to the database breaks, each operation is done exactly once",
        method="every operation, cut at its k-th flush, before the server and after its answer, then retried",
        target="exactly one effect at every cut point",
        run=run,
    )
]


def report(names: tuple[str, ...], fates: tuple[Fate, ...] = Plan.fates) -> dict[str, Any]:
    """Return what all cuts of some operations found, for a look at one of them."""
    trials = asyncio.run(cut_everywhere(names, Plan(random.Random(0), fates)))
    return {"cuts": trials.cuts, "flushes": trials.flushes, "violations": trials.violations}
