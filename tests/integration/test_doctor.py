"""`fallow doctor` finds what is wrong, says what to do, and changes nothing."""

import asyncio
import json

import pytest

from fallow import doctor
from fallow.doctor import Health
from tests.integration.test_cli import fallow, free_port, url_of


async def examined(url, *arguments):
    """Return (exit code, {name: check})."""
    done = await asyncio.to_thread(fallow, "doctor", "-o", "json", *arguments, url=url)
    assert done.stderr == ""
    return done.returncode, {check["name"]: check for check in map(json.loads, done.stdout.splitlines())}


@pytest.fixture
async def database(server):
    return await server.new_database()


async def execute(database, *statements):
    connection = await database.connect()
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_market_without_an_operator_is_fit_and_told_so(database):
    code, checks = await examined(url_of(database))
    assert code == 0, checks
    assert checks["operator"]["health"] == "warn" and "fallow init" in checks["operator"]["advice"]
    named = {"python", "kernel", "open files", "profiles", "database", "fsync", "full_page_writes", "clock"}
    named |= {"synchronous_commit", "connections", "backup", "schema", "journal", "roles", "policies"}
    assert named <= set(checks)
    assert {checks[name]["health"] for name in named - {"open files", "connections"}} == {"ok"}
    shown = await asyncio.to_thread(fallow, "doctor", url=url_of(database))
    assert "warn  operator" in shown.stdout and "to do: `fallow init`" in shown.stdout


@pytest.mark.parametrize(
    ("statements", "name", "word"),
    [
        (['ALTER DATABASE "{name}" SET synchronous_commit = off'], "synchronous_commit", "turn it on"),
        (["ALTER TABLE bids DISABLE ROW LEVEL SECURITY"], "policies", "ENABLE ROW LEVEL SECURITY"),
        (["UPDATE schema_migrations SET sha256 = 'x' WHERE version = 1"], "schema", "the code"),
        (["DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)"],
         "schema", "fallow migrate"),
        (["INSERT INTO journal VALUES (0, 1, 1, 4102444800000000, '')"], "journal", "clock"),
    ],
    ids=["durability", "policy", "edited", "pending", "future"],
)  # fmt: skip
async def test_what_is_wrong_with_a_database_fails(database, statements, name, word):
    await execute(database, *(text.format(name=database.arguments["database"]) for text in statements))
    code, checks = await examined(url_of(database))
    assert code == 1
    assert checks[name]["health"] == "fail" and word in checks[name]["advice"]
    assert [check["name"] for check in checks.values() if check["health"] == "fail"] == [name]


async def test_a_role_that_sees_every_row_fails(database):
    """Roles are the whole server's: given back before another test looks."""
    await execute(database, "ALTER ROLE fallow_auditor BYPASSRLS")
    try:
        code, checks = await examined(url_of(database))
    finally:
        await execute(database, "ALTER ROLE fallow_auditor NOBYPASSRLS")
    assert (code, checks["roles"]["found"]) == (1, "fallow_auditor sees every row")


async def test_no_database_is_a_failure_where_one_is_named_and_advice_where_none_is(tmp_path):
    code, checks = await examined(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    assert code == 1 and checks["database"]["health"] == "fail" and "roles" not in checks
    empty = tmp_path / "none"
    code, checks = await examined(None, "--data-dir", empty)
    assert code == 0 and checks["database"]["health"] == "warn" and not empty.exists()
    assert {"embedded server", "disk"} <= set(checks)


def test_a_machine_that_is_too_small_fails(monkeypatch, tmp_path):
    """The limits at which a check turns, moved to where this machine is."""
    assert doctor._disk(tmp_path).health is Health.OK
    monkeypatch.setattr(doctor, "DISK_BYTES_WANTED", 1 << 60)
    assert doctor._disk(tmp_path / "not" / "yet").health is Health.WARN
    monkeypatch.setattr(doctor, "DISK_BYTES_MIN", 1 << 60)
    assert doctor._disk(tmp_path).health is Health.FAIL
    monkeypatch.setattr(doctor, "OPEN_FILES_WANTED", 1 << 40)
    assert doctor._open_files().health is Health.WARN
    monkeypatch.setattr(doctor, "PYTHON_MIN", (99, 0))
    assert doctor._python().health is Health.FAIL
    (tmp_path / "fallow").mkdir()
    (tmp_path / "fallow" / "profiles.json").write_text("{}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "fallow" / "profiles.json").chmod(0o644)
    assert "others may read it" in doctor._profiles().found
