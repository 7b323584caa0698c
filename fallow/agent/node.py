"""The agent of one node: heartbeats, the desired state, hooks, reports.

It acts on states, not on messages (reconcile.py), writes down what it is about to do before it does it, and
tells what it has done until the market has taken it. Out of reach of the market it goes on: payloads run,
known notices keep their time, reports wait. GPUs that do not come back clean are fenced until their owner
says otherwise. `reclaim_at` is by the market's clock (market_clock.py).
"""

import asyncio
import logging
from pathlib import Path

from api.fields import format_instant, parse_instant
from api.wire_supply import DesiredLease, DesiredView, HeartbeatView, NodeView
from auction.clock import Clock
from auction.units import MICROSECONDS_PER_SECOND
from fallow.agent.hooks import HookFailed, Order, run_hook
from fallow.agent.inventory import Gpu, Inventory, NoGpus
from fallow.agent.journal import Held, Journal, Phase, Report
from fallow.agent.link import ContactLost, Link, Refused
from fallow.agent.payloads import Driver, DriverFailed, Job, PayloadRefused
from fallow.agent.reconcile import Act, Step, Wanted, steps

POLL_SECONDS = 20  # how long the market holds an unchanged desired state back
LOOK_SECONDS = 0.5  # deadlines and reports that wait
RETRY_SECONDS = 2.0
START_SECONDS_MAX = 540.0  # a market gives a node 600 s by default
STOP_SECONDS_MAX = 60.0
DRAIN_SECONDS_MAX = 3_600.0
CLEAN_LOOKS = 10  # a second apart: a driver notices late that a process has ended
REPORTS_MAX = 10_000
PAYLOAD_LOOK_SECONDS = 2.0
RELEASE_GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL where there was no notice

_logger = logging.getLogger("fallow.agent")


class Agent:
    """Serves one node until it is cancelled."""

    def __init__(
        self,
        link: Link,
        journal: Journal,
        inventory: Inventory,
        gpus: list[Gpu],
        clock: Clock,
        *,
        hooks: Path | None = None,
        driver: Driver | None = None,
    ) -> None:
        self._link = link
        self._journal = journal
        self._memory = journal.memory
        self._inventory = inventory
        self._uuids = {gpu.index: gpu.uuid for gpu in gpus}
        self._clock = clock
        self._hooks = hooks
        self._driver = driver
        self._wanted: dict[str, Wanted] | None = None
        self._workloads: dict[str, DesiredLease] = {}
        self._revision: str | None = None
        self._busy: dict[str, tuple[Act, asyncio.Task[None]]] = {}
        self._fenced_told: list[int] | None = None
        self.in_contact = False

    @property
    def held(self) -> dict[str, Held]:
        """Return the leases on this node."""
        return self._memory.held

    async def run(self) -> None:
        """Report for duty and serve.

        Raises Refused when the market does not know this node or key, ValueError when it lends more GPUs
        than there are.
        """
        await self._enrol()
        loops = (self._beat(), self._watch(), self._work(), self._look_after_payloads())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await asyncio.gather(*tasks)
        finally:
            tasks += [task for _, task in self._busy.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _enrol(self) -> None:
        while True:
            try:
                body = {"node": self._memory.node}
                node = await self._link.ask("POST", "/v1/agent/enrol", body, view=NodeView)
                break
            except ContactLost as lost:
                _logger.warning("the market does not answer: %s", lost)
                await asyncio.sleep(RETRY_SECONDS)
        if node.gpus > len(self._uuids):
            raise ValueError(f"the node has {node.gpus} GPUs in the market, this machine {len(self._uuids)}")

    async def _beat(self) -> None:
        seconds = RETRY_SECONDS
        while True:
            try:
                beat = await self._link.ask(
                    "POST", "/v1/agent/heartbeat", {"node": self._memory.node}, view=HeartbeatView
                )
                seconds = beat.heartbeat_seconds
            except ContactLost as lost:
                _logger.warning("no heartbeat: %s", lost)
                seconds = RETRY_SECONDS
            await asyncio.sleep(seconds)

    async def _watch(self) -> None:
        """Learn the desired state, whole, whenever it changes."""
        while True:
            query = f"?node={self._memory.node}&wait_seconds={POLL_SECONDS}"
            if self._revision is not None and self.in_contact:
                query += f"&revision={self._revision}"
            try:
                desired = await self._link.ask(
                    "GET", f"/v1/agent/desired{query}", view=DesiredView, wait_seconds=POLL_SECONDS
                )
            except ContactLost:
                self.in_contact, self._wanted = False, None
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._revision, self.in_contact = desired.revision, True
            leases = [lease for node in desired.nodes for lease in node.leases]
            self._memory.ended = [ended for ended in self._memory.ended if ended in {x.id for x in leases}]
            self._workloads = {lease.id: lease for lease in leases}
            self._wanted = {x.id: _wanted(x) for x in leases if x.id not in self._memory.ended}
            self._learn()

    def _learn(self) -> None:
        """Keep what notices say: they hold when the market is out of reach."""
        assert self._wanted is not None
        changed = False
        for lease_id, own in self.held.items():
            wanted = self._wanted.get(lease_id)
            if wanted is not None and own.reclaim_at_us != wanted.reclaim_at_us:
                own.reclaim_at_us, changed = wanted.reclaim_at_us, True
        if changed:
            self._journal.save()

    async def _work(self) -> None:
        while True:
            wanted = None if self._wanted is None else self._wanted.values()
            for step in steps(self.held, wanted, self._clock.now_us()):
                self._begin(step)
            await self._tell()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_after_payloads(self) -> None:
        """A payload that has ended ends its lease, and so the bill."""
        while self._driver is not None:
            await asyncio.sleep(PAYLOAD_LOOK_SECONDS)
            for lease in list(self.held.values()):
                if lease.phase is not Phase.RUNNING or not lease.has_payload or lease.id in self._busy:
                    continue
                try:
                    code = await self._driver.exit_code(lease.id)
                except DriverFailed as failure:
                    _logger.warning("lease %s: %s", lease.id, failure)
                    continue
                if code is not None and lease.phase is Phase.RUNNING and lease.id not in self._busy:
                    self._finish(lease, code)

    def _finish(self, lease: Held, exit_code: int) -> None:
        _logger.info("the payload of %s ended with status %d", lease.id, exit_code)
        lease.phase = Phase.STOPPING
        lease.connect = lease.connect | {"exit_code": str(exit_code)}
        self._report(lease, "finished")

    # -- acting ------------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        """Do a step beside the others; what is under way is left alone, but for a stop."""
        if step.lease in self._busy:
            act, task = self._busy[step.lease]
            if step.act is Act.STOP and act is not Act.STOP:
                task.cancel()  # its hook is killed; the stop comes with the next look
            return
        if step.lease not in self.held:
            assert self._wanted is not None, "only the market makes a lease known"
            wanted = self._wanted[step.lease]
            phase = Phase.STARTING if step.act is Act.START else Phase.RUNNING
            self.held[step.lease] = Held(step.lease, wanted.gpu_indices, phase, wanted.reclaim_at_us)
            self._journal.save()
        task = asyncio.create_task(self._act(step), name=f"{step.act} {step.lease}")
        self._busy[step.lease] = step.act, task
        task.add_done_callback(lambda _: self._busy.pop(step.lease, None))

    async def _act(self, step: Step) -> None:
        _logger.info("%s %s", step.act, step.lease)
        try:
            match step.act:
                case Act.START:
                    await self._start(self.held[step.lease])
                case Act.ADOPT:
                    pass  # it is known now
                case Act.DRAIN:
                    await self._drain(self.held[step.lease])
                case Act.STOP:
                    await self._stop(self.held[step.lease])
        except Exception:
            # One lease's trouble must not end the agent of the others; the next look tries again.
            _logger.exception("%s %s", step.act, step.lease)
            await asyncio.sleep(RETRY_SECONDS)

    async def _start(self, lease: Held) -> None:
        try:
            lease.connect = await run_hook(self._hooks, "on_start", self._order(lease), START_SECONDS_MAX)
            lease.connect |= await self._run_payload(lease)
        except PayloadRefused as refusal:
            _logger.info("lease %s: %s", lease.id, refusal)
            self._finish(lease, refusal.exit_code)
            return
        except (HookFailed, DriverFailed) as failure:
            _logger.warning("lease %s: %s", lease.id, failure)
            self._fence(lease)
            self._report(lease, "failed")
            lease.phase = Phase.STOPPING
            self._journal.save()
            return
        lease.phase = Phase.RUNNING
        self._report(lease, "started")

    async def _run_payload(self, lease: Held) -> dict[str, str]:
        workload = self._workloads.get(lease.id)
        if self._driver is None or workload is None:
            return {}
        uuids = self._order(lease).gpu_uuids
        job = Job(lease.id, uuids, workload.ssh_public_key, workload.payload)
        if not self._driver.runs(job):
            return {}
        if lease.phase is Phase.DRAINED:  # it runs again, from the beginning
            await self._driver.end(lease.id, 0)
            await self._driver.forget(lease.id)
        lease.phase, lease.has_payload = Phase.STARTING, True
        self._journal.save()
        return await self._driver.start(job)

    async def _drain(self, lease: Held) -> None:
        assert lease.reclaim_at_us is not None
        left_s = (lease.reclaim_at_us - self._clock.now_us()) / MICROSECONDS_PER_SECOND
        try:
            await run_hook(self._hooks, "on_drain", self._order(lease), min(left_s, DRAIN_SECONDS_MAX))
            reclaim_at_us = self.held[lease.id].reclaim_at_us
            if reclaim_at_us is None:  # the notice was withdrawn while the hook ran
                lease.phase = Phase.RUNNING
                self._journal.save()
                return
            left_s = (reclaim_at_us - self._clock.now_us()) / MICROSECONDS_PER_SECOND
            await self._end_payload(lease, left_s)
        except (HookFailed, DriverFailed) as failure:
            _logger.warning("lease %s: %s", lease.id, failure)
        lease.phase = Phase.DRAINED
        self._report(lease, "drained")

    async def _stop(self, lease: Held) -> None:
        lease.phase = Phase.STOPPING
        self._journal.save()
        try:
            await self._end_payload(lease, RELEASE_GRACE_SECONDS if lease.reclaim_at_us is None else 0)
            await run_hook(self._hooks, "on_stop", self._order(lease), STOP_SECONDS_MAX)
            if self._driver is not None:
                await self._driver.forget(lease.id)
            is_clean = await self._is_clean(lease)
        except (HookFailed, DriverFailed) as failure:
            _logger.warning("lease %s: %s", lease.id, failure)
            is_clean = False
        if not is_clean:
            self._fence(lease)
        if lease.reclaim_at_us is not None:
            self._report(lease, "stopped")
        if self._wanted is None or self._wanted.pop(lease.id, None) is not None:
            self._memory.ended.append(lease.id)
        del self.held[lease.id]
        self._journal.save()

    async def _end_payload(self, lease: Held, grace_seconds: float) -> None:
        if self._driver is not None:
            await self._driver.end(lease.id, grace_seconds)

    async def _is_clean(self, lease: Held) -> bool:
        """Say whether nobody computes on the lease's GPUs any more, after a moment for the driver."""
        for _ in range(CLEAN_LOOKS):
            try:
                busy = await asyncio.to_thread(self._inventory.busy)
            except NoGpus as reason:
                _logger.warning("lease %s: its GPUs cannot be looked at: %s", lease.id, reason)
                return False
            if not busy & set(lease.gpu_indices):
                return True
            await asyncio.sleep(1)
        return False

    def _fence(self, lease: Held) -> None:
        self._memory.fenced = sorted({*self._memory.fenced, *lease.gpu_indices})
        self._journal.save()

    def _order(self, lease: Held) -> Order:
        wanted = (self._wanted or {}).get(lease.id)
        workload = self._workloads.get(lease.id)
        return Order(
            lease=lease.id,
            gpu_indices=lease.gpu_indices,
            gpu_uuids=[self._uuids[index] for index in lease.gpu_indices if index in self._uuids],
            reason=None if wanted is None else wanted.reason,
            reclaim_at=None if lease.reclaim_at_us is None else format_instant(lease.reclaim_at_us),
            ssh_public_key=None if workload is None else workload.ssh_public_key,
            payload=None if workload is None else workload.payload,
        )

    # -- telling -----------------------------------------------------------------------------------

    def _report(self, lease: Held, state: str) -> None:
        self._memory.reports.append(
            Report(lease.id, state, lease.connect if state in ("started", "finished") else {})
        )
        del self._memory.reports[:-REPORTS_MAX]
        self._journal.save()

    async def _tell(self) -> None:
        """Send what was not taken yet, fenced GPUs first: what is stopped may be lent again at once."""
        try:
            if self._fenced_told != self._memory.fenced:
                fenced = list(self._memory.fenced)
                body = {"node": self._memory.node, "fenced_gpus": fenced}
                await self._link.ask("PUT", "/v1/agent/inventory", body)
                self._fenced_told = fenced
            while self._memory.reports:
                report = self._memory.reports[0]
                await self._send(report)
                self._memory.reports.remove(report)
                self._journal.save()
        except ContactLost as lost:
            _logger.debug("reports wait: %s", lost)

    async def _send(self, report: Report) -> None:
        body = {"state": report.state} | ({"connect": report.connect} if report.connect else {})
        try:
            await self._link.ask("POST", f"/v1/agent/leases/{report.lease}/report", body)
        except Refused as refusal:
            # The lease has moved on in the meantime: there is nothing left to tell.
            _logger.info("lease %s %s: %s", report.lease, report.state, refusal.code)


def _wanted(lease: DesiredLease) -> Wanted:
    notice = lease.notice
    reclaim_at_us = None if notice is None else parse_instant(notice.reclaim_at)
    reason = None if notice is None else notice.reason
    return Wanted(lease.id, lease.state, lease.gpu_indices, reclaim_at_us, reason)


def read_journal(state_dir: Path, node: str) -> Journal:
    """Open the node's journal in a directory; raises ValueError and OSError."""
    state_dir.mkdir(parents=True, exist_ok=True)
    return Journal(state_dir / f"{node}.json", node)
