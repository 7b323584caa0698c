"""A market inside this process, in virtual time: the real engine's core, and a desk for one bot in it.

Paper, replay and simulation run here; what they differ in is who else bids (levels.py, crowd.py). What the
bot is told and refused goes through the server's own views, so it reads as it does live. Nodes are ready in
the moment a lease is won.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from api.errors import problem_of
from api.events import event_data
from api.wire import bid_view, lease_view, notice_view
from api.wire_market import market_view, tick_view
from api.wire_money import balance_view
from auction.commands import (
    AckNotice,
    AmendBid,
    CancelBid,
    Command,
    CreateAccount,
    CreateMarket,
    Deposit,
    PlaceBid,
    ReleaseLease,
    ReportLease,
)
from auction.core import Core
from auction.errors import Rejection
from auction.ids import derived_id
from auction.model import BID_FINAL, LeaseState, Market, TimeInForce
from auction.units import Amount, Price
from fallow.client import model
from fallow.client.errors import Problem, error_of
from fallow.client.money import Money, write_money
from fallow.kit.strategy import Desk
from fallow.kit.tally import microusd

EVENTS_PER_TICK_MAX = 10_000
DEFAULT_MONEY = Decimal(100_000)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OF_ITS_STATE = frozenset({"status", "status_reason", "tick", "price", "digest"})

T = TypeVar("T")
Tell = Callable[[str, datetime, dict[str, Any]], None]


def instant(at_us: int) -> datetime:
    """Return microseconds since the epoch as an aware time."""
    return _EPOCH + timedelta(microseconds=at_us)


def micros(at: datetime) -> int:
    """Return an aware time as microseconds since the epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def engine_market(view: model.Market) -> Market:
    """Return the market's rules as the engine takes them; its state begins anew."""
    names = set(Market.__struct_fields__) & set(view.__struct_fields__) - _OF_ITS_STATE
    rules = {name: getattr(view, name) for name in names}
    for name in ("price_increment", "price_cap"):
        rules[name] = microusd(rules[name])
    return Market(**rules, created_at_us=0)


def shown(view: Any, kind: type[T]) -> T:
    """Return what the server would write as the client would read it."""
    return msgspec.convert(msgspec.to_builtins(view), kind)


class LocalMarket:
    """One market with its own clock. Times are microseconds since the epoch."""

    def __init__(
        self,
        market: Market,
        *,
        run: str,
        start_us: int,
        before_tick: int = 0,
        shown_as: model.Market | None = None,
        money: Money = DEFAULT_MONEY,
    ) -> None:
        """Open it at `start_us`; its first tick, number `before_tick` + 1, is at the next whole period."""
        self.core, self.id, self.account = Core(), market.id, "acct_bot"
        self._at_us, self._count = start_us, 0
        self.do(CreateMarket(market))
        self.core.markets[market.id].tick = before_tick
        self.do(CreateAccount(self.account, run, ["buyer"]))
        amount = microusd(Decimal(write_money(money, "money")))
        self.do(Deposit(self.new_id("dep"), self.account, Amount(amount)))
        self.core.take_changes()
        shown_market = shown_as or shown(market_view(self.core.markets[market.id]), model.Market)
        self.desk = LocalDesk(self, shown_market, run)

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return derived_id(prefix, "local", self._count)

    @property
    def at_us(self) -> int:
        return max(self._at_us, self.core.now_us)

    def do(self, command: Command) -> Any:
        """Apply a command now; raises the Rejection that it meets."""
        outcome = self.core.apply(command, self.at_us)
        if isinstance(outcome, Rejection):
            raise outcome
        return outcome

    def wait_until(self, at_us: int, tell: Tell) -> None:
        """Carry out every deadline before `at_us`. The next tick must not be due by then."""
        while (due_us := self.core.next_due_us()) is not None and due_us < at_us:
            self._run_due(due_us, tell)
        self._at_us = at_us

    def clear(self, tell: Tell) -> model.Tick:
        """Run what is due now, the tick among it; tell the bot's events and return the tick."""
        (tick,) = self._run_due(self._at_us, tell)
        return tick

    def _run_due(self, at_us: int, tell: Tell) -> list[model.Tick]:
        self._at_us = at_us
        ticks = [shown(tick_view(tick), model.Tick) for tick in self.core.run_due(at_us)]
        self.tell(tell)
        return ticks

    def tell(self, tell: Tell) -> None:
        """Let nodes report, and tell the bot's events until there is none left."""
        for _ in range(EVENTS_PER_TICK_MAX):
            for lease in list(self.core.leases.values()):
                if lease.state is LeaseState.STARTING:
                    self.do(ReportLease(lease.id, lease.owner, "started"))
            events = [event for event in self.core.take_changes().events if event.account == self.account]
            if not events:
                return
            for event in events:
                tell(event.kind, instant(event.at_us), msgspec.to_builtins(event_data(event, self.core)))
        raise RuntimeError(
            f"the bot's answers to its own events do not end within {EVENTS_PER_TICK_MAX} rounds"
        )


class LocalDesk(Desk):
    """The bot's desk in a LocalMarket: commands apply at once."""

    def __init__(self, local: LocalMarket, market: model.Market, run: str) -> None:
        super().__init__(market, run)
        self._local = local

    @property
    def now(self) -> datetime:
        return instant(self._local.at_us)

    def bids(self) -> list[model.Bid]:
        core = self._local.core
        mine = [
            bid
            for bid in core.bids.values()
            if bid.account == self._local.account and bid.status not in BID_FINAL
        ]
        return [self._shown_bid(bid.id) for bid in sorted(mine, key=lambda bid: bid.seq)]

    def leases(self) -> list[model.Lease]:
        core = self._local.core
        mine = [lease for lease in core.leases.values() if lease.account == self._local.account]
        market = core.markets[self._local.id]
        return [shown(lease_view(lease, market), model.Lease) for lease in sorted(mine, key=lambda x: x.id)]

    def balance(self) -> model.Balance:
        return shown(balance_view(self._local.core.balance(self._local.account), 0), model.Balance)

    def _place(self, client_bid_id: str, **terms: Any) -> model.Bid:
        expires_at = terms["expires_at"]
        command = PlaceBid(
            bid=derived_id("bid", "bot", self.placed),  # not of the crowd's numbers
            account=self._local.account,
            market=self._local.id,
            gpus=terms["gpus"],
            limit=_price(terms["limit"]) or Price(0),
            min_gpus=terms["min_gpus"],
            client_bid_id=client_bid_id,
            max_spend=_amount(terms["max_spend"], "max_spend"),
            time_in_force=TimeInForce.GTC if expires_at is None else TimeInForce.GTT,
            expires_at_us=None if expires_at is None else micros(expires_at),
        )
        return self._shown_bid(self._do(command).bid.id)

    def amend(self, bid: str, **terms: Any) -> model.Bid:
        expires_at = terms.get("expires_at")
        self._do(
            AmendBid(
                bid,
                self._local.account,
                limit=_price(terms.get("limit")),
                gpus=terms.get("gpus"),
                paused=terms.get("paused"),
                max_spend=_amount(terms.get("max_spend"), "max_spend"),
                expires_at_us=None if expires_at is None else micros(expires_at),
            )
        )
        return self._shown_bid(bid)

    def cancel(self, bid: str, *, release: bool = True) -> model.Bid:
        cancelled = self._do(CancelBid(bid, self._local.account, release))
        return shown(bid_view(cancelled, self._local.core.markets[self._local.id], []), model.Bid)

    def release(self, lease: str) -> model.Lease:
        ended = self._do(ReleaseLease(lease, self._local.account))
        return shown(lease_view(ended, self._local.core.markets[self._local.id]), model.Lease)

    def ack(self, notice: str, *, ready: bool) -> model.Notice:
        return shown(notice_view(self._do(AckNotice(notice, self._local.account, ready))), model.Notice)

    def _do(self, command: Command) -> Any:
        try:
            return self._local.do(command)
        except Rejection as rejection:
            problem = problem_of(rejection, request_id="")
            raise error_of(shown(problem, Problem)) from None

    def _shown_bid(self, bid: str) -> model.Bid:
        core = self._local.core
        view = bid_view(core.bids[bid], core.markets[self._local.id], core.leases_of(bid), core.why_not(bid))
        return shown(view, model.Bid)


def _price(price: Money | None) -> Price | None:
    return None if price is None else Price(microusd(Decimal(write_money(price, "limit"))))


def _amount(amount: Money | None, name: str) -> Amount | None:
    return None if amount is None else Amount(microusd(Decimal(write_money(amount, name))))
