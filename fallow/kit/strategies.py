"""Five strategies to run or to start from. Each looks after one bid, and finds it again when it is restarted.

Hold, deadline and pace plan with the server's own formulas (auction/targets.py), so a bot and a target of the
same numbers want the same bid; the budget is hard because the bid carries it as `max_spend`.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ClassVar

from msgspec.structs import replace

from auction.model import Bid as EngineBid
from auction.model import BidStatus, Market
from auction.targets import (
    TARGET_FINAL,
    Situation,
    Target,
    TargetKind,
    TargetState,
    Wanted,
    begin_day,
    plan,
)
from auction.units import SECONDS_PER_HOUR, Amount, Price
from fallow.client.errors import RefusedError
from fallow.client.model import Bid, Tick
from fallow.kit.local import engine_market, instant, micros
from fallow.kit.strategy import Strategy
from fallow.kit.tally import dollars, microusd

DAY = timedelta(days=1)
_DAY_US = DAY // timedelta(microseconds=1)
PRICES_MIN = 20  # fewer do not say what is cheap
QUARTILE = 25
MINOR_PERCENT = 1  # a limit that would change by less stays: a lowered limit loses its rank

log = logging.getLogger(__name__)


class OneBid(Strategy):
    """Keeps one bid as it is wanted. A refusal is told, and the next tick tries again."""

    def want(
        self,
        gpus: int,
        limit: Decimal,
        *,
        min_gpus: int = 1,
        max_spend: Decimal | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Place the bid, or change what differs."""
        bid = self.bid()
        try:
            if bid is None:
                self.desk.place(
                    gpus=gpus, limit=limit, min_gpus=min_gpus, max_spend=max_spend, expires_at=expires_at
                )
                return
            changes = {
                "gpus": None if gpus == bid.gpus else gpus,
                "limit": None if limit == bid.limit_price_per_gpu_hour else limit,
                "max_spend": None if max_spend == bid.max_spend else max_spend,
                "expires_at": None if expires_at == bid.expires_at else expires_at,
            }
            if any(value is not None for value in changes.values()):
                self.desk.amend(bid.id, **changes)  # type: ignore[arg-type]
        except RefusedError as refused:
            log.warning("tick %d: %s", self.desk.ticks[-1].tick, refused)

    def bid(self) -> Bid | None:
        """Return the live bid."""
        return next(iter(self.desk.bids()), None)

    def want_none(self) -> None:
        """Cancel what is there; its leases end."""
        for bid in self.desk.bids():
            self.desk.cancel(bid.id)


@dataclass(kw_only=True)
class FixedLimit(OneBid):
    """Bid for so many GPUs at one limit, always."""

    gpus: int
    limit: Decimal

    def on_tick(self, tick: Tick) -> None:
        self.want(self.gpus, self.limit)


@dataclass(kw_only=True)
class FollowPercentile(OneBid):
    """Bid at a percentile of the last prices: high to be interrupted seldom, low to pay little."""

    gpus: int
    max_limit: Decimal
    percentile: int = 75
    window_ticks: int = 1_440

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile is 0..100, not {self.percentile}")
        if self.window_ticks < 1:
            raise ValueError(f"window_ticks is at least 1, not {self.window_ticks}")

    def on_tick(self, tick: Tick) -> None:
        price = percentile_of(list(self.desk.ticks)[-self.window_ticks :], self.percentile)
        if price is None:
            return
        limit = self.desk.on_grid(min(price, self.max_limit))
        if limit > self.max_limit:
            return  # the increment itself is above it
        bid = self.bid()
        if bid is not None:
            now = bid.limit_price_per_gpu_hour
            if abs(limit - now) * 100 < now * MINOR_PERCENT:
                limit = now
        self.want(self.gpus, limit)


def percentile_of(ticks: list[Tick], percentile: int) -> Decimal | None:
    """Return the nearest-rank percentile of the prices at which anything traded."""
    prices = sorted(tick.price for tick in ticks if tick.price is not None)
    if not prices:
        return None
    return prices[max(0, -(-percentile * len(prices) // 100) - 1)]


class Planned(OneBid):
    """A target that this bot pursues itself."""

    kind: ClassVar[TargetKind]
    _target: Target | None = None
    _rules: Market | None = None

    def terms(self) -> dict[str, object]:
        """Return the target's fields that the strategy's options give."""
        raise NotImplementedError

    def on_tick(self, tick: Tick) -> None:
        now_us = micros(self.desk.now)
        if self.bid() is None and self.desk.leases():
            return  # an ended bid still pays for its notice: what it will have spent is not known yet
        if self._target is None:
            self._rules = engine_market(self.desk.market)
            self._target = self._begin(now_us)
        target, spent = self._target, Amount(self.desk.tally.spent)
        if self.kind is TargetKind.PACE and (target.day_cap == 0 or target.day != now_us // _DAY_US):
            day, cap = begin_day(target, now_us, spent)
            target = self._target = replace(target, day=day, day_cap=cap)
        wanted = plan(target, self._situation(tick, now_us, spent))
        match wanted:
            case Wanted():
                self.want(
                    wanted.gpus,
                    dollars(wanted.limit),
                    min_gpus=target.min_gpus,
                    max_spend=None if wanted.max_spend is None else dollars(wanted.max_spend),
                    expires_at=None if wanted.expires_at_us is None else instant(wanted.expires_at_us),
                )
            case None:
                self.want_none()
            case TargetState():
                assert wanted in TARGET_FINAL
                self.want_none()
                self.desk.stop(wanted.value)

    def _begin(self, now_us: int) -> Target:
        given: dict[str, object] = {
            "gpus": 1, "min_gpus": 1, "gpu_seconds": None, "ends_at_us": None, "max_spend": None,
            "spend_per_day": None,
        }  # fmt: skip
        return Target(
            id=self.desk.run, account="", key="", kind=self.kind, market=self.desk.market.id,
            created_at_us=now_us, updated_at_us=now_us, **(given | self.terms()),  # type: ignore[arg-type]
        )  # fmt: skip

    def _situation(self, tick: Tick, now_us: int, spent: Amount) -> Situation:
        assert self._rules is not None
        bid, tally = self.bid(), self.desk.tally
        price = tick.price if bid is not None else tick.entry_price or tick.price
        cheap = self._cheap(tick) if self.kind is TargetKind.DEADLINE else None
        earlier = tally.bids - {bid.id if bid is not None else ""}
        return Situation(
            now_us=now_us,
            market=self._rules,
            price=None if price is None else Price(microusd(price)),
            cheap=None if cheap is None else Price(microusd(cheap)),
            bid=None if bid is None else _engine_bid(bid),
            spent=spent,
            spent_earlier=Amount(tally.spent_by(earlier)),
            gpu_seconds=tally.total.gpu_seconds,
            running_gpus=tally.running_gpus,
        )

    def _cheap(self, tick: Tick) -> Decimal | None:
        """Return the lower quartile of the day's prices, if there are enough of them."""
        day = [past for past in self.desk.ticks if past.cleared_at > tick.cleared_at - DAY]
        return percentile_of(day, QUARTILE) if len(day) >= PRICES_MIN else None


@dataclass(kw_only=True)
class HoldTarget(Planned):
    """Hold so many GPUs at no more than the limit, for at most so much in all."""

    kind: ClassVar[TargetKind] = TargetKind.HOLD
    gpus: int
    limit: Decimal
    min_gpus: int = 1
    max_spend: Decimal | None = None

    def terms(self) -> dict[str, object]:
        spend = None if self.max_spend is None else microusd(self.max_spend)
        limit = microusd(self.limit)
        return {"gpus": self.gpus, "limit": limit, "min_gpus": self.min_gpus, "max_spend": spend}


@dataclass(kw_only=True)
class Deadline(Planned):
    """Buy so much work by a time, cheaply while there is time: `ends_at`, or so many hours from the start."""

    kind: ClassVar[TargetKind] = TargetKind.DEADLINE
    gpu_hours: int
    max_spend: Decimal
    within_hours: int = 24
    ends_at: datetime | None = None
    gpus: int = 8
    limit: Decimal | None = None

    def terms(self) -> dict[str, object]:
        ends_at = self.ends_at or self.desk.now + timedelta(hours=self.within_hours)
        limit = self.desk.market.price_cap if self.limit is None else self.limit
        return {
            "gpus": self.gpus,
            "limit": microusd(limit),
            "gpu_seconds": self.gpu_hours * SECONDS_PER_HOUR,
            "ends_at_us": micros(ends_at),
            "max_spend": microusd(self.max_spend),
        }


@dataclass(kw_only=True)
class BudgetPace(Planned):
    """Spend so much a UTC day, evenly, at no more than the limit; on its first day the share that is left."""

    kind: ClassVar[TargetKind] = TargetKind.PACE
    spend_per_day: Decimal
    limit: Decimal
    gpus: int = 8

    def terms(self) -> dict[str, object]:
        spend = microusd(self.spend_per_day)
        return {"gpus": self.gpus, "limit": microusd(self.limit), "spend_per_day": spend}


def _engine_bid(bid: Bid) -> EngineBid:
    """Return the bid as a plan reads it."""
    return EngineBid(
        id=bid.id,
        account="",
        market=bid.market,
        gpus=bid.gpus,
        limit=Price(microusd(bid.limit_price_per_gpu_hour)),
        min_gpus=bid.min_gpus,
        status=BidStatus(bid.status),
        seq=0,
        arrival_tick=0,
        arrival_hash=0,
        created_at_us=micros(bid.created_at),
        updated_at_us=micros(bid.updated_at),
        max_spend=None if bid.max_spend is None else Amount(microusd(bid.max_spend)),
        is_paused=bid.paused,
    )


STRATEGIES: dict[str, type[Strategy]] = {
    "fixed_limit": FixedLimit,
    "hold_target": HoldTarget,
    "budget_pace": BudgetPace,
    "deadline": Deadline,
    "follow_percentile": FollowPercentile,
}
