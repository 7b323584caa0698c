"""One command on leased GPUs: bid, wait, run it here, stop it on a notice, wait for the next GPUs.

Decides when the command starts, what it is told, when it is killed and what its end means for the bid. The
command's process group is its own, so nothing of it outlives a reclaim. A market that does not answer never
ends the command: only a notice, the leases' end or whoever runs us does. Whatever happens the bid is
cancelled and its leases are released on the way out.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from auction.clock import SystemClock
from fallow.client.asynchronous import AsyncClient
from fallow.client.errors import FallowError, RefusedError, UnavailableError
from fallow.client.model import Bid, Lease, Notice

POLL_SECONDS = 0.5
NOTICE_WAIT_SECONDS = 2
KILL_MARGIN_SECONDS = 1.0  # before reclaim_at: for SIGKILL and the acknowledgement behind it
STOP_SECONDS = 10.0  # for a command that is to stop without a notice's deadline

EXIT_REFUSED = 3
EXIT_UNAVAILABLE = 5
EXIT_PREEMPTED = 6
EXIT_NOT_STARTED = 126
EXIT_SIGNAL = 128

OVER = frozenset({"cancelled", "expired", "exhausted", "rejected"})
LIVE_NOTICE = frozenset({"issued", "acknowledged"})
Tell = Callable[[str], None]


class Runner:
    """Runs one command to its end on one bid. `tell` takes lines for people."""

    def __init__(
        self, client: AsyncClient, command: Sequence[str], *, restarts_max: int, is_requeued: bool, tell: Tell
    ) -> None:
        self._client = client
        self._command = command
        self._restarts_max = restarts_max
        self._is_requeued = is_requeued
        self._tell = tell
        self._clock = SystemClock()
        self._signalled = asyncio.Event()
        self._signal = 0

    async def run(self, market: str, **terms: Any) -> int:
        """Bid for GPUs on `market` and run the command on them; return the exit code.

        Raises ProblemError where the bid is refused, UnavailableError where it cannot be placed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._take, number)
        bid = await self._client.place_bid(
            market, on_preempt="requeue" if self._is_requeued else "cancel", **terms
        )
        code = EXIT_UNAVAILABLE
        try:
            code = await self._serve(bid)
        finally:
            is_ended = await self._end(bid)
        return code if is_ended or code else EXIT_UNAVAILABLE

    def _take(self, number: signal.Signals) -> None:
        self._signal = number
        self._signalled.set()

    async def _serve(self, bid: Bid) -> int:
        """Run the command on one set of leases after another."""
        for restarts in range(self._restarts_max + 1):
            leases = await self._leased(bid)
            if self._signal:
                return EXIT_SIGNAL + self._signal
            if not leases:
                return EXIT_PREEMPTED if restarts else EXIT_REFUSED
            try:
                code = await self._once(leases)
            except OSError as error:
                self._tell(f"cannot start {self._command[0]}: {error.strerror}")
                return EXIT_NOT_STARTED
            if code is not None:
                return code
            if not self._is_requeued:
                break
        self._tell("preempted: not started again")
        return EXIT_PREEMPTED

    async def _leased(self, bid: Bid) -> list[Lease]:
        """Wait until every lease of the bid runs; none where the bid is over or a signal came."""
        told = ""
        while not self._signal:
            try:
                now = await self._client.bid(bid.id)
                leases = [await self._client.lease(lease) for lease in now.leases]
            except FallowError as error:
                told = self._tell_once(told, f"waiting for the market: {error}")
            else:
                why = "" if now.reason is None else f" ({now.reason.code})"
                if now.status in OVER:
                    self._tell(f"{bid.id} is {now.status}{why}")
                    return []
                live = [lease for lease in leases if lease.state != "ended"]
                if sum(lease.gpus for lease in live) >= bid.min_gpus:
                    if all(lease.state == "running" for lease in live):
                        return live
                    told = self._tell_once(told, f"waiting for {bid.id}'s GPUs to start")
                else:
                    wanted = f"{bid.gpus} GPUs of {bid.market} at {bid.limit_price_per_gpu_hour} or less"
                    told = self._tell_once(told, f"waiting for {wanted}: {bid.id} is {now.status}{why}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._signalled.wait(), POLL_SECONDS)
        return []

    def _tell_once(self, told: str, line: str) -> str:
        if line != told:
            self._tell(line)
        return line

    async def _once(self, leases: list[Lease]) -> int | None:
        """Run the command on these leases; return its exit code, None where it was preempted.

        Raises OSError where it cannot be started.
        """
        child = await asyncio.create_subprocess_exec(
            *self._command, env=os.environ | environment_of(leases), start_new_session=True
        )
        self._tell(f"running on {sum(lease.gpus for lease in leases)} GPUs, process {child.pid}")
        ended = asyncio.create_task(child.wait())
        signalled = asyncio.create_task(self._signalled.wait())
        preempted = asyncio.create_task(self._preempted(leases))
        try:
            await asyncio.wait([ended, signalled, preempted], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return exit_code_of(ended.result())
            if signalled.done():
                await self._stop(child, self._signal, STOP_SECONDS)
                return EXIT_SIGNAL + self._signal
            await self._give_back(child, preempted.result())
            return None
        finally:
            for task in (ended, signalled, preempted):
                task.cancel()
            kill_group(child.pid)

    async def _preempted(self, leases: list[Lease]) -> list[Notice]:
        """Return the live notices of these leases when there are any; none where a lease is over already."""
        ids, told = {lease.id for lease in leases}, ""
        while True:
            try:
                states = {(await self._client.lease(lease)).state for lease in sorted(ids)}
                if "noticed" in states:
                    mine = [one for one in await self._client.notices() if one.lease in ids]
                    live = [one for one in mine if one.state in LIVE_NOTICE]
                    if live:
                        return live
                if "ended" in states:
                    return []
                await self._client.notices(wait_seconds=NOTICE_WAIT_SECONDS)
            except FallowError as error:
                told = self._tell_once(told, f"no word from the market, the command runs on: {error}")
                await asyncio.sleep(POLL_SECONDS)

    async def _give_back(self, child: asyncio.subprocess.Process, notices: list[Notice]) -> None:
        """Stop the command before its GPUs are reclaimed, and say so: that ends the bill."""
        allowed_s = STOP_SECONDS
        if notices:
            first = min(notices, key=lambda notice: (notice.reclaim_at, notice.id))
            self._tell(f"notice ({first.reason}): the GPUs are reclaimed at {first.reclaim_at.isoformat()}")
            allowed_s = first.reclaim_at.timestamp() - self._clock.now_us() / 1e6 - KILL_MARGIN_SECONDS
        else:
            self._tell("a lease has ended without a notice")
        await self._stop(child, signal.SIGTERM, max(0.0, allowed_s))
        for notice in notices:
            try:
                await self._client.ack_notice(notice.id, ready=True)
            except FallowError as error:
                self._tell(f"{notice.id} is not acknowledged: {error}")

    async def _stop(self, child: asyncio.subprocess.Process, number: int, allowed_s: float) -> None:
        """Send a signal, wait so many seconds for the command's end, kill its whole group."""
        with suppress(ProcessLookupError):
            child.send_signal(number)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), allowed_s)
        kill_group(child.pid)
        await child.wait()

    async def _end(self, bid: Bid) -> bool:
        """Cancel the bid and release what it has; False, and a line about it, where that did not work."""
        try:
            await self._client.cancel_bid(bid.id, release=True)
        except RefusedError:
            return True  # over already: nothing is held or billed
        except (FallowError, UnavailableError) as error:
            self._tell(f"{bid.id} may still be open and billed; `fallow bid cancel {bid.id}`: {error}")
            return False
        return True


def environment_of(leases: Sequence[Lease]) -> dict[str, str]:
    """Return what the command is told: ids and GPUs of all leases, the way to the first one's node."""
    told = {
        "FALLOW_LEASE_ID": ",".join(lease.id for lease in leases),
        "FALLOW_GPUS": str(sum(lease.gpus for lease in leases)),
    }
    for name, value in leases[0].connect.items():
        told["FALLOW_LEASE_CONNECT_" + "".join(c if c.isalnum() else "_" for c in name.upper())] = value
    return told


def exit_code_of(returned: int) -> int:
    """Write a death by signal as shells do."""
    return returned if returned >= 0 else EXIT_SIGNAL - returned


def kill_group(group: int) -> None:
    """Kill what is left of a command's process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
