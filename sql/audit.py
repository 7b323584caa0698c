"""Check a database against what must be true of it, beside a running server.

Decides nothing and shares no code with what writes: it knows the schema, the named queries and the
journal's wire format only, and recomputes chains, prices and balances by its own formulas. Each claim
is a query `audit_NN_<name>.sql` whose first line says it; its rows are the things checked, with the
column `is_bad` (and `is_noted` for what the rules let pass but a reader should know). All of them read
one snapshot, so a market that trades meanwhile cannot look wrong.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import msgspec

from sql import query

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

# Rows per round trip of a scan that is computed here; bounds its memory.
SCAN_ROWS = 10_000

EXIT_OK = 0
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `name` is its file's, `claim` the sentence that holds when `is_ok`."""

    name: str
    claim: str
    checked: int  # rows
    bad: int
    first_bad: str | None
    elapsed_ns: int
    noted: int = 0
    note: str = ""  # what the noted rows are

    @property
    def is_ok(self) -> bool:
        return self.bad == 0


@dataclass(slots=True)
class Facts:
    """What the journal says, as far as checks need it. Histories are in journal order."""

    bid_limits: list[tuple[str, int, int]] = field(default_factory=list)  # (bid, at_us, limit)
    offer_reserves: list[tuple[str, int, int]] = field(default_factory=list)  # (offer, at_us, reserve)
    early_ends: list[str] = field(default_factory=list)  # notice acknowledged ready, lease reported stopped
    notice_seconds: list[tuple[str, int, int]] = field(default_factory=list)  # (market, at_us, seconds)


class _Command(msgspec.Struct):
    """The fields that checks judge by, of whatever command it is: the journal's wire format."""

    type: str
    bid: str | None = None
    limit: int | None = None
    offer: str | None = None
    reserve: int | None = None
    notice: str | None = None
    ready: bool = False
    lease: str | None = None
    state: str | None = None
    market: str | dict[str, Any] | None = None  # the whole of it where it is created
    notice_seconds: int | None = None
    alternatives: list[dict[str, Any]] = []


@dataclass(slots=True)
class _Tally:
    """What a scan that is computed here has seen."""

    checked: int = 0
    bad: int = 0
    first_bad: str | None = None

    def add_bad(self, text: str) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or text


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    arguments: Callable[[Facts], list[list[Any]]] = lambda _: []
    note: str = ""


_SQL_CHECKS = (
    _Check("01_books"),
    _Check("02_balances"),
    _Check("03_floors"),
    _Check("04_ledger_rows"),
    _Check("05_routes"),
    _Check("06_bids_held"),
    _Check("07_accounts_held"),
    _Check("08_holds_cover"),
    _Check("09_bids_spent"),
    _Check("10_leases_settled"),
    _Check("11_fees"),
    _Check("12_leases_metered"),
    _Check("13_usage_chain"),
    _Check("14_usage_covers"),
    _Check("15_gpu_seconds"),
    _Check("16_limits", lambda facts: _columns(facts.bid_limits)),
    _Check(
        "17_reserves",
        lambda facts: _columns(facts.offer_reserves),
        "usage rows below the reserve, as the rules let them",
    ),
    _Check("18_gpu_slots"),
    _Check("19_gpus_on_node"),
    _Check("20_lease_parties"),
    _Check("21_filled_gpus"),
    _Check("22_lease_ends"),
    _Check("23_live_notices"),
    _Check(
        "24_notices_kept",
        lambda facts: [facts.early_ends, *_columns(facts.notice_seconds)],
        "ended before reclaim_at: the tenant was ready, or the node had stopped",
    ),
    _Check("25_tick_links"),
    _Check("27_market_heads"),
    _Check("28_journal_order"),
    _Check("29_journal_head"),
    _Check("30_journal_causes"),
    _Check("32_events_gapless"),
    _Check("33_offers_kept"),
    _Check("34_refunds"),
    _Check("35_payouts"),
)


async def audit(connection: "Connection") -> list[Finding]:
    """Run every check on one snapshot of the database, writing nothing; return one finding each."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # Compiling costs more than these scans gain; sorts of millions of rows gain from memory.
        await connection.execute("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'")
        facts = Facts()
        findings = [await _read_journal(connection, facts), await _check_digests(connection)]
        findings.append(await _check_audit_chain(connection))
        findings += [await _run(connection, check, facts) for check in _SQL_CHECKS]
    return sorted(findings, key=lambda finding: finding.name)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the process's exit code: 0 when every claim holds, otherwise 1."""
    return EXIT_OK if all(finding.is_ok for finding in findings) else EXIT_FAILED


def render(findings: Sequence[Finding]) -> str:
    """Write the findings as text: one line per check, under a failed one its first bad row."""
    lines = []
    for finding in findings:
        verdict = "ok    " if finding.is_ok else "FAILED"
        elapsed_ms = finding.elapsed_ns / 1_000_000
        lines.append(f"{verdict} {finding.checked:>11,} {elapsed_ms:>9,.1f} ms  {finding.claim}")
        if not finding.is_ok:
            lines.append(f"       {finding.bad:,} bad, first: {finding.first_bad}")
        if finding.noted:
            lines.append(f"       noted: {finding.noted:,} {finding.note}")
    failed = sum(not finding.is_ok for finding in findings)
    verdict = f"{failed} of {len(findings)} checks FAILED" if failed else f"all {len(findings)} checks ok"
    elapsed_s = sum(finding.elapsed_ns for finding in findings) / 1_000_000_000
    lines.append(f"{verdict}, {sum(finding.checked for finding in findings):,} rows in {elapsed_s:.1f} s")
    return "\n".join(lines)


async def _run(connection: "Connection", check: _Check, facts: Facts) -> Finding:
    started_ns = time.perf_counter_ns()
    text = query(f"audit_{check.name}")
    noted = "count(*) FILTER (WHERE is_noted)" if check.note else "0"
    # One pass in constant memory, however many are bad. An unknown (null) verdict is a bad one.
    row = await connection.fetchrow(
        f"SELECT count(*) AS checked, count(*) FILTER (WHERE is_bad IS NOT FALSE) AS bad, {noted} AS noted, "
        "min((to_jsonb(c) - 'is_bad' - 'is_noted')::text) FILTER (WHERE is_bad IS NOT FALSE) AS first_bad "
        f"FROM (\n{text}\n) AS c",
        *check.arguments(facts),
    )
    assert row is not None
    return Finding(
        check.name,
        _claim(text),
        row["checked"],
        row["bad"],
        row["first_bad"],
        time.perf_counter_ns() - started_ns,
        row["noted"],
        check.note,
    )


def _columns(rows: Sequence[tuple[str, int, int]]) -> list[list[Any]]:
    return [[row[i] for row in rows] for i in range(3)]


def _claim(text: str) -> str:
    first_line = text.partition("\n")[0]
    assert first_line.startswith("-- "), "an audit query starts with its claim"
    return first_line.removeprefix("-- ")


async def _scan(connection: "Connection", text: str) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(text)
    while rows := await cursor.fetch(SCAN_ROWS):
        yield rows


async def _check_digests(connection: "Connection") -> Finding:
    started_ns = time.perf_counter_ns()
    text = query("audit_26_tick_digests")
    sha256 = hashlib.sha256
    tally = _Tally()
    async for rows in _scan(connection, text):
        tally.checked += len(rows)
        for market, tick, previous_digest, input_hash, output_hash, digest in rows:
            contents = f"{market}:{tick}:{previous_digest}:{input_hash}:{output_hash}"
            expected = sha256(contents.encode()).hexdigest()
            if digest != expected:
                tally.add_bad(f"tick {tick} of {market}: digest {digest}, its contents give {expected}")
    return _scanned("26_tick_digests", text, tally, started_ns)


async def _check_audit_chain(connection: "Connection") -> Finding:
    started_ns = time.perf_counter_ns()
    text = query("audit_36_audit_chain")
    tally = _Tally()
    number, last = 0, hashlib.sha256(b"fallow audit log").digest()
    async for rows in _scan(connection, text):
        tally.checked += len(rows)
        for previous_hash, own_hash, *fields in rows:
            if fields[-1] is None:  # the value before: only what has one hashes it
                fields.pop()
            written = "".join("-," if f is None else f"{len(str(f).encode())}:{f}," for f in fields)
            expected = hashlib.sha256(previous_hash + written.encode()).digest()
            if (fields[0], previous_hash, own_hash) != (number + 1, last, expected):
                tally.add_bad(f"row {fields[0]} of {fields[2]} does not follow from row {number}")
            number, last = fields[0], own_hash
    return _scanned("36_audit_chain", text, tally, started_ns)


async def _read_journal(connection: "Connection", facts: Facts) -> Finding:
    """Decode the whole journal, and fill `facts` from it."""
    started_ns = time.perf_counter_ns()
    text = query("audit_31_journal_reads")
    tally = _Tally()
    limits: list[tuple[str, int, int]] = []
    reserves: list[tuple[str, int, int]] = []
    async for rows in _scan(connection, text):
        tally.checked += len(rows)
        for shard_id, seq, at_us, payload in rows:
            try:
                command = msgspec.msgpack.decode(payload, type=_Command)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                tally.add_bad(f"entry {seq} of shard {shard_id}: {error}")
                continue
            match command:
                case _Command(type="AmendBid", bid=str(bid), limit=int(limit), market=named):
                    limits.append((bid, at_us, limit))
                    if named is not None:
                        limits.append((f"{bid} {named}", at_us, limit))
                case _Command(type="AmendOffer", offer=str(offer), reserve=int(reserve)):
                    reserves.append((offer, at_us, reserve))
                case _Command(type="AckNotice", notice=str(notice), ready=True):
                    facts.early_ends.append(notice)
                case _Command(type="ReportLease", lease=str(lease), state="stopped"):
                    facts.early_ends.append(lease)
                case _Command(
                    type="CreateMarket", market={"id": str(market), "notice_seconds": int(seconds)}
                ):
                    facts.notice_seconds.append((market, at_us, seconds))
                case _Command(type="SetMarketTiming", market=str(market), notice_seconds=int(seconds)):
                    facts.notice_seconds.append((market, at_us, seconds))
    if limits or reserves:
        await _read_origins(connection, limits, reserves, facts)
    return _scanned("31_journal_reads", text, tally, started_ns)


async def _read_origins(
    connection: "Connection",
    limits: Sequence[tuple[str, int, int]],
    reserves: Sequence[tuple[str, int, int]],
    facts: Facts,
) -> None:
    """Put the terms that amended bids and offers began with before their amendments."""
    amended_bids = {bid for bid, _, _ in limits}
    amended_offers = {offer for offer, _, _ in reserves}
    async for rows in _scan(connection, query("audit_journal_origins")):
        for at_us, payload in rows:
            try:
                command = msgspec.msgpack.decode(payload, type=_Command)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # counted by the scan before this one
            match command:
                case _Command(type="PlaceBid", bid=str(bid), limit=int(limit), alternatives=named):
                    begun = [(bid, at_us, limit)]
                    begun += [(f"{bid} {one['market']}", at_us, int(one["limit"])) for one in named]
                    facts.bid_limits += [one for one in begun if one[0] in amended_bids]
                case _Command(type="CreateOffer", offer=str(offer), reserve=int(reserve)) if (
                    offer in amended_offers
                ):
                    facts.offer_reserves.append((offer, at_us, reserve))
    facts.bid_limits.extend(limits)
    facts.offer_reserves.extend(reserves)


def _scanned(name: str, text: str, tally: _Tally, started_ns: int) -> Finding:
    elapsed_ns = time.perf_counter_ns() - started_ns
    return Finding(name, _claim(text), tally.checked, tally.bad, tally.first_bad, elapsed_ns)
