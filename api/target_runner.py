"""Runs the targets: after each tick, whatever bid a target wants now is placed, changed or taken back.

A runner is an ordinary client: it sends the commands that a tenant could send, under the target's key, so
the key's and the account's limits bind it. It may die between any two steps: the ids of a target's bids
derive from its own, so the next runner finds what was placed; a bid is placed only when the one before
it, and the leases of that one, have ended. A bid that others cancel (its account, a kill switch, the dead
man's switch) pauses its target: nothing comes back by itself.
Invariants: one live bid a target; what all bids spent and the live one may yet spend is within the cap.
"""

import asyncio
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from auction.commands import AmendBid, CancelBid, Command
from auction.engine import Engine
from auction.errors import Rejection, Unavailable
from auction.limits import DAY_US
from auction.model import BID_FINAL, Bid, BidStatus, OnPreempt
from auction.publisher import Subscription
from auction.targets import (
    BIDS_PER_TARGET_MAX,
    DAY_S,
    TARGET_FINAL,
    Situation,
    Target,
    TargetKind,
    TargetState,
    Wanted,
    amendment,
    begin_day,
    bid_of,
    next_bid,
    plan,
)
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price
from sql.limit_reads import price_quantile
from sql.reads import INT64_MAX, Reader
from sql.target_store import TargetStore

ATTENDED_AT_ONCE_MAX = 8
CHEAP_SHARE = 0.25  # of the day's prices
CHEAP_STANDS_US = 60 * MICROSECONDS_PER_SECOND
PAUSE_SECONDS = 1.0
LOOKS_MAX = 4

BID_CANCELLED = "bid_cancelled"  # by somebody else: the target pauses
BID_REJECTED = "bid_rejected"  # the market failed on it: another one like it would not do better
AHEAD_OF_PACE = "ahead_of_pace"  # by the target itself: it wants nothing now
KEY_REVOKED = "key_revoked"
TOO_MANY_BIDS = "too_many_bids"

_logger = logging.getLogger("fallow.targets")


class _Changed(Exception):
    """Somebody else has changed the target meanwhile: look again."""


class TargetRunner:
    """Looks after every target that is under way."""

    def __init__(self, engine: Engine, store: TargetStore, reader: Reader) -> None:
        self._engine = engine
        self._store = store
        self._reader = reader
        self._targets: dict[str, Target] = {}
        self._is_loaded = False
        self._unsure: set[str] = set()  # whether one more bid was placed than is written down
        self._locks: dict[str, asyncio.Lock] = {}
        self._cheap: dict[str, tuple[int, Price | None]] = {}
        self._places = asyncio.Semaphore(ATTENDED_AT_ONCE_MAX)
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on where the last runner on this database stopped."""
        self._subscription = self._engine.publisher.subscribe(None)
        self._subscription.all_markets = True
        self._task = asyncio.create_task(self._run(self._subscription), name="targets")

    async def stop(self) -> None:
        """Stop where it is; the bids stay."""
        if self._subscription is not None:
            self._engine.publisher.unsubscribe(self._subscription)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def take(self, account: str, target: str) -> None:
        """A request has made or changed this target: act on it now; what fails is tried at the next tick."""
        try:
            await self._reload(account, target)
            await self._attend(target)
        except Unavailable as outage:
            _logger.warning("target %s waits: %s", target, outage.detail)

    def target_of(self, bid: Bid) -> str | None:
        """Return the target that this bid was placed for."""
        target = self._targets.get(bid.labels.get("target", ""))
        is_its = target is not None and bid_of(target.id, target.bids) == bid.id
        return target.id if target is not None and is_its else None

    # -- the beat ----------------------------------------------------------------------------------

    async def _run(self, subscription: Subscription) -> None:
        while True:
            try:
                if not self._is_loaded:
                    await self._load()
                    await self._attend_all(list(self._targets))
                _, ticks = await subscription.next()
                markets = {tick.market for tick in ticks}
                await self._attend_all([t.id for t in self._targets.values() if t.market in markets])
            except Unavailable as outage:
                _logger.warning("targets wait: %s", outage.detail)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                # The market must not stop for this, and one bad row must not stop it for good.
                _logger.exception("targets stumbled")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _load(self) -> None:
        for target in await self._store.unsettled():
            self._targets[target.id] = target
            self._unsure.add(target.id)
        self._is_loaded = True

    async def _reload(self, account: str, target_id: str) -> None:
        target = await self._store.target(account, target_id)
        if target is not None and not target.is_settled:
            self._targets[target.id] = target
            self._unsure.add(target.id)

    async def _attend_all(self, targets: Iterable[str]) -> None:
        async def attend(target: str) -> None:
            async with self._places:
                await self._attend(target)

        found = await asyncio.gather(*map(attend, targets), return_exceptions=True)
        for error in found:
            if error is not None:
                raise error

    async def _attend(self, target_id: str) -> None:
        async with self._locks.setdefault(target_id, asyncio.Lock()):
            target = self._targets.get(target_id)
            if target is None:
                return
            try:
                await self._step(target)
            except _Changed:
                await self._reload(target.account, target_id)
            except Unavailable:
                self._unsure.add(target_id)
                raise
        if target_id not in self._targets:
            self._locks.pop(target_id, None)

    # -- one target --------------------------------------------------------------------------------

    async def _step(self, target: Target) -> None:
        if target.id in self._unsure:
            target = await self._adopt(target)
        bid = self._live_bid(target)
        if bid is None and target.bids:
            target, is_over = await self._after_bid(target)
            if not is_over:
                return
        if target.state in TARGET_FINAL:
            await self._end(target, bid)
        elif bid is None or bid.status not in BID_FINAL:  # under its last notice it cannot be changed
            await self._follow_plan(target, bid)

    def _live_bid(self, target: Target) -> Bid | None:
        return self._engine.core.bids.get(bid_of(target.id, target.bids)) if target.bids else None

    async def _adopt(self, target: Target) -> Target:
        """Find the bid that was placed just before something broke."""
        following = bid_of(target.id, target.bids + 1)
        known = following in self._engine.core.bids
        if known or await self._reader.bid(target.account, following) is not None:
            target = await self._save(target, bids=target.bids + 1)
        self._unsure.discard(target.id)
        return target

    async def _after_bid(self, target: Target) -> tuple[Target, bool]:
        """The last bid is not live: return whether it is over and written down; note who ended it."""
        row = await self._reader.bid(target.account, bid_of(target.id, target.bids))
        if row is None or row.bid.status not in BID_FINAL or row.leases:
            return target, False
        is_other = target.reason not in (AHEAD_OF_PACE, BID_CANCELLED)
        if target.state is TargetState.ACTIVE and row.bid.status is BidStatus.REJECTED:
            target = await self._save(target, state=TargetState.PAUSED, reason=BID_REJECTED)
        if target.state is TargetState.ACTIVE and row.bid.status is BidStatus.CANCELLED and is_other:
            target = await self._save(target, state=TargetState.PAUSED, reason=BID_CANCELLED)
        return target, True

    async def _end(self, target: Target, bid: Bid | None) -> None:
        if bid is None:
            await self._save(target, is_settled=True)
            del self._targets[target.id]
        elif bid.status not in BID_FINAL:
            await self._ask(CancelBid(bid.id, target.account))

    async def _follow_plan(self, target: Target, bid: Bid | None) -> None:
        if bid is not None and bid.on_preempt is OnPreempt.CANCEL:
            # Cancelled by somebody else, and running on until it loses.
            if target.state is TargetState.ACTIVE and target.reason != BID_CANCELLED:
                await self._save(target, state=TargetState.PAUSED, reason=BID_CANCELLED)
            return
        target = await self._enter_day(target)
        situation = await self.situation(target)
        if situation.bid is not bid:
            return  # it has ended meanwhile
        wanted = plan(target, situation)
        if isinstance(wanted, TargetState):
            target = await self._save(target, state=wanted, reason=None)
            await self._end(target, bid)
        elif target.state is TargetState.PAUSED:
            await self._rest(target, bid, wanted)
        elif wanted is None:
            await self._note(target, AHEAD_OF_PACE)
            if bid is not None:
                await self._ask(CancelBid(bid.id, target.account))
        elif bid is None:
            await self._place(target, wanted)
        else:
            await self._note(target, await self._ask(amendment(target, bid, wanted)))

    async def _enter_day(self, target: Target) -> Target:
        now_us = self._engine.clock.now_us()
        if target.kind is not TargetKind.PACE or target.day == now_us // DAY_US:
            return target
        before = await self._store.spent_before(_bids(target), now_us // DAY_US * DAY_S)
        day, day_cap = begin_day(target, now_us, before)
        return await self._save(target, day=day, day_cap=day_cap)

    async def situation(self, target: Target) -> Situation:
        """Return what a plan may know now: what has ended from the database, what lives from the engine.

        It looks again where a lease ended in between, which neither would have counted; raises Unavailable.
        """
        for _ in range(LOOKS_MAX):
            live = self._live_leases(target)
            await self._engine.settled()  # what has ended until now is in the database
            situation = await self._look(target)
            if self._live_leases(target) == live:
                break
        return situation

    def _live_leases(self, target: Target) -> list[str] | None:
        bid = self._live_bid(target)
        return None if bid is None else self._engine.core.leases_of(bid.id)

    async def _look(self, target: Target) -> Situation:
        bids = _bids(target)
        ended = bids if self._live_bid(target) is None else bids[:-1]
        earlier = await self._store.spent(ended) if ended else Amount(0)
        spent, gpu_seconds, running, cheap = earlier, 0, 0, None
        market = self._engine.core.markets[target.market]
        if target.kind is TargetKind.DEADLINE:
            gpu_seconds = await self._store.delivered_s(bids)
            cheap = await self._cheap_price(market.id)
        bid = self._live_bid(target)
        if bid is not None and len(ended) < len(bids):
            progress = self._engine.core.progress(bid.id)
            spent = Amount(spent + progress.spent)
            gpu_seconds, running = gpu_seconds + progress.gpu_seconds, progress.running_gpus
        now_us = self._engine.clock.now_us()
        price = market.price if bid else self._engine.core.quote(market.id, 1, 1).price_to_fill
        return Situation(now_us, market, price, cheap, bid, spent, earlier, gpu_seconds, running)

    async def _cheap_price(self, market: str) -> Price | None:
        now_us = self._engine.clock.now_us()
        known = self._cheap.get(market)
        if known is None or not 0 <= now_us - known[0] < CHEAP_STANDS_US:
            price = await price_quantile(self._reader, market, CHEAP_SHARE, from_us=now_us - DAY_US)
            known = self._cheap[market] = (now_us, price)
        return known[1]

    # -- its bid -----------------------------------------------------------------------------------

    async def _place(self, target: Target, wanted: Wanted) -> None:
        if target.bids >= BIDS_PER_TARGET_MAX:
            await self._save(target, state=TargetState.PAUSED, reason=TOO_MANY_BIDS)
            return
        key = await self._reader.key(target.account, target.key)
        now_us = self._engine.clock.now_us()
        if key is None or key.revoked_at_us is not None or (key.expires_at_us or INT64_MAX) <= now_us:
            await self._save(target, state=TargetState.PAUSED, reason=KEY_REVOKED)
            return
        refusal = await self._ask(next_bid(target, wanted))
        if refusal is None:
            await self._save(target, bids=target.bids + 1, reason=None)
        else:
            await self._note(target, refusal)

    async def _rest(self, target: Target, bid: Bid | None, wanted: Wanted | None) -> None:
        """Keep a paused target's bid from winning more; its work still ends when it is done."""
        if bid is None:
            return
        ends_at_us = (
            None if wanted is None or wanted.expires_at_us == bid.expires_at_us else wanted.expires_at_us
        )
        if not bid.is_paused or ends_at_us is not None:
            paused = None if bid.is_paused else True
            await self._ask(AmendBid(bid.id, target.account, paused=paused, expires_at_us=ends_at_us))

    async def _ask(self, command: Command | None) -> str | None:
        """Have a command decided; return the code of its refusal, which the next tick may not meet again."""
        if command is None:
            return None
        try:
            await self._engine.execute(command)
        except Rejection as refusal:
            return refusal.code
        return None

    # -- its row -----------------------------------------------------------------------------------

    async def _note(self, target: Target, reason: str | None) -> None:
        if target.reason != reason:
            await self._save(target, reason=reason)

    async def _save(self, target: Target, **changes: object) -> Target:
        now_us = self._engine.clock.now_us()
        changed = replace(target, version=target.version + 1, updated_at_us=now_us, **changes)
        if not await self._store.save(changed, expected_version=target.version):
            raise _Changed
        self._targets[target.id] = changed
        return changed


def _bids(target: Target) -> list[str]:
    return [bid_of(target.id, number) for number in range(1, target.bids + 1)]
