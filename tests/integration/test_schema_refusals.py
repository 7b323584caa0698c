"""What must never happen cannot be written: the schema's negative matrix, each refusal by its name.

One small sound database; each statement is tried on it alone and rolled back. A refusal is expected as
the name of a constraint or index, or as the sentence of a trigger where there is no constraint.
"""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sql.migrate import migrate

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRANSFER = (
    "INSERT INTO transfers (shard_id, journal_seq, idx, code, debit_account, credit_account, amount,"
    " reference, interval_end_s, at_us) VALUES "
)
USAGE = "INSERT INTO usage (lease, from_s, to_s, gpu_count, price, carry_in, is_first) VALUES "
BALANCE = "INSERT INTO ledger_balances (ledger_account, debits, credits, floored) VALUES "
# A copy of the row with the named columns changed; `{table}` has no other row like it.
COPY = "INSERT INTO {table} SELECT (jsonb_populate_record({table}, '{change}')).* FROM {table} WHERE {where}"


def copy(table: str, where: str, change: str) -> str:
    return COPY.format(table=table, where=where, change=change)


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
    """One buyer (ledger accounts 8–11), one owner (16–19), one bid with one running lease under notice."""
    await migrate(connection)
    for number, account in enumerate(("buyer", "owner"), 1):
        await insert(connection, "accounts", id=account, number=number, state="open")
        for code in range(4):
            await insert(connection, "ledger_balances", ledger_account=number * 8 + code, floored=True)
    await insert(
        connection, "markets", id="market", kind="gpu", status="open", price_increment=100, price_cap=1000,
        tick_seconds=10, settlement_seconds=60,
    )  # fmt: skip
    node = {"account": "owner", "market": "market"}
    await insert(connection, "nodes", id="node", name="node", gpus=8, state="online", **node)
    await insert(connection, "offers", id="offer", node="node", gpus=8, status="leased", seq=1, **node)
    bid = {"account": "buyer", "market": "market"}
    await insert(
        connection, "bids", id="bid", gpus=1, limit_price=1000, min_gpus=1, colocate="none",
        status="preempting", seq=1, client_bid_id="mine", held=70, filled_gpus=1, **bid,
    )  # fmt: skip
    await insert(
        connection, "leases", id="lease", bid="bid", owner="owner", node="node", offer="offer",
        gpu_count=1, gpus=[0], state="noticed", started_at_us=1, metered=30, settled=20, **bid,
    )  # fmt: skip
    await insert(connection, "gpu_slots", node="node", gpu=0, lease="lease")
    await insert(connection, "notices", id="notice", lease="lease", bid="bid", state="issued", **bid)
    await insert(connection, "ticks", market="market", tick=1, previous_digest="genesis", digest="one")
    await insert(connection, "journal", shard_id=0, seq=1)
    await insert(connection, "idempotency_keys", account="buyer", key="key")
    await insert(connection, "events", account="buyer", account_seq=1)
    await insert(connection, "api_keys", id="key", account="buyer", secret_sha256=bytes(32))
    await connection.execute(
        TRANSFER + "(0, 1, 0, 'deposit', 4, 8, 1000, 'd', 0, 0), (0, 1, 1, 'hold', 8, 9, 90, 'bid', 0, 0),"
        " (0, 1, 2, 'charge', 9, 18, 20, 'lease', 60, 0)"
    )
    # 7,250 microusd·s/h: two microusd, remainder 50.
    await connection.execute(
        USAGE + "('lease', 10, 20, 1, 725, 0, true), ('lease', 20, 30, 1, 725, 50, false)"
    )


APPEND_ONLY = [
    (statement.format(table), f"{table} is append-only")
    for table, column in (("transfers", "at_us"), ("journal", "at_us"), ("ticks", "tick"), ("usage", "price"))
    for statement in (f"UPDATE {{}} SET {column} = {column}", "DELETE FROM {}", "TRUNCATE {}")
]

MONEY: list[Any] = [
    (TRANSFER + "(0, 2, 0, 'hold', 8, 9, 911, 'bid', 0, 0)", "no_overdraft"),
    (TRANSFER + "(0, 2, 0, 'charge', 9, 18, 71, 'lease', 120, 0)", "no_overdraft"),
    (TRANSFER + "(0, 2, 0, 'hold', 8, 9, 0, 'bid', 0, 0)", "transfers_amount_positive"),
    (TRANSFER + "(0, 2, 0, 'hold', 8, 9, -1, 'bid', 0, 0)", "transfers_amount_positive"),
    (TRANSFER + "(0, 2, 0, 'hold', 8, 8, 1, 'bid', 0, 0)", "transfers_two_sides"),
    (TRANSFER + "(0, 2, 0, 'hold', 800, 9, 1, 'bid', 0, 0)", "transfers_accounts_exist"),
    (TRANSFER + "(0, 2, 0, 'hold', 8, 900, 1, 'bid', 0, 0)", "transfers_accounts_exist"),
    (TRANSFER + "(0, 2, 0, 'gift', 8, 9, 1, 'bid', 0, 0)", "transfers_code_known"),
    (TRANSFER + "(0, 1, 1, 'hold', 8, 9, 1, 'bid', 0, 0)", "transfers_once"),
    (TRANSFER + "(0, 2, 0, 'charge', 9, 18, 1, 'lease', 60, 0)", "charged_once"),
    ("UPDATE ledger_balances SET credits = credits + 1", "balances change through transfers only"),
    ("UPDATE ledger_balances SET debits = -1", "ledger_balances_counters"),
    ("DELETE FROM ledger_balances WHERE ledger_account = 11", "balances change through transfers only"),
    ("DELETE FROM ledger_balances WHERE ledger_account = 18", "balances change through transfers only"),
    ("TRUNCATE ledger_balances CASCADE", "balances change through transfers only"),
    (BALANCE + "(80, 0, 1000, true)", "balances change through transfers only"),
    (BALANCE + "(80, 0, 0, false)", "ledger_balances_floor"),
    ("UPDATE bids SET status = 'cancelled', filled_gpus = 0", "bids_final_hold_released"),
    ("UPDATE bids SET status = 'exhausted', filled_gpus = 0", "bids_final_hold_released"),
    ("INSERT INTO payouts VALUES ('p', 'owner', 0, 'created', '', 1, NULL)", "payouts_amount_positive"),
    ("INSERT INTO payouts VALUES ('p', 'owner', 1, 'created', '', 1, 2)", "payouts_closed"),
    ("INSERT INTO payouts VALUES ('p', 'owner', 1, 'paid', '', 1, NULL)", "payouts_closed"),
    ("INSERT INTO payouts VALUES ('p', 'owner', 1, 'lost', '', 1, 2)", "payouts_state_known"),
    (
        TRANSFER + "(0, 2, 0, 'payout', 18, 19, 1, 'p', 0, 0), (0, 2, 1, 'payout', 18, 19, 1, 'p', 0, 0)",
        "paid_out_once",
    ),
    ("UPDATE leases SET refunded = 21", "leases_refund_bounded"),
    (
        TRANSFER + "(0, 2, 0, 'refund', 18, 8, 1, 'l', 0, 0), (0, 2, 1, 'refund', 18, 8, 1, 'l', 0, 0)",
        "refunded_once",
    ),
    ("UPDATE markets SET stagger_share_bps = 0", "markets_stagger"),
    ("UPDATE nodes SET health = 'degraded'", "nodes_last_sign_of_life"),
    ("UPDATE nodes SET alive_until_us = 1", "nodes_last_sign_of_life"),
    ("UPDATE nodes SET health = 'well', alive_until_us = 1", "nodes_health_known"),
    ("UPDATE markets SET provisioning_seconds = 0", "markets_provisioning"),
    ("UPDATE bids SET status = 'expired', filled_gpus = 0", "bids_final_hold_released"),
    ("UPDATE bids SET held = -1", "bids_hold_not_negative"),
    ("UPDATE bids SET max_spend = 69", "bids_max_spend_kept"),
    ("UPDATE bids SET spent = 31, max_spend = 100", "bids_max_spend_kept"),
    ("UPDATE bids SET expires_at_us = 1", "bids_expiry"),
    ("UPDATE bids SET time_in_force = 'gtt'", "bids_expiry"),
    ("UPDATE bids SET time_in_force = 'day'", "bids_time_in_force_known"),
    ("UPDATE bids SET on_preempt = 'wait'", "bids_on_preempt_known"),
    ("UPDATE bids SET max_run_seconds = 0", "bids_run_positive"),
    ("UPDATE markets SET fee_bps = 5001", "markets_bounds"),
    ("UPDATE markets SET refine_below_bids = -1", "markets_auction_bounds"),
    ("UPDATE offers SET reserve = 10, gross_reserve = 9", "offers_reserve_covered"),
]

METERING = [
    (USAGE + "('lease', 25, 40, 1, 725, 50, false)", "usage_chain"),  # overlap
    (USAGE + "('lease', 31, 40, 1, 725, 100, false)", "usage_chain"),  # gap
    (USAGE + "('lease', 20, 40, 1, 900, 50, false)", "usage_pkey"),  # fork
    (USAGE + "('lease', 30, 40, 1, 725, 101, false)", "usage_chain"),  # wrong carry
    (USAGE + "('lease', 5, 10, 1, 725, 0, true)", "usage_one_start"),
    (USAGE + "('lease', 30, 40, 1, 725, 0, true)", "usage_one_start"),
    (USAGE + "('lease', 30, 40, 1, 725, 100, true)", "usage_first_has_no_carry"),
    (USAGE + "('lease', 30, 30, 1, 725, 100, false)", "usage_bounds"),
    (USAGE + "('lease', 30, 40, 0, 725, 100, false)", "usage_bounds"),
    (USAGE + "('lease', 30, 40, 1, -1, 100, false)", "usage_bounds"),
    (USAGE + "('lease', 30, 40, 1, 725, 3600, false)", "usage_bounds"),
    (USAGE + "('no lease', 10, 20, 1, 725, 0, true)", "usage_lease_fkey"),
    (
        "INSERT INTO usage (lease, from_s, to_s, gpu_count, price, carry_in, is_first, amount)"
        " VALUES ('lease', 30, 40, 1, 725, 100, false, 1)",
        'cannot insert a non-DEFAULT value into column "amount"',
    ),
]

LEASING = [
    ("INSERT INTO gpu_slots VALUES ('node', 0, 'lease')", "gpu_in_one_lease"),
    (copy("notices", "id = 'notice'", '{"id": "second"}'), "one_live_notice"),
    ("UPDATE notices SET state = 'done'", "notices_closed"),
    ("UPDATE notices SET closed_at_us = 5", "notices_closed"),
    ("UPDATE notices SET reclaim_at_us = -1", "notices_order"),
    ("UPDATE leases SET state = 'ended', ended_at_us = 5, settled = metered", "leases_end_has_cause"),
    ("UPDATE leases SET state = 'ended', end_reason = 'outbid', settled = metered", "leases_end_has_cause"),
    ("UPDATE leases SET end_reason = 'outbid'", "leases_end_has_cause"),
    (
        "UPDATE leases SET state = 'ended', ended_at_us = 5, settled = metered, end_reason = 'bored'",
        "leases_end_reason_known",
    ),
    ("UPDATE leases SET state = 'ended', ended_at_us = 5, end_reason = 'outbid'", "leases_ended_settled"),
    ("UPDATE leases SET state = 'lost'", "leases_state_known"),
    ("UPDATE leases SET started_at_us = NULL", "leases_billed_when_started"),
    ("UPDATE leases SET gpus = '{}'", "leases_gpus_assigned"),
    ("UPDATE leases SET carry = 3600", "leases_carry"),
]

RECORD = [
    (copy("ticks", "tick = 1", '{"tick": 2, "digest": "two"}'), "ticks_no_fork"),
    (copy("ticks", "tick = 1", '{"previous_digest": "other"}'), "ticks_pkey"),
    (
        copy("ticks", "tick = 1", '{"tick": 2, "previous_digest": "one", "price": 5, "low": 6, "high": 7}'),
        "ticks_price_interval",
    ),
    (
        copy("ticks", "tick = 1", '{"tick": 2, "previous_digest": "one", "cleared_gpus": 1}'),
        "ticks_cleared_offered",
    ),
    ("INSERT INTO journal SELECT * FROM journal", "journal_pkey"),
    ("INSERT INTO idempotency_keys SELECT * FROM idempotency_keys", "idempotency_keys_pkey"),
    (
        "INSERT INTO events (account, account_seq, kind, at_us, body) VALUES ('buyer', 1, '', 0, '')",
        "events_seq_gapless",
    ),
    (copy("bids", "id = 'bid'", '{"id": "other", "seq": 2}'), "bids_client_bid_id_unique"),
    (copy("bids", "id = 'bid'", '{"id": "other", "client_bid_id": null}'), "bids_seq_unique"),
    (copy("accounts", "id = 'buyer'", '{"id": "twin"}'), "accounts_number_unique"),
    (copy("nodes", "id = 'node'", '{"id": "twin"}'), "nodes_name_unique"),
    ("UPDATE api_keys SET secret_sha256 = 'a secret'", "api_keys_hash_length"),
    ("UPDATE api_keys SET secret_sha256 = NULL", "api_keys_kind"),
    ("UPDATE api_keys SET public_key = secret_sha256", "api_keys_kind"),
    ("UPDATE api_keys SET secret_sha256 = NULL, public_key = 'short'", "api_keys_public_key_length"),
    (
        "UPDATE api_keys SET previous_public_id = 'p', previous_until_us = 1,"
        " previous_public_key = secret_sha256",
        "api_keys_previous",
    ),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def connection(server: Any) -> AsyncIterator[Any]:
    """Connect to the one database, which no statement changes."""
    arguments = server.postgres.connect_arguments()
    maintenance = await asyncpg.connect(**arguments)
    await maintenance.execute("CREATE DATABASE refusals")
    await maintenance.close()
    connection = await asyncpg.connect(**arguments | {"database": "refusals"})
    await build(connection)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("statement", "refusal"), APPEND_ONLY + MONEY + METERING + LEASING + RECORD)
async def test_a_bad_state_is_refused_by_name(connection: Any, statement: str, refusal: str) -> None:
    """Try the statement; whatever comes of it is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute(statement)
    finally:
        await transaction.rollback()
    error = caught.value
    assert refusal in (error.constraint_name, error.args[0])


async def test_the_next_right_row_is_taken(connection: Any) -> None:
    """The refusals above are not for want of permission: what follows rightly is written."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(TRANSFER + "(0, 2, 0, 'charge', 9, 18, 10, 'lease', 120, 0)")
    await connection.execute(USAGE + "('lease', 30, 40, 1, 725, 100, false)")
    await connection.execute(
        copy("ticks", "tick = 1", '{"tick": 2, "previous_digest": "one", "digest": "two"}')
    )
    await connection.execute("UPDATE notices SET state = 'done', closed_at_us = 5")
    await connection.execute(
        copy("notices", "id = 'notice'", '{"id": "2", "state": "issued", "closed_at_us": null}')
    )
    await connection.execute(
        "UPDATE leases SET state = 'ended', ended_at_us = 5, end_reason = 'outbid', settled = 30"
    )
    await transaction.rollback()
