"""Recorded histories of one account's balance over HTTP, checked for linearizability.

Clients of one account deposit, bid, cancel and read the balance at once; some go away before the answer, and
the server's connections to its database are cut meanwhile, so some calls never learn what became of them.
A state is (available, held) with the bids that are open; every answer must fit into one order of all calls.
The checker is measured too: of histories with a seeded bug it must reject 95 %.
"""

import asyncio
import random
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from api.config import Config
from auction.ids import random_id
from auction.units import parse_microusd
from sql.pool import open_database
from tests.api.conftest import MARKET, Venue, serving
from tests.crash.linearizability import NEVER, Call, is_linearizable
from tests.crash.postgres_proxy import Proxy
from tests.crash.purse import Purse, Step, cancelled, deposited, placed, refused, was_read
from tests.crash.seeded_histories import measure
from tests.proof.promise import Outcome, Promise, Size

HISTORIES = {Size.SHORT: 2, Size.FULL: 100}
CALLS = {Size.SHORT: 80, Size.FULL: 200}
SEEDED = {Size.SHORT: 200, Size.FULL: 1_000}
REJECTED_SHARE_MIN = 0.95
CLIENTS = 5
GONE_SHARE = 0.05  # of the calls whose client does not wait for the answer
GONE_SECONDS = 0.004
ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 0.01
CUT_SECONDS = 0.5
DEPOSIT_MAX = 5_000
SMALL_PURSE = 3  # bids that the opening balance covers


class Recorder:
    """Clients of one account, and the history that they write."""

    def __init__(self, venue: Venue, key: str, hold: int, dice: random.Random) -> None:
        self._venue = venue
        self._key = key
        self._hold = hold
        self._dice = dice
        self.calls: list[Call] = []

    async def client(self, count: int) -> None:
        """Make so many calls, one after the other."""
        own: list[str] = []
        for _ in range(count):
            draw = self._dice.random()
            if draw < 0.35:
                await self._call("GET", "/v1/balance", None, lambda made: was_read(*_balance(made)), None)
            elif draw < 0.5:
                amount = self._dice.randrange(1, DEPOSIT_MAX)
                step = deposited(amount)
                body = {"amount": f"{amount / 1e6:.6f}"}
                await self._call("POST", "/v1/deposits", body, lambda _, step=step: step, step)
            elif draw < 0.75 or not own:
                await self._place(own)
            else:
                bid = own.pop(self._dice.randrange(len(own)))
                step = cancelled(bid, self._hold)
                await self._call("DELETE", f"/v1/bids/{bid}", None, lambda _, step=step: step, step)

    async def _place(self, own: list[str]) -> None:
        body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
        unknown = placed(f"unknown {len(self.calls)} {self._dice.random()}", self._hold)

        def step(made: Any) -> Step:
            own.append(made["id"])
            return placed(made["id"], self._hold)

        await self._call("POST", "/v1/bids", body, step, unknown)

    async def _call(
        self, method: str, path: str, body: Any, fits: Callable[[Any], Step], perhaps: Step | None
    ) -> None:
        """Make one call, again while the market is away; `perhaps` is what it does if nobody is told."""
        loop, headers = asyncio.get_running_loop(), {"Idempotency_Key": random_id("key")}
        is_gone = perhaps is not None and self._dice.random() < GONE_SHARE
        began, answered = loop.time(), None
        try:
            async with asyncio.timeout(GONE_SECONDS if is_gone else ANSWER_SECONDS):
                while answered is None or answered.status in (409, 503):
                    answered = await self._venue.call(method, path, self._key, body, **headers)
                    await asyncio.sleep(PAUSE_SECONDS if answered.status in (409, 503) else 0)
        except TimeoutError:
            answered = None
        ended, text = loop.time(), f"{method} {path}"
        if answered is None:
            self.calls.append(Call(began, NEVER, perhaps or _nothing, f"{text}: nobody told"))
        elif answered.status < 300:
            self.calls.append(Call(began, ended, fits(answered.json), f"{text}: {answered.raw[:80]!r}"))
        elif answered.status == 402:
            self.calls.append(Call(began, ended, refused(self._hold), f"{text}: 402"))
        else:
            # Nothing else can be said to these calls; an answer that fits nowhere is a violation.
            self.calls.append(Call(began, ended, _impossible, f"{text}: {answered.status}"))


def _nothing(purse: Purse) -> Purse:
    return purse


def _impossible(_: Purse) -> None:
    return None


def _balance(made: Any) -> tuple[int, int]:
    return parse_microusd(made["available"]), parse_microusd(made["held"])


async def record(
    histories: int, calls: int, seed: int, change: Callable[[Venue], None] | None = None
) -> list[tuple[list[Call], Purse]]:
    """Record histories on a real server, each of an account of its own; `change` may plant a bug in it."""
    dice, recorded = random.Random(seed), []
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = await stack.enter_async_context(open_database(url=None, data_dir=directory / "data"))
        await direct.prepare(apply_migrations=True)
        (directory / "proxy").mkdir()
        proxy = await stack.enter_async_context(Proxy(direct, directory / "proxy"))
        venue = await stack.enter_async_context(serving(proxy.database, Config(port=0, is_demo=True)))
        await venue.open_market()
        if change is not None:
            change(venue)
        for _ in range(histories):
            recorded.append(await _record_one(venue, proxy, calls, dice))
    return recorded


async def _record_one(
    venue: Venue, proxy: Proxy, calls: int, dice: random.Random
) -> tuple[list[Call], Purse]:
    _, key = await venue.open_account("buyer")
    body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    hold = parse_microusd((await venue.call("POST", "/v1/bids/preview", key, body)).json["required"])
    await venue.ok("POST", "/v1/deposits", key, {"amount": f"{SMALL_PURSE * hold / 1e6:.6f}"})
    recorder = Recorder(venue, key, hold, dice)
    clients = [asyncio.create_task(recorder.client(calls // CLIENTS)) for _ in range(CLIENTS)]

    async def keep_cutting() -> None:
        while True:
            await asyncio.sleep(dice.random() * 2 * CUT_SECONDS)
            proxy.cut_all()

    cutting = asyncio.create_task(keep_cutting())
    await asyncio.gather(*clients)
    cutting.cancel()

    async def writes_again() -> bool:
        answered = await venue.call("POST", "/v1/deposits", key, {"amount": "0.000001"})
        return answered.status == 201

    await venue.until(writes_again, "a write after the last cut")
    return recorder.calls, (SMALL_PURSE * hold, 0, frozenset())


def _violations(recorded: list[tuple[list[Call], Purse]]) -> list[str]:
    return [
        f"history {number} of {len(calls)} calls fits no order"
        for number, (calls, purse) in enumerate(recorded)
        if not is_linearizable(calls, purse)
    ]


def run(size: Size, seed: int) -> Outcome:
    """Record and check; then measure the checker on histories with a seeded bug."""
    recorded = asyncio.run(record(HISTORIES[size], CALLS[size], seed))
    wrong = _violations(recorded)
    calls = [call for history, _ in recorded for call in history]
    untold = sum(call.ended == NEVER for call in calls)
    rejected, alarms = measure(SEEDED[size], seed)
    share = rejected / SEEDED[size]
    figure = f"{len(recorded)} histories of {len(calls):,} calls, {untold} without an answer: "
    figure += f"{len(wrong)} fit no order; the checker rejects {share:.1%} of {SEEDED[size]:,} seeded bugs "
    figure += f"and {alarms} of as many sound histories"
    return Outcome(not wrong and share >= REJECTED_SHARE_MIN and not alarms, figure)


PROMISES = [
    Promise(
        name="linearizable-balances",
        promise="However many act on one account at once, its balance is as if they had acted one by one",
        method="recorded histories of deposits, bids, cancels and reads over HTTP, with lost connections",
        target="every history linearizable; the checker rejects 95 % of seeded bugs, and no sound history",
        run=run,
    )
]
