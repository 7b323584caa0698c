"""What an operator watches: the engine's pulse, and every invariant of the books with pass or fail."""

from msgspec import Struct

from api.call import Call, Reply
from api.fields import format_instant
from api.routes import NoBody, NoQuery, route
from auction.units import MICROSECONDS_PER_SECOND


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


class EngineView(Struct, frozen=True):
    """`journal_seq` counts accepted commands; `waiting_commands` are in the inbox now."""

    ready: bool
    time: str
    journal_seq: int
    waiting_commands: int
    sockets: int
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
            markets=markets,
        )
    )


@route("GET", "/v1/operator/reconciliation", scope="operator:read")
async def get_reconciliation(call: Call[NoBody, NoQuery]) -> Reply[ReconciliationView]:
    """Check every invariant of the books, the leases and the hash chain; at most a minute old."""
    at_us, findings = await call.services.reconciliation.latest(call.now_us)
    checks = [
        CheckView(one.name, one.claim, one.is_ok, one.checked, one.bad, one.first_bad) for one in findings
    ]
    return call.reply(ReconciliationView(format_instant(at_us), all(one.is_ok for one in findings), checks))
