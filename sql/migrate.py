"""Bring a database to this code's schema, and refuse a server that could lose a commit.

Decides which files of `sql/migrations/` a database still lacks and whether its recorded history is
the one this code knows. Must not know what a migration means. Invariants: versions run 1, 2, 3, …
without holes; the applied ones are a prefix of the known ones, byte for byte; a migration and its
record commit together, under one lock, so two processes starting at once apply each exactly once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

SERVER_MAJOR_MIN = 15
SERVER_MAJOR_MAX = 18

# With any of these off a commit that was reported may be gone after a crash.
DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")

# "fallow" in ASCII: the lock is shared with every other program in the same database.
_LOCK_KEY = 0x66616C6C6F77

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT schema_migrations_version_positive CHECK (version > 0)
)
"""


class MigrationError(Exception):
    """The migration files and the database's history do not belong together."""


class UnsafeServerError(Exception):
    """The server is of an untested version, or set to lose commits."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str  # the file's name without its suffix, e.g. 0001_market
    sha256: str
    text: str


def load_migrations() -> list[Migration]:
    """Return the migrations shipped with this code, in order; raise MigrationError on a bad set."""
    files = {
        entry.name: entry.read_bytes()
        for entry in resources.files("sql").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    }
    return parse_migrations(files)


def parse_migrations(files: dict[str, bytes]) -> list[Migration]:
    """Turn {file name: content} into migrations, versions 1, 2, 3, … without holes or twins."""
    migrations = []
    for expected, file_name in enumerate(sorted(files), 1):
        match = _FILE_NAME.fullmatch(file_name)
        if match is None:
            raise MigrationError(f"migration file {file_name}: expected a name like 0001_what.sql")
        version = int(match[1])
        if version != expected:
            raise MigrationError(f"migration file {file_name}: expected version {expected}, found {version}")
        content = files[file_name]
        digest = hashlib.sha256(content).hexdigest()
        migrations.append(Migration(version, file_name.removesuffix(".sql"), digest, content.decode()))
    return migrations


async def migrate(connection: "Connection", migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is pending, each migration in its own transaction; return the names applied here.

    Raise MigrationError when the database's history was edited or is newer than this code.
    """
    known = load_migrations() if migrations is None else migrations
    applied_here: list[str] = []
    while (name := await _apply_next(connection, known)) is not None:
        applied_here.append(name)
    return applied_here


async def pending(connection: "Connection", migrations: Sequence[Migration] | None = None) -> list[str]:
    """Return the names not yet applied, in order, and write nothing; raises as `migrate` does."""
    known = load_migrations() if migrations is None else migrations
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return [migration.name for migration in known]
    return [migration.name for migration in await _missing(connection, known)]


async def check_durability(connection: "Connection") -> None:
    """Raise UnsafeServerError, naming what is wrong, unless a reported commit outlives a crash."""
    version = int(await connection.fetchval("SHOW server_version_num"))
    major = version // 10_000
    if not SERVER_MAJOR_MIN <= major <= SERVER_MAJOR_MAX:
        raise UnsafeServerError(
            f"PostgreSQL {SERVER_MAJOR_MIN} to {SERVER_MAJOR_MAX} is supported, this server is {major}"
        )
    for setting in DURABILITY_SETTINGS:
        value = await connection.fetchval("SELECT current_setting($1)", setting)
        if value == "off":
            raise UnsafeServerError(f"{setting} is off: a committed trade could be lost; turn it on")


async def _apply_next(connection: "Connection", known: Sequence[Migration]) -> str | None:
    async with connection.transaction(isolation="read_committed"):
        # Per transaction rather than per session: it also holds behind a transaction pooler, and
        # cannot be forgotten. What others applied while this one waited is read after the wait.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
        await connection.execute(_CREATE_TABLE)
        missing = await _missing(connection, known)
        if not missing:
            return None
        migration = missing[0]
        await connection.execute(migration.text)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.sha256,
        )
        return migration.name


async def _missing(connection: "Connection", known: Sequence[Migration]) -> Sequence[Migration]:
    """Return the known migrations after the applied ones; raise MigrationError on any difference."""
    applied = await connection.fetch("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    newest = applied[-1]["version"] if applied else 0
    if newest > len(known):
        raise MigrationError(
            f"the database is at schema version {newest}, this code knows up to version {len(known)}: "
            "run the newer code"
        )
    for row, migration in zip(applied, known, strict=False):
        if row["version"] != migration.version:
            raise MigrationError(
                f"schema version {migration.version} is missing in the database's history, "
                f"version {row['version']} is recorded after it"
            )
        if (row["name"], row["sha256"]) != (migration.name, migration.sha256):
            raise MigrationError(
                f"migration {migration.name} was edited: the database applied {row['name']} "
                f"with sha256 {row['sha256'][:12]}, the file has {migration.sha256[:12]}"
            )
    return known[len(applied) :]
