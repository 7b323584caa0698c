"""`fallow demo` as its user runs it: a process, its first line, its keys, its end, and what is kept."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from contextlib import asynccontextmanager

import aiohttp

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15
FALLOW = [sys.executable, "-m", "fallow.cli"]


class Demo:
    """A running demo: its process and what its first line said."""

    def __init__(self, process, facts):
        self.process = process
        self.facts = facts
        self.client = aiohttp.ClientSession(facts["api"], timeout=aiohttp.ClientTimeout(total=30))

    async def call(self, method, path, role=None, body=None, *, expected=(200, 201)):
        headers = {"Authorization": f"Bearer {self.facts['keys'][role]}"} if role else {}
        async with self.client.request(method, path, json=body, headers=headers) as response:
            assert response.status in expected, (method, path, response.status, await response.text())
            return await response.json()

    async def list(self, path, role=None):
        return (await self.call("GET", path, role))["data"]

    async def until(self, read, is_wanted):
        found = None
        try:
            async with asyncio.timeout(30):
                while not is_wanted(found := await read()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not within 30 s; the last that was read: {found}") from None
        return found

    async def stop(self, number):
        """Signal the process; return its exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), STOP_SECONDS_MAX)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def demo(data_dir, *options, port=None):
    command = [*FALLOW, "demo", "--json", "--data-dir", data_dir, "--port", port or free_port(), *options]
    log = data_dir.with_suffix(".stderr")
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    running = None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS_MAX)
        assert line, log.read_text()[-3000:]
        running = Demo(process, json.loads(line))
        yield running
    finally:
        if running is not None:
            await running.client.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*arguments):
    """Run a command of fallow's; return (exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        *FALLOW, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode(), errors.decode()


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


async def open_supply(running, market):
    """Post one simulated node of 4 GPUs with the owner's printed key."""
    node = await running.call(
        "POST", "/v1/nodes", "owner", {"name": "mine", "market": market, "gpus": 4, "simulated": True}
    )
    offer = {"node": node["id"], "gpus": 4, "reserve_price_per_gpu_hour": "0.000100"}
    return await running.call("POST", "/v1/offers", "owner", offer)


async def test_a_demo_keeps_keys_bids_and_books_over_a_kill(tmp_path):
    """Trade with the printed keys, kill -9, start again: same keys, same bids, the journal agrees."""
    data_dir = tmp_path / "demo"
    async with demo(data_dir, "--no-bots", "--tick-seconds", "1", "--notice-seconds", "1") as running:
        facts = running.facts
        assert set(facts) == {"api", "metrics", "sign_in", "keys", "markets", "data_dir"}
        assert set(facts["keys"]) == {"buyer", "owner", "operator"}
        assert facts["data_dir"] == str(data_dir)
        assert (await running.call("GET", "/readyz"))["status"] == "ready"
        assert sorted(facts["markets"]) == sorted([m["id"] for m in await running.list("/v1/markets")])
        assert stat.S_IMODE((data_dir / "demo-keys.json").stat().st_mode) == 0o600
        assert (await running.call("GET", "/v1/balance", "buyer"))["available"] == "1000.000000"
        assert await running.list("/v1/operator/accounts", "operator")
        for market in facts["markets"]:
            curve = await running.call("GET", f"/v1/markets/{market}/curve")
            assert curve["demand"] == [], "nobody bids but the visitor"

        market = facts["markets"][0]
        await open_supply(running, market)
        bid = {"market": market, "gpus": 2, "limit_price_per_gpu_hour": "4.000000"}
        placed = await running.call("POST", "/v1/bids", "buyer", bid)
        await running.until(
            lambda: running.list("/v1/leases?state=running", "buyer"), lambda found: len(found) == 1
        )
        busy, output, errors = await run("demo", "--json", "--data-dir", data_dir)
        assert (busy, output) == (2, "")
        assert "in use by process" in errors.splitlines()[-1]
        assert "Traceback" not in errors
        server = int((data_dir / "pg" / "postmaster.pid").read_text().split()[0])
        running.process.kill()
        await running.process.wait()
        await running.until(lambda: asyncio.to_thread(is_alive, server), lambda alive: not alive)

    code, output, errors = await run("replay", "--data-dir", data_dir)
    assert (code, output.splitlines()[-1]) == (0, "match"), output + errors
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_port = taken.getsockname()[1]
        async with demo(data_dir, "--no-bots", port=taken_port) as again:
            assert again.facts["keys"] == facts["keys"]
            assert not again.facts["api"].endswith(f":{taken_port}")
            assert [bid["id"] for bid in await again.list("/v1/bids", "buyer")] == [placed["id"]]
            assert len(await again.list("/v1/leases?state=running", "buyer")) == 1
            beside, output, _ = await run("audit", "--data-dir", data_dir)
            assert beside == 0, output
            server = int((data_dir / "pg" / "postmaster.pid").read_text().split()[0])
            assert await again.stop(signal.SIGINT) == 0
        assert not is_alive(server)


async def test_a_demo_with_bots_has_a_past_and_trades_on(tmp_path):
    """A day of history, then live bots; the audit holds beside it and after it, and the replay too."""
    data_dir = tmp_path / "demo"
    async with demo(data_dir, "--tick-seconds", "1", "--notice-seconds", "3") as running:
        markets = {market["id"]: market for market in await running.list("/v1/markets")}
        assert set(markets) == set(running.facts["markets"])
        assert all(market["tick"] >= 1_440 for market in markets.values())
        assert all(market["tick_seconds"] == 1 for market in markets.values())
        assert sum(market["price"] is not None for market in markets.values()) >= len(markets) - 1
        assert await running.list("/v1/offers", "owner"), "the printed owner has something to look at"

        async def heads():
            return {market["id"]: market["tick"] for market in await running.list("/v1/markets")}

        await running.until(heads, lambda now: all(now[m] >= markets[m]["tick"] + 10 for m in markets))
        for market in markets:
            quote = await running.call("GET", f"/v1/markets/{market}/quote?gpus=1")
            assert quote["price_to_fill"] is not None
        beside, output, _ = await run("audit", "--data-dir", data_dir)
        assert beside == 0, output
        assert await running.stop(signal.SIGTERM) == 0
    code, output, errors = await run("replay", "--data-dir", data_dir, "--from-snapshot")
    assert (code, output.splitlines()[-1]) == (0, "match"), output + errors
    alone, output, _ = await run("audit", "--data-dir", data_dir)
    assert alone == 0, output


async def test_reset_forgets_a_demo_and_touches_nothing_else(tmp_path):
    data_dir = tmp_path / "demo"
    async with demo(data_dir, "--no-bots") as first:
        code, _, _ = await run("demo", "--reset", "--json", "--no-bots", "--data-dir", data_dir)
        assert code == 2, "not while it runs"
        assert await first.stop(signal.SIGTERM) == 0
    async with demo(data_dir, "--no-bots", "--reset") as second:
        assert second.facts["keys"] != first.facts["keys"]
        assert await second.stop(signal.SIGTERM) == 0
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("years of work")
    code, _, _ = await run("demo", "--reset", "--json", "--no-bots", "--data-dir", strange)
    assert code == 2
    assert (strange / "thesis.tex").exists()
