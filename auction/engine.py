"""The single writer: a bounded inbox, group commit, and the beat of the markets.

Commands gather in the inbox. Each is decided in one go, without waiting for anything between a check and the
state it checked; a batch of them is written in one transaction; only then are its answers given and its
events told. So an answer is durable, and nothing is announced that was not. While one batch is written the
next one is decided, on a state that is one commit ahead of the storage; never more than one.

When a commit fails, that state is dropped with the batch that was decided on it, and read again from the
store: what the store says happened, happened. When another engine has taken the shard, this one stops for
good.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from auction.bidding import repeat_of
from auction.clock import Clock
from auction.commands import Command, PlaceBid
from auction.core import Core
from auction.errors import CommandFault, Rejection, TickFault, Unavailable
from auction.inbox import Inbox
from auction.market import Book
from auction.model import Bid, MarketStatus
from auction.ports import Answer, Changes, KeyedRequest, Store, StoredAnswer
from auction.publisher import Publisher
from auction.quarantine import Aside
from auction.timings import TickTiming, Timings

BATCH_COMMANDS_MAX = 2_000
REST_EVERY_COMMANDS = 50  # two milliseconds
SNAPSHOT_EVERY_ENTRIES = 20_000
RECOVERY_PAUSE_US = 200_000
# An answer that says "not now" or "not so" may differ next time; it is not kept.
STATUSES_NOT_STORED = frozenset({401, 422, 429, 503})

log = logging.getLogger(__name__)

Encode = Callable[[list[Any]], Answer]


class _Submission:
    __slots__ = ("account", "commands", "encode", "future", "is_atomic", "keyed")

    def __init__(
        self,
        commands: Sequence[Command],
        encode: Encode | None,
        keyed: KeyedRequest | None,
        is_atomic: bool,
        future: asyncio.Future[Any],
    ) -> None:
        self.commands = commands
        self.is_atomic = is_atomic
        self.account: str | None = getattr(commands[0], "account", None) if commands else None
        self.encode = encode
        self.keyed = keyed
        self.future = future


class _Decided:
    """A batch between its decision and its commit; what it adds to what a later batch may ask for."""

    __slots__ = ("answers", "batch", "changes", "decided_us", "known", "replies", "timing")

    def __init__(self, batch: list[_Submission]) -> None:
        self.batch = batch
        self.replies: list[Any] = []
        self.changes = Changes()
        self.answers: dict[tuple[str, str], StoredAnswer] = {}
        self.known: dict[tuple[str, str], Bid] = {}
        self.timing: TickTiming | None = None  # where it cleared something
        self.decided_us = 0


class Engine:
    """One shard's writer. Start it, submit to it, stop it."""

    def __init__(self, store: Store, clock: Clock, *, make_book: type[Book] | None = None) -> None:
        self.core = Core(make_book)
        self.publisher = Publisher()
        self.timings = Timings()
        self.clock = clock
        self.is_ready = False
        self.fault_count = 0  # rules of ours that failed, and were contained
        self._make_book = make_book
        self._store = store
        self._inbox: Inbox[_Submission] = Inbox()
        self._in_flight: set[tuple[str, str]] = set()
        self._bell = asyncio.Event()
        self._is_draining = False
        self._has_left_ticks = False  # what was due was not cleared with the last batch, and is at once
        self._snapshot_seq = 0
        self._writing: asyncio.Task[None] | None = None
        self._unwritten = _Decided([])
        self._task: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the shard, read the state, and begin to write.

        Raises Fenced when another engine is alive on the shard, Unavailable when storage is not there.
        """
        await self._recover()
        self._task = asyncio.create_task(self._run(), name="engine")

    async def stop(self) -> None:
        """Answer what is in the inbox, keep a snapshot, let go of the shard."""
        self._is_draining = True
        self._bell.set()
        if self._task is not None:
            await asyncio.wait({self._task})
        self.is_ready = False
        await self._store.close()

    async def run_until(self, stop: asyncio.Event) -> None:
        """Wait for `stop`; raises what ended the writer if that comes first."""
        assert self._task is not None
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        finally:
            stopping.cancel()

    async def _recover(self) -> None:
        await self._store.acquire()
        self.core = Core.restore(await self._store.load(), self._make_book)
        self.clock.not_before(self.core.now_us)
        self._snapshot_seq = self.core.seq
        self.is_ready = True

    @property
    def waiting_commands(self) -> int:
        """Return how many commands wait for the next batch."""
        return self._inbox.command_count

    # -- asking -----------------------------------------------------------------------------------

    async def submit(
        self,
        commands: Sequence[Command],
        *,
        encode: Encode,
        keyed: KeyedRequest | None = None,
        is_atomic: bool = False,
    ) -> tuple[Answer, bool]:
        """Have commands decided in order; return (answer, replayed) once that is durable.

        With `is_atomic`, for places, amendments and cancels of bids of one account, all are taken or none:
        then the outcome of every other than the refused one is the Rejection `batch_aborted`.
        `encode` turns the outcomes into the answer at the moment of decision; with `keyed` the answer
        is stored in the same transaction and repeated to whoever asks again with that key. Raises
        Rejection (`idempotency_key_reused`, `idempotency_in_progress`) and Unavailable (`inbox_full`,
        `draining`, `storage_unavailable`).
        """
        if keyed is not None:
            if (keyed.account, keyed.key) in self._in_flight:
                raise Rejection("idempotency_in_progress", "a request with this key is still running")
            self._in_flight.add((keyed.account, keyed.key))
        try:
            result: tuple[Answer, bool] = await self._enqueue(commands, encode, keyed, is_atomic)
            return result
        finally:
            if keyed is not None:
                self._in_flight.discard((keyed.account, keyed.key))

    async def execute(self, command: Command) -> Any:
        """Have one command decided; return its outcome or raise the Rejection that it met."""
        outcomes = await self._enqueue([command], None, None)
        if isinstance(outcomes[0], Rejection):
            raise outcomes[0]
        return outcomes[0]

    async def settled(self) -> None:
        """Return when all that was decided before this call is durable; raises Unavailable."""
        await self._enqueue((), None, None)

    async def _enqueue(
        self,
        commands: Sequence[Command],
        encode: Encode | None,
        keyed: KeyedRequest | None,
        is_atomic: bool = False,
    ) -> Any:
        if self._is_draining:
            raise Unavailable("draining", "this server is shutting down")
        if not self.is_ready:
            raise Unavailable("storage_unavailable", "the market is reconnecting to its storage")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._inbox.add(_Submission(commands, encode, keyed, is_atomic, future))
        self._bell.set()
        return await future

    # -- writing ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Decide one batch while the one before it is written."""
        while True:
            if not self._inbox and not self._is_draining:
                await self.clock.wait(self._bell, self.core.next_due_us())
            self._bell.clear()
            batch = self._inbox.take(BATCH_COMMANDS_MAX)
            is_last = self._is_draining and not batch
            try:
                decided = None if is_last else await self._decide_what_can_be(batch)
                await self._written()
                if decided is not None:
                    self._begin_writing(decided)
                if is_last or self.core.seq - self._snapshot_seq >= SNAPSHOT_EVERY_ENTRIES:
                    await self._written()
                    await self._save_snapshot()
            except Unavailable as outage:
                log.warning("storage is unavailable: %s", outage.detail)
                await self._abandon(batch, outage)
                await self._recover_until_back()
            except BaseException:
                await self._abandon(
                    batch, Unavailable("storage_unavailable", "the market's writer has stopped")
                )
                raise
            if is_last:
                return

    async def _decide_what_can_be(self, batch: list[_Submission]) -> _Decided:
        """Decide a batch without what makes a rule of ours fail (FAULTS.md F26, RULES.md R12).

        A failure leaves the state half changed: it is read again, its cause is put aside, and all others are
        decided anew. Raises the TickFault of a market that fails even while it is halted.
        """
        aside = Aside()
        while True:
            try:
                decided = await self._decide_batch(batch, clears=aside.clears)
                self._has_left_ticks = not aside.clears
                return decided
            except (CommandFault, TickFault) as fault:
                log.critical("%s", fault, exc_info=fault)
                self.fault_count += 1
                await self._written()  # what was decided before stands
                await self._recover()
                if isinstance(fault, TickFault):
                    is_halted = any(
                        self.core.markets[name].status is MarketStatus.HALTED for name in fault.markets
                    )
                    if is_halted or not set(fault.markets).isdisjoint(aside.void):
                        raise
                    may_wait = bool(batch) and not self._has_left_ticks
                    await aside.add_cause(
                        self.core, fault.markets, self.clock, may_wait=may_wait, make_book=self._make_book
                    )
                else:
                    poison = batch.pop(fault.place)
                    if not poison.future.done():
                        poison.future.set_exception(
                            Rejection("engine_error", "a rule of the market failed on this; it was not done")
                        )
                aside.put(self.core, self.clock.now_us())

    async def _decide_batch(self, batch: list[_Submission], *, clears: bool = True) -> _Decided:
        """Look up what is known already, and decide; the state is ahead of the storage from here on."""
        answers, known = dict(self._unwritten.answers), dict(self._unwritten.known)
        keyed = [submission.keyed for submission in batch if submission.keyed is not None]
        if keyed:
            answers |= await self._store.find_answers(keyed)
        named = [
            (command.account, command.client_bid_id)
            for submission in batch
            for command in submission.commands
            if isinstance(command, PlaceBid) and command.client_bid_id is not None
        ]
        if named:
            known |= await self._store.find_client_bids(named)

        decided = _Decided(batch)
        earlier = set(known)
        for place, submission in enumerate(batch):
            stored = answers.get(_key(submission.keyed)) if submission.keyed is not None else None
            try:
                reply = await self._decide(submission, stored, known, decided.answers)
            except Unavailable:
                raise
            except Exception as error:
                raise CommandFault(place) from error
            decided.replies.append(reply)
        decided.known = {pair: bid for pair, bid in known.items() if pair not in earlier}
        due_us, began_us = self.core.next_due_us(), self.clock.now_us()
        ticks = self.core.run_due(began_us) if clears else []
        decided.decided_us = self.clock.now_us()
        if ticks:
            late_us = max(0, began_us - (began_us if due_us is None else due_us))
            markets = tuple(tick.market for tick in ticks)
            decided.timing = TickTiming(markets, late_us, decided.decided_us - began_us)
        decided.changes = self.core.take_changes()
        decided.changes.answers = list(decided.answers.values())
        return decided

    def _begin_writing(self, decided: _Decided) -> None:
        """Encode a batch at once, and write it in the background; it is answered when it is durable."""
        changes = decided.changes
        writing = self._store.commit(changes) if changes.journal or changes.answers else None
        if writing is None:
            self._answer(decided)
            return
        self._unwritten = decided
        self._writing = asyncio.create_task(self._write(decided, writing), name="commit")
        self._writing.add_done_callback(lambda _: self._bell.set())

    async def _write(self, decided: _Decided, writing: Awaitable[None]) -> None:
        await writing
        self._unwritten = _Decided([])
        durable_us = self.clock.now_us()
        self._answer(decided)
        self._tell(decided.changes)
        if decided.timing is not None:
            decided.timing.commit_us = durable_us - decided.decided_us
            decided.timing.tell_us = self.clock.now_us() - durable_us
            self.timings.kept.append(decided.timing)

    async def _written(self) -> None:
        """Return when what is being written is durable; raises what prevented it."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def _abandon(self, batch: list[_Submission], outage: Unavailable) -> None:
        """Let what is being written end, one way or the other; refuse whoever is still without an answer."""
        self.is_ready = False
        if self._writing is not None:
            await asyncio.wait({self._writing})
            if self._writing.exception() is not None:
                self._fail(self._unwritten.batch, outage)
        self._writing, self._unwritten = None, _Decided([])
        self._fail(batch, outage)

    async def _decide(
        self,
        submission: _Submission,
        stored: StoredAnswer | None,
        known: dict[tuple[str, str], Bid],
        kept: dict[tuple[str, str], StoredAnswer],
    ) -> Any:
        """Return what the submission's future will give: (answer, replayed), outcomes, or an exception."""
        keyed = submission.keyed
        if stored is not None and keyed is not None:
            if stored.request.request_hash != keyed.request_hash:
                return Rejection("idempotency_key_reused", "this key was used with another request")
            return stored.answer, True
        if submission.is_atomic:
            outcomes = self._decide_all_or_none(submission.commands, known)
        else:
            outcomes = []
            for i, command in enumerate(submission.commands, 1):
                outcomes.append(self._apply(self.core, command, known, self.clock.now_us()))
                if i % REST_EVERY_COMMANDS == 0:
                    await asyncio.sleep(0)  # what is being written goes out, and others are answered
        if submission.encode is None:
            return outcomes
        answer = submission.encode(outcomes)
        if keyed is not None and answer.status not in STATUSES_NOT_STORED:
            kept[_key(keyed)] = StoredAnswer(keyed, answer, self.core.now_us)
        return answer, False

    def _decide_all_or_none(
        self, commands: Sequence[Command], known: dict[tuple[str, str], Bid]
    ) -> list[Any]:
        """Rehearse the commands, and carry them out if none of them was refused."""
        account: str = getattr(commands[0], "account")  # noqa: B009 - Command is a union of all kinds
        rehearsal, supposed, at_us = self.core.rehearsal(account, commands), dict(known), self.clock.now_us()
        for i, command in enumerate(commands):
            outcome = self._apply(rehearsal, command, supposed, at_us)
            if isinstance(outcome, Rejection):
                why = Rejection(
                    "batch_aborted", f"operation {i} was refused ({outcome.code}): nothing was done"
                )
                return [outcome if k == i else why for k in range(len(commands))]
        outcomes = [self._apply(self.core, command, known, at_us) for command in commands]
        refused = [outcome.code for outcome in outcomes if isinstance(outcome, Rejection)]
        if refused:  # a defect; nothing is committed, and the state is read again
            log.critical("an atomic batch was rehearsed without a refusal and then met %s", refused)
            raise Unavailable("storage_unavailable", "the batch could not be decided")
        return outcomes

    def _apply(self, core: Core, command: Command, known: dict[tuple[str, str], Bid], at_us: int) -> Any:
        if isinstance(command, PlaceBid) and command.client_bid_id is not None:
            pair = (command.account, command.client_bid_id)
            first = self.core.client_bid(*pair) or known.get(pair)
            if first is not None:
                try:
                    return repeat_of(first, command)
                except Rejection as conflict:
                    return conflict
            outcome = core.apply(command, at_us)
            if not isinstance(outcome, Rejection):
                known[pair] = outcome.bid  # it may be final before this batch ends
            return outcome
        return core.apply(command, at_us)

    def _answer(self, decided: _Decided) -> None:
        for submission, reply in zip(decided.batch, decided.replies, strict=True):
            if submission.future.done():
                continue  # its client has gone; the decision stands
            if isinstance(reply, Exception):
                submission.future.set_exception(reply)
            else:
                submission.future.set_result(reply)

    def _tell(self, changes: Changes) -> None:
        if changes.events or changes.ticks:
            self.publisher.publish(changes.events, changes.ticks)

    # -- outages and snapshots --------------------------------------------------------------------

    def _fail(self, batch: list[_Submission], outage: Unavailable) -> None:
        for submission in [*batch, *self._inbox.clear()]:
            if not submission.future.done():
                submission.future.set_exception(Unavailable(outage.code, outage.detail))

    async def _recover_until_back(self) -> None:
        """Read the state again as soon as storage answers. Raises Fenced when the shard is lost."""
        while not self._is_draining:
            try:
                await self._recover()
                return
            except Unavailable:
                self._bell.clear()
                await self.clock.wait(self._bell, self.clock.now_us() + RECOVERY_PAUSE_US)

    async def _save_snapshot(self) -> None:
        payload = msgspec.msgpack.encode(self.core.live())
        await self._store.save_snapshot(self.core.seq, self.core.state_hash(), payload)
        self._snapshot_seq = self.core.seq


def _key(keyed: KeyedRequest | None) -> tuple[str, str]:
    assert keyed is not None
    return keyed.account, keyed.key
