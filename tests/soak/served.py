"""One server in a process of its own that says every second how it is: `python -m tests.soak.served`.

The database's address comes as JSON on standard input; the first line that goes out has the port and the
operator's key, every other one memory, file descriptors and tasks. `--plant` puts in the bug that the soak
must find.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from api.call import Call
from api.config import Config
from api.keys import mint_key, scopes_of
from auction.commands import CreateAccount
from fallow.serve import running_server
from sql.pool import Database
from tests.fuzz.surface import OPEN

LEAKED_BYTES = 200_000


def plant(what: Sequence[str]) -> None:
    """Make every answer leave something behind."""
    kept: list[Any] = []
    right = Call.reply

    def leaking(call: Call[Any, Any], value: Any) -> Any:
        if "memory" in what:
            kept.append(os.urandom(LEAKED_BYTES))
        if "descriptors" in what:
            kept.append(os.open("/dev/null", os.O_RDONLY))
        if "tasks" in what:
            kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(3_600)))
        return right(call, value)

    Call.reply = leaking  # type: ignore[method-assign]


def vitals() -> dict[str, int]:
    """Return what must stay flat."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
    }


async def serve(arguments: dict[str, Any]) -> None:
    database = Database(arguments)
    config = Config(is_demo=True, port=0, runs_simulator=True, rates=OPEN, sends_webhooks=False)
    async with running_server(database, config) as running:
        engine = running.engine
        key, operator = mint_key(
            "acct_operator", "soak", scopes_of(["operator"]), is_live=False, now_us=engine.clock.now_us()
        )
        await engine.execute(CreateAccount("acct_operator", "operator", ["operator"], key))
        print(json.dumps({"port": int(running.url.rpartition(":")[2]), "operator": operator}), flush=True)
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # when the parent hangs up
        while not ended.done():
            print(json.dumps(vitals()), flush=True)
            await asyncio.wait([ended], timeout=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plant", nargs="+", default=[], choices=("memory", "descriptors", "tasks"))
    options = parser.parse_args()
    if options.plant:
        plant(options.plant)
    arguments = json.loads(sys.stdin.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments))


if __name__ == "__main__":
    main()
