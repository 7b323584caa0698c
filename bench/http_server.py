"""The two sides of bench_http, a process each: `python -m bench.http_server fallow DIR | bare BYTES`.

`fallow` is the server as `fallow serve` runs it (uvloop, engine, embedded PostgreSQL with fsync) with one
market, funded accounts and rate limits above what is sent. `bare` is aiohttp (Application, uvloop) that reads
a JSON body and answers as many bytes as a bid has. Both print one JSON line when they listen; `fallow`
answers each line on its standard input with what its database holds.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from api.config import Config
from api.keys import mint_key
from api.rate_limits import Policies, Policy
from auction.commands import CreateAccount, CreateMarket, Deposit
from auction.engine import Engine
from auction.model import Market
from auction.units import Amount, Price
from fallow.serve import running_server
from sql.pool import Database, open_database

SERVER_CORE = 0
ACCOUNTS = 192
MARKET = "h100-sxm.bench"
TICK_SECONDS = 2
FUNDS = Amount(1_000_000 * 1_000_000)
SCOPES = ["bids:read", "bids:write"]
UNLIMITED = 10**7
RATES = Policies(
    *(Policy(name, UNLIMITED, UNLIMITED) for name in ("requests", "exits", "agents", "public", "refusals"))
)
COUNTS = """SELECT (SELECT count(*) FROM bids) AS bids, (SELECT count(*) FROM journal) AS journal,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('server_version') AS server_version"""


async def _open_account(engine: Engine, number: int) -> tuple[str, str]:
    account = f"acct_bench{number:015d}"
    key, text = mint_key(account, "bench", SCOPES, is_live=False, now_us=engine.clock.now_us())
    await engine.execute(CreateAccount(account, account, ["buyer"], key))
    await engine.execute(Deposit(f"dep_bench{number:016d}", account, FUNDS))
    return account, text


async def _open_market(engine: Engine) -> None:
    await engine.execute(
        CreateMarket(
            Market(
                id=MARKET, kind="gpu", gpu_model="H100", gpu_memory_gib=80, gpus_per_node=8,
                interconnect="sxm", region="bench", tick_seconds=TICK_SECONDS, price_increment=100,
                price_cap=Price(10_000_000), notice_seconds=60, settlement_seconds=600, handicap_bps=1_000,
                fee_bps=1_000, is_demo=True, created_at_us=engine.clock.now_us(),
            )
        )
    )  # fmt: skip


async def serve_fallow(directory: Path) -> None:
    """Serve until standard input ends."""
    async with open_database(url=None, data_dir=directory) as database:
        await database.prepare(apply_migrations=True)
        config = Config(port=0, is_demo=True, rates=RATES)
        async with running_server(database, config) as running:
            await _open_market(running.engine)
            accounts = [await _open_account(running.engine, number) for number in range(ACCOUNTS)]
            os.sched_setaffinity(0, {SERVER_CORE})  # the database's processes run where they like
            port = int(running.url.rpartition(":")[2])
            _say({"port": port, "keys": [key for _, key in accounts], **await _counts(database)})
            reader = asyncio.StreamReader()
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
            )
            while await reader.readline():
                _say(await _counts(database))


async def _counts(database: Database) -> dict[str, object]:
    connection = await database.connect()
    try:
        row = await connection.fetchrow(COUNTS)
    finally:
        await connection.close()
    assert row is not None
    return {**row, "socket": database.arguments["host"], "user": database.arguments["user"],
            "pg_port": database.arguments["port"]}  # fmt: skip


async def serve_bare(answer_bytes: int) -> None:
    """Answer every POST with a JSON body of this size until standard input ends."""
    answer = {"id": "bid_" + "x" * 20, "pad": ""}
    answer["pad"] = "x" * max(0, answer_bytes - len(msgspec.json.encode(answer)))

    async def handle(request: web.Request) -> web.Response:
        msgspec.json.decode(await request.read())
        return web.Response(body=msgspec.json.encode(answer), status=201, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/bids", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    os.sched_setaffinity(0, {SERVER_CORE})
    _say({"port": runner.addresses[0][1]})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    side = serve_fallow(Path(sys.argv[2])) if sys.argv[1] == "fallow" else serve_bare(int(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(side)
