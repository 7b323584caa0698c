"""`fallow demo`: a whole market from nothing, on this machine, with a past and with company.

The first start makes the database, the people and a day of history; every later start on the same
directory goes on where it was, with the same keys. Everything that it starts ends with it.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from api.config import Config
from auction.clock import SystemClock
from auction.commands import AmendMarket
from auction.core import Core
from fallow import people as people_file
from fallow.bots import Crowd
from fallow.history import History, Progress
from fallow.people import People, invent
from fallow.serve import Running, running_server
from fallow.visits import forget_address, note_address, visiting
from fallow.world import Venue, make_world
from sql.pool import Database, open_database

SETTLEMENT_SECONDS = 60


class Options(Struct, frozen=True):
    """What the command line asks for."""

    port: int
    data_dir: Path
    tick_seconds: int
    notice_seconds: int
    with_bots: bool
    seed: int
    as_json: bool


class Stopwatch:
    """Says on standard error what was done and how long it took."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._started_us = self._last_us = clock.now_us()

    def lap(self, what: str) -> None:
        now_us = self._clock.now_us()
        print(f"  {what:<44} {(now_us - self._last_us) / 1e6:6.2f} s", file=sys.stderr)
        self._last_us = now_us

    def total_s(self) -> float:
        return (self._clock.now_us() - self._started_us) / 1e6


async def run_demo(options: Options) -> None:
    """Run until SIGINT or SIGTERM. Raises DataDirectoryBusy, MigrationError, OSError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    watch = Stopwatch(SystemClock())
    print("starting the market", file=sys.stderr)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url=None, data_dir=options.data_dir))
        watch.lap("PostgreSQL (embedded) is up")
        await database.prepare(apply_migrations=True)
        watch.lap("schema is current")
        venues = make_world(options.seed).venues
        people = await _world(database, venues, options, watch, stop)
        if people is None:
            return  # stopped before the history was whole
        config = Config(port=options.port, is_demo=True, runs_simulator=True)
        running = await stack.enter_async_context(running_server(database, config))
        await _set_timing(running, options)
        if options.with_bots:
            await stack.enter_async_context(_crowd(running, venues, people, options.seed))
        watch.lap("engine, API and nodes are up")
        stack.callback(forget_address, options.data_dir)
        note_address(options.data_dir, running.url)
        async with visiting(running.url, people) as visitor:
            link = await visitor.sign_in_link("buyer")
        _announce(running, venues, people, options, link, watch.total_s())
        await running.engine.run_until(stop)
        print("stopping", file=sys.stderr)


async def _world(
    database: Database, venues: tuple[Venue, ...], options: Options, watch: Stopwatch, stop: asyncio.Event
) -> People | None:
    """Return the people of this directory; on its first start, make them and their past."""
    store = database.store()
    await store.acquire()
    try:
        core = Core.restore(await store.load())
        if core.accounts:
            return people_file.load(options.data_dir)
        now_us = SystemClock().now_us()
        people, opening = invent(venues, now_us)
        # Before the accounts: keys without accounts open nothing, accounts without keys are lost.
        people_file.save(people, options.data_dir)
        history = History(
            core,
            venues,
            people,
            options.seed,
            now_us,
            notice_seconds=options.notice_seconds,
            is_quiet=not options.with_bots,
        )
        with _progress("a day of history") as report:
            is_whole = await history.run(store, opening, report, stop.is_set)
        watch.lap(f"{history.ticks} ticks of history in {len(venues)} markets")
        return people if is_whole else None
    finally:
        await store.close()


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """Show a bar on standard error while the body runs; the body calls it with (done, total)."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("  {task.description}"),
        progress.BarColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


async def _set_timing(running: Running, options: Options) -> None:
    """From the history's minutes to the demo's beat."""
    for market in sorted(running.engine.core.markets):
        current = running.engine.core.markets[market]
        wanted = (options.tick_seconds, options.notice_seconds, SETTLEMENT_SECONDS)
        if (current.tick_seconds, current.notice_seconds, current.settlement_seconds) != wanted:
            await running.engine.execute(AmendMarket(market, *wanted))


@asynccontextmanager
async def _crowd(
    running: Running, venues: tuple[Venue, ...], people: People, seed: int
) -> AsyncIterator[None]:
    crowd = Crowd(running.url, venues, people, seed)
    crowd.start()
    try:
        yield
    finally:
        await crowd.stop()


def _announce(
    running: Running, venues: tuple[Venue, ...], people: People, options: Options, link: str, total_s: float
) -> None:
    facts: dict[str, Any] = {
        "api": running.url,
        "metrics": running.metrics_url,
        "sign_in": link,
        "keys": {
            "buyer": people.buyer.key,
            "owner": people.owner.key,
            "operator": people.operator.key,
        },
        "markets": [venue.id for venue in venues],
        "data_dir": str(options.data_dir),
    }
    if options.as_json:
        print(json.dumps(facts), flush=True)
        return
    print(_welcome(running, venues, people, options, link, total_s), flush=True)


def _welcome(
    running: Running, venues: tuple[Venue, ...], people: People, options: Options, link: str, total_s: float
) -> str:
    url, market = running.url, venues[0].id
    bid = f'{{"market": "{market}", "gpus": 2, "limit_price_per_gpu_hour": "4.000000"}}'
    lines = [
        f"the market is open after {total_s:.1f} s: {url}  (API: {url}/openapi.json)",
        f"data in {options.data_dir}; a tick every {options.tick_seconds} s, "
        f"{options.notice_seconds} s of preemption notice",
        "",
        "in a browser, signed in as a buyer with $1,000 of demo money (once, within 10 minutes):",
        f"  {link}",
        "",
        f"  buyer's key     {people.buyer.key}",
        f"  owner's key     {people.owner.key}",
        f"  operator's key  {people.operator.key}",
        "",
        "try:",
        f"  curl -s {url}/v1/markets -w '\\n'",
        f"  curl -s '{url}/v1/markets/{market}/quote?gpus=2' -w '\\n'",
        f"  KEY={people.buyer.key}",
        f'  curl -s {url}/v1/bids -H "Authorization: Bearer $KEY" '
        f"-H 'Content-Type: application/json' -d '{bid}' -w '\\n'",
        f'  curl -s {url}/v1/leases -H "Authorization: Bearer $KEY" -w "\\n"',
        f"  curl -s '{url}/v1/notices?wait_seconds=20' -H \"Authorization: Bearer $KEY\" -w '\\n'",
        f'  curl -s {url}/v1/balance -H "Authorization: Bearer $KEY" -w "\\n"',
        f'  curl -s {url}/v1/ledger/entries -H "Authorization: Bearer $KEY" -w "\\n"',
        f"  export FALLOW_URL={url} FALLOW_KEY=$KEY",
        "  fallow market ls",
        f"  fallow bid place {market} --gpus 2 --limit 4.00",
        "",
        f"beside it:  fallow audit --data-dir {options.data_dir}",
        f"beside it:  fallow demo squeeze --data-dir {options.data_dir}",
        f"beside it:  fallow demo link --role owner --data-dir {options.data_dir}",
        "Ctrl-C ends everything; the same command goes on where it was.",
    ]
    return "\n".join(lines)
