"""`fallow run` as a process with a real command against a real market: its end, its notice, its signals."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from tests.api.conftest import MARKET, serving

# Writes its start and its SIGTERM into $LOG; ends at that, or when $LOG.done is there.
COMMAND = """
import os, pathlib, signal, sys, time
log = pathlib.Path(os.environ["LOG"])
def write(line):
    with open(log, "a") as file:
        file.write(line + "\\n")
def end(number, frame):
    write(f"signal {number}")
    if "stubborn" not in sys.argv:
        sys.exit(9)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
write(f"start {os.environ['FALLOW_LEASE_ID']} {os.environ['FALLOW_GPUS']} {os.getpid()}")
while not pathlib.Path(f"{log}.done").exists():
    time.sleep(0.02)
"""


@pytest.fixture
async def venue(database, config):
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=4)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


class Run:
    """One `fallow run`, the lines of its command, and its standard error."""

    def __init__(self, process, log, errors):
        self.process, self.log, self.errors_path = process, log, errors

    def lines(self, word=""):
        found = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split() for line in found if line.startswith(word)]

    @property
    def errors(self):
        return self.errors_path.read_text()

    async def until(self, read):
        async with asyncio.timeout(30):
            while not read():
                assert self.process.returncode is None, self.errors
                await asyncio.sleep(0.02)

    async def code(self):
        async with asyncio.timeout(30):
            return await self.process.wait()


@asynccontextmanager
async def running(venue, tmp_path, *options, command=(sys.executable, "-c", COMMAND), limit="2", server=None):
    log, errors = tmp_path / "log", tmp_path / "errors"
    environment = {
        **os.environ, "LOG": str(log), "FALLOW_KEY": venue.buyer,
        "FALLOW_URL": server or str(venue.client.make_url("/")),
    }  # fmt: skip
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fallow.cli", "run", MARKET, "--gpus", "2", "--limit", limit, *options,
            "--", *command, env=environment, stderr=file, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield Run(process, log, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def nothing_is_left(venue):
    bids = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
    leases = (await venue.ok("GET", "/v1/leases", venue.buyer))["data"]
    assert [bid["status"] for bid in bids if bid["status"] != "cancelled"] == []
    assert [lease["state"] for lease in leases if lease["state"] != "ended"] == []
    return leases


def is_alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("code", [0, 7])
async def test_the_exit_code_is_the_commands_own_and_the_bid_ends(venue, tmp_path, code):
    await venue.offer_node()
    command = (sys.executable, "-c", f"import sys; sys.exit({code})")
    async with running(venue, tmp_path, command=command) as run:
        assert await run.code() == code, run.errors
    assert "waiting for 2 GPUs" in run.errors
    assert len(await nothing_is_left(venue)) == 1


async def test_a_notice_stops_the_command_ends_the_bill_and_it_starts_anew(venue, tmp_path):
    await venue.offer_node()
    async with running(venue, tmp_path) as run:
        await run.until(lambda: run.lines("start"))
        ((_, first, gpus, _),) = run.lines("start")
        assert gpus == "2"
        await venue.ok("POST", f"/v1/leases/{first}/test-notice", venue.buyer)
        await run.until(lambda: len(run.lines("start")) == 2)
        assert run.lines("signal") == [["signal", str(signal.SIGTERM.value)]]
        (notice,) = (await venue.ok("GET", "/v1/notices", venue.buyer))["data"]
        lease = await venue.ok("GET", f"/v1/leases/{first}", venue.buyer)
        assert lease["ended_at"] < notice["reclaim_at"], "the bill ended with the command"
        assert notice["reclaim_at"][:19] in run.errors
        run.log.with_name("log.done").touch()
        assert await run.code() == 0, run.errors
    await nothing_is_left(venue)


@pytest.mark.parametrize("option", [("--no-requeue",), ("--max-restarts", "0")])
async def test_preempted_for_good_is_exit_code_6_and_kills_what_does_not_end(venue, tmp_path, option):
    await venue.offer_node()
    command = (sys.executable, "-c", COMMAND, "stubborn")
    async with running(venue, tmp_path, *option, command=command) as run:
        await run.until(lambda: run.lines("start"))
        ((_, lease, _, pid),) = run.lines("start")
        await venue.ok("POST", f"/v1/leases/{lease}/test-notice", venue.buyer)
        assert await run.code() == 6, run.errors
        assert len(run.lines("signal")) == 1 and not is_alive(pid)
    await nothing_is_left(venue)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_goes_on_to_the_command_and_the_bid_ends(venue, tmp_path, number):
    await venue.offer_node()
    async with running(venue, tmp_path) as run:
        await run.until(lambda: run.lines("start"))
        run.process.send_signal(number)
        assert await run.code() == 128 + number, run.errors
        assert run.lines("signal") == [["signal", str(number.value)]]
    await nothing_is_left(venue)


async def test_a_signal_while_it_waits_cancels_the_bid(venue, tmp_path):
    async with running(venue, tmp_path) as run:
        await run.until(lambda: "waiting for 2 GPUs" in run.errors)
        run.process.send_signal(signal.SIGINT)
        assert await run.code() == 130, run.errors
    await nothing_is_left(venue)


async def test_a_refusal_and_a_command_that_is_not_there(venue, tmp_path):
    async with running(venue, tmp_path, limit="900") as run:
        assert await run.code() == 3, run.errors
    async with running(venue, tmp_path, command=("no-such-program",)) as run:
        assert await run.code() == 2, run.errors
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []
