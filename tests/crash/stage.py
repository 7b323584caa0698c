"""A venue under a clock that the test moves: a market, its people, and how a trial finds it."""

from typing import Any

from auction.clock import ManualClock
from auction.commands import ReportLease
from auction.errors import Unavailable
from auction.model import LeaseState
from tests.api.conftest import MARKET, Venue

TICK_SECONDS = 60


class Stage:
    """A venue under a clock that the test moves."""

    def __init__(self, venue: Venue, clock: ManualClock) -> None:
        self.venue = venue
        self.clock = clock
        self.owner_account = self.buyer_account = ""
        self._waits = 0

    async def open(self) -> None:
        """Make a market with a buyer, an owner, machines and money."""
        await self.venue.open_market(tick_seconds=TICK_SECONDS, notice_seconds=30)
        self.buyer_account, self.venue.buyer = await self.venue.open_account("buyer")
        self.owner_account, self.venue.owner = await self.venue.open_account("owner")
        await self.venue.ok("POST", "/v1/deposits", self.venue.buyer, {"amount": "1000000.00"})
        await self.venue.ok("POST", "/v1/deposits", self.venue.owner, {"amount": "1.00"})
        await self.venue.offer_node(gpus=8)

    async def reach_tick(self) -> None:
        """Move to the market's next tick, and return when it is durable."""
        engine, market = self.venue.engine, self.venue.engine.core.markets[MARKET]
        tick = market.tick
        self.clock.advance_to(max(self.clock.now_us(), market.next_tick_at_us))

        async def ticked() -> bool:
            try:
                await engine.settled()
            except Unavailable:
                self.wait_once_more()
                return False
            return engine.core.markets[MARKET].tick > tick

        await self.venue.until(ticked, "a tick that is durable")

    async def clear(self) -> None:
        """End what earlier operations left, and leave some seconds before the next tick."""
        venue = self.venue
        await venue.ok("DELETE", f"/v1/bids?market={MARKET}&release=true", venue.buyer)
        await venue.ok("POST", "/v1/bids/cancel-after", venue.buyer, {"timeout_seconds": 0})
        for target in (await venue.ok("GET", "/v1/targets", venue.buyer))["data"]:
            if target["state"] in ("active", "paused"):
                await venue.ok("DELETE", f"/v1/targets/{target['id']}", venue.buyer)
        for webhook in (await venue.ok("GET", "/v1/webhooks", venue.buyer))["data"]:
            await venue.ok("DELETE", f"/v1/webhooks/{webhook['id']}", venue.buyer)
        for payout in (await venue.ok("GET", "/v1/operator/payouts", venue.operator))["data"]:
            await venue.ok("POST", f"/v1/operator/payouts/{payout['id']}/failed", venue.operator, {})
        left_us = venue.engine.core.markets[MARKET].next_tick_at_us - self.clock.now_us()
        if left_us < 20_000_000:
            await self.reach_tick()

    def wait_once_more(self) -> None:
        """Let some time pass now and then: the engine pauses before it looks for storage again."""
        self._waits += 1
        if self._waits % 50 == 0:
            self.clock.advance(0.25)

    async def bid(self, **fields: Any) -> dict[str, Any]:
        return dict(await self.venue.place(gpus=1, **fields))

    async def lease(self) -> dict[str, Any]:
        """Return a lease of the buyer that runs."""
        venue, bid = self.venue, await self.bid()
        await self.reach_tick()
        for lease in list(venue.engine.core.leases.values()):
            if lease.state is LeaseState.STARTING:
                await venue.engine.execute(ReportLease(lease.id, self.owner_account, "started"))
        self.clock.advance(5)  # so that its end has something to charge, whenever it comes
        (found,) = (await venue.ok("GET", f"/v1/leases?bid={bid['id']}", venue.buyer))["data"]
        return dict(found)
