"""The agent with real containers: podman runs an image made here of busybox; notices, kills and fences are
real.

Run as root by `pytest tests/extra/test_podman.py` with Debian's podman, runc, containernetworking-plugins,
iptables and busybox-static. Nothing is pulled, and nothing stays in the machine's own container storage.
"""

import asyncio
import shutil
import subprocess
from contextlib import asynccontextmanager

import aiohttp
import pytest

from auction.clock import SystemClock
from fallow.agent.containers import ContainerDriver
from fallow.agent.inventory import FakeInventory
from fallow.agent.link import Link
from fallow.agent.node import Agent, read_journal
from tests.api.test_payloads import KEY, ended, gone, is_alive, venue, written

IMAGE = "localhost/fallow-test"
PODMAN_SECONDS_MAX = 60
TOOLS = ("sh", "sleep", "echo", "cat", "nc", "true", "setsid")

__all__ = ["venue"]


def podman(*arguments, check=True):
    done = subprocess.run(
        ["podman", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PODMAN_SECONDS_MAX,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout.strip()


def settings(runtime):
    """What podman needs where limits cannot be raised, and (runc) where cgroups are of both versions."""
    limits = '"nofile=1024:1024", "nproc=1024:1024"'
    return f'[containers]\ndefault_ulimits = [{limits}]\n[engine]\nruntime = "{runtime}"\n'


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of busybox in a storage of its own, with podman set so that it runs."""
    home = tmp_path_factory.mktemp("podman")
    storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/graph"\nrunroot = "{home}/run"\n'
    (home / "storage.conf").write_text(storage)
    context = home / "context"
    context.mkdir()
    shutil.copy("/bin/busybox", context)
    lines = ["FROM scratch", *(f"COPY busybox /bin/{tool}" for tool in TOOLS)]
    (context / "Containerfile").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(home / "storage.conf"))
        patch.setenv("CONTAINERS_CONF", str(home / "containers.conf"))
        refusals = []
        for runtime in ("crun", "runc"):
            (home / "containers.conf").write_text(settings(runtime))
            podman("build", "--quiet", "--tag", IMAGE, str(context))
            refusal = podman("run", "--rm", IMAGE, "/bin/true", check=False)
            if not refusal:
                break
            refusals.append(refusal)
        assert len(refusals) < 2, refusals
        yield IMAGE
        podman("rmi", "--all", "--force")


@pytest.fixture
def home(tmp_path, image):
    """What a test's containers write to; containers outlive their agents, and must not outlive their test."""
    (tmp_path / "told").touch()
    (tmp_path / "podman").symlink_to(shutil.which("podman"))
    yield tmp_path
    podman("rm", "--all", "--force", "--time", "0")


@asynccontextmanager
async def running(venue, home):
    """The agent of 8 GPUs that are not there, with podman as its driver."""
    journal = read_journal(home / "state", venue.node)
    inventory = FakeInventory(8)
    driver = ContainerDriver(
        str(home / "podman"),
        host="127.0.0.1",
        options=("--pull=never", f"--volume={home}:/told"),
        has_gpus=False,
    )
    async with aiohttp.ClientSession() as session:
        link = Link(session, str(venue.client.make_url("/")), venue.owner)
        agent = Agent(link, journal, inventory, inventory.gpus(), SystemClock(), driver=driver)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def place(venue, script, **fields):
    payload = {"image": IMAGE, "command": ["/bin/sh", "-c", script], "env": {"WORD": "hello"}}
    return await venue.place(gpus=1, payload=payload, **fields)


async def removed(lease):
    async with asyncio.timeout(20):
        while lease in podman("ps", "--all", "--format", "{{.Names}}"):
            await asyncio.sleep(0.1)


def pid_of(lease):
    return int(podman("container", "inspect", "--format", "{{.State.Pid}}", f"fallow-{lease}"))


async def test_a_container_that_ends_ends_its_lease_and_is_removed(venue, home):
    async with running(venue, home):
        await place(venue, 'echo "$WORD $FALLOW_LEASE" >> /told/told; sleep 1; exit 7')
        lease = await venue.lease_in("running")
        done = await ended(venue, lease["id"])
        assert (done["end_reason"], done["connect"]) == ("released", {"exit_code": "7"})
        assert (home / "told").read_text() == f"hello {lease['id']}\n"
        await removed(lease["id"])
        assert venue.engine.core.nodes[venue.node].fenced == []


async def test_a_notice_sends_sigterm_and_who_obeys_pays_no_longer(venue, home):
    script = (
        'trap "echo saved >> /told/told; exit 0" TERM; echo up >> /told/told; while :; do sleep 0.1; done'
    )
    async with running(venue, home):
        await place(venue, script)
        lease = await venue.lease_in("running")
        await written(home / "told", "up")
        notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        done = await ended(venue, lease["id"])
        assert (done["end_reason"], (home / "told").read_text()) == ("test", "up\nsaved\n")
        assert done["ended_at"] < notice["reclaim_at"], "it was ready early"
        await removed(lease["id"])


async def test_who_defies_the_notice_is_killed_at_reclaim_with_all_it_started(venue, home):
    script = (
        'trap "" TERM; (setsid sh -c "trap : TERM; while :; do sleep 1; done" &);'
        "echo up >> /told/told; while :; do sleep 1; done"
    )
    async with running(venue, home):
        await place(venue, script)
        lease = await venue.lease_in("running")
        await written(home / "told", "up")
        inside = [int(pid) for pid in podman("top", f"fallow-{lease['id']}", "hpid").split()[1:]]
        assert pid_of(lease["id"]) in inside and len(inside) >= 3
        notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        await asyncio.sleep(1)
        assert is_alive(pid_of(lease["id"])), "nobody is killed before reclaim_at"
        done = await ended(venue, lease["id"])
        assert done["ended_at"] <= notice["reclaim_at"], "its bill ends there at the latest"
        for pid in inside:
            await gone(pid)
        await removed(lease["id"])
        assert venue.engine.core.nodes[venue.node].fenced == []


async def test_a_container_outlives_its_agent_and_is_started_once(venue, home):
    async with running(venue, home):
        await place(venue, "echo up >> /told/told; sleep 3; exit 3")
        lease = await venue.lease_in("running")
        await written(home / "told", "up")
    async with running(venue, home):
        done = await ended(venue, lease["id"])
        assert done["connect"] == {"exit_code": "3"}
        assert (home / "told").read_text() == "up\n"


async def test_its_ssh_port_is_where_connect_says(venue, home):
    async with running(venue, home):
        await place(venue, 'nc -l -p 22 -e /bin/sh -c "echo $PUBLIC_KEY"; sleep 60', ssh_public_key=KEY)
        lease = await venue.lease_in("running")
        assert (lease["connect"]["host"], lease["connect"]["user"]) == ("127.0.0.1", "root")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(lease["connect"]["port"]))
        async with asyncio.timeout(10):
            assert (await reader.read()).decode().strip() == KEY
        writer.close()


async def test_an_image_that_is_not_there_is_the_tenants_and_costs_nothing(venue, home):
    async with running(venue, home):
        await venue.place(gpus=1, payload={"image": "localhost/not-there:1"})

        async def found():
            return (await venue.ok("GET", "/v1/leases?state=ended", venue.buyer))["data"]

        (lease,) = await venue.until(found, "its end")
        assert (lease["connect"], lease["cost"]) == ({"exit_code": "125"}, "0.000000")
        assert venue.engine.core.nodes[venue.node].fenced == [], "the node did nothing wrong"


async def test_gpus_whose_container_cannot_be_ended_are_fenced(venue, home):
    """podman vanishes from under the agent: what runs cannot be seen any more, let alone ended."""
    async with running(venue, home):
        await place(venue, "echo up >> /told/told; while :; do sleep 1; done")
        lease = await venue.lease_in("running")
        await written(home / "told", "up")
        (home / "podman").unlink()
        await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
        await ended(venue, lease["id"])

        async def fenced():
            return venue.engine.core.nodes[venue.node].fenced

        assert await venue.until(fenced, "the fence") == lease["gpu_indices"]
        assert is_alive(pid_of(lease["id"])), "which is why nobody else may have them"
