"""One run: tells a strategy what happened, in order, and keeps the log that the report is made of.

The modes differ in where events and ticks come from. `play` is the loop of the three that clear in this
process: paper and replay over recorded frames, simulation over a crowd of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol

import msgspec

from api.wire_market import CurveView
from auction.units import MICROSECONDS_PER_SECOND, SECONDS_PER_HOUR, format_microusd
from fallow.client.model import Bid, Curve, Lease, Market, Notice, Tick
from fallow.client.money import Money
from fallow.kit.crowd import Crowd
from fallow.kit.levels import Levels, without_bids, without_fee
from fallow.kit.local import DEFAULT_MONEY, LocalMarket, Tell, engine_market, micros, shown
from fallow.kit.record import FORMAT, Interval, RunLog
from fallow.kit.strategy import Desk, Strategy
from fallow.kit.tally import dollars, second_of

GAP_TICKS_MAX = 100_000  # between two frames; each of them is cleared

Log = Callable[[RunLog | Interval], None]
Progress = Callable[[int], None]


class Frame(Protocol):
    """A recorded tick with its curve."""

    @property
    def tick(self) -> Tick: ...
    @property
    def curve(self) -> Curve: ...


class Run:
    """A strategy at its desk. Give it events and ticks in the order in which they happened."""

    def __init__(self, strategy: Strategy, desk: Desk, mode: str, started_at: datetime, log: Log) -> None:
        self._strategy, self._desk, self._log = strategy, desk, log
        self._open: tuple[Tick, Curve, Tick | None, Tick | None] | None = None  # of `tick`
        self._costed = desk.tally.total.units // SECONDS_PER_HOUR
        self._is_over = False
        strategy.desk = desk
        log(RunLog(FORMAT, desk.run, type(strategy).__name__, mode, started_at, desk.market))

    @property
    def is_stopped(self) -> bool:
        return self._desk.stopped is not None

    def event(self, kind: str, at: datetime, data: dict[str, Any]) -> None:
        """Tell the strategy an event of its account."""
        match kind.partition(".")[0]:
            case "bid":
                bid = msgspec.convert(data, Bid)
                if not self._is_over:
                    self._strategy.on_bid(bid)
            case "lease":
                lease = msgspec.convert(data, Lease)
                self._desk.tally.take_lease(lease, at)
                if not self._is_over:
                    self._strategy.on_lease(lease)
            case "notice":
                notice = msgspec.convert(data, Notice)
                self._desk.tally.take_notice(notice, at)
                if not self._is_over:
                    self._strategy.on_notice(notice)

    def tick(
        self, tick: Tick, curve: Curve, *, recorded: Tick | None = None, alone: Tick | None = None
    ) -> None:
        """Close the interval before this tick, and tell the strategy.

        `curve` is without its own bids; `recorded` is the market's own tick, `alone` the tick that clearing
        it here again gives without the bot.
        """
        self._close(tick)
        self._open = tick, curve, recorded, alone
        self._desk.ticks.append(tick)
        self._strategy.on_tick(tick)

    def end(self, at: datetime, settle: Callable[[], None]) -> None:
        """The strategy hears nothing more; `settle` brings the tally to its end."""
        self._is_over = True
        self._desk.tally.count_to(at)
        settle()
        if self._open is not None:
            self._close(self._open[0], at)

    def _close(self, tick: Tick, at: datetime | None = None) -> None:
        tally = self._desk.tally
        bought = tally.bought if at is not None else tally.take_tick(tick)
        costed = tally.total.units // SECONDS_PER_HOUR
        cost, self._costed = costed - self._costed, costed
        if self._open is None:
            return  # it was bought before the first tick of this run
        of, curve, recorded, alone = self._open
        seconds = second_of(at or tick.cleared_at) - second_of(of.cleared_at)
        self._log(
            Interval(
                tick=of,
                curve=curve,
                is_recorded=recorded is not None,
                recorded_price=None if recorded is None else recorded.price,
                price_alone=None if alone is None else alone.price,
                seconds=seconds,
                gpu_seconds=bought.gpu_seconds,
                cost=dollars(cost),
                gpus=bought.gpus,
                interruptions=bought.interruptions,
                notices=bought.notices,
            )
        )


def replay(
    strategy: Strategy,
    market: Market,
    frames: Iterable[Frame],
    *,
    run: str,
    log: Log,
    mode: str = "replay",
    money: Money = DEFAULT_MONEY,
    ticks_max: int | None = None,
    progress: Progress = lambda ticks: None,
) -> Desk | None:
    """Clear recorded frames again with the bot's bids; return its desk, or None if there was no frame.

    They are cleared without the bot too, so that the log tells its price impact and how true the replay is.
    A tick that was not recorded is cleared with the levels of the one before. Raises ValueError for a
    recording that goes backwards or has too wide a gap, and whatever the strategy raises.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return None
    with_bot, alone = (_Cleared(market, first, run, money) for _ in range(2))
    curve, count = first.curve, 0
    started = Run(strategy, with_bot.local.desk, mode, first.tick.cleared_at, log)
    try:
        for number, frame in _every_tick(first, frames):
            curve = curve if frame is None else frame.curve
            tick = with_bot.clear(number, curve, started.event)
            without = alone.clear(number, curve, lambda *event: None)
            recorded = None if frame is None else frame.tick
            started.tick(tick, curve, recorded=recorded, alone=without)
            with_bot.local.tell(started.event)
            count += 1
            progress(count)
            if started.is_stopped or count == ticks_max:
                break
    finally:
        _settle(with_bot.local, started)
    return with_bot.local.desk


class _Cleared:
    """A recorded market that is cleared here again, tick by tick."""

    def __init__(self, market: Market, first: Frame, run: str, money: Money) -> None:
        rules = without_fee(engine_market(market))
        self._period_us = rules.tick_seconds * MICROSECONDS_PER_SECOND
        # It was cleared a moment after its beat; the clock here beats at whole periods.
        self._number, cleared_at_us = first.tick.tick, micros(first.tick.cleared_at)
        self._at_us = cleared_at_us - cleared_at_us % self._period_us
        self.local = LocalMarket(
            rules,
            run=run,
            start_us=self._at_us - self._period_us,
            before_tick=self._number - 1,
            shown_as=market,
            money=money,
        )
        self._levels = Levels(self.local)

    def clear(self, number: int, curve: Curve, tell: Tell) -> Tick:
        self.local.wait_until(self._at_us + (number - self._number) * self._period_us, tell)
        self._levels.set(curve)
        return self.local.clear(tell)


def _every_tick(first: Frame, rest: Iterable[Frame]) -> Iterator[tuple[int, Frame | None]]:
    """Yield every tick's number from the first to the last frame's, and the frame where there is one."""
    yield first.tick.tick, first
    last = first.tick.tick
    for frame in rest:
        if not 0 < frame.tick.tick - last <= GAP_TICKS_MAX:
            raise ValueError(f"tick {frame.tick.tick} follows tick {last} in the recording")
        for missing in range(last + 1, frame.tick.tick):
            yield missing, None
        last = frame.tick.tick
        yield last, frame


def simulate(
    strategy: Strategy,
    market: str,
    *,
    run: str,
    log: Log,
    seed: int = 1,
    ticks: int = 1_440,
    money: Money = DEFAULT_MONEY,
    progress: Progress = lambda ticks: None,
) -> Desk:
    """Run a bot among a seeded crowd; the same seed and the same bot give the same run, tick for tick.

    Raises ValueError for a market that the crowd does not know, and whatever the strategy raises.
    """
    crowd = Crowd(market, seed)
    local = LocalMarket(crowd.rules, run=run, start_us=crowd.start_us, money=money)
    crowd.enter(local)
    period_us = crowd.rules.tick_seconds * MICROSECONDS_PER_SECOND
    started = Run(strategy, local.desk, "sim", local.desk.now, log)
    try:
        for count in range(1, ticks + 1):
            local.wait_until(crowd.start_us + count * period_us, started.event)
            crowd.act(count)
            tick = local.clear(started.event)
            bids = local.desk.bids()
            started.tick(tick, without_bids(_curve(local), own_levels(bids)))
            local.tell(started.event)
            progress(count)
            if started.is_stopped:
                break
    finally:
        _settle(local, started)
    return local.desk


def own_levels(bids: list[Bid]) -> list[tuple[Any, int]]:
    """Return what bids show in a curve: (limit, GPUs)."""
    return [(bid.limit_price_per_gpu_hour, bid.gpus) for bid in bids if not bid.paused]


def _settle(local: LocalMarket, run: Run) -> None:
    """Cancel and release what is left, so that every lease has its final bill."""

    def cancel() -> None:
        for bid in local.desk.bids():
            local.desk.cancel(bid.id)
        for lease in local.desk.leases():  # under the notice of a bid that has ended
            local.desk.release(lease.id)
        local.tell(run.event)

    run.end(local.desk.now, cancel)


def _curve(local: LocalMarket) -> Curve:
    curve = local.core.curve(local.id)
    sides = [
        [(format_microusd(price), gpus) for price, gpus in side] for side in (curve.demand, curve.supply)
    ]
    return shown(CurveView(local.id, curve.tick, *sides), Curve)
