"""What a batch is decided without, because rules of ours fail on it: found by trial on copies of the state.

FAULTS.md F26: a bid on which the tick fails is taken out alone, and the tick goes on. Only bids without a
lease are suspected: nobody loses GPUs for a defect of ours. Where they are not the cause, the market is
halted and its tenants run on at the last price (RULES.md R12).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from auction.clock import Clock
from auction.commands import RejectBid, SetMarketStatus
from auction.core import Core
from auction.errors import TickFault
from auction.market import Book
from auction.model import BID_FINAL, Bid, MarketStatus
from auction.ports import LiveState
from auction.units import MICROSECONDS_PER_SECOND

POISON_BIDS_MAX = 8  # of one failed tick: more are no accident of one bid
SEARCH_US_MAX = 10 * MICROSECONDS_PER_SECOND

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Aside:
    """What is put aside so far."""

    poison: list[str] = field(default_factory=list)  # bids to be rejected
    void: list[str] = field(default_factory=list)  # markets to be halted
    clears: bool = True  # False: what is due is left to the next batch

    def put(self, core: Core, now_us: int) -> None:
        """Reject and halt, as part of the journal."""
        for bid in self.poison:
            core.apply(RejectBid(bid), now_us)
        for name in self.void:
            reason = f"tick {core.markets[name].tick + 1} failed and is void; see the server's log"
            core.apply(SetMarketStatus(name, MarketStatus.HALTED, reason), now_us)

    async def add_cause(
        self,
        core: Core,
        markets: Sequence[str],
        clock: Clock,
        *,
        may_wait: bool,
        make_book: type[Book] | None,
    ) -> None:
        """Add what makes the tick of these markets fail, or the markets; `core` is as stored.

        With `may_wait` a cause that is not in `core` may come with the batch, which is then written first.
        """
        at_us = clock.now_us()
        search = Search(core.live(), self, markets, at_us, make_book)
        poison = await search.find(lambda: clock.now_us() < at_us + SEARCH_US_MAX)
        if poison:
            log.critical("rejected, because no tick of %s clears with them: %s", ", ".join(markets), poison)
            self.poison += poison
        elif poison == [] and may_wait:
            self.clears = False  # the batch brings it: once that is written it can be found
        else:
            self.void += markets


class Search:
    """For the bids without which these markets can clear. A trial restores the state and clears once."""

    def __init__(
        self, live: LiveState, aside: Aside, markets: Sequence[str], at_us: int, make_book: type[Book] | None
    ) -> None:
        self._payload = msgspec.msgpack.encode(live)
        self._aside = aside
        self._markets = frozenset(markets)
        self._at_us = at_us
        self._make_book = make_book
        tenants = {lease.bid for lease in live.leases} | set(aside.poison)
        self._suspects = [
            bid
            for bid in sorted(live.bids, key=lambda bid: bid.seq)
            if bid.id not in tenants and bid.status not in BID_FINAL and self._markets & set(bid.markets)
        ]

    async def find(self, has_time: Callable[[], bool]) -> list[str] | None:
        """Return the ids, each found in log2 of the suspects; [] where the markets clear with all of them.

        None where waiting bids are not the cause, or time or POISON_BIDS_MAX is up. Others have their turn
        between trials.
        """
        suspects, found = self._suspects, list[Bid]()
        if await self._clears_without([]):
            return []
        if not await self._clears_without(suspects):
            return None
        while len(found) < POISON_BIDS_MAX:
            # With the first `good` of the suspects the markets clear, with the first `bad` they do not.
            good, bad = 0, len(suspects)
            while bad - good > 1:
                if not has_time():
                    return None
                middle = (good + bad) // 2
                if await self._clears_without(found + suspects[middle:]):
                    good = middle
                else:
                    bad = middle
            found.append(suspects.pop(bad - 1))
            if await self._clears_without(found):
                return [bid.id for bid in found]
        return None

    async def _clears_without(self, bids: Sequence[Bid]) -> bool:
        await asyncio.sleep(0)
        core = Core.restore(msgspec.msgpack.decode(self._payload, type=LiveState), self._make_book)
        try:
            Aside([*self._aside.poison, *(bid.id for bid in bids)], self._aside.void).put(core, self._at_us)
            core.run_due(self._at_us)
        except TickFault as fault:
            return self._markets.isdisjoint(fault.markets)  # others failed, after these had cleared
        except Exception as error:  # whatever a rule of ours fails with is what is looked for
            log.warning("a trial of the tick failed: %r", error)
            return False
        return True
