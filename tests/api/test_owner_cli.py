"""`fallow reserve` against a running market: what it shows, and its exit codes."""

import asyncio
import subprocess
import sys

from tests.api.conftest import MARKET


async def test_the_command_line_asks_the_market(venue):
    url = str(venue.client.make_url("/"))
    arguments = ["--purchase-price-per-gpu", "36000", "--market", MARKET, "--server", url]

    async def reserve(*more):
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "fallow.cli", "reserve", *arguments, *more],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    done = await reserve("--key", venue.owner)
    assert done.returncode == 0, done.stderr
    assert f"{MARKET}, " in done.stdout
    assert (await reserve()).returncode == 4
    assert (await reserve("--key", venue.buyer)).returncode == 4
    refused = await reserve("--key", venue.owner, "--pue-bps", "1")
    assert (refused.returncode, "cost_out_of_range" in refused.stderr) == (3, True)
