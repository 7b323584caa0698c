"""`fallow node`, `offer`, `key` and `lease watch` as processes against a real market."""

import asyncio
import csv
import io

import pytest

from tests.api.conftest import MARKET
from tests.api.shell import Shell


@pytest.fixture
async def shell(venue, tmp_path):
    return Shell(venue, tmp_path, venue.owner)


async def test_a_node_is_enrolled_offered_and_recalled_after_a_question(shell, venue):
    (node,) = await shell.json("node", "enrol", "rack 1", MARKET, "--gpus", "8", "--simulated")
    post = ("offer", "post", node["id"], "--gpus", "8", "--reserve", "1.10", "--until", "2099-01-01T00:00Z")
    (offer,) = await shell.json(*post, "--notice-seconds", "4")
    assert (offer["reserve_price_per_gpu_hour"], offer["notice_seconds"]) == ("1.100000", 4)
    (amended,) = await shell.json("offer", "amend", offer["id"], "--reserve", "1.20")
    assert amended["reserve_price_per_gpu_hour"] == "1.200000"
    code, _, errors = await shell.run("offer", "amend", offer["id"], "--reserve", "1.30", "--version", "1")
    assert code == 3 and "version_mismatch" in errors
    await venue.place(gpus=3)
    lease = await venue.lease_in("running")
    (cordoned,) = await shell.json("node", "cordon", node["id"])
    (open_again,) = await shell.json("node", "cordon", node["id"], "--off")
    assert cordoned["state"] == "cordoned" != open_again["state"]
    code, output, asked = await shell.run("node", "recall", node["id"], text="n\n")
    assert (
        (code, output) == (1, "")
        and lease["id"] in asked
        and "1 leases on 3 GPUs" in asked
        and "offer promised" in asked
    )
    (listed,) = await shell.json("offer", "ls", "--node", node["id"])
    assert listed["status"] == "partly_leased", "a no is a no"
    code, output, _ = await shell.run("node", "recall", node["id"], "--yes", "-o", "csv")
    (notice,) = csv.DictReader(io.StringIO(output))
    assert (code, notice["lease"], notice["reason"]) == (0, lease["id"], "offer_withdrawn")
    (listed,) = await shell.json("node", "ls")
    assert listed["name"] == "rack 1"


async def test_an_offer_is_withdrawn_once(shell, venue):
    _, offer = await venue.offer_node()
    code, _, explained = await shell.run("offer", "withdraw", offer["id"], "--version", "1", "--explain")
    assert code == 0 and "If-Match" in explained and shell.key not in explained
    (listed,) = await shell.json("offer", "ls", "--status", "withdrawn")
    assert listed["id"] == offer["id"]
    code, _, errors = await shell.run("offer", "withdraw", offer["id"])
    assert code == 3 and "offer_final" in errors


async def test_a_key_can_less_and_ends(shell, venue):
    made = ("key", "create", "bot", "--scope", "supply:read", "--network", "127.0.0.0/8")
    (key,) = await shell.json(*made, "--spend-cap-per-day", "50")
    assert await shell.json("node", "ls", key=key["secret"]) == []
    assert (await shell.run("key", "ls", key=key["secret"]))[0] == 4
    (rotated,) = await shell.json("key", "rotate", key["id"], "--overlap-seconds", "0")
    assert (await shell.run("node", "ls", key=key["secret"]))[0] == 4
    assert (await shell.run("node", "ls", key=rotated["secret"]))[0] == 0
    (revoked,) = await shell.json("key", "revoke", key["id"])
    assert revoked["revoked_at"]
    code, table, _ = await shell.run("key", "ls")
    assert code == 0 and key["id"] in table and rotated["secret"] not in table


async def test_a_watched_lease_says_how_it_ended(shell, venue):
    node, _ = await venue.offer_node()
    await venue.place(gpus=1)
    lease = await venue.lease_in("running")
    watching = asyncio.create_task(shell.run("lease", "watch", lease["id"], key=venue.buyer))
    await venue.ok("POST", f"/v1/nodes/{node['id']}/recall", venue.owner, {})
    code, output, errors = await watching
    assert (code, errors) == (6, "") and "offer_withdrawn" in output.splitlines()[-1]
    await venue.offer_node()
    lease = await venue.lease_in("running")
    await venue.ok("POST", f"/v1/leases/{lease['id']}/release", venue.buyer, {})
    (ended,) = await shell.json("lease", "watch", lease["id"], key=venue.buyer)
    assert ended["end_reason"] == "released"
