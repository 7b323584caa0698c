"""What an operator watches: the engine's pulse, and every invariant of the books with pass or fail."""

import asyncio

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.fields import CURRENCY, format_instant
from api.routes import NoBody, NoQuery, route
from auction.errors import Rejection
from auction.recovery import TickReplay, replay_tick
from auction.timings import Timings
from auction.units import MICROSECONDS_PER_SECOND, format_microusd

REPLAY_ENTRIES_MAX = 1_000_000  # of a journal: a replay of more is for the command line
REPLAY_REST_SECONDS = 0.002  # after each page: the engine decides on the same loop
TICK_DIGITS_MAX = 18


class CheckView(Struct, frozen=True):
    """`claim` holds when `bad` is 0; `first_bad` names the first row that contradicts it."""

    name: str
    claim: str
    ok: bool
    checked: int
    bad: int
    first_bad: str | None


class ReconciliationView(Struct, frozen=True):
    checked_at: str
    ok: bool
    checks: list[CheckView]


class PulseView(Struct, frozen=True):
    """`late_seconds`: by how much its next tick is overdue; 0 in good health."""

    market: str
    status: str
    tick: int
    next_tick_at: str
    late_seconds: float


class PhaseView(Struct, frozen=True):
    """Milliseconds that a phase of a tick took over the last ticks; the phases follow each other.

    `late`: from due to begun; `clear`: deciding; `commit`: until durable; `tell`: handing it to who listens.
    """

    phase: str
    ticks: int
    last_ms: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


class EngineView(Struct, frozen=True):
    """`journal_seq` counts accepted commands; `waiting_commands` are in the inbox now.

    `fees` is what the operator has earned so far; `phases` is empty until a tick was told.
    """

    ready: bool
    time: str
    journal_seq: int
    waiting_commands: int
    sockets: int
    fees: str
    currency: str
    phases: list[PhaseView]
    markets: list[PulseView]


@route("GET", "/v1/operator/engine", scope="operator:read")
async def get_engine(call: Call[NoBody, NoQuery]) -> Reply[EngineView]:
    """Show the engine's pulse: its journal, what waits, and each market's next tick."""
    engine, now_us = call.services.engine, call.now_us
    markets = [
        PulseView(
            market.id,
            market.status,
            market.tick,
            format_instant(market.next_tick_at_us),
            round(max(0, now_us - market.next_tick_at_us) / MICROSECONDS_PER_SECOND, 3),
        )
        for _, market in sorted(engine.core.markets.items())
    ]
    return call.reply(
        EngineView(
            ready=engine.is_ready,
            time=format_instant(now_us),
            journal_seq=engine.core.seq,
            waiting_commands=engine.waiting_commands,
            sockets=len(call.services.sockets),
            fees=format_microusd(engine.core.fees()),
            currency=CURRENCY,
            phases=_phases(engine.timings),
            markets=markets,
        )
    )


def _phases(timings: Timings) -> list[PhaseView]:
    """Sum up how long each phase took; the last tick's beside the quantiles."""
    if not timings.kept:
        return []
    last = timings.kept[-1]
    shown = []
    for name, values in timings.phases().items():
        count = len(values)
        figures = (
            getattr(last, name),
            values[(count - 1) // 2],
            values[-(-count * 99 // 100) - 1],
            values[-1],
        )
        shown.append(PhaseView(name.removesuffix("_us"), count, *(round(one / 1_000, 3) for one in figures)))
    return shown


@route("GET", "/v1/operator/reconciliation", scope="operator:read")
async def get_reconciliation(call: Call[NoBody, NoQuery]) -> Reply[ReconciliationView]:
    """Check every invariant of the books, the leases and the hash chain; at most a minute old."""
    at_us, findings = await call.services.reconciliation.latest(call.now_us)
    checks = [
        CheckView(one.name, one.claim, one.is_ok, one.checked, one.bad, one.first_bad) for one in findings
    ]
    return call.reply(ReconciliationView(format_instant(at_us), all(one.is_ok for one in findings), checks))


class TickReplayView(Struct, frozen=True):
    """`match`: replaying `entries` commands from nothing gives the digest that was published."""

    market: str
    tick: int
    match: bool
    digest: str
    replayed_digest: str | None
    entries: int
    difference: str | None


@route("POST", "/v1/operator/ticks/{market}/{tick}/replay", scope="operator:read", is_keyed=False)
async def replay(call: Call[NoBody, NoQuery]) -> Reply[TickReplayView]:
    """Replay the journal from its first entry up to a tick, and compare the digests; one at a time."""
    services, market, text = call.services, call.path_part("market"), call.path_part("tick")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= TICK_DIGITS_MAX else -1
    stored = call.found(await services.system.tick(market, number), "tick")
    if call.core.seq > REPLAY_ENTRIES_MAX:
        detail = f"the journal has {call.core.seq} entries, above {REPLAY_ENTRIES_MAX}"
        raise Rejection("journal_too_long", detail)
    if services.replaying.locked():
        raise Rejection("replay_running", "another tick is being replayed")

    async def rest() -> None:
        await asyncio.sleep(REPLAY_REST_SECONDS)

    async with services.replaying:
        try:
            found = await replay_tick(services.system.journal, market, number, rest=rest)
        except msgspec.DecodeError as error:
            found = TickReplay(0, None, f"an entry cannot be read: {error}")
    difference = found.difference
    if difference is None and found.digest != stored.digest:
        difference = "the digests differ"
    return call.reply(
        TickReplayView(
            market=market,
            tick=number,
            match=difference is None,
            digest=stored.digest,
            replayed_digest=found.digest,
            entries=found.seq,
            difference=difference,
        )
    )
