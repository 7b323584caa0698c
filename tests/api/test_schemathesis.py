"""schemathesis over /openapi.json of a real server: whatever the contract allows is answered as it says.

Its program runs against the server of the API's tests, as somebody who may do everything: a bounded number of
generated requests for each operation, well-formed and broken ones, from a fixed seed.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from api.config import Config
from api.keys import mint_key, scopes_of
from api.rate_limits import Policies, Policy
from auction.commands import CreateAccount
from tests.api.conftest import serving

ROLES = ["buyer", "owner", "operator"]
SEED = 5
RUN_SECONDS_MAX = 500
UNLIMITED = 10**7
LIMITS = ("requests", "exits", "agents", "public", "refusals")

# A long poll would only wait. What is well-formed may still be refused for what it means (a cursor of another
# list, nothing to change, a key used before, 118.0 for 118); an ETag comes without its quotes, hence the 400.
SETTINGS = """[parameters]
"query.wait_seconds" = 0
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "402", "403", "404", "409", "412", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "409", "413", "415", "422", "428"]
[checks.missing_required_header]
expected-statuses = ["428"]
"""
LEFT_OUT = (
    "/v1/stream",  # it never ends
    "/v1/markets/{market}/curve",  # its pairs are `prefixItems`, which this version cannot read
)
# DELETE of /v1/sessions/current is that of /v1/sessions/{session}: `Allow` speaks of the address.
CHECKS_LEFT_OUT = "allow_header_conformance"


@pytest.fixture
async def everybody(database):
    """A server, and the key of an account with every role."""
    rates = Policies(*(Policy(name, UNLIMITED, UNLIMITED) for name in LIMITS))
    async with serving(database, Config(is_demo=True, port=0, rates=rates)) as venue:
        await venue.open_market()
        key, text = mint_key(
            "acct_everybody", "all", scopes_of(ROLES), is_live=False, now_us=venue.engine.clock.now_us()
        )
        await venue.engine.execute(CreateAccount("acct_everybody", "everybody", ROLES, key))
        venue.buyer = venue.owner = text
        yield venue


async def run(directory: Path, *arguments: str) -> tuple[int, str]:
    """Run schemathesis; return its status and what it printed."""
    (directory / "schemathesis.toml").write_text(SETTINGS)
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "--config-file", "schemathesis.toml", "run", *arguments),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, printed.decode()


@pytest.mark.timeout(RUN_SECONDS_MAX + 30)
@pytest.mark.parametrize(
    ("phases", "examples"),  # of an operation
    [
        ("coverage,fuzzing", 4),
        pytest.param("coverage,fuzzing,stateful", 50, marks=pytest.mark.long),
    ],
)
async def test_what_the_contract_allows_is_answered_as_it_says(everybody, tmp_path, phases, examples):
    status, printed = await run(
        tmp_path,
        str(everybody.client.make_url("/openapi.json")),
        *("--header", f"Authorization: Bearer {everybody.buyer}"),
        *(argument for path in LEFT_OUT for argument in ("--exclude-path", path)),
        *("--exclude-checks", CHECKS_LEFT_OUT),
        *("--phases", phases, "--max-examples", str(examples), "--seed", str(SEED), "--no-color"),
    )
    assert status == 0, printed
    assert everybody.engine.core.accounts["acct_everybody"].state == "open", "it could do everything"
