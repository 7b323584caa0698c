"""A strategy against a real server: live with its own bids, or on paper with the server's ticks alone.

Live, a bot that starts again under its run's name finds the bids, the leases and the count of its
`client_bid_id`s that the market has, so it goes on where it was and bids for nothing twice. The stream
connects again by itself and goes on behind the last event (fallow/client/stream.py).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from auction.clock import SystemClock
from fallow.client import Client
from fallow.client.model import Balance, Bid, Lease, Market, Notice
from fallow.client.money import Money
from fallow.client.stream import Event, TickWithCurve
from fallow.kit.levels import without_bids
from fallow.kit.local import DEFAULT_MONEY, instant
from fallow.kit.runner import Log, Progress, Run, own_levels, replay
from fallow.kit.strategy import LIVE_STATUSES, Desk, Strategy
from fallow.kit.tally import Bought


class LiveDesk(Desk):
    """The account's desk at a server. `find` reads what an earlier start of this run has left."""

    def __init__(self, client: Client, market: Market, run: str) -> None:
        super().__init__(market, run)
        self._client = client
        self._clock = SystemClock()
        self._bids: dict[str, Bid] = {}
        self._leases: dict[str, Lease] = {}

    def find(self) -> None:
        """Take over the bids of this run and count what their leases have cost."""
        mine = set()
        for bid in self._client.bids(market=self.market.id):
            number = self._number_of(bid)
            if number is not None:
                mine.add(bid.id)
                self.placed = max(self.placed, number)
                self.saw_bid(bid)
        for lease in self._client.leases():
            if lease.bid in mine:
                self.saw_lease(lease)
                self.tally.adopt(lease, self.now)
        self.tally.bought = Bought(gpus=self.tally.running_gpus)

    def is_mine(self, event: Event) -> bool:
        """Say whether an event of the account is about this run."""
        word = event.event.partition(".")[0]
        if word == "bid":
            cid = event.data["client_bid_id"]
            return event.data["id"] in self._bids or (cid is not None and self._numbered(cid) is not None)
        return word in ("lease", "notice") and event.data["bid"] in self._bids

    def saw_bid(self, bid: Bid) -> None:
        """Remember the newest version of a bid."""
        known = self._bids.get(bid.id)
        if known is None or bid.version >= known.version:
            self._bids[bid.id] = bid

    def saw_lease(self, lease: Lease) -> None:
        """Remember the newest version of a live lease."""
        known = self._leases.get(lease.id)
        if lease.state == "ended":
            self._leases.pop(lease.id, None)
        elif known is None or lease.version >= known.version:
            self._leases[lease.id] = lease

    def saw_notice(self, notice: Notice) -> None:
        """Read a lease whose notice was withdrawn: it runs again, and no event of its own says so."""
        if notice.state == "withdrawn" and notice.lease in self._leases:
            self.saw_lease(self._client.lease(notice.lease))

    @property
    def now(self) -> datetime:
        return instant(self._clock.now_us())

    def bids(self) -> list[Bid]:
        live = [bid for bid in self._bids.values() if bid.status in LIVE_STATUSES]
        return sorted(live, key=lambda bid: bid.created_at)

    def leases(self) -> list[Lease]:
        return sorted(self._leases.values(), key=lambda lease: lease.id)

    def balance(self) -> Balance:
        return self._client.balance()

    def _place(self, client_bid_id: str, **terms: Any) -> Bid:
        limit = terms.pop("limit")
        if terms["expires_at"] is not None:
            terms["time_in_force"] = "gtt"
        bid = self._client.place_bid(
            self.market.id, client_bid_id=client_bid_id, limit_price_per_gpu_hour=limit, **terms
        )
        return self._saw(bid)

    def amend(self, bid: str, **terms: Any) -> Bid:
        limit = terms.pop("limit", None)
        return self._saw(self._client.amend_bid(bid, limit_price_per_gpu_hour=limit, **terms))

    def cancel(self, bid: str, *, release: bool = True) -> Bid:
        return self._saw(self._client.cancel_bid(bid, release=release))

    def release(self, lease: str) -> Lease:
        return self._client.release_lease(lease)

    def ack(self, notice: str, *, ready: bool) -> Notice:
        return self._client.ack_notice(notice, ready=ready)

    def settle(self) -> None:
        """Read the leases' last state, so that the tally has their bills."""
        for lease in self._client.leases():
            if lease.bid in self._bids:
                self.tally.take_lease(lease, self.now)

    def _saw(self, bid: Bid) -> Bid:
        self.saw_bid(bid)
        return bid

    def _number_of(self, bid: Bid) -> int | None:
        return None if bid.client_bid_id is None else self._numbered(bid.client_bid_id)

    def _numbered(self, client_bid_id: str) -> int | None:
        run, _, number = client_bid_id.rpartition("-")
        return int(number) if run == self.run and number.isascii() and number.isdecimal() else None


def run_live(
    strategy: Strategy,
    client: Client,
    market: str,
    *,
    run: str,
    log: Log,
    cancels_on_exit: bool = False,
    ticks_max: int | None = None,
    progress: Progress = lambda ticks: None,
) -> Desk:
    """Run against the account of `client` until the strategy stops, `ticks_max` or an exception.

    However it ends, the bids stay, or are cancelled with their leases. Raises what the strategy raises, and
    the client's FallowErrors.
    """
    desk = LiveDesk(client, client.market(market), run)
    started = Run(strategy, desk, "live", desk.now, log)
    ticks, has_looked = 0, False
    try:
        for message in client.stream(markets=[market], account=True, curves=True):
            if not has_looked:
                # After the first message: from here on nothing is missed, and told twice does no harm.
                desk.find()
                has_looked = True
            if isinstance(message, TickWithCurve):
                ticks += 1
                curve = without_bids(message.curve, own_levels(desk.bids()))
                started.tick(message.tick, curve)
                progress(ticks)
            elif isinstance(message, Event) and desk.is_mine(message):
                _see(desk, message)
                started.event(message.event, message.at, message.data)
            if started.is_stopped or ticks == ticks_max:
                break
    finally:
        started.end(desk.now, lambda: _leave(desk, cancels=cancels_on_exit))
    return desk


def run_paper(
    strategy: Strategy,
    client: Client,
    market: str,
    *,
    run: str,
    log: Log,
    money: Money = DEFAULT_MONEY,
    ticks_max: int | None = None,
    progress: Progress = lambda ticks: None,
) -> Desk | None:
    """Run on a server's public ticks, each cleared again here with the bot's bids. Needs no key."""
    return replay(
        strategy, client.market(market), frames_of(client, market),
        run=run, log=log, mode="paper", money=money, ticks_max=ticks_max, progress=progress,
    )  # fmt: skip


def frames_of(client: Client, market: str) -> Iterator[TickWithCurve]:
    """Yield a market's ticks with their curves for ever, each once, in order."""
    last = -1
    for message in client.stream(markets=[market], curves=True):
        if isinstance(message, TickWithCurve) and message.tick.tick > last:
            last = message.tick.tick
            yield message


def _see(desk: LiveDesk, event: Event) -> None:
    match event.event.partition(".")[0]:
        case "bid":
            desk.saw_bid(msgspec.convert(event.data, Bid))
        case "lease":
            desk.saw_lease(msgspec.convert(event.data, Lease))
        case "notice":
            desk.saw_notice(msgspec.convert(event.data, Notice))


def _leave(desk: LiveDesk, *, cancels: bool) -> None:
    if cancels:
        for bid in desk.bids():
            desk.cancel(bid.id)
    desk.settle()
