"""Order entry, whatever brought it: from a body to the engine's command, from its outcome to the view.

HTTP and the WebSocket share every decision made here, so a bid means the same on both. Knows accounts
and structs; must not know requests, sockets or codecs.
"""

from typing import Any

from api.auth import Principal
from api.errors import problem_of
from api.fields import format_instant_or_none, is_object_id
from api.limits import unconfirmed_max
from api.services import Services
from api.wire import (
    AmendBidBody,
    AmendOperation,
    BatchView,
    BidView,
    CancelAfterView,
    CancelOperation,
    Operation,
    PlaceBidBody,
    PlaceOperation,
    ResultView,
    bid_view,
)
from api.wire_workloads import content_of
from auction.bidding import PlacedBid
from auction.commands import AmendBid, CancelBid, Choice, Command, PlaceBid
from auction.core import Core
from auction.errors import Rejection
from auction.ids import random_id
from auction.model import BID_FINAL, Account, Bid, Colocate, OnPreempt, TimeInForce
from auction.units import Amount, Price


async def placing(services: Services, principal: Principal, body: PlaceBidBody) -> PlaceBid:
    """Return the command that places this bid, with the defaults that depend on other fields."""
    minimum = body.min_gpus
    if minimum is None:
        minimum = 1 if body.colocate is Colocate.NONE else body.gpus
    time_in_force = body.time_in_force or (TimeInForce.GTT if body.expires_at else TimeInForce.GTC)
    choices = await _choices(services, body)
    return PlaceBid(
        bid=random_id("bid"),
        account=principal.account,
        market=choices[0].market,
        gpus=body.gpus,
        limit=choices[0].limit,
        min_gpus=minimum,
        colocate=body.colocate,
        time_in_force=time_in_force,
        expires_at_us=body.expires_at,
        valid_until_tick=body.valid_until_tick,
        max_run_seconds=body.max_run_seconds,
        max_spend=_amount(body.max_spend),
        on_preempt=body.on_preempt
        or (OnPreempt.CANCEL if time_in_force is TimeInForce.IOC else OnPreempt.REQUEUE),
        client_bid_id=body.client_bid_id,
        labels=body.labels or {},
        key=principal.key,
        unconfirmed_max=choices[0].unconfirmed_max,
        workload=content_of(body.ssh_public_key, body.payload),
        alternatives=[] if body.alternatives is None else choices,
    )


async def _choices(services: Services, body: PlaceBidBody) -> list[Choice]:
    """Return the markets and limits that a bid names; raises Rejection where it names none, or both ways."""
    if body.alternatives is None:
        for name in ("market", "limit_price_per_gpu_hour"):
            if getattr(body, name) is None:
                raise Rejection("missing_field", f"expected `{name}`, or `alternatives`", pointer=f"/{name}")
        named = [(body.market, body.limit_price_per_gpu_hour)]
    elif body.market is not None or body.limit_price_per_gpu_hour is not None:
        raise Rejection(
            "alternatives_invalid",
            "expected `market` and its limit, or `alternatives`, not both",
            pointer="/alternatives",
        )
    else:
        named = [(one.market, one.limit_price_per_gpu_hour) for one in body.alternatives]
    return [
        Choice(market, Price(limit), await _unconfirmed_max(services, market, body.confirm_limit))
        for market, limit in named
        if market is not None and limit is not None
    ]


async def amending(
    services: Services, principal: Principal, bid: str, body: AmendBidBody, version: int | None
) -> AmendBid:
    """Return the command that changes this bid.

    Raises Rejection (`bid_of_target`) for a bid that a target looks after.
    """
    found = services.engine.core.bids.get(bid)
    market = found.market if found is not None and found.account == principal.account else ""
    if found is not None and market and (target := services.runner.target_of(found)) is not None:
        raise Rejection("bid_of_target", f"target {target} looks after this bid", pointer="/labels/target")
    limit = body.limit_price_per_gpu_hour
    return AmendBid(
        bid=bid,
        account=principal.account,
        limit=None if limit is None else Price(limit),
        gpus=body.gpus,
        min_gpus=body.min_gpus,
        paused=body.paused,
        expected_version=version,
        expires_at_us=body.expires_at,
        max_run_seconds=body.max_run_seconds,
        max_spend=_amount(body.max_spend),
        on_preempt=body.on_preempt,
        key=principal.key,
        unconfirmed_max=None
        if limit is None
        else await _unconfirmed_max(services, body.market or market, body.confirm_limit),
        market=body.market,
    )


def require_change(body: AmendBidBody) -> None:
    """Refuse an amendment that says nothing: Rejection `nothing_to_change`."""
    names = (name for name in AmendBidBody.__struct_fields__ if name not in ("confirm_limit", "market"))
    if all(getattr(body, name) is None for name in names):
        raise Rejection("nothing_to_change", "expected at least one field")


async def command_of(services: Services, principal: Principal, operation: Operation) -> Command:
    """Return the command of one operation of a batch."""
    match operation:
        case PlaceOperation():
            return await placing(services, principal, operation)
        case AmendOperation():
            return await amending(services, principal, operation.id, operation, operation.version)
        case CancelOperation():
            return CancelBid(operation.id, principal.account, operation.release, operation.version)


def cancelling_all(core: Core, account: str, market: str, release: bool) -> list[Command]:
    """Return the commands that cancel an account's live bids of one market.

    Raises Rejection (`market_not_found`).
    """
    if market not in core.markets:
        raise Rejection("market_not_found", "no such market")
    return [
        CancelBid(bid.id, account, release)
        for bid in core.bids.values()
        if bid.account == account and bid.market == market and bid.status not in BID_FINAL
    ]


async def absent_bid(services: Services, account: str, bid: str) -> Rejection | None:
    """Say why the engine may not know this bid: it keeps live ones, the database all of them."""
    if bid in services.engine.core.bids or not is_object_id(bid):
        return None
    row = await services.reader.bid(account, bid)
    return None if row is None else Rejection("bid_final", f"the bid is {row.bid.status}")


async def absent_notice(services: Services, account: str, notice: str) -> Rejection | None:
    """Say why the engine may not know this notice; None when it never was, or is somebody else's."""
    if not is_object_id(notice):
        return None
    stored = await services.reader.notice(account, notice)
    return None if stored is None else Rejection("notice_closed", f"the notice is {stored.state}")


def shown(core: Core, bid: Bid) -> BidView:
    """Show a bid as the engine just left it."""
    return bid_view(bid, core.markets[bid.market], core.leases_of(bid.id))


def placed_status(placed: PlacedBid) -> int:
    """Return 201 for a new bid, 200 for the repeat of one."""
    return 200 if placed.is_repeat else 201


def batch_view(core: Core, outcomes: list[Any], request_id: str) -> BatchView:
    """Show each outcome of a batch with its own status."""
    return BatchView([_result(core, outcome, request_id) for outcome in outcomes])


def switch_view(account: Account) -> CancelAfterView:
    """Show an account's dead man's switch."""
    return CancelAfterView(format_instant_or_none(account.cancel_at_us), account.cancel_releases)


def _result(core: Core, outcome: Any, request_id: str) -> ResultView:
    match outcome:
        case Rejection():
            problem = problem_of(outcome, request_id)
            return ResultView(problem.status, problem=problem)
        case PlacedBid(bid=bid):
            return ResultView(placed_status(outcome), bid=shown(core, bid))
        case _:
            return ResultView(200, bid=shown(core, outcome))


async def _unconfirmed_max(services: Services, market: str, is_confirmed: bool) -> Price | None:
    if is_confirmed:
        return None
    return await unconfirmed_max(services, market, services.engine.clock.now_us())


def _amount(value: int | None) -> Amount | None:
    return None if value is None else Amount(value)
