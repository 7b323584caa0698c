"""The command line beside the demo: help, exit codes, and a production database from nothing."""

import asyncio
import os
import signal
import subprocess
import sys
from urllib.parse import quote

import aiohttp

from tests.integration.test_demo import free_port

FALLOW = [sys.executable, "-m", "fallow.cli"]


def fallow(*arguments, url=None):
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    return subprocess.run(
        [*FALLOW, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=environment
    )


def url_of(database):
    arguments = database.arguments
    host = quote(arguments["host"], safe="")
    return f"postgresql://{arguments['user']}@/{arguments['database']}?host={host}&port={arguments['port']}"


def test_help_teaches():
    shown = fallow("--help")
    assert shown.returncode == 0
    for command in ("demo", "serve", "migrate", "init", "audit"):
        assert command in shown.stdout
    for option in ("--port", "--data-dir", "--tick-seconds", "--notice-seconds", "--no-bots", "--seed",
                   "--reset", "--json"):  # fmt: skip
        assert option in fallow("demo", "--help").stdout
    assert fallow("--version").stdout.strip().endswith("0.1.0")


def test_wrong_usage_is_exit_code_2(tmp_path):
    for arguments in (["nonsense"], ["demo", "--tick-seconds", "0"], ["demo", "--nonsense"]):
        assert fallow(*arguments).returncode == 2, arguments
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert fallow("demo", "--data-dir", occupied).returncode == 2


def test_a_database_that_is_not_there_is_exit_code_5(tmp_path):
    gone = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    for command in ("migrate", "serve", "audit"):
        done = fallow(command, url=gone)
        assert (done.returncode, done.stdout) == (5, ""), (command, done.stderr)
        assert len(done.stderr.splitlines()) == 1, "one line that says what to do"


async def test_from_an_empty_database_to_a_server(server):
    """serve refuses, migrate, init shows a key once, serve takes it, audit passes beside it."""
    database = await server.new_database(migrated=False)
    url, port = url_of(database), free_port()
    refused = await asyncio.to_thread(fallow, "serve", "--port", port, url=url)
    assert refused.returncode == 1
    assert "fallow migrate" in refused.stderr
    assert (await asyncio.to_thread(fallow, "migrate", url=url)).returncode == 0
    assert "nothing to do" in (await asyncio.to_thread(fallow, "migrate", url=url)).stdout
    made = await asyncio.to_thread(fallow, "init", url=url)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    assert key.startswith("fal_live_")
    again = await asyncio.to_thread(fallow, "init", url=url)
    assert again.returncode != 0
    assert "fal_live_" not in again.stdout

    process = await asyncio.create_subprocess_exec(
        *FALLOW, "serve", "--port", str(port), env={**os.environ, "DATABASE_URL": url}
    )
    try:
        api = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(api) as client, asyncio.timeout(20):
            await _answers(client)
            headers = {"Authorization": f"Bearer {key}"}
            async with client.get("/v1/operator/accounts", headers=headers) as response:
                assert response.status == 200
            async with client.get("/v1/operator/accounts") as response:
                assert response.status == 401
        audited = await asyncio.to_thread(fallow, "audit", "--json", url=url)
        assert audited.returncode == 0, audited.stdout
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _answers(client):
    while True:
        try:
            async with client.get("/readyz") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
