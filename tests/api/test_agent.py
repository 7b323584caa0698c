"""The node agent against a real market: fake GPUs, real hooks, its own death, the market's absence."""

import asyncio
import json
import stat
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest

from auction.clock import SystemClock
from fallow.agent.inventory import FakeInventory
from fallow.agent.journal import Phase
from fallow.agent.link import Link, Refused
from fallow.agent.metadata import ACTION, metadata_app
from fallow.agent.node import Agent, read_journal
from tests.api.conftest import serving

HOOK = """#!{python}
import json, os, pathlib, sys, time
name, here = pathlib.Path(sys.argv[0]).name, pathlib.Path(sys.argv[0]).parent
told = json.load(sys.stdin)
told |= {{"hook": name, "visible": os.environ["CUDA_VISIBLE_DEVICES"], "env": os.environ["FALLOW_LEASE"]}}
with open(here / "log", "a") as log:
    log.write(json.dumps(told) + "\\n")
{body}
"""


class Hooks:
    """A directory of hooks that write down what they were told."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.write("on_start", 'print(json.dumps({"connect": {"host": "192.0.2.1", "port": "2222"}}))')
        self.write("on_drain")
        self.write("on_stop")

    def write(self, name, body=""):
        path = self.directory / name
        path.write_text(HOOK.format(python=sys.executable, body=body))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def told(self, name=None):
        log = self.directory / "log"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if name in (None, line["hook"])]


class Inventory(FakeInventory):
    """Fake GPUs of which some are busy."""

    def __init__(self, count):
        super().__init__(count)
        self.computing = set()

    def busy(self):
        return set(self.computing)


@pytest.fixture
async def venue(database, config):
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=3)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        node, _ = await venue.offer_node(gpus=8, simulated=False)
        venue.node = node["id"]
        yield venue


@pytest.fixture
def hooks(tmp_path):
    return Hooks(tmp_path / "hooks")


@asynccontextmanager
async def running(venue, tmp_path, hooks, inventory=None):
    """An agent that serves the venue's node."""
    inventory = inventory or Inventory(8)
    journal = read_journal(tmp_path / "state", venue.node)
    async with aiohttp.ClientSession() as session:
        link = Link(session, str(venue.client.make_url("/")), venue.owner)
        agent = Agent(link, journal, inventory, inventory.gpus(), SystemClock(), hooks=hooks.directory)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def lease_of(venue, lease):
    return await venue.ok("GET", f"/v1/leases/{lease}", venue.buyer)


async def ended(venue, lease):
    async def read():
        shown = await lease_of(venue, lease)
        return shown if shown["state"] == "ended" else None

    return await venue.until(read, "the end of the lease")


async def until(read, what):
    async with asyncio.timeout(20):
        while not read():
            await asyncio.sleep(0.05)
    assert read(), what


async def test_a_lease_from_its_start_over_its_notice_to_its_bill(venue, tmp_path, hooks):
    async with running(venue, tmp_path, hooks):
        await venue.place(gpus=2)
        lease = await venue.lease_in("running")
        assert lease["connect"] == {"host": "192.0.2.1", "port": "2222"}
        (start,) = hooks.told("on_start")
        assert (start["lease"], start["env"], start["gpu_indices"]) == (
            lease["id"],
            lease["id"],
            lease["gpu_indices"],
        )
        assert start["visible"] == ",".join(f"GPU-fake-{index}" for index in lease["gpu_indices"])
        await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        done = await ended(venue, lease["id"])
        assert done["end_reason"] == "test"
        assert done["gpu_seconds"] >= 2
        await until(lambda: hooks.told("on_stop"), "on_stop")
        drain, stop = hooks.told("on_drain")[0], hooks.told("on_stop")[0]
        assert drain["reclaim_at"] == stop["reclaim_at"] and drain["reason"] == "test"
        names = [told["hook"] for told in hooks.told() if told["lease"] == lease["id"]]
        assert names == ["on_start", "on_drain", "on_stop"]
        balance = await venue.ok("GET", "/v1/balance", venue.owner)
        assert float(balance["earning"]) > 0, "the owner was paid"


async def test_a_released_lease_is_stopped_and_its_gpus_are_lent_again(venue, tmp_path, hooks):
    async with running(venue, tmp_path, hooks) as agent:
        bid = await venue.place(gpus=8)
        lease = await venue.lease_in("running")
        await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
        await until(lambda: hooks.told("on_stop") and not agent.held, "the stop")
        assert hooks.told("on_drain") == [], "there was no notice"
        await venue.place(gpus=8)
        again = await venue.lease_in("running")
        assert again["id"] != lease["id"]


async def test_gpus_that_do_not_come_back_clean_are_lent_no_more_until_the_owner_says_so(
    venue, tmp_path, hooks, monkeypatch
):
    monkeypatch.setattr("fallow.agent.node.CLEAN_LOOKS", 2)
    inventory = Inventory(8)
    async with running(venue, tmp_path, hooks, inventory) as agent:
        bid = await venue.place(gpus=8)
        await venue.lease_in("running")
        inventory.computing = {3}
        await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
        await until(lambda: not agent.held, "the stop")

        async def fenced():
            return (await venue.ok("GET", f"/v1/nodes/{venue.node}", venue.owner))["fenced_gpus"]

        assert await venue.until(fenced, "the fence") == list(range(8))
    inventory.computing = set()
    journal = read_journal(tmp_path / "state", venue.node)
    assert journal.memory.fenced == list(range(8)), "a new agent remembers"
    journal.memory.fenced.clear()
    journal.save()
    async with running(venue, tmp_path, hooks, inventory):
        await venue.place(gpus=8)
        await venue.lease_in("running")


async def test_a_start_that_fails_is_told_and_fenced(venue, tmp_path, hooks):
    hooks.write("on_start", "sys.exit(3)")
    async with running(venue, tmp_path, hooks):
        await venue.place(gpus=2)

        async def failed():
            page = await venue.ok("GET", "/v1/leases?state=ended", venue.buyer)
            return [lease for lease in page["data"] if lease["end_reason"] == "node_lost"]

        (lease, *_) = await venue.until(failed, "the failed lease")
        assert lease["gpu_seconds"] == 0, "nothing was billed"
        await until(lambda: hooks.told("on_stop"), "what was half started is stopped")


async def test_a_new_agent_takes_over_what_the_dead_one_ran(venue, tmp_path, hooks):
    async with running(venue, tmp_path, hooks):
        await venue.place(gpus=2)
        lease = await venue.lease_in("running")
    async with running(venue, tmp_path, hooks) as agent:
        await until(lambda: agent.in_contact, "contact")
        await asyncio.sleep(1)
        assert list(agent.held) == [lease["id"]] and agent.held[lease["id"]].phase is Phase.RUNNING
        assert len(hooks.told("on_start")) == 1, "it was not started twice"
        await venue.ok("POST", f"/v1/leases/{lease['id']}/release", venue.buyer)
        await until(lambda: not agent.held, "the stop")
    (tmp_path / "state" / f"{venue.node}.json").unlink()
    async with running(venue, tmp_path, hooks) as agent:
        await venue.place(gpus=2)
        lease = await venue.lease_in("running")
    (tmp_path / "state" / f"{venue.node}.json").unlink()
    async with running(venue, tmp_path, hooks) as agent:
        await until(lambda: lease["id"] in agent.held, "adopted, though nobody remembers it")


async def test_payloads_run_on_and_notices_keep_their_time_while_the_market_is_away(
    database, config, tmp_path, hooks
):
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=4)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        node, _ = await venue.offer_node(gpus=4, simulated=False)
        venue.node = node["id"]
        hooks.write("on_drain", "time.sleep(30)")
        async with running(venue, tmp_path, hooks) as agent:
            await venue.place(gpus=2)
            lease = await venue.lease_in("running")
            await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
            await until(lambda: hooks.told("on_drain"), "the drain")
            await venue.client.server.close()
            await until(lambda: not agent.in_contact, "the loss of contact")
            assert lease["id"] in agent.held
            await until(lambda: not agent.held, "the end that the notice named")
            assert len(hooks.told("on_stop")) == 1
            waiting = [report.state for report in agent._memory.reports]
            # The drain may end by its time or by the stop, which are the same instant.
            assert waiting in (["drained", "stopped"], ["stopped"]), "they wait for the market"


async def test_a_wrong_key_or_too_few_gpus_end_the_agent(venue, tmp_path):
    journal = read_journal(tmp_path / "state", venue.node)
    async with aiohttp.ClientSession() as session:
        for key, error, why in (
            (venue.buyer, Refused, "scope_missing"),
            (venue.owner, ValueError, "8 GPUs in the market, this machine 7"),
        ):
            link = Link(session, str(venue.client.make_url("/")), key)
            agent = Agent(link, journal, Inventory(7), Inventory(7).gpus(), SystemClock())
            with pytest.raises(error, match=why):
                await agent.run()


async def test_the_metadata_paths_tell_the_earliest_notice(venue, tmp_path, hooks):
    async with running(venue, tmp_path, hooks) as agent:
        runner = aiohttp.web.AppRunner(metadata_app(lambda: agent.held))
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session:
                async with session.put(f"{base}/latest/api/token") as response:
                    assert response.status == 200
                await venue.place(gpus=1)
                lease = await venue.lease_in("running")
                async with session.get(base + ACTION) as response:
                    assert response.status == 404
                hooks.write("on_drain", "time.sleep(2)")
                notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
                await until(lambda: agent.held[lease["id"]].reclaim_at_us, "the notice")
                for path in (ACTION, f"/leases/{lease['id']}{ACTION}"):
                    async with session.get(base + path) as response:
                        told = await response.json()
                    assert told == {"action": "terminate", "time": notice["reclaim_at"][:19] + "Z"}
                async with session.get(f"{base}/leases/other{ACTION}") as response:
                    assert response.status == 404
        finally:
            await runner.cleanup()


def test_a_journal_of_another_node_or_a_broken_one_stops_the_agent(tmp_path):
    read_journal(tmp_path, "node_a").save()
    (tmp_path / "node_b.json").write_bytes((tmp_path / "node_a.json").read_bytes())
    with pytest.raises(ValueError, match="belongs to node node_a"):
        read_journal(tmp_path, "node_b")
    (tmp_path / "node_a.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_journal(tmp_path, "node_a")


async def test_the_command_serves_a_node_and_goes_on_after_sigterm(venue, tmp_path, hooks):
    """`fallow agent run --fake-gpus 8`, as an owner starts it; what runs outlives the agent."""
    command = [
        sys.executable, "-m", "fallow.cli", "agent", "run", "--fake-gpus", "8", "--node", venue.node,
        "--server", str(venue.client.make_url("/")), "--hooks", str(hooks.directory),
        "--state-dir", str(tmp_path / "state"), "--metadata-port", "0",
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "FALLOW_KEY": venue.owner}
    for turn in range(2):
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=subprocess.PIPE)
        assert b"8 GPUs (Fake GPU)" in await process.stderr.readline()
        try:
            if turn == 0:
                await venue.place(gpus=8)
            lease = await venue.lease_in("running")
            await until(lambda: hooks.told("on_start"), "the start")
        finally:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 20) == 0
    assert [told["hook"] for told in hooks.told()] == ["on_start"]
    assert lease["state"] == "running"
    usage = await asyncio.create_subprocess_exec(
        *command[:-2], env={"PATH": "/usr/bin"}, stderr=subprocess.DEVNULL
    )
    assert await usage.wait() == 2, "a key is required"
