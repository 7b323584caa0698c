"""Targets over HTTP: say what is wanted, see how far it has come, pause, change, cancel.

A target is a row beside the auction (sql/target_store.py): a change and the answer kept under its
idempotency key are one transaction, then its runner acts on it at once. What a new target's first bid
would be refused for, the target is refused for.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from api.call import Call, Reply, stored_version
from api.codec import Page
from api.errors import problem_answer
from api.fields import Cursor, PageLimit, is_object_id
from api.limits import unconfirmed_max
from api.paging import page, read_key, read_number
from api.routes import NoBody, NoQuery, route
from api.wire import BidView, bid_view
from api.wire_targets import (
    AmendTargetBody,
    DeadlineBody,
    HoldBody,
    PaceBody,
    TargetBody,
    TargetView,
    target_view,
)
from auction import admission
from auction.core import Core
from auction.errors import NotFound, Rejection
from auction.ids import random_id
from auction.model import OFFER_LIVE, Market, NodeState
from auction.ports import Answer
from auction.targets import (
    DEADLINE_AHEAD_US_MAX,
    SPREAD_WIDTHS,
    TARGET_FINAL,
    Situation,
    Supply,
    Target,
    TargetKind,
    TargetState,
    Wanted,
    begin_day,
    bid_of,
    check_reachable,
    next_bid,
    plan,
)
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price
from sql.target_store import TargetEditor

TARGETS_PER_ACCOUNT_MAX = 100
TARGETS_MAX = 10_000


class TargetsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 50  # each is a small sum over its bids
    cursor: Cursor | None = None


class TargetBidsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("POST", "/v1/targets", scope="bids:write", status=201)
async def create_target(call: Call[TargetBody, NoQuery]) -> Reply[TargetView]:
    """Have the market bid for you: hold GPUs, buy work by a deadline, or spend a budget a day evenly."""
    market = call.core.markets.get(call.body.market)
    if market is None:
        known = ", ".join(sorted(call.core.markets)[:20])
        raise Rejection("market_not_found", f"no such market; there are: {known}", pointer="/market")
    supply = _supply(call.core, market)
    most = None if call.body.confirm_limit else await unconfirmed_max(call.services, market.id, call.now_us)
    name = random_id("tgt")

    async def act(editor: TargetEditor) -> TargetView:
        # Here and not before: for a repeat under its key the first attempt's bid has taken the money.
        target = _target(call, name, market, supply, most)
        _check_limit(market, target.limit, most)
        check_reachable(target, market, supply)
        _check_first_bid(call, target, market)
        own, total = await editor.count_unsettled()
        if own >= TARGETS_PER_ACCOUNT_MAX or total >= TARGETS_MAX:
            detail = f"{TARGETS_PER_ACCOUNT_MAX} targets of an account, {TARGETS_MAX} in all, at a time"
            raise Rejection("target_limit_reached", detail)
        await editor.put(target)
        return target_view(target, None)

    return await _change(call, name, act)


@route("GET", "/v1/targets", scope="bids:read")
async def list_targets(call: Call[NoBody, TargetsQuery]) -> Reply[Page[TargetView]]:
    """List your targets, newest first."""
    found = await call.services.targets.targets(
        call.account, before=read_key(call.query.cursor), limit=call.query.limit
    )
    last = found.last and (found.last.created_at_us, found.last.id)
    views = [target_view(target, await call.services.runner.situation(target)) for target in found.rows]
    return call.reply(page(views, last))


@route("GET", "/v1/targets/{target}", scope="bids:read")
async def get_target(call: Call[NoBody, NoQuery]) -> Reply[TargetView]:
    """Show a target: what it has bought, what it spent, and the bid that is live for it."""
    target = await _own(call)
    return call.reply(target_view(target, await call.services.runner.situation(target)))


@route("GET", "/v1/targets/{target}/bids", scope="bids:read")
async def list_target_bids(call: Call[NoBody, TargetBidsQuery]) -> Reply[Page[BidView]]:
    """List the bids that were placed for a target, newest first: each an ordinary bid of yours."""
    target = await _own(call)
    last = min(target.bids, read_number(call.query.cursor) - 1)
    first = max(1, last - call.query.limit + 1)
    names = [bid_of(target.id, number) for number in range(first, last + 1)]
    rows = await call.services.reader.bids_named(call.account, names)
    views = [bid_view(row.bid, row.head, row.leases) for row in rows]
    return call.reply(page(views, first if first > 1 else None))


@route("PATCH", "/v1/targets/{target}", scope="bids:write", if_match="optional")
async def amend_target(call: Call[AmendTargetBody, NoQuery]) -> Reply[TargetView]:
    """Pause or resume a target, or change its limit or how many GPUs it may have."""
    body, version = call.body, call.expected_version()
    if body in (AmendTargetBody(), AmendTargetBody(confirm_limit=True)):
        raise Rejection("nothing_to_change", "expected at least one field")
    found = await _own(call)
    market = call.core.markets[found.market]
    limit = body.limit_price_per_gpu_hour
    if limit is not None:
        most = None if body.confirm_limit else await unconfirmed_max(call.services, market.id, call.now_us)
        _check_limit(market, Price(limit), most)
    situation = await call.services.runner.situation(found)

    async def act(editor: TargetEditor) -> TargetView:
        target = await _find(call, editor, version)
        changed = replace(
            target,
            gpus=target.gpus if body.gpus is None else body.gpus,
            limit=target.limit if limit is None else Price(limit),
            version=target.version + 1,
            updated_at_us=call.now_us,
        )
        if changed.gpus < target.min_gpus:
            raise Rejection("gpus_out_of_range", f"gpus is below min_gpus {target.min_gpus}", pointer="/gpus")
        if body.paused is not None:
            changed = replace(changed, state=TargetState.PAUSED if body.paused else TargetState.ACTIVE)
        await editor.put(changed)
        return target_view(changed, situation)

    return await _change(call, found.id, act)


@route("DELETE", "/v1/targets/{target}", scope="bids:write", bucket="exits", if_match="optional")
async def cancel_target(call: Call[NoBody, NoQuery]) -> Reply[TargetView]:
    """Cancel a target and its bid; its leases end now."""
    found, version = await _own(call), call.expected_version()
    situation = await call.services.runner.situation(found)

    async def act(editor: TargetEditor) -> TargetView:
        target = await _find(call, editor, version)
        cancelled = replace(
            target,
            state=TargetState.CANCELLED,
            reason=None,
            version=target.version + 1,
            updated_at_us=call.now_us,
        )
        await editor.put(cancelled)
        return target_view(cancelled, situation)

    return await _change(call, found.id, act)


def _target(call: Call[Any, Any], name: str, market: Market, supply: Supply, most: Price | None) -> Target:
    """Return the target that a body describes, its defaults filled in."""
    assert call.principal is not None
    body, now_us = call.body, call.now_us
    limit, gpus, gpu_seconds, per_day = body.limit_price_per_gpu_hour, body.gpus, None, None
    match body:
        case HoldBody():
            kind = TargetKind.HOLD
        case DeadlineBody():
            kind, gpu_seconds = TargetKind.DEADLINE, body.gpu_seconds
            left_s = max(1, (body.ends_at - now_us) // MICROSECONDS_PER_SECOND)
            gpus = gpus or max(body.min_gpus, min(supply.gpus, -(-SPREAD_WIDTHS * gpu_seconds // left_s)))
            limit = min(market.price_cap, most or market.price_cap) if limit is None else limit
        case PaceBody():
            kind, per_day, gpus = TargetKind.PACE, body.spend_per_day, gpus or max(body.min_gpus, supply.gpus)
    if body.min_gpus > gpus:
        raise Rejection("min_gpus_out_of_range", f"min_gpus is 1..{gpus}", pointer="/min_gpus")
    ends_at_us = body.ends_at
    if ends_at_us is not None and not 0 < ends_at_us - now_us <= DEADLINE_AHEAD_US_MAX:
        earliest = now_us + market.tick_seconds * MICROSECONDS_PER_SECOND
        accepted = {"ends_at": earliest if ends_at_us <= now_us else now_us + DEADLINE_AHEAD_US_MAX}
        detail = "ends_at is in the past, or more than 31 days ahead"
        raise Rejection("target_unreachable", detail, pointer="/ends_at", accepted=accepted)
    target = Target(
        id=name,
        account=call.account,
        key=call.principal.key,
        kind=kind,
        market=market.id,
        gpus=gpus,
        min_gpus=body.min_gpus,
        limit=Price(limit),
        gpu_seconds=gpu_seconds,
        ends_at_us=ends_at_us,
        max_spend=None if body.max_spend is None else Amount(body.max_spend),
        spend_per_day=None if per_day is None else Amount(per_day),
        created_at_us=now_us,
        updated_at_us=now_us,
    )
    if kind is TargetKind.PACE:
        day, day_cap = begin_day(target, now_us, Amount(0))
        target = replace(target, day=day, day_cap=day_cap)
    return target


def _supply(core: Core, market: Market) -> Supply:
    """Return what the market has: simulated and enrolled nodes, and every offer, leased or not."""
    nodes = [node for node in core.nodes.values() if node.market == market.id]
    gpus = sum(node.gpus for node in nodes if node.state is not NodeState.ENROLLING)
    offers = [offer for offer in core.offers.values() if offer.market == market.id]
    reserves = [offer.gross_reserve for offer in offers if offer.status in OFFER_LIVE]
    return Supply(gpus, min(reserves, default=None))


def _check_limit(market: Market, limit: Price, most: Price | None) -> None:
    pointer = "/limit_price_per_gpu_hour"
    admission.price_on_grid(market, limit, pointer, minimum=market.price_increment)
    admission.confirmed(limit, most)


def _check_first_bid(call: Call[Any, Any], target: Target, market: Market) -> None:
    """Refuse a target whose bid the engine would refuse now; raises what that would raise."""
    nothing, price = Amount(0), call.core.quote(market.id, 1, 1).price_to_fill
    wanted = plan(target, Situation(call.now_us, market, price, None, None, nothing, nothing, 0, 0))
    if isinstance(wanted, Wanted):
        call.core.preview(next_bid(target, wanted))


async def _change(
    call: Call[Any, Any], target: str, act: Callable[[TargetEditor], Awaitable[TargetView]]
) -> Reply[Any]:
    """Let `act` change this account's targets, keep the answer with the change, and act on it at once."""

    async def decide(editor: TargetEditor) -> Answer:
        try:
            return call.answer(call.status, await act(editor))
        except Rejection as rejection:
            # Nothing was written: every act looks before it writes.
            return problem_answer(call.problem(rejection), call.codec)

    answer, is_replay = await call.services.targets.once(
        call.account, call.keyed_request(), call.now_us, decide
    )
    if not is_replay:
        await call.services.runner.take(call.account, target)
    return Reply(
        answer=answer,
        headers={"Idempotency-Replayed": "true"} if is_replay else {},
        version=stored_version(answer),
    )


async def _own(call: Call[Any, Any]) -> Target:
    name = call.path_part("target")
    found = await call.services.targets.target(call.account, name) if is_object_id(name) else None
    return call.found(found, "target")


async def _find(call: Call[Any, Any], editor: TargetEditor, version: int | None) -> Target:
    name = call.path_part("target")
    if not is_object_id(name):
        raise NotFound("target")
    target = await editor.find(name)
    admission.version(target.version, version)
    if target.state in TARGET_FINAL:
        raise Rejection("target_final", f"the target is {target.state.value}")
    return target
