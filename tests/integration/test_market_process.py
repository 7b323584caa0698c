"""The product as its user runs it: `fallow demo` as a process, killed and started again.

No acknowledged bid is lost and nothing is charged twice, whatever dies; the audit and the replay say so.
"""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

DEADLINE_SECONDS = 60


class Demo:
    """One `fallow demo` on its own data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process = None
        self.facts = {}

    async def start(self, *options):
        fixed = ["--json", "--port", "18200", "--notice-seconds", "3", "--tick-seconds", "1"]
        command = [sys.executable, "-m", "fallow.cli", "demo", *fixed, "--data-dir", str(self.data_dir)]
        command += options
        self.process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        async with asyncio.timeout(DEADLINE_SECONDS):
            self.facts = json.loads(await self.process.stdout.readline())

    async def stop(self, number):
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    def postmaster(self):
        return int((self.data_dir / "pg" / "postmaster.pid").read_text().split()[0])

    async def call(self, who, method, path, body=None, **headers):
        headers["Authorization"] = f"Bearer {self.facts['keys'][who]}"
        async with (
            aiohttp.ClientSession(self.facts["api"]) as session,
            session.request(method, path, json=body, headers=headers) as response,
        ):
            return response.status, await response.json(content_type=None)

    async def bid(self, gpus=1, limit="4.000000", key=None):
        body = {"market": "h100-sxm.us", "gpus": gpus, "limit_price_per_gpu_hour": limit}
        headers = {"Idempotency-Key": key} if key else {}
        return await self.call("buyer", "POST", "/v1/bids", body, **headers)


@pytest.fixture
async def demo(tmp_path):
    running = Demo(tmp_path / "demo")
    yield running
    if running.process is not None and running.process.returncode is None:
        await running.stop(signal.SIGKILL)


def fallow(*arguments):
    command = [sys.executable, "-m", "fallow.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)


async def run_fallow(*arguments):
    return await asyncio.to_thread(fallow, *arguments)


async def until(read, what):
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (found := await read()):
            await asyncio.sleep(0.05)
        return found


async def test_a_bid_lives_through_a_kill_and_is_billed_to_the_second(demo):
    """Bid, lease, kill -9, restart with the same keys; outbid, notice, end at the deadline, one bill."""
    await demo.start("--no-bots")
    first_facts = demo.facts
    status, mine = await demo.bid(gpus=2, key="first")
    assert 201 == status

    async def my_lease(state="running"):
        _, page = await demo.call("buyer", "GET", "/v1/leases")
        return next((lease for lease in page["data"] if lease["state"] == state), None)

    lease = await until(my_lease, "a running lease")
    assert -signal.SIGKILL == await demo.stop(signal.SIGKILL)
    await demo.start("--no-bots")
    assert first_facts["keys"] == demo.facts["keys"]
    _, again = await demo.bid(gpus=2, key="first")
    assert mine["id"] == again["id"], "the same key is the same bid, also after a kill"

    await demo.call("buyer", "PATCH", f"/v1/bids/{mine['id']}", {"limit_price_per_gpu_hour": "0.100000"})
    ended = await until(lambda: my_lease("ended"), "the end of the lease")
    assert (lease["id"], "outbid") == (ended["id"], ended["end_reason"])
    _, notices = await demo.call("buyer", "GET", "/v1/notices")
    notice = next(x for x in notices["data"] if x["lease"] == lease["id"])
    assert (notice["state"], notice["reclaim_at"]) == ("done", ended["ended_at"])
    assert 3 == notice["notice_seconds"]
    seconds = int(ended["ended_at"][17:19]) - int(ended["started_at"][17:19])
    assert ended["gpu_seconds"] == ended["gpus"] * (seconds % 60)
    _, usage = await demo.call("buyer", "GET", "/v1/usage")
    assert usage["data"]

    beside = await run_fallow("audit", "--data-dir", str(demo.data_dir))
    assert 0 == beside.returncode, beside.stdout
    assert 0 == await demo.stop(signal.SIGTERM)
    alone = await run_fallow("replay", "--data-dir", str(demo.data_dir))
    assert 0 == alone.returncode, alone.stdout


async def test_a_second_demo_on_the_directory_is_refused_at_once(demo):
    await demo.start("--no-bots")
    second = await run_fallow("demo", "--json", "--no-bots", "--data-dir", str(demo.data_dir))
    assert (2, "") == (second.returncode, second.stdout)
    assert 1 == len([line for line in second.stderr.splitlines() if line.startswith("fallow:")])


async def test_a_stop_answers_who_waits_and_waits_for_nobody_who_does_not_listen(demo):
    """SIGTERM beside a long poll, a socket that never reads, half a request, half a body: under 10 s."""
    await demo.start("--no-bots")
    key, port = demo.facts["keys"]["buyer"], demo.facts["api"].rpartition(":")[2]
    host = f"Host: x\r\nAuthorization: Bearer {key}\r\n"
    handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    handshake += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    half_body = "Content-Type: application/json\r\nContent-Length: 500\r\n"
    texts = (
        f"GET /v1/notices?wait_seconds=60 HTTP/1.1\r\n{host}\r\n",
        f"GET /v1/ws HTTP/1.1\r\n{host}{handshake}\r\n",
        f"POST /v1/bids HTTP/1.1\r\n{host}{half_body}\r\n{{",
        "GET /v1/time HTTP/1.1\r\nX-Half:",
    )
    streams = []
    for text in texts:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(text.encode())
        streams.append((reader, writer))
    await asyncio.sleep(0.5)
    began_s = asyncio.get_running_loop().time()
    assert 0 == await demo.stop(signal.SIGTERM)
    assert asyncio.get_running_loop().time() - began_s < 10
    answered = await streams[0][0].read()
    assert answered.startswith(b"HTTP/1.1 200"), "the long poll had its answer"
    for _, writer in streams:
        writer.close()


async def test_a_worker_runs_beside_a_server_and_ends_when_asked(demo, tmp_path):
    alone = await run_fallow("serve", "--role", "worker", "--data-dir", str(tmp_path / "none"))
    assert alone.returncode == 5 and "no server runs on" in alone.stderr
    await demo.start("--no-bots")
    command = ["-m", "fallow.cli", "serve", "--role", "worker", "--data-dir", str(demo.data_dir)]
    worker = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert b"working: webhooks" in await worker.stderr.readline()
            worker.send_signal(signal.SIGTERM)
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
    assert await demo.stop(signal.SIGTERM) == 0
