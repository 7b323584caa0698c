"""`fallow demo squeeze`: rivals who want every GPU of a market and pay a little more than you.

They are an account of their own, opened and funded for this one squeeze; their bids end by themselves. What
they bid is above your limit by the market's handicap and a step, so that your lease is outbid at the next
tick, and low enough that you can answer.
"""

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from auction.units import format_microusd, parse_microusd
from fallow.visits import Visitor, visiting_demo_of

RIVAL_USD = "5000.00"
RIVAL_BIDS = 4
NOTICE_WAIT_SECONDS_MAX = 30
ABOVE_PERCENT = 1
BASIS_POINTS = 10_000


class NothingRuns(Exception):
    """There is nothing to squeeze, or no price above yours."""


@dataclass(frozen=True, slots=True)
class Squeezed:
    """What a squeeze set in motion."""

    market: str
    lease: str
    bid: str
    your_limit: str
    rival_limit: str
    rival_gpus: int
    rivals_until: str
    reclaim_at: str | None  # None: no notice came in time
    keep_price: str | None
    watch: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def words(self) -> str:
        lines = [
            f"rivals bid ${self.rival_limit} for {self.rival_gpus} GPUs in {self.market}, above your"
            f" ${self.your_limit}; they give up at {self.rivals_until}",
        ]
        if self.reclaim_at is None:
            lines.append("no notice came: your lease runs on")
        else:
            lines.append(f"your lease {self.lease} has its notice: it is reclaimed at {self.reclaim_at}")
            lines.append(f"watch and answer it:  {self.watch}")
        if self.keep_price is not None:
            lines.append(f"or stay:  fallow bid amend {self.bid} --limit {self.keep_price}")
        return "\n".join(lines)


async def squeeze(directory: Path, market: str | None, seconds: int) -> Squeezed:
    """Outbid the buyer of the demo on a directory. Raises NoDemo, NothingRuns, Refused."""
    async with visiting_demo_of(directory) as visitor:
        lease, bid = await _target(visitor, market)
        terms = await visitor.call(visitor.key_of("buyer"), "GET", f"/v1/markets/{lease['market']}")
        limit = _above(parse_microusd(bid["limit_price_per_gpu_hour"]), terms)
        gpus, until = await _bid_up(visitor, lease["market"], limit, seconds)
        notice = await _notice(visitor, lease["id"])
        return Squeezed(
            market=lease["market"],
            lease=lease["id"],
            bid=bid["id"],
            your_limit=bid["limit_price_per_gpu_hour"],
            rival_limit=format_microusd(limit),
            rival_gpus=gpus,
            rivals_until=until,
            reclaim_at=None if notice is None else notice["reclaim_at"],
            keep_price=None if notice is None else notice["keep_price"],
            watch=f"{visitor.url}/#/bids",
        )


async def _target(visitor: Visitor, market: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the newest running lease of the demo's buyer, and its bid."""
    buyer = visitor.key_of("buyer")
    leases = (await visitor.call(buyer, "GET", "/v1/leases?state=running&limit=500"))["data"]
    found = next((one for one in leases if market is None or one["market"] == market), None)
    if found is None:
        place = f"in {market}" if market else "here"
        raise NothingRuns(f"nothing of yours runs {place}: place a bid first, and wait for its lease")
    return found, await visitor.call(buyer, "GET", f"/v1/bids/{found['bid']}")


def _above(limit: int, market: dict[str, Any]) -> int:
    """Return a price on the market's increment that displaces who runs at `limit`."""
    step, cap = parse_microusd(market["price_increment"]), parse_microusd(market["price_cap"])
    handicap: int = market["handicap_bps"]
    beaten = limit * (BASIS_POINTS + handicap) // BASIS_POINTS
    wanted = -(-beaten * (100 + ABOVE_PERCENT) // 100 // step) * step
    if wanted > cap:
        raise NothingRuns(
            f"your limit ${format_microusd(limit)} is too near the market's cap ${format_microusd(cap)}:"
            " nobody may outbid it"
        )
    return wanted


async def _bid_up(visitor: Visitor, market: str, limit: int, seconds: int) -> tuple[int, str]:
    """Open a rival's account and bid for all GPUs on offer; return how many, and until when."""
    opened = {"name": "rivals", "roles": ["buyer"]}
    account = await visitor.call(visitor.key_of("operator"), "POST", "/v1/operator/accounts", opened)
    rival = account["key"]
    await visitor.call(rival, "POST", "/v1/deposits", {"amount": RIVAL_USD, "reference": "demo money"})
    tick = await visitor.call(rival, "GET", f"/v1/markets/{market}/ticks/latest")
    now = datetime.fromisoformat((await visitor.call(rival, "GET", "/v1/time"))["time"])
    until = (now + timedelta(seconds=seconds)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    gpus = max(1, tick["offered_gpus"])
    shares = [gpus // RIVAL_BIDS + (number < gpus % RIVAL_BIDS) for number in range(RIVAL_BIDS)]
    operations = [
        {
            "op": "place",
            "market": market,
            "gpus": share,
            "limit_price_per_gpu_hour": format_microusd(limit),
            "expires_at": until,
            "confirm_limit": True,
            "labels": {"demo": "squeeze"},
        }
        for share in shares
        if share
    ]
    batch = {"operations": operations, "atomic": True}
    await visitor.call(rival, "POST", "/v1/bids/batch", batch)
    return gpus, until


async def _notice(visitor: Visitor, lease: str) -> dict[str, Any] | None:
    """Wait for the notice of a lease; None when none comes in time."""
    buyer = visitor.key_of("buyer")
    try:
        async with asyncio.timeout(NOTICE_WAIT_SECONDS_MAX):
            while True:
                told = (await visitor.call(buyer, "GET", "/v1/notices?limit=100"))["data"]
                for notice in told:
                    if notice["lease"] == lease and notice["state"] == "issued":
                        found: dict[str, Any] = notice
                        return found
                await asyncio.sleep(0.25)
    except TimeoutError:
        return None
