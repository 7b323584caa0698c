"""One simulated market: jobs and machines from a script, decisions from a kernel's book.

Plays the part that the engine has in the product: it gives notice, hands GPUs over, places tenants on
machines, tells the book who ranks as an incumbent, and counts what was produced and what was lost. Only
what a clearing changed is looked at. stability.py says what is simulated and why.

Invariants: a GPU has at most one tenant; no tenant is on a machine that has left; a gang produces only
while it has all its GPUs; no job produces more than it wants.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from bench.stability_world import LEVEL_COUNT, LEVELS_PER_USD, NODE_GPUS, TICKS_PER_HOUR, Script, World

NEVER = 1 << 30
CAUSES = ("outbid", "recalled", "moved")


@dataclass(slots=True)
class Job:
    """One bid with its work, in GPU-ticks."""

    number: int
    limit: int
    gpus: int
    is_gang: bool
    work: int
    hash: int
    handle: int = -1
    fill: int = 0  # awarded by the last clearing
    parts: dict[int, list[int]] = field(default_factory=dict)  # node: [GPUs, tick from which they produce]
    ranked_gpus: int = 0  # GPUs that the book ranks as an incumbent's
    leaves_at: int = NEVER  # end of its notice
    done: int = 0
    counted_to: int = 0
    is_started: bool = False

    @property
    def held(self) -> int:
        return sum(gpus for gpus, _ in self.parts.values())

    @property
    def is_at_work(self) -> bool:
        return any(ready < NEVER for _, ready in self.parts.values())


@dataclass(slots=True)
class Node:
    """A machine of eight GPUs; `offer` is its handle in the book, -1 while it is not lent."""

    reserve: int
    offer: int = -1
    leaves_at: int = NEVER
    free: int = 0
    tenants: set[int] = field(default_factory=set)
    crowded_at: int = NEVER  # when GPUs above what is sold of it must be empty


class Simulation:
    """One market under one handicap. `step` runs a tick; `figures` says what was counted."""

    def __init__(self, kernel: ModuleType, world: World, script: Script, handicap_bps: int) -> None:
        self.book = kernel.Book(
            handicap_bps=handicap_bps, level_count=LEVEL_COUNT, refine_below_bids=world.refine_below_bids
        )
        self.world, self.script = world, script
        self.nodes = [Node(reserve) for reserve in script.reserves]
        self.by_reserve = sorted(range(len(self.nodes)), key=lambda n: (self.nodes[n].reserve, n))
        self.jobs: dict[int, Job] = {}  # by number, live ones
        self.of_handle: dict[int, Job] = {}
        self.waiting: dict[int, int] = {}  # job number: tick of its award, while it holds less than that
        self.leaving: set[int] = set()  # jobs under notice
        self.rerank: set[int] = set()  # jobs whose rank follows what they hold after the next clearing
        self.lowered: set[int] = set()  # jobs that rank as newcomers because of a lowered limit
        self.struck: set[int] = set()  # jobs that were interrupted in this tick
        self.usable = [0] * len(self.nodes)  # GPUs of each node that are sold
        self.finishing: dict[int, set[int]] = defaultdict(set)
        self.tick = 0
        self.job_count = 0
        self.counts: Counter[str] = Counter()
        self.decisions = hashlib.sha256()

    def run(self) -> dict[str, Any]:
        """Run all ticks and return the figures of those after the warm-up."""
        while self.tick < self.script.warm_up_ticks:
            self.step()
        self._count_all()
        before = self.counts.copy()
        while self.tick < self.script.ticks:
            self.step()
        self._count_all()
        counts = self.counts.copy()
        counts.subtract(before)
        return _figures(counts, self.decisions.hexdigest())

    def step(self) -> None:
        """One tick: who is done leaves, owners and bidders act, the market clears, GPUs change hands."""
        tick = self.tick
        self._finish()
        for node in self.script.returns.get(tick, ()):
            self.nodes[node].free = NODE_GPUS
            self.nodes[node].offer = self.book.place_offer(self.nodes[node].reserve, NODE_GPUS, node)
        for node in self.script.recalls.get(tick, ()):
            self.book.cancel_offer(self.nodes[node].offer)
            self.nodes[node].offer, self.nodes[node].leaves_at = -1, tick + self.world.notice_ticks
        for limit, gpus, is_gang, work, arrival_hash in self.script.jobs.get(tick, ()):
            self._place(Job(self.job_count, limit, gpus, is_gang, work, arrival_hash))
        for number, limit in self.script.limit_changes.get(tick, ()):
            if number in self.jobs:
                self._change_limit(self.jobs[number], limit)
        self._clear()
        self._hand_over()
        self._start()
        self.tick += 1

    # -- bids and the clearing --------------------------------------------------------------------

    def _place(self, job: Job) -> None:
        self.job_count += 1
        minimum = job.gpus if job.is_gang else 1
        job.handle = self.book.place_bid(job.limit, job.gpus, minimum, self.tick, job.hash, job.number)
        self.jobs[job.number] = self.of_handle[job.handle] = job

    def _change_limit(self, job: Job, limit: int) -> None:
        self._count(job)
        if self.world.is_rank_lost_by_lowering and limit < job.limit and job.ranked_gpus:
            self._rank(job, 0)
            self.lowered.add(job.number)
        job.limit = limit
        self.book.amend_bid(job.handle, limit, job.gpus, job.gpus if job.is_gang else 1)

    def _rank(self, job: Job, gpus: int) -> None:
        if job.ranked_gpus != gpus:
            job.ranked_gpus = gpus
            self.book.set_held(job.handle, gpus)

    def _clear(self) -> None:
        """Clear; note who is to get more and give notice to who is to have less."""
        clearing = self.book.clear()
        touched = set(self.lowered)
        for handle, fill in zip(clearing.handles.tolist(), clearing.fills.tolist(), strict=True):
            job = self.of_handle[handle]
            job.fill = fill
            touched.add(job.number)
        # Tenants of a recalled node kept their rank for the clearing above (R3).
        for number in sorted(self.rerank & self.jobs.keys()):
            self._rank(self.jobs[number], self.jobs[number].held)
        self.rerank.clear()
        for number in sorted(touched):
            self._compare(self.jobs[number])
        self._show_crowded(clearing.sold)
        self.counts["offered"] += clearing.offered
        self.counts["sold"] += clearing.sold
        self.counts["charged"] += max(clearing.price, 0) * clearing.sold
        self.counts["not_fitted"] += clearing.not_fitted
        self.decisions.update(f"{clearing.price}:{clearing.sold}:{clearing.value};".encode())

    def _compare(self, job: Job) -> None:
        """An award above what the job holds waits for free GPUs, one below it starts the notice."""
        held = job.held
        if job.fill > held:
            self.waiting.setdefault(job.number, self.tick)
        else:
            self.waiting.pop(job.number, None)
        if job.fill < held:
            if job.leaves_at == NEVER:
                job.leaves_at = self.tick + self.world.notice_ticks
                self.leaving.add(job.number)
            return
        job.leaves_at = NEVER
        self.leaving.discard(job.number)
        if job.number in self.lowered:
            self.lowered.remove(job.number)
            self._rank(job, held)

    def _show_crowded(self, sold: int) -> None:
        """The cheapest GPUs are the ones sold: what tenants occupy above that must move after a notice."""
        left = sold
        for number in self.by_reserve:
            node = self.nodes[number]
            if node.offer < 0:
                self.usable[number] = 0
                continue
            self.usable[number] = usable = min(left, NODE_GPUS)
            left -= usable
            if usable == NODE_GPUS or self._staying(node, number) <= usable:
                node.crowded_at = NEVER
            elif node.crowded_at == NEVER:
                node.crowded_at = self.tick + self.world.notice_ticks

    def _staying(self, node: Node, number: int) -> int:
        """GPUs of a node that are occupied by jobs not under notice."""
        tenants = (self.jobs[tenant] for tenant in node.tenants)
        return sum(job.parts[number][0] for job in tenants if job.leaves_at == NEVER)

    # -- GPUs change hands ------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """End the leases whose notice is over: lost, recalled, moved."""
        self.struck.clear()
        for number in sorted(self.leaving):
            job = self.jobs[number]
            if job.leaves_at <= self.tick:
                self.leaving.remove(number)
                job.leaves_at = NEVER
                self.lowered.discard(number)
                self._take_dearest(job, job.held - job.fill, "outbid")
                self._rank(job, job.held)
        for number, node in enumerate(self.nodes):
            if node.leaves_at <= self.tick:
                for tenant in sorted(node.tenants):
                    self._evict(self.jobs[tenant], number, NODE_GPUS, "recalled")
                node.leaves_at, node.free = NEVER, 0
            elif node.crowded_at <= self.tick:
                node.crowded_at = NEVER
                # The youngest leave first; a job that arrived later has worked less here.
                for tenant in sorted(node.tenants, reverse=True):
                    above = self._staying(node, number) - self.usable[number]
                    if above > 0 and self.jobs[tenant].leaves_at == NEVER:
                        self._evict(self.jobs[tenant], number, above, "moved")

    def _evict(self, job: Job, node: int, gpus: int, cause: str) -> None:
        """Take up to `gpus` of a node from a job, which is awarded them elsewhere or loses them."""
        self._take(job, node, min(gpus, job.parts[node][0]), cause)
        self._foresee(job)
        self.rerank.add(job.number)
        self.lowered.discard(job.number)
        self._compare(job)

    def _take_dearest(self, job: Job, gpus: int, cause: str) -> None:
        for node in sorted(job.parts, key=lambda n: (-self.nodes[n].reserve, n)):
            taken = min(gpus, job.parts[node][0])
            if taken:
                self._take(job, node, taken, cause)
                gpus -= taken
        self._foresee(job)

    def _take(self, job: Job, node: int, gpus: int, cause: str) -> None:
        """Take GPUs away; a gang that is not whole any more produces nothing."""
        self._count(job)
        if cause != "done" and job.is_at_work and job.number not in self.struck:
            self.struck.add(job.number)
            self.counts[cause] += 1
        part = job.parts[node]
        part[0] -= gpus
        if part[0] == 0:
            del job.parts[node]
            self.nodes[node].tenants.remove(job.number)
        self.nodes[node].free += gpus
        if job.is_gang:
            for part in job.parts.values():
                part[1] = NEVER

    def _start(self) -> None:
        """Start the awards for which enough GPUs are free, oldest award first."""
        if not self.waiting:
            return
        free = {
            number: min(node.free, self.usable[number] - NODE_GPUS + node.free)
            for number, node in enumerate(self.nodes)
            if node.offer >= 0 and node.free > 0 and self.usable[number] - NODE_GPUS + node.free > 0
        }
        total = sum(free.values())
        for number in sorted(self.waiting, key=lambda number: (self.waiting[number], number)):
            job = self.jobs[number]
            gpus = min(job.fill - job.held, total)
            if gpus == 0 or (job.is_gang and gpus + job.held < job.gpus):
                continue
            total -= gpus
            self._give(job, gpus, free)
            if job.held == job.fill:
                del self.waiting[number]

    def _give(self, job: Job, gpus: int, free: dict[int, int]) -> None:
        """Put GPUs of a job on the tightest node that has room, else on the emptiest ones."""
        self._count(job)
        ready = self.tick + self.world.restart_ticks
        if job.is_gang:
            for part in job.parts.values():
                part[1] = ready
        self.counts["restarts" if job.is_started else "starts"] += 1
        job.is_started = True
        while gpus:
            enough = [node for node, room in free.items() if room >= gpus]
            node = min(enough or free, key=lambda node: (free[node] if enough else -free[node], node))
            taken = min(free[node], gpus)
            gpus -= taken
            free[node] -= taken
            if not free[node]:
                del free[node]
            self.nodes[node].free -= taken
            self.nodes[node].tenants.add(job.number)
            part = job.parts.setdefault(node, [0, ready])
            part[0] += taken
            part[1] = ready
        self._rank(job, job.held)
        self._foresee(job)

    # -- work -------------------------------------------------------------------------------------

    def _count(self, job: Job) -> None:
        """Add up what the job occupied and produced since it was last counted."""
        since, until = job.counted_to, self.tick
        job.counted_to = until
        if since == until or not job.parts:
            return
        occupied = produced = 0
        for gpus, ready in job.parts.values():
            occupied += gpus * (until - since)
            produced += gpus * max(0, until - max(since, ready))
        produced = min(produced, job.work - job.done)  # of the last tick, a divisible job may need a part
        job.done += produced
        self.counts["occupied"] += occupied
        self.counts["produced"] += produced
        self.counts["value"] += job.limit * produced

    def _count_all(self) -> None:
        for job in self.jobs.values():
            self._count(job)

    def _foresee(self, job: Job) -> None:
        """Note the tick at which the job is done if nothing changes."""
        left, rate, at = job.work - job.done, 0, self.tick
        for ready, gpus in sorted((max(ready, self.tick), gpus) for gpus, ready in job.parts.values()):
            if rate and rate * (ready - at) >= left:
                break
            left -= rate * (ready - at)
            rate, at = rate + gpus, ready
        if rate and at < NEVER:
            self.finishing[at - (-left // rate)].add(job.number)

    def _finish(self) -> None:
        for number in sorted(self.finishing.pop(self.tick, ())):
            job = self.jobs.get(number)
            if job is None:
                continue
            self._count(job)
            if job.done < job.work:
                continue
            for node in list(job.parts):
                self._take(job, node, job.parts[node][0], "done")
            self.book.cancel_bid(job.handle)
            del self.jobs[number], self.of_handle[job.handle]
            self.waiting.pop(number, None)
            for numbers in (self.leaving, self.rerank, self.lowered):
                numbers.discard(number)
            self.counts["finished"] += 1


def _figures(counts: Counter[str], decisions: str) -> dict[str, Any]:
    """What one run is judged by; raw counts in GPU-ticks and levels beside it."""
    occupied_hours = counts["occupied"] / TICKS_PER_HOUR
    causes = {cause: 1_000 * counts[cause] / max(occupied_hours, 1) for cause in CAUSES}
    return {
        "interruptions": sum(causes.values()),  # per 1,000 occupied GPU-hours, as their causes
        **causes,
        "lost_gpu_hours": (counts["occupied"] - counts["produced"]) / TICKS_PER_HOUR,
        "value_usd": counts["value"] / TICKS_PER_HOUR / LEVELS_PER_USD,
        "price_usd": counts["charged"] / max(counts["sold"], 1) / LEVELS_PER_USD,
        "occupied_of_offered": counts["occupied"] / max(counts["offered"], 1),
        "produced_of_offered": counts["produced"] / max(counts["offered"], 1),
        "counts": dict(sorted(counts.items())),
        "hash": decisions,
    }
