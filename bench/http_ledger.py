"""Double-entry transfers beside pgbench's TPC-B, on the same server, in alternating rounds, with fsync.

Ours are the market's own statement and trigger (insert_transfers.sql, balances with floors of zero): charges
from 10,000 buyers' held money to owners, a transaction for each 10,000. Theirs is `pgbench -M prepared`,
scale 50, 8 clients. A hot account is one owner who earns everything.
"""

import asyncio
import random
import shutil
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg
from rich.progress import Progress

from auction import ledger
from bench.report import median_ratio
from sql import query
from sql.migrate import migrate

DATABASE = "ledger_bench"
ACCOUNTS = 10_000
BATCH = 10_000
SCALE = 50
CLIENTS = 8
HELD = 10**12  # of each buyer, microdollars
HOT = ledger.ledger_account(ACCOUNTS, ledger.EARNING)

Connection = asyncpg.Connection


async def ledger_against_pgbench(
    facts: dict[str, Any], seconds: float, rounds: int, progress: Progress
) -> dict[str, Any]:
    """Return the rates of both, round by round, and the medians of their ratios."""
    if shutil.which("pgbench") is None:
        raise RuntimeError("pgbench is not installed: Debian has it in postgresql-contrib")
    task = progress.add_task("ledger", total=rounds + 1)
    where = {"host": facts["socket"], "port": facts["pg_port"], "user": facts["user"]}
    admin = await asyncpg.connect(**where, database="postgres")
    await admin.execute(f'CREATE DATABASE "{DATABASE}"')
    await admin.close()
    await _pgbench(where, "-i", "-q", "-s", str(SCALE))
    connection = await asyncpg.connect(**where, database=DATABASE)
    await migrate(connection)
    await fund(connection)
    progress.advance(task)
    dice = random.Random(1)
    charges = _Charges(connection)
    pgbench, uniform, hot = [], [], []
    for _ in range(rounds):
        pgbench.append(await _tps(where, seconds))
        uniform.append(await charges.rate(seconds, lambda: _earning(dice)))
        hot.append(await charges.rate(seconds, lambda: HOT))
        progress.advance(task)
    held = await connection.fetchval("SELECT count(*) FROM transfers WHERE code = 'charge'")
    total = await connection.fetchval("SELECT sum(credits - debits) FROM ledger_balances")
    await connection.close()
    if held != charges.sent or total != 0:
        raise RuntimeError(f"{charges.sent} charges sent, {held} held, and the balances sum up to {total}")
    return {
        "pgbench_per_s": pgbench, "transfers_per_s": uniform, "hot_per_s": hot,
        "ratio": median_ratio(uniform, pgbench), "hot_ratio": median_ratio(hot, uniform),
        "median_batch_ms": median(charges.took_s) * 1_000,
    }  # fmt: skip


def _earning(dice: random.Random) -> int:
    return ledger.ledger_account(dice.randint(1, ACCOUNTS), ledger.EARNING)


async def fund(connection: Connection) -> None:
    """Give every buyer held money, the way it comes: a deposit, then a hold."""
    customers = [
        ledger.ledger_account(number, code)
        for number in range(1, ACCOUNTS + 1)
        for code in ledger.CUSTOMER_CODES
    ]
    floors = [ledger.is_floored(account) for account in customers]
    await connection.execute(query("open_ledger_accounts"), customers, floors)
    for seq, (code, debit, credit) in enumerate(
        (("deposit", None, ledger.AVAILABLE), ("hold", ledger.AVAILABLE, ledger.HELD))
    ):
        numbers = range(1, ACCOUNTS + 1)
        await connection.execute(
            query("insert_transfers"), 0, seq, 0, [code] * ACCOUNTS,
            [ledger.CASH_ACCOUNT if debit is None else ledger.ledger_account(n, debit) for n in numbers],
            [ledger.ledger_account(n, credit) for n in numbers],
            [HELD] * ACCOUNTS, [f"dep_{n}" for n in numbers], [0] * ACCOUNTS,
        )  # fmt: skip


class _Charges:
    """Batches of charges on one connection, a transaction each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dice = random.Random(2)
        self._batch = 2
        self.sent = 0
        self.took_s: list[float] = []

    async def rate(self, seconds: float, earning: Callable[[], int]) -> float:
        """Return charges a second."""
        began_s = perf_counter()
        sent = 0
        while perf_counter() - began_s < seconds:
            arrays = self._arrays(earning)
            batch_s = perf_counter()
            await self._connection.execute(query("insert_transfers"), 0, self._batch, self._batch, *arrays)
            self.took_s.append(perf_counter() - batch_s)
            self._batch += 1
            sent += BATCH
        self.sent += sent
        return sent / (perf_counter() - began_s)

    def _arrays(self, earning: Callable[[], int]) -> tuple[list[Any], ...]:
        buyers = [self._dice.randint(1, ACCOUNTS - 1) for _ in range(BATCH)]
        return (
            ["charge"] * BATCH,
            [ledger.ledger_account(buyer, ledger.HELD) for buyer in buyers],
            [earning() for _ in range(BATCH)],
            [1 + buyer % 50 for buyer in buyers],
            [f"lease_{self._batch:08d}{n:012d}" for n in range(BATCH)],
            [self._batch] * BATCH,
        )


async def _tps(where: dict[str, Any], seconds: float) -> float:
    whole = max(2, round(seconds))
    printed = await _pgbench(where, "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(whole), "-n")
    return float(next(line for line in printed.splitlines() if line.startswith("tps")).split()[2])


async def _pgbench(where: dict[str, Any], *arguments: str) -> str:
    command = ["-h", where["host"], "-p", str(where["port"]), "-U", where["user"], *arguments, DATABASE]
    process = await asyncio.create_subprocess_exec(
        "pgbench", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"pgbench {' '.join(arguments)}: {said.decode()}")
    return printed.decode()
