"""The audit passes a small sound market, and names each planted corruption by its own check.

The market is built by hand, not by the engine: two parties that agreed by sharing code would prove
nothing. Corruptions are planted by a superuser with triggers and foreign keys off, or are states that
the schema lets anybody write.
"""

import hashlib
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from auction import commands
from auction.commands import AckNotice, AmendBid, AmendOffer, ClearMarket, Command, CreateOffer, PlaceBid
from auction.model import Market
from sql.audit import Finding, audit, exit_code, render
from sql.migrate import migrate

pytestmark = pytest.mark.asyncio(loop_scope="module")

T0 = 1_700_000_000  # seconds
US = 1_000_000
FEE_BPS = 500
HOLD = 100_000

# (seconds after T0, price): one tick each.
TICKS = [(0, 2_000_000), (10, 2_100_000), (20, 2_100_000), (30, 2_200_000), (40, None)]

# bid: (GPUs, limit, status, GPUs on nodes)
BIDS: dict[str, tuple[int, int, str, int]] = {
    "b_runs": (2, 3_000_000, "filled", 2),  # amended up from 2.50
    "b_noticed": (1, 2_100_000, "preempting", 1),
    "b_outbid": (1, 2_050_000, "open", 0),
    "b_ready": (1, 2_050_000, "cancelled", 0),
    "b_short": (1, 2_050_000, "cancelled", 0),
    "b_lowered": (1, 500_000, "open", 0),  # amended down from 2.05, below the reserve
}
# lease: (bid, offer, GPUs, state, started µs, ended µs, reason, notice), times after T0
LEASES: dict[str, tuple[str, str, list[int], str, int | None, int | None, str | None, str | None]] = {
    "l_runs": ("b_runs", "o_amended", [0, 1], "running", 1_500_000, None, None, None),
    "l_noticed": ("b_noticed", "o_amended", [2], "noticed", 2_000_000, None, None, "n_live"),
    "l_outbid": ("b_outbid", "o_plain", [3], "ended", 2_000_000, 30_000_000, "outbid", "n_outbid"),
    "l_ready": ("b_ready", "o_plain", [4], "ended", 2_000_000, 15_500_000, "outbid", "n_ready"),
    "l_short": ("b_short", "o_plain", [5], "ended", 3_200_000, 3_900_000, "released", None),
    "l_never": ("b_short", "o_plain", [], "ended", None, 4_000_000, "outbid", None),
    "l_pending": ("b_outbid", "o_plain", [], "pending", None, None, None, None),
    "l_lowered": ("b_lowered", "o_plain", [6], "ended", 2_000_000, 30_000_000, "outbid", "n_lowered"),
}
# lease: (from, to, price) after T0
USAGE: dict[str, list[tuple[int, int, int]]] = {
    "l_runs": [(1, 10, 2_000_000), (10, 30, 2_100_000), (30, 40, 2_200_000)],
    "l_noticed": [(2, 10, 2_000_000), (10, 30, 2_100_000), (30, 40, 2_100_000)],
    "l_outbid": [(2, 10, 2_000_000), (10, 30, 2_000_000)],
    "l_ready": [(2, 10, 2_000_000), (10, 15, 2_000_000)],
    "l_lowered": [(2, 10, 2_000_000), (10, 30, 500_000)],
}
# notice: (lease, bid, state, issued, reclaim, closed, limit), seconds after T0
NOTICES: dict[str, tuple[str, str, str, int, int, float | None, int]] = {
    "n_live": ("l_noticed", "b_noticed", "acknowledged", 30, 60, None, 2_100_000),
    "n_outbid": ("l_outbid", "b_outbid", "done", 10, 30, 30, 2_050_000),
    "n_ready": ("l_ready", "b_ready", "done", 10, 30, 15.5, 2_050_000),
    "n_lowered": ("l_lowered", "b_lowered", "done", 10, 30, 30, 500_000),
}


def create_market(notice_seconds: int) -> commands.CreateMarket:
    return commands.CreateMarket(
        Market("market", "gpu", "", 0, 8, "", "", 10, 100, 10_000_000, notice_seconds, 60, 0, 0, True, 0)  # type: ignore[arg-type]
    )


# (seconds after T0, command); sequence numbers from 1
JOURNAL: list[tuple[int, Command]] = [
    (-200, create_market(20)),
    (-100, commands.Deposit("d1", "buyer", 10_000_000)),  # type: ignore[arg-type]
    (-90, CreateOffer("o_amended", "owner", "node", 4, 1_950_000)),  # type: ignore[arg-type]
    (-80, AmendOffer("o_amended", "owner", 1, reserve=1_000_000)),  # type: ignore[arg-type]
    (-70, CreateOffer("o_plain", "owner", "node", 4, 1_000_000)),  # type: ignore[arg-type]
    (-60, PlaceBid("b_runs", "buyer", "market", 2, 2_500_000)),  # type: ignore[arg-type]
    (-59, PlaceBid("b_lowered", "buyer", "market", 1, 2_050_000)),  # type: ignore[arg-type]
    (0, ClearMarket("market", 1)),
    (5, AmendBid("b_runs", "buyer", limit=3_000_000)),  # type: ignore[arg-type]
    (6, AmendBid("b_lowered", "buyer", limit=500_000)),  # type: ignore[arg-type]
    (10, ClearMarket("market", 2)),
    (15, AckNotice("n_ready", "buyer", True)),
    (20, ClearMarket("market", 3)),
    # A longer notice from here on; those issued before were promised the shorter one.
    (25, commands.AmendMarket("market", 10, 30, 60)),
    (30, ClearMarket("market", 4)),
    (40, ClearMarket("market", 5)),
]


def seq_of(kind: type[Any]) -> int:
    """Return the sequence number of the journal's first command of this kind."""
    return next(seq for seq, (_, command) in enumerate(JOURNAL, 1) if isinstance(command, kind))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tick_digest(tick: int, previous: str) -> str:
    return sha256(f"market:{tick}:{previous}:in{tick}:out{tick}")


BLANKS = {"smallint": 0, "integer": 0, "bigint": 0, "text": "", "boolean": False, "bytea": b"", "ARRAY": []}


async def insert(connection: Any, table: str, **columns: Any) -> None:
    """Insert a row; a column that must be there and does not matter here is blank."""
    needed = await connection.fetch(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1"
        " AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'"
        " AND is_generated = 'NEVER'",
        table,
    )
    row = {name: BLANKS[data_type] for name, data_type in needed} | columns
    parameters = ", ".join(f"${i}" for i in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({parameters})", *row.values())


async def build(connection: Any) -> None:
    """Write the sound market, through the triggers and constraints."""
    await migrate(connection)
    async with connection.transaction():
        for seq, (at_s, command) in enumerate(JOURNAL, 1):
            await insert(
                connection, "journal", shard_id=0, seq=seq, epoch=1 + seq // 8,
                at_us=(T0 + at_s) * US, payload=commands.encode_command(command),
            )  # fmt: skip
        await connection.execute("UPDATE shards SET next_seq = $1, epoch = 3", len(JOURNAL) + 1)
        await build_parties(connection)
        await build_market(connection)
        await build_trade(connection)
        await build_money(connection)


async def build_parties(connection: Any) -> None:
    for number, account in enumerate(("buyer", "owner"), 1):
        await insert(connection, "accounts", id=account, number=number, state="open", event_seq=2)
        for code in range(4):
            await insert(connection, "ledger_balances", ledger_account=number * 8 + code, floored=True)
        for seq in (1, 2):
            await insert(connection, "events", account=account, account_seq=seq)
        await insert(connection, "audit_log", account=account, request_sha256=bytes(32), answer="{}")


async def build_market(connection: Any) -> None:
    previous = sha256("fallow:market")
    await insert(
        connection, "markets", id="market", kind="gpu", tick_seconds=10, price_increment=100,
        price_cap=10_000_000, notice_seconds=30, settlement_seconds=60, fee_bps=FEE_BPS, status="open",
        tick=len(TICKS), price=2_200_000,
    )  # fmt: skip
    clears = (seq for seq, (_, command) in enumerate(JOURNAL, 1) if isinstance(command, ClearMarket))
    for (tick, (at_s, price)), seq in zip(enumerate(TICKS, 1), clears, strict=True):
        digest = tick_digest(tick, previous)
        await insert(
            connection, "ticks", market="market", tick=tick, cleared_at_us=(T0 + at_s) * US + 300_000,
            price=price, low=price, high=price, input_hash=f"in{tick}", output_hash=f"out{tick}",
            previous_digest=previous, digest=digest, journal_seq=seq,
        )  # fmt: skip
        previous = digest
    await connection.execute("UPDATE markets SET digest = $1", previous)
    await insert(connection, "nodes", id="node", account="owner", market="market", gpus=8, state="online")
    for seq, offer in enumerate(("o_amended", "o_plain"), 1):
        await insert(
            connection, "offers", id=offer, account="owner", node="node", market="market", gpus=4,
            reserve=1_000_000, gross_reserve=1_052_700, notice_seconds=20,
            status="leased", seq=seq,
        )  # fmt: skip


async def build_trade(connection: Any) -> None:
    for seq, (bid, (gpus, limit, status, filled)) in enumerate(BIDS.items(), 1):
        await insert(
            connection, "bids", id=bid, account="buyer", market="market", gpus=gpus, limit_price=limit,
            min_gpus=1, colocate="none", status=status, seq=seq, filled_gpus=filled,
        )  # fmt: skip
    for lease, (bid, offer, slots, state, started, ended, reason, notice) in LEASES.items():
        rows = USAGE.get(lease, [])
        gpu_count = max(len(slots), 1)
        owed = [gpu_count * (to_s - from_s) * price for from_s, to_s, price in rows]
        metered, carry = divmod(sum(owed), 3600)
        # The running ones were last settled 30 seconds in: their last row is metered only.
        settled = metered if state == "ended" else sum(owed[:-1]) // 3600
        await insert(
            connection, "leases", id=lease, bid=bid, account="buyer", owner="owner", market="market",
            node="node", offer=offer, gpu_count=gpu_count, gpus=slots, state=state,
            awarded_at_us=T0 * US, started_at_us=started and T0 * US + started,
            ended_at_us=ended and T0 * US + ended, end_reason=reason, notice=notice,
            metered_to_s=T0 + rows[-1][1] if rows else started and T0 + started // US, carry=carry,
            metered=metered, settled=settled, gpu_seconds=sum(gpu_count * (to - at) for at, to, _ in rows),
        )  # fmt: skip
        for i, (from_s, to_s, price) in enumerate(rows):
            await insert(
                connection, "usage", lease=lease, from_s=T0 + from_s, to_s=T0 + to_s, price=price,
                gpu_count=gpu_count, carry_in=sum(owed[:i]) % 3600, is_first=i == 0,
            )  # fmt: skip
        if state in ("running", "noticed"):
            for gpu in slots:
                await insert(connection, "gpu_slots", node="node", gpu=gpu, lease=lease)
    for notice, (lease, bid, state, issued, reclaim, closed, limit) in NOTICES.items():
        await insert(
            connection, "notices", id=notice, lease=lease, bid=bid, account="buyer", market="market",
            reason="outbid", state=state, issued_at_us=(T0 + issued) * US, limit_price=limit,
            reclaim_at_us=(T0 + reclaim) * US, closed_at_us=closed and int((T0 + closed) * US),
        )  # fmt: skip


async def build_money(connection: Any) -> None:
    indexes = count()

    async def move(code: str, debit: int, credit: int, amount: int, reference: str, end_s: int = 0) -> None:
        await insert(
            connection, "transfers", shard_id=0, journal_seq=1, idx=next(indexes), code=code,
            debit_account=debit, credit_account=credit, amount=amount, reference=reference,
            interval_end_s=end_s, at_us=T0 * US,
        )  # fmt: skip

    await move("deposit", 4, 8, 10_000_000, "d1")
    for bid, (_, _, status, _) in BIDS.items():
        await move("hold", 8, 9, HOLD, bid)
        spent = 0
        leases = await connection.fetch("SELECT id, settled FROM leases WHERE bid = $1 AND settled > 0", bid)
        for lease, settled in leases:
            fee = settled * FEE_BPS // 10_000
            await move("charge", 9, 18, settled - fee, lease, T0 + 30)
            await move("fee", 9, 5, fee, lease, T0 + 30)
            spent += settled
        if status == "cancelled":
            await move("release", 9, 8, HOLD - spent, bid)
        held = 0 if status == "cancelled" else HOLD - spent
        await connection.execute("UPDATE bids SET held = $2, spent = $3 WHERE id = $1", bid, held, spent)
    await insert(connection, "payouts", id="pay", account="owner", amount=3, state="created")
    await move("payout", 18, 19, 3, "pay")


def rewrite(kind: type[Any], command: Command) -> str:
    """Put another command where the journal has its first one of this kind."""
    payload = commands.encode_command(command).hex()
    return f"UPDATE journal SET payload = '\\x{payload}' WHERE seq = {seq_of(kind)}"


def relinked_tick() -> str:
    """Give the last tick a wrong predecessor but a digest that fits it, and move the market's head."""
    digest = tick_digest(5, "elsewhere")
    return (
        f"UPDATE ticks SET previous_digest = 'elsewhere', digest = '{digest}' WHERE tick = 5;"
        f"UPDATE markets SET digest = '{digest}'"
    )


# Wrong acts that the schema takes, with everything that follows from them: only the claim breaks.
TRANSFER = """SET session_replication_role = origin; INSERT INTO transfers (shard_id, journal_seq, idx,
    interval_end_s, at_us, code, debit_account, credit_account, amount, reference) """
RELEASE_TOO_MUCH = (
    TRANSFER + "SELECT 0, 2, 0, 0, 0, 'release', 9, 8, held, id FROM bids WHERE id = 'b_runs';"
    "UPDATE bids SET held = 0 WHERE id = 'b_runs'"
)
MISDIRECTED_DEPOSIT = TRANSFER + "VALUES (0, 2, 0, 0, 0, 'deposit', 4, 18, 5, 'd2')"
OVERDRAFT = (
    "ALTER TABLE ledger_balances DROP CONSTRAINT no_overdraft;"
    + TRANSFER
    + "VALUES (0, 2, 0, 0, 0, 'hold', 8, 9, 20000000, 'b_runs');"
    "UPDATE bids SET held = held + 20000000 WHERE id = 'b_runs'"
)
FEE_TOO_HIGH = """
UPDATE transfers SET amount = amount + CASE code WHEN 'fee' THEN 1 ELSE -1 END
    WHERE reference = 'l_outbid' AND code IN ('charge', 'fee');
UPDATE ledger_balances SET credits = credits + CASE ledger_account WHEN 5 THEN 1 ELSE -1 END
    WHERE ledger_account IN (5, 18)
"""

# (checks that must fail, what is planted). Two claims follow from others and cannot fail alone.
# fmt: off
CORRUPTIONS: list[tuple[str, str]] = [
    ("01_books 02_balances", "UPDATE ledger_balances SET credits = credits + 1 WHERE ledger_account = 16"),
    ("02_balances", "UPDATE ledger_balances SET debits = debits + 1, credits = credits + 1"
                    " WHERE ledger_account = 9"),
    ("03_floors", OVERDRAFT),
    ("04_ledger_rows", "DELETE FROM ledger_balances WHERE ledger_account = 11"),
    ("04_ledger_rows", "INSERT INTO ledger_balances (ledger_account, floored) VALUES (80, true)"),
    ("05_routes", MISDIRECTED_DEPOSIT),
    ("06_bids_held", "UPDATE bids SET held = held + CASE id WHEN 'b_runs' THEN 1 ELSE -1 END"
                     " WHERE id IN ('b_runs', 'b_outbid')"),
    ("06_bids_held 07_accounts_held", "UPDATE bids SET held = held + 1 WHERE id = 'b_runs'"),
    ("08_holds_cover", RELEASE_TOO_MUCH),
    ("09_bids_spent", "UPDATE bids SET spent = spent + 1 WHERE id = 'b_short'"),
    ("10_leases_settled", "UPDATE leases SET settled = settled - 1 WHERE id = 'l_runs';"
                          "UPDATE bids SET spent = spent - 1 WHERE id = 'b_runs'"),
    ("11_fees", FEE_TOO_HIGH),
    ("12_leases_metered", "UPDATE leases SET metered = metered + 1 WHERE id = 'l_runs'"),
    ("12_leases_metered", "UPDATE leases SET carry = (carry + 1) % 3600 WHERE id = 'l_outbid'"),
    ("13_usage_chain", "UPDATE usage SET carry_in = carry_in + 1 WHERE lease = 'l_outbid' AND NOT is_first"),
    ("13_usage_chain", "UPDATE usage SET from_s = from_s - 1, to_s = to_s - 1"
                       f" WHERE lease = 'l_runs' AND from_s = {T0 + 10}"),
    ("14_usage_covers", "UPDATE leases SET started_at_us = started_at_us + 1000000 WHERE id = 'l_runs'"),
    ("14_usage_covers", "UPDATE leases SET ended_at_us = ended_at_us + 1000000 WHERE id = 'l_outbid'"),
    ("14_usage_covers", "UPDATE leases SET ended_at_us = ended_at_us + 1000000 WHERE id = 'l_short'"),
    ("15_gpu_seconds", "UPDATE leases SET gpu_seconds = gpu_seconds + 1 WHERE id = 'l_runs'"),
    ("15_gpu_seconds", "UPDATE leases SET gpu_count = 2, gpus = '{3,7}' WHERE id = 'l_outbid'"),
    ("16_limits", "UPDATE bids SET limit_price = 1900000 WHERE id = 'b_outbid'"),
    ("16_limits", rewrite(AmendBid, AmendBid("b_runs", "buyer", limit=2_150_000))),  # type: ignore[arg-type]
    ("17_reserves", "UPDATE offers SET reserve = 2000000, gross_reserve = 2200000 WHERE id = 'o_plain'"),
    ("17_reserves", rewrite(AmendOffer, AmendOffer("o_amended", "owner", 1, 1_999_000))),  # type: ignore[arg-type]
    ("18_gpu_slots", "DELETE FROM gpu_slots WHERE gpu = 2"),
    ("18_gpu_slots", "INSERT INTO gpu_slots VALUES ('node', 7, 'l_outbid')"),
    ("18_gpu_slots", "UPDATE leases SET gpus = '{0,2}' WHERE id = 'l_runs'"),
    ("19_gpus_on_node", "UPDATE leases SET gpus = '{8}' WHERE id = 'l_outbid'"),
    ("20_lease_parties", "UPDATE leases SET owner = 'buyer' WHERE id = 'l_short'"),
    ("21_filled_gpus", "UPDATE bids SET filled_gpus = filled_gpus + 1 WHERE id = 'b_outbid'"),
    ("22_lease_ends", "UPDATE leases SET awarded_at_us = ended_at_us + 1 WHERE id = 'l_never'"),
    ("23_live_notices", "UPDATE leases SET state = 'running' WHERE id = 'l_noticed'"),
    ("23_live_notices", "UPDATE notices SET state = 'done', closed_at_us = 0 WHERE id = 'n_live'"),
    ("24_notices_kept", "UPDATE notices SET reclaim_at_us = reclaim_at_us - 1 WHERE id = 'n_outbid'"),
    ("24_notices_kept", "UPDATE leases SET notice = NULL WHERE id = 'l_outbid'"),
    ("24_notices_kept", rewrite(AckNotice, AckNotice("n_ready", "buyer", False))),
    ("24_notices_kept", rewrite(commands.CreateMarket, create_market(21))),
    ("25_tick_links", "DELETE FROM ticks WHERE tick = 3"),
    ("25_tick_links", "DELETE FROM ticks WHERE tick = 1"),
    ("25_tick_links", relinked_tick()),
    ("26_tick_digests", "UPDATE ticks SET output_hash = 'other' WHERE tick = 2"),
    ("27_market_heads", "UPDATE markets SET tick = tick + 1"),
    ("27_market_heads", "UPDATE markets SET price = 2100000"),
    ("28_journal_order", f"DELETE FROM journal WHERE seq = {seq_of(CreateOffer)}"),
    ("28_journal_order", f"UPDATE journal SET epoch = 3 WHERE seq = {seq_of(CreateOffer)}"),
    ("29_journal_head", "UPDATE ticks SET journal_seq = 1; DELETE FROM journal WHERE seq ="
                        " (SELECT max(seq) FROM journal)"),
    ("29_journal_head", "UPDATE shards SET epoch = 1"),
    ("30_journal_causes", "UPDATE ticks SET journal_seq = 99 WHERE tick = 3"),
    ("30_journal_causes", "UPDATE transfers SET journal_seq = 99 WHERE code = 'deposit'"),
    ("31_journal_reads", "UPDATE journal SET payload = '\\xc1' WHERE seq = 2"),
    ("32_events_gapless", "DELETE FROM events WHERE account = 'buyer' AND account_seq = 1"),
    ("32_events_gapless", "UPDATE accounts SET event_seq = 3 WHERE id = 'owner'"),
    ("33_offers_kept", "UPDATE offers SET gpus = 1"),
    ("35_payouts", "INSERT INTO payouts VALUES ('p', 'owner', 1, 'created', '', 1, NULL)"),
    ("34_refunds", "UPDATE leases SET refunded = 1 WHERE settled > 0"),
    ("36_audit_chain", "UPDATE audit_log SET answer = NULL WHERE id = 2"),
    ("36_audit_chain", "DELETE FROM audit_log WHERE id = 1"),
]
# fmt: on


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sound(server: Any) -> dict[str, Any]:
    """Build the sound market once; return how to reach the server's maintenance database."""
    arguments: dict[str, Any] = server.postgres.connect_arguments()
    maintenance = await asyncpg.connect(**arguments)
    await maintenance.execute("CREATE DATABASE audit_sound")
    await maintenance.close()
    connection = await asyncpg.connect(**arguments | {"database": "audit_sound"})
    await build(connection)
    await connection.close()
    return arguments


@pytest_asyncio.fixture(loop_scope="module")
async def connection(sound: dict[str, Any]) -> AsyncIterator[Any]:
    """Connect to a fresh copy of the sound market."""
    maintenance = await asyncpg.connect(**sound)
    await maintenance.execute("CREATE DATABASE audit_copy TEMPLATE audit_sound")
    copy = await asyncpg.connect(**sound | {"database": "audit_copy"})
    yield copy
    await copy.close()
    await maintenance.execute("DROP DATABASE audit_copy WITH (FORCE)")
    await maintenance.close()


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.is_ok}


async def test_a_sound_market_passes_every_check(connection: Any) -> None:
    """Everything holds, every check looked at something, and what the rules let pass is noted."""
    findings = await audit(connection)
    assert failed(findings) == set(), render(findings)
    assert [finding.name for finding in findings if finding.checked == 0] == []
    assert {finding.name: finding.noted for finding in findings if finding.noted} == {
        "17_reserves": 1,  # l_lowered, under notice
        "24_notices_kept": 1,  # l_ready
    }
    assert exit_code(findings) == 0
    assert f"all {len(findings)} checks ok" in render(findings)


async def test_every_check_has_a_corruption_that_it_names(connection: Any) -> None:
    named = {name for names, _ in CORRUPTIONS for name in names.split()}
    assert named == {finding.name for finding in await audit(connection)}


@pytest.mark.parametrize(("names", "corruption"), CORRUPTIONS, ids=[names for names, _ in CORRUPTIONS])
async def test_a_planted_corruption_is_named_by_its_check(
    connection: Any, names: str, corruption: str
) -> None:
    """Plant one wrong thing with triggers and foreign keys off; exactly its check fails."""
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(corruption)
    findings = await audit(connection)
    assert failed(findings) == set(names.split()), render(findings)
    assert exit_code(findings) == 1
    assert "FAILED" in render(findings)
