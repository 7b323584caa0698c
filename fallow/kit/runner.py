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
from fallow.kit.local import DEFAULT_MONEY, LocalMarket, engine_market, micros, shown
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
        self._open: tuple[Tick, Curve, Tick | None] | None = None  # the last tick, and what it was without us
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
                self._desk.tally.take_notice(notice)
                if not self._is_over:
                    self._strategy.on_notice(notice)

    def tick(self, tick: Tick, curve: Curve, recorded: Tick | None) -> None:
        """Close the interval before this tick, and tell the strategy. `curve` is without its own bids."""
        self._close(tick)
        self._open = tick, curve, recorded
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
        of, curve, recorded = self._open
        seconds = second_of(at or tick.cleared_at) - second_of(of.cleared_at)
        price = None if recorded is None else recorded.price
        self._log(
            Interval(
                of,
                curve,
                price,
                recorded is not None,
                seconds,
                bought.gpu_seconds,
                dollars(cost),
                bought.gpus,
                bought.interruptions,
                bought.notices,
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

    A tick that was not recorded is cleared with the levels of the one before. Raises ValueError for a
    recording that goes backwards or has too wide a gap, and whatever the strategy raises.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return None
    rules = without_fee(engine_market(market))
    period_us, number = rules.tick_seconds * MICROSECONDS_PER_SECOND, first.tick.tick
    start_us = micros(first.tick.cleared_at) - period_us
    local = LocalMarket(
        rules, run=run, start_us=start_us, before_tick=number - 1, shown_as=market, money=money
    )
    levels = Levels(local)

    def beats() -> Iterator[tuple[int, Curve | None, Tick | None]]:
        last = number - 1
        for frame in _chain(first, frames):
            if not 0 < frame.tick.tick - last <= GAP_TICKS_MAX:
                raise ValueError(f"tick {frame.tick.tick} follows tick {last} in the recording")
            for missing in range(last + 1, frame.tick.tick):
                yield missing, None, None
            last = frame.tick.tick
            yield last, frame.curve, frame.tick

    curve = first.curve
    started = Run(strategy, local.desk, mode, first.tick.cleared_at, log)
    try:
        for count, (tick, given, recorded) in enumerate(beats(), 1):
            local.wait_until(start_us + (tick - number + 1) * period_us, started.event)
            if given is not None:
                levels.set(given)
                curve = given
            started.tick(local.clear(started.event), curve, recorded)
            local.tell(started.event)
            progress(count)
            if started.is_stopped or count == ticks_max:
                break
    finally:
        _settle(local, started)
    return local.desk


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
            started.tick(tick, without_bids(_curve(local), own_levels(bids)), None)
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
    """Cancel what is left, so that every lease has its final bill."""

    def cancel() -> None:
        for bid in local.desk.bids():
            local.desk.cancel(bid.id)
        local.tell(run.event)

    run.end(local.desk.now, cancel)


def _curve(local: LocalMarket) -> Curve:
    curve = local.core.curve(local.id)
    sides = [
        [(format_microusd(price), gpus) for price, gpus in side] for side in (curve.demand, curve.supply)
    ]
    return shown(CurveView(local.id, curve.tick, *sides), Curve)


def _chain(first: Frame, rest: Iterable[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest
