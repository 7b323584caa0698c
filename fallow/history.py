"""A day of trading before the first visitor comes: the real core and the real store, in virtual time.

Buyers arrive, bid around the list price, raise, cancel and come back; owners recall machines and post
them again. One-minute ticks; what happened is committed every few ticks as one transaction each, like
any batch of the engine. Seeded: the same seed gives the same day.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from auction.commands import (
    AmendBid,
    CancelBid,
    Command,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    PlaceBid,
    RecallNode,
    ReportLease,
)
from auction.core import Core
from auction.errors import Rejection
from auction.ids import random_id
from auction.model import Lease, LeaseState
from auction.ports import Store
from auction.units import MICROSECONDS_PER_SECOND, MICROUSD_PER_USD, Amount, Price
from fallow.dice import Dice
from fallow.people import People
from fallow.world import LIMIT_PERCENT, Machine, Venue, draw_limit

TICK_SECONDS = 60
SETTLEMENT_SECONDS = 1_800
TICKS = 1_440
COMMIT_EVERY_TICKS = 20
Progress = Callable[[int, int], None]

REST_TICKS = 45  # a recalled machine comes back after this long


@dataclass(slots=True)
class _Machine:
    venue: Venue
    machine: Machine
    node: str
    owner: str
    back_at_tick: int | None = None


class History:
    """The day's crowd. `run` plays it; everything it does is an ordinary command."""

    def __init__(
        self,
        core: Core,
        venues: tuple[Venue, ...],
        people: People,
        seed: int,
        now_us: int,
        *,
        notice_seconds: int,
        is_quiet: bool = False,
    ) -> None:
        """With `is_quiet` the markets open a tick ago and nothing has happened in them."""
        self.ticks = 1 if is_quiet else TICKS
        self._is_quiet = is_quiet
        self._notice_seconds = notice_seconds  # offers keep the notice they were posted with
        self._core = core
        self._venues = venues
        self._people = people
        self._dice = Dice(seed, "history")
        self._start_us = now_us - self.ticks * TICK_SECONDS * MICROSECONDS_PER_SECOND
        self._at_us = self._start_us
        self._machines: list[_Machine] = []
        self._mine: dict[str, tuple[str, str, int]] = {}  # bid -> (account, market, leaves at tick)

    async def run(
        self, store: Store, opening: list[Command], progress: Progress, is_stopped: Callable[[], bool]
    ) -> bool:
        """Open the markets, play the day, commit as it goes. False when it was stopped before its end."""
        for command in opening:
            self._do(command)
        self._open_markets()
        await store.commit(self._core.take_changes())
        for tick in range(1, self.ticks + 1):
            self._at_us = self._start_us + tick * TICK_SECONDS * MICROSECONDS_PER_SECOND
            self._core.run_due(self._at_us)
            self._report()
            if not self._is_quiet:
                self._owners(tick)
                self._buyers(tick)
            if tick % COMMIT_EVERY_TICKS == 0 or tick == self.ticks:
                await store.commit(self._core.take_changes())
                progress(tick, self.ticks)
                await asyncio.sleep(0)  # let a signal in
                if is_stopped():
                    return False
        return True

    def _do(self, command: Command) -> object:
        outcome: object = self._core.apply(command, self._at_us)
        return outcome

    def _open_markets(self) -> None:
        for venue in self._venues:
            market = venue.market(
                tick_seconds=TICK_SECONDS,
                notice_seconds=self._notice_seconds,
                settlement_seconds=SETTLEMENT_SECONDS,
            )
            self._do(CreateMarket(market))
            for machine in venue.machines:
                owner = self._people.owners[machine.host].account
                node = random_id("node")
                self._do(CreateNode(node, owner, venue.id, machine.name, machine.gpus, True))
                self._machines.append(_Machine(venue, machine, node, owner))
                self._offer(self._machines[-1])

    def _offer(self, place: _Machine) -> None:
        machine = place.machine
        self._do(CreateOffer(random_id("off"), place.owner, place.node, machine.gpus, machine.reserve))

    def _report(self) -> None:
        """Every simulated node is ready in the minute in which its lease was won."""
        for lease in self._starting():
            self._do(ReportLease(lease.id, lease.owner, "started", {"host": "127.0.0.1"}))

    def _starting(self) -> Iterator[Lease]:
        yield from [x for x in self._core.leases.values() if x.state is LeaseState.STARTING]

    def _owners(self, tick: int) -> None:
        for place in self._machines:
            if place.back_at_tick is not None and tick >= place.back_at_tick:
                place.back_at_tick = None
                self._offer(place)
        if self._dice.happens(4):
            place = self._dice.choice(self._machines)
            if place.back_at_tick is None:
                place.back_at_tick = tick + REST_TICKS
                self._do(RecallNode(place.node, place.owner))

    def _buyers(self, tick: int) -> None:
        for bid_id, (account, _, leaves_at) in list(self._mine.items()):
            if bid_id not in self._core.bids:
                del self._mine[bid_id]
            elif tick >= leaves_at:
                self._do(CancelBid(bid_id, account, True))
                del self._mine[bid_id]
        for number, venue in enumerate(self._venues):
            if self._dice.happens(_rush_percent(tick, number) * (venue.gpus + 40) // 160):
                self._bid(venue, tick)
        if self._mine and self._dice.happens(20):
            self._raise()
        if self._dice.happens(5):
            bot = self._dice.choice(self._people.bots)
            amount = Amount(500 * MICROUSD_PER_USD)
            self._do(Deposit(random_id("dep"), bot.account, amount, "demo top-up"))

    def _bid(self, venue: Venue, tick: int) -> None:
        bot = self._dice.choice(self._people.bots)
        gpus = self._dice.choice([1, 1, 2, 2, 4, 4, 8])
        minimum = gpus if self._dice.happens(40) else 1
        level = venue.levels[(tick // 60) % len(venue.levels)]
        limit = draw_limit(self._dice, self._dice.choice(sorted(LIMIT_PERCENT)), level)
        bid_id = random_id("bid")
        if not isinstance(self._do(PlaceBid(bid_id, bot.account, venue.id, gpus, limit, minimum)), Rejection):
            stay = self._dice.choice([15, 40, 90, 150, 300])  # ticks
            self._mine[bid_id] = (bot.account, venue.id, tick + stay)

    def _raise(self) -> None:
        """Somebody who is outbid gives in and pays more."""
        bid_id = self._dice.choice(list(self._mine))
        bid = self._core.bids.get(bid_id)
        if bid is not None and bid.awarded_gpus < bid.gpus:
            limit = Price(bid.limit * 11 // 10 // 100 * 100)
            self._do(AmendBid(bid_id, bid.account, limit))


def _rush_percent(tick: int, market: int) -> int:
    """Chance of a new bid in this minute: a wave over the day, at another hour in each market."""
    distance = abs((tick + market * TICKS // 6) % TICKS - TICKS // 2)  # minutes from its noon
    return 34 - distance * 26 // (TICKS // 2)
