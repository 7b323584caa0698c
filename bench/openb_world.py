"""The people of the replay in virtual time: owners who lend and take back, tenants who bid and finish.

`Timeline` owns the clock: it carries out what the engine has due and what the people have planned, in
order of time, and hands every change to the store in batches. It skips only stretches in which nobody
bids, because then nothing is due that anybody could notice. The people see nothing but the engine's
own entities as they change, and act by commands.

Owners offer each GPU by itself, so a recall takes exactly what is needed. Their own work takes idle
GPUs first, then those of the tenants of one node, and starts when these have really gone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from time import perf_counter_ns
from typing import Any

from auction.commands import CancelBid, Command, CreateOffer, PlaceBid, ReportLease, WithdrawOffer
from auction.core import Core
from auction.errors import Rejection
from auction.ids import derived_id
from auction.model import LEASE_BILLED, LEASE_ON_NODE, Lease, LeaseState
from auction.ports import Changes
from auction.units import MICROSECONDS_PER_SECOND
from bench.openb_trace import NodeSpec, Parameters, Task
from sql.store import PostgresStore


class Ids:
    """Reproducible ids: the n-th of the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = f"{seed:064x}"
        self._numbers = count(1)

    def new(self, prefix: str) -> str:
        return derived_id(prefix, self._seed, next(self._numbers))


class Timeline:
    """Virtual time over one core and its store. All times are microseconds."""

    def __init__(self, core: Core, store: PostgresStore, *, now_us: int, commit_entries: int) -> None:
        self.core = core
        self.now_us = now_us
        self.on_lease: list[Callable[[Lease], None]] = []
        self.tick_ns: list[tuple[int, int]] = []  # (time of one beat, markets that it cleared)
        self.commit_ns: list[int] = []
        self.commands = 0
        self.rows = 0
        self.rejections: dict[str, int] = {}
        self._store = store
        self._commit_entries = commit_entries
        self._batch = Changes()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, at_us: int, action: Callable[[], None]) -> None:
        """Plan an action; those of one instant happen in the order in which they were planned."""
        heappush(self._events, (max(at_us, self.now_us), next(self._numbers), action))

    def do(self, command: Command) -> Any:
        """Give a command now; return its outcome. A refusal is counted, and the caller sees it."""
        outcome = self.core.apply(command, self.now_us)
        self.commands += 1
        if isinstance(outcome, Rejection):
            self.rejections[outcome.code] = self.rejections.get(outcome.code, 0) + 1
        self._observe()
        return outcome

    async def run_until(self, end_us: int, progress: Callable[[int], None]) -> None:
        """Carry out everything up to and including `end_us`."""
        for now_us in self._instants(end_us):
            self.now_us = now_us
            due_us = self.core.next_due_us()
            if due_us is not None and due_us <= now_us:
                self._run_due()
            while self._events and self._events[0][0] <= now_us:
                heappop(self._events)[2]()
            if len(self._batch.journal) >= self._commit_entries:
                await self.commit()
                progress(now_us)
        self.now_us = end_us

    async def commit(self) -> None:
        batch, self._batch = self._batch, Changes()
        started_ns = perf_counter_ns()
        await self._store.commit(batch)
        self.commit_ns.append(perf_counter_ns() - started_ns)
        self.rows += sum(len(getattr(batch, name)) for name in batch.__struct_fields__)

    def _instants(self, end_us: int) -> Iterator[int]:
        while True:
            dues = [self._events[0][0]] if self._events else []
            due_us = self.core.next_due_us() if self.core.bids else None
            if due_us is not None:
                dues.append(due_us)
            now_us = max(min(dues, default=end_us + 1), self.now_us)
            if now_us > end_us:
                return
            yield now_us

    def _run_due(self) -> None:
        started_ns = perf_counter_ns()
        ticks = self.core.run_due(self.now_us)
        if ticks:
            self.tick_ns.append((perf_counter_ns() - started_ns, len(ticks)))
        self._observe()

    def _observe(self) -> None:
        """Keep what changed for the next commit, and show the leases among it to the people."""
        changes = self.core.take_changes()
        for name in changes.__struct_fields__:
            new = getattr(changes, name)
            if isinstance(new, dict):
                getattr(self._batch, name).update(new)
            elif new:
                getattr(self._batch, name).extend(new)
        for lease in changes.leases.values():
            for listener in self.on_lease:
                listener(lease)


# -- owners -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    id: str
    spec: NodeSpec
    account: str
    spare: int = 0  # GPUs neither offered nor meant for the owner's work
    owned: int = 0  # GPUs of the owner's work, started or waiting
    owned_running: int = 0
    offers: dict[str, set[str]] = field(default_factory=dict)  # listed offer: its live leases
    tenants: dict[str, int] = field(default_factory=dict)  # lease on the node: its GPUs
    blocked: list["_Own"] = field(default_factory=list)  # promised GPUs that are still occupied

    @property
    def idle(self) -> int:
        return sum(not leases for leases in self.offers.values())


@dataclass(slots=True)
class _Own:
    """A task of the owner on its way to its GPUs."""

    task: Task
    node: _Node
    arrived_us: int
    taken_us: int
    withdrawing: set[str] = field(default_factory=set)
    is_taken: bool = False  # every offer that it needs has been withdrawn
    took_from_tenants: bool = False
    was_blocked: bool = False


class Owners:
    """All owners: one account a model, its nodes, and the owner's own work on them."""

    def __init__(self, timeline: Timeline, ids: Ids, end_us: int) -> None:
        self.waits_us: list[int] = []  # from arrival to start
        self.recall_waits_us: list[int] = []  # from recall to start, where a tenant had to go
        self.recalled_leased = 0  # offers taken back that had a tenant
        self.started_blocked = 0  # starts that found promised GPUs still occupied
        self.gpu_us: dict[str, int] = {}  # of the owner's work, by model
        self.never_started = 0
        self._timeline = timeline
        self._ids = ids
        self._end_us = end_us
        self._nodes: dict[str, list[_Node]] = {}
        self._by_id: dict[str, _Node] = {}
        self._withdrawing: dict[str, tuple[_Own, set[str]]] = {}
        self._queues: dict[str, list[tuple[Task, int]]] = {}
        timeline.on_lease.append(self._see)

    def add_node(self, spec: NodeSpec, node_id: str, account: str) -> None:
        node = _Node(node_id, spec, account, spare=spec.gpus)
        self._nodes.setdefault(spec.model, []).append(node)
        self._by_id[node_id] = node
        self._offer_spare(node)

    def arrive(self, task: Task) -> None:
        if not self._try(task, self._timeline.now_us):
            self._queues.setdefault(task.model, []).append((task, self._timeline.now_us))

    def close(self) -> None:
        """Count what never got its GPUs."""
        queued = sum(len(queue) for queue in self._queues.values())
        waiting = {id(own) for own, _ in self._withdrawing.values()}
        waiting |= {id(own) for node in self._by_id.values() for own in node.blocked}
        self.never_started = queued + len(waiting)

    def _try(self, task: Task, arrived_us: int) -> bool:
        """Take the GPUs of the node where fewest tenants lose theirs, then where fewest stay idle."""
        best = min(
            (
                (max(0, task.gpus - node.spare - node.idle), node.spare + node.idle, index)
                for index, node in enumerate(self._nodes[task.model])
                if node.spec.gpus - node.owned >= task.gpus
            ),
            default=None,
        )
        if best is None:
            return False
        self._recall(_Own(task, self._nodes[task.model][best[2]], arrived_us, self._timeline.now_us))
        return True

    def _recall(self, own: _Own) -> None:
        node, needed = own.node, own.task.gpus
        node.owned += needed
        taken = min(node.spare, needed)
        node.spare -= taken
        for offer_id in sorted(node.offers, key=lambda offer_id: len(node.offers[offer_id])):
            if taken == needed:
                break
            taken += 1
            live = node.offers.pop(offer_id)
            if live:
                self.recalled_leased += 1
                own.took_from_tenants = True
                own.withdrawing.add(offer_id)
                self._withdrawing[offer_id] = (own, live)
            outcome = self._timeline.do(WithdrawOffer(offer_id, node.account))
            assert not isinstance(outcome, Rejection), outcome
        own.is_taken = True
        if not own.withdrawing:
            self._start(own)

    def _start(self, own: _Own) -> None:
        node = own.node
        if sum(node.tenants.values()) + node.owned_running + own.task.gpus > node.spec.gpus:
            if not own.was_blocked:
                own.was_blocked = True
                self.started_blocked += 1
            node.blocked.append(own)
            return
        now_us = self._timeline.now_us
        node.owned_running += own.task.gpus
        self.waits_us.append(now_us - own.arrived_us)
        if own.took_from_tenants:
            self.recall_waits_us.append(now_us - own.taken_us)
        ends_us = now_us + own.task.run_s * MICROSECONDS_PER_SECOND
        used_us = (min(ends_us, self._end_us) - now_us) * own.task.gpus
        self.gpu_us[own.task.model] = self.gpu_us.get(own.task.model, 0) + used_us
        self._timeline.at(ends_us, lambda: self._end(own))

    def _end(self, own: _Own) -> None:
        node, model = own.node, own.task.model
        node.owned -= own.task.gpus
        node.owned_running -= own.task.gpus
        node.spare += own.task.gpus
        blocked, node.blocked = node.blocked, []
        for other in blocked:
            self._start(other)
        # The owner's waiting work comes first, whatever fits in order of arrival.
        self._queues[model] = [
            (task, arrived_us)
            for task, arrived_us in self._queues.get(model, [])
            if not self._try(task, arrived_us)
        ]
        self._offer_spare(node)

    def _offer_spare(self, node: _Node) -> None:
        while node.spare:
            node.spare -= 1
            offer_id = self._ids.new("off")
            node.offers[offer_id] = set()
            outcome = self._timeline.do(CreateOffer(offer_id, node.account, node.id, 1, node.spec.reserve))
            assert not isinstance(outcome, Rejection), outcome

    def _see(self, lease: Lease) -> None:
        node = self._by_id[lease.node]
        if lease.state in LEASE_ON_NODE:
            node.tenants[lease.id] = lease.gpu_count
        if lease.offer in node.offers:
            leases = node.offers[lease.offer]
            (leases.discard if lease.state is LeaseState.ENDED else leases.add)(lease.id)
        if lease.state is not LeaseState.ENDED:
            return
        node.tenants.pop(lease.id, None)
        if lease.offer in self._withdrawing:
            own, live = self._withdrawing[lease.offer]
            live.discard(lease.id)
            if not live:
                del self._withdrawing[lease.offer]
                own.withdrawing.discard(lease.offer)
                if own.is_taken and not own.withdrawing:
                    self._start_soon(own)
        blocked, node.blocked = node.blocked, []
        for own in blocked:
            self._start_soon(own)

    def _start_soon(self, own: _Own) -> None:
        """After all changes of this instant have been seen."""
        self._timeline.at(self._timeline.now_us, lambda: self._start(own))


# -- tenants ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    task: Task
    bid: str
    account: str
    left_us: int  # GPU-microseconds of work
    running: dict[str, int] = field(default_factory=dict)  # lease: GPUs that work
    seen_us: int = 0
    plan: int = 0  # the plans to finish that were made; only the last counts
    is_open: bool = True

    @property
    def rate(self) -> int:
        """A gang works only when it is complete; GPUs of an incomplete one wait (and are billed)."""
        return self.task.gpus if sum(self.running.values()) >= self.task.gpus else 0


class Tenants:
    """All tenants. Work survives a preemption: what was computed until then is not computed again."""

    def __init__(self, timeline: Timeline, ids: Ids, accounts: list[str], parameters: Parameters) -> None:
        self.placed = self.refused = self.completed = 0
        self.work_us = self.done_us = 0
        self._timeline = timeline
        self._ids = ids
        self._accounts = accounts
        self._start_us = parameters.start_seconds * MICROSECONDS_PER_SECOND
        self._jobs: dict[str, _Job] = {}
        self._told: set[str] = set()
        timeline.on_lease.append(self._see)

    def arrive(self, task: Task) -> None:
        assert task.limit is not None
        account = self._accounts[self.placed % len(self._accounts)]
        bid = self._ids.new("bid")
        work_us = task.gpus * task.run_s * MICROSECONDS_PER_SECOND
        self.placed += 1
        self.work_us += work_us
        self._jobs[bid] = _Job(task, bid, account, work_us)
        market = task.model.lower()
        command = PlaceBid(bid, account, market, task.gpus, task.limit, task.gpus, client_bid_id=task.name)
        if isinstance(self._timeline.do(command), Rejection):
            self.refused += 1
            del self._jobs[bid]

    def close(self) -> None:
        """The replay is over: who has not finished gives back what it holds, so every bill is closed."""
        for job in list(self._jobs.values()):
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        self._work(job)
        job.is_open = False
        del self._jobs[job.bid]
        self.completed += job.left_us == 0
        self.done_us += job.task.gpus * job.task.run_s * MICROSECONDS_PER_SECOND - job.left_us
        outcome = self._timeline.do(CancelBid(job.bid, job.account))
        assert not isinstance(outcome, Rejection), outcome

    def _work(self, job: _Job) -> None:
        now_us = self._timeline.now_us
        job.left_us = max(0, job.left_us - job.rate * (now_us - job.seen_us))
        job.seen_us = now_us

    def _see(self, lease: Lease) -> None:
        if lease.state is LeaseState.STARTING and lease.id not in self._told:
            self._told.add(lease.id)
            self._timeline.at(self._timeline.now_us + self._start_us, lambda: self._report(lease))
        elif lease.state is LeaseState.ENDED:
            self._told.discard(lease.id)
        job = self._jobs.get(lease.bid)
        if job is None:
            return
        gpus = lease.gpu_count if lease.state in LEASE_BILLED else 0
        if gpus == job.running.get(lease.id, 0):
            return
        self._work(job)
        job.running[lease.id] = gpus
        if gpus == 0:
            del job.running[lease.id]
        job.plan += 1
        if job.rate:
            plan = job.plan
            in_us = -(-job.left_us // job.rate)  # rounded up: never called before the work is done
            self._timeline.at(self._timeline.now_us + in_us, lambda: self._finish_planned(job, plan))

    def _finish_planned(self, job: _Job, plan: int) -> None:
        if job.is_open and job.plan == plan:
            self._finish(job)

    def _report(self, lease: Lease) -> None:
        """The node's agent: the container is up."""
        if lease.state is LeaseState.STARTING:
            self._timeline.do(ReportLease(lease.id, lease.owner, "started"))
