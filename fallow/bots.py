"""The demo's live crowd: ordinary clients of the HTTP API, each with its own key.

Buyers place, raise and cancel, and are topped up when their money is gone; owners recall a machine now
and then and post it again. Their pace is bounded, their dice are seeded, and an answer they did not
expect only makes them wait: they are visitors, not part of the server.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from auction.units import format_microusd
from fallow.dice import Dice
from fallow.people import People, Person
from fallow.world import LIMIT_PERCENT, Venue, draw_limit

BUYER_PAUSE_MILLISECONDS = 8_000
OWNER_PAUSE_SECONDS = 25.0
TOP_UP_USD = "200.00"
BIDS_PER_BOT_MAX = 14
REQUEST_SECONDS_MAX = 10.0
BACK_OFF_SECONDS = 3.0

log = logging.getLogger(__name__)


class Crowd:
    """All bots of a demo. Start once, stop once."""

    def __init__(self, url: str, venues: Sequence[Venue], people: People, seed: int) -> None:
        self._url = url
        self._venues = venues
        self._people = people
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        self._session = aiohttp.ClientSession(self._url, timeout=timeout)
        for number, bot in enumerate(self._people.bots):
            self._tasks.append(asyncio.create_task(self._buyer(bot, Dice(self._seed, "buyer", number))))
        self._tasks.append(asyncio.create_task(self._owners(Dice(self._seed, "owners"))))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        if self._session is not None:
            await self._session.close()

    async def _call(self, who: Person, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request; return (status, document). Raises aiohttp.ClientError, TimeoutError."""
        assert self._session is not None
        headers = {"Authorization": f"Bearer {who.key}"}
        async with self._session.request(method, path, json=body, headers=headers) as response:
            document = await response.json(content_type=None) if response.content_length != 0 else None
            if response.status >= 400:
                log.debug("%s %s: %s %s", method, path, response.status, document)
            return response.status, document

    async def _buyer(self, bot: Person, dice: Dice) -> None:
        while True:
            await asyncio.sleep(dice.between(1, BUYER_PAUSE_MILLISECONDS) / 1_000)
            try:
                await self._act(bot, dice)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s waits: %r", bot.name, error)
                await asyncio.sleep(BACK_OFF_SECONDS)

    async def _act(self, bot: Person, dice: Dice) -> None:
        _, document = await self._call(bot, "GET", f"/v1/bids?limit={4 * BIDS_PER_BOT_MAX}")
        bids = [
            bid
            for bid in (document or {}).get("data", [])
            if bid["status"] in ("open", "partial", "filled", "preempting")
        ]
        roll = dice.below(100)
        if bids and (roll < 20 or len(bids) >= BIDS_PER_BOT_MAX):
            bid = dice.choice(bids)
            await self._call(bot, "DELETE", f"/v1/bids/{bid['id']}")
            return
        waiting = [bid for bid in bids if bid["status"] != "filled"]
        if waiting and roll < 40:
            await self._raise(bot, dice.choice(waiting))
            return
        venue = dice.choice(self._venues)
        gpus = dice.choice([1, 1, 2, 2, 4, 8])
        limit = draw_limit(dice, dice.choice(sorted(LIMIT_PERCENT)), venue.levels[-1])
        status, _ = await self._call(
            bot,
            "POST",
            "/v1/bids",
            {
                "market": venue.id,
                "gpus": gpus,
                "min_gpus": gpus if dice.happens(40) else 1,
                "limit_price_per_gpu_hour": format_microusd(limit),
            },
        )
        if status == 402:  # out of money: now and then somebody tops it up
            await self._call(bot, "POST", "/v1/deposits", {"amount": TOP_UP_USD, "reference": "top-up"})

    async def _raise(self, bot: Person, bid: dict[str, Any]) -> None:
        """Pay a tenth more than before, on the market's grid."""
        whole, fraction = bid["limit_price_per_gpu_hour"].split(".")
        microusd = int(whole) * 1_000_000 + int(fraction)
        raised = format_microusd(microusd * 11 // 10 // 100 * 100)
        await self._call(bot, "PATCH", f"/v1/bids/{bid['id']}", {"limit_price_per_gpu_hour": raised})

    async def _owners(self, dice: Dice) -> None:
        """Recall one machine, keep it for a while, post it again at the same reserve."""
        machines = [machine for venue in self._venues for machine in venue.machines]
        while True:
            await asyncio.sleep(OWNER_PAUSE_SECONDS)
            machine = dice.choice(machines)
            owner = self._people.owners[machine.host]
            try:
                _, document = await self._call(owner, "GET", "/v1/nodes?limit=500")
                node = next(x for x in document["data"] if x["name"] == machine.name)
                await self._call(owner, "POST", f"/v1/nodes/{node['id']}/recall", {})
                await asyncio.sleep(OWNER_PAUSE_SECONDS)
                offer = {
                    "node": node["id"],
                    "gpus": machine.gpus,
                    "reserve_price_per_gpu_hour": format_microusd(machine.reserve),
                }
                await self._call(owner, "POST", "/v1/offers", offer)
            except (aiohttp.ClientError, TimeoutError, StopIteration) as error:
                log.debug("%s waits: %r", owner.name, error)
