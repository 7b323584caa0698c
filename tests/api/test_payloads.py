"""Payloads: what a bid's nodes run, from the bid over the notice to the bill, with real processes."""

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from fallow.agent.inventory import FakeInventory
from fallow.agent.link import Link
from fallow.agent.market_clock import MarketClock
from fallow.agent.node import Agent, read_journal
from fallow.agent.payloads import ExecDriver
from tests.api.conftest import MARKET, serving

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZha2VrZXlmYWtla2V5ZmFrZWtleWZha2VrZXlmYWtl somebody@example"
RUN_AS = "nobody" if os.geteuid() == 0 else None


@pytest.fixture
async def venue(database, config):
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=4)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        node, _ = await venue.offer_node(gpus=8, simulated=False)
        venue.node = node["id"]
        yield venue


@pytest.fixture
def directory():
    """A directory that an ordinary user may pass through."""
    path = Path(tempfile.mkdtemp(prefix="fallow-payloads-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def left_in(home):
    return [path.name for path in home.glob("payloads/*")]


@pytest.fixture
async def home(directory):
    """Payloads outlive their agents on purpose; they must not outlive their test."""
    yield directory
    driver = ExecDriver(directory / "payloads", RUN_AS)
    for lease in left_in(directory):
        await driver.end(lease, 0)


@pytest.fixture
def told(home):
    """Where payloads write what they have to say."""
    path = home / "told"
    path.touch(0o666)
    path.chmod(0o666)
    return path


@asynccontextmanager
async def running(venue, home, clock=None):
    clock = clock or MarketClock()
    journal = read_journal(home / "state", venue.node)
    inventory = FakeInventory(8)
    driver = ExecDriver(home / "payloads", RUN_AS)
    async with aiohttp.ClientSession() as session:
        link = Link(session, str(venue.client.make_url("/")), venue.owner, clock)
        agent = Agent(link, journal, inventory, inventory.gpus(), clock, driver=driver)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def shell(script, **env):
    return {"command": ["/bin/sh", "-c", script], "env": env}


async def ended(venue, lease):
    async def read():
        shown = await venue.ok("GET", f"/v1/leases/{lease}", venue.buyer)
        return shown if shown["state"] == "ended" else None

    return await venue.until(read, "the end of the lease")


async def written(path, words):
    async with asyncio.timeout(20):
        while words not in path.read_text():
            await asyncio.sleep(0.05)


async def try_place(venue, **fields):
    body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"} | fields
    return await venue.call("POST", "/v1/bids", venue.buyer, body)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid):
    async with asyncio.timeout(20):
        while is_alive(pid):
            await asyncio.sleep(0.05)


async def test_a_payload_that_ends_ends_its_lease_and_the_bill(venue, home, told):
    script = 'echo "$WORD $CUDA_VISIBLE_DEVICES $FALLOW_KEY $(id -un)" >> "$TOLD"; sleep 2; exit 7'
    async with running(venue, home):
        bid = await venue.place(gpus=2, payload=shell(script, WORD="hello", TOLD=str(told)))
        lease = await venue.lease_in("running")
        done = await ended(venue, lease["id"])
        assert (done["end_reason"], done["connect"]) == ("released", {"exit_code": "7"})
        assert 1 <= done["gpu_seconds"] <= 20
        uuids = ",".join(f"GPU-fake-{index}" for index in lease["gpu_indices"])
        word, visible, user = told.read_text().split()
        assert (word, visible) == ("hello", uuids)
        assert user == (RUN_AS or user) and user != "root"
        shown = await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer)
        assert shown["status"] == "cancelled", "nothing is left to bid for"
        async with asyncio.timeout(20):
            while list((home / "payloads").iterdir()):
                await asyncio.sleep(0.05)
        assert venue.engine.core.nodes[venue.node].fenced == []


async def test_a_notice_sends_sigterm_and_a_payload_that_obeys_pays_no_longer(venue, home, told):
    script = 'trap "echo saved >> $TOLD; exit 0" TERM; echo $$ up >> $TOLD; while :; do sleep 0.1; done'
    async with running(venue, home):
        await venue.place(gpus=1, payload=shell(script, TOLD=str(told)))
        lease = await venue.lease_in("running")
        await written(told, "up")
        notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        done = await ended(venue, lease["id"])
        assert done["end_reason"] == "test"
        assert done["ended_at"] < notice["reclaim_at"], "it was ready early"
        assert "saved" in told.read_text()


class FastClock(MarketClock):
    """A clock that somebody has set ten minutes ahead."""

    def __init__(self):
        super().__init__()
        self._offset_us += 600_000_000


async def test_a_node_whose_clock_is_wrong_still_gives_the_whole_notice(venue, home, told):
    script = 'trap "sleep 1; echo saved >> $TOLD; exit 0" TERM; echo up >> $TOLD; while :; do sleep 0.1; done'
    async with running(venue, home, FastClock()):
        await venue.place(gpus=1, payload=shell(script, TOLD=str(told)))
        lease = await venue.lease_in("running")
        await written(told, "up")
        await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        await ended(venue, lease["id"])
        assert "saved" in told.read_text()


async def test_a_payload_that_defies_its_notice_is_killed_with_all_it_left_behind(venue, home, told):
    script = (
        'trap "" TERM; (setsid sh -c "trap : TERM; echo \\$\\$ deaf >> $TOLD; while :; do sleep 1; done" &) ;'
        "echo $$ up >> $TOLD; while :; do sleep 1; done"
    )
    async with running(venue, home):
        await venue.place(gpus=1, payload=shell(script, TOLD=str(told)))
        lease = await venue.lease_in("running")
        await written(told, "up")
        await written(told, "deaf")
        await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        await ended(venue, lease["id"])
        for line in told.read_text().splitlines():
            await gone(int(line.split()[0]))


async def test_a_notice_that_is_withdrawn_lets_the_payload_run_again(venue, home, told):
    script = 'trap "echo down >> $TOLD; sleep 3; exit 0" TERM; echo up >> $TOLD; while :; do sleep 0.1; done'
    async with running(venue, home):
        bid = await venue.place(gpus=8, payload=shell(script, TOLD=str(told)))
        lease = await venue.lease_in("running")
        await written(told, "up")
        _, rival = await venue.open_account("buyer")
        await venue.ok("POST", "/v1/deposits", rival, {"amount": "100.00"})
        rivals = {"market": MARKET, "gpus": 8, "limit_price_per_gpu_hour": "3.00"}
        await venue.ok("POST", "/v1/bids", rival, rivals)
        await written(told, "down")
        more = {"limit_price_per_gpu_hour": "5.00"}
        await venue.ok("PATCH", f"/v1/bids/{bid['id']}", venue.buyer, more)
        await written(told, "up\ndown\nup")
        kept = await venue.ok("GET", f"/v1/leases/{lease['id']}", venue.buyer)
        assert (kept["state"], kept["connect"]) == ("running", {})


async def test_a_payload_outlives_its_agent_and_is_found_again(venue, home, told):
    script = "echo $$ up >> $TOLD; sleep 3; exit 3"
    async with running(venue, home):
        await venue.place(gpus=1, payload=shell(script, TOLD=str(told)))
        lease = await venue.lease_in("running")
        await written(told, "up")
    async with running(venue, home):
        done = await ended(venue, lease["id"])
        assert done["connect"] == {"exit_code": "3"}
        assert told.read_text().count("up") == 1, "it was started once"


async def test_what_cannot_run_is_the_tenants_and_costs_nothing(venue, home):
    async with running(venue, home) as agent:
        for payload, code in (
            ({"command": ["/no/such/program"]}, "127"),
            ({"image": "example.org/image:1"}, "127"),
            ({"command": ["/etc/hostname"]}, "126"),
        ):
            bid = await venue.place(gpus=1, payload=payload)

            async def lease_of(bid=bid["id"]):
                leases = await venue.ok("GET", "/v1/leases", venue.buyer)
                found = [lease for lease in leases["data"] if lease["bid"] == bid]
                return found[0] if found and found[0]["state"] == "ended" else None

            lease = await venue.until(lease_of, "its end")
            assert lease["connect"]["exit_code"] == code
            assert lease["end_reason"] == "released"
        assert venue.engine.core.nodes[venue.node].fenced == [], "the node did nothing wrong"
        async with asyncio.timeout(20):
            while agent.held:
                await asyncio.sleep(0.05)


async def test_a_released_lease_ends_its_payload(venue, home, told):
    async with running(venue, home):
        bid = await venue.place(gpus=1, payload=shell("echo $$ up >> $TOLD; sleep 60", TOLD=str(told)))
        await venue.lease_in("running")
        await written(told, "up")
        await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
        await gone(int(told.read_text().split()[0]))


async def test_a_payload_is_read_back_stored_once_and_nobody_elses(venue):
    payload = {"command": ["a", "b,c", 'd"e', "f\ng"], "image": None, "env": {"B": "2", "A": "1"}}
    first = await venue.place(gpus=1, payload=payload, ssh_public_key=KEY)
    second = await venue.place(gpus=1, payload=payload, ssh_public_key=KEY)
    assert first["payload_sha256"] == second["payload_sha256"]
    assert await venue.pool.fetchval("SELECT count(*) FROM workloads") == 1
    shown = await venue.ok("GET", f"/v1/bids/{first['id']}/payload", venue.buyer)
    assert shown == {"ssh_public_key": KEY, "payload": payload}
    _, stranger = await venue.open_account("buyer")
    assert (await venue.call("GET", f"/v1/bids/{first['id']}/payload", stranger)).status == 404
    plain = await venue.place(gpus=1)
    shown = await venue.ok("GET", f"/v1/bids/{plain['id']}/payload", venue.buyer)
    assert shown == {"ssh_public_key": None, "payload": None}


async def test_a_client_bid_id_names_its_payload_too(venue):
    body = {"client_bid_id": "once", "payload": {"command": ["true"]}}
    first = await venue.place(gpus=1, **body)
    again = await venue.place(gpus=1, **body)
    assert again["id"] == first["id"]
    refused = await try_place(venue, **(body | {"payload": {"command": ["false"]}}))
    assert (refused.status, refused.json["code"]) == (409, "client_bid_id_conflict")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payload", {}),
        ("payload", {"command": []}),
        ("payload", {"command": ["x" * 9_000]}),
        ("payload", {"command": ["x" * 8_000, "y" * 8_000, "z" * 1_000]}),
        ("payload", {"command": ["a\0b"]}),
        ("payload", {"command": ["a"] * 65}),
        ("payload", {"command": ["a"], "env": {"A=B": "c"}}),
        ("payload", {"command": ["a"], "env": {f"A{n}": "" for n in range(65)}}),
        ("payload", {"image": "--privileged"}),
        ("payload", {"image": "a b"}),
        ("payload", {"command": ["a"], "user": "root"}),
        ("ssh_public_key", 'command="x" ssh-ed25519 AAAA'),
        ("ssh_public_key", KEY + "\nssh-ed25519 AAAA"),
        ("ssh_public_key", "ssh-ed25519 AAAA"),
    ],
)
async def test_bad_payloads_change_nothing(venue, field, value):
    refused = await try_place(venue, **{field: value})
    assert refused.status == 422
    assert venue.engine.core.bids == {}


async def test_only_a_payload_can_finish(venue):
    await venue.place(gpus=1)
    async with aiohttp.ClientSession() as session:
        link = Link(session, str(venue.client.make_url("/")), venue.owner)
        await link.ask("POST", "/v1/agent/enrol", {"node": venue.node})
        lease = await venue.lease_in("starting")
    path = f"/v1/agent/leases/{lease['id']}/report"
    refused = await venue.call("POST", path, venue.owner, {"state": "finished"})
    assert (refused.status, refused.json["code"]) == (409, "invalid_transition")
