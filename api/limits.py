"""Limits and brakes: of an account by its operator, of a key by its account; and the second look at a limit.

A key that is itself limited or stopped changes no limits, resumes nobody and makes no keys: a bot cannot
take its own brakes off.
"""

from typing import Any

from api.call import Call, Reply
from api.fields import is_object_id
from api.routes import NoBody, NoQuery, route
from api.services import Services
from api.wire_limits import AffiliationBody, FreezeBody, LimitsBody, LimitsView, StopBody, limits_view
from api.wire_money import AccountView, account_view
from auction.commands import ResumeKey, SetAccountState, SetAffiliation, SetLimits, StopKey
from auction.errors import NotFound, Rejection
from auction.limits import DAY_US
from auction.model import ApiKey, Limits
from auction.units import MICROSECONDS_PER_SECOND, Amount, Price
from sql.limit_reads import LimitUse, price_quantile, read_limits

CONFIRM_ABOVE_MEDIANS = 10  # RULES.md: limits are asked twice above this many times the day's median
MEDIAN_STANDS_SECONDS = 60


def account_now(call: Call[Any, Any]) -> AccountView | None:
    """Return the account that a request names, as it is now."""
    account = call.core.accounts.get(call.path_part("account"))
    return None if account is None else account_view(account)


def _limits(call: Call[Any, Any]) -> LimitsView | None:
    """Return the limits of the key or account that a request names, as they are now."""
    (scope,) = call.request.match_info.values()
    limits = call.core.limits.get(scope)
    return None if limits is None else _view(call)(limits)


@route("GET", "/v1/limits", scope="billing:read")
async def get_limits(call: Call[NoBody, NoQuery]) -> Reply[LimitsView]:
    """Show what the operator lets your account risk, and how much of it is used."""
    return await _show(call, call.account, call.account)


@route("GET", "/v1/keys/{key}/limits", scope="keys:write")
async def get_key_limits(call: Call[NoBody, NoQuery]) -> Reply[LimitsView]:
    """Show what one of your keys may risk, and how much of it is used."""
    return await _show(call, call.account, (await own_key(call)).id)


@route("PUT", "/v1/keys/{key}/limits", scope="keys:write", before=_limits)
async def set_key_limits(call: Call[LimitsBody, NoQuery]) -> Reply[LimitsView]:
    """Limit one of your keys: the price, the open notional, the spend of a day."""
    refuse_limited(call)
    return await _set(call, (await own_key(call)).id, call.account)


@route("POST", "/v1/keys/{key}/stop", scope="keys:write", bucket="exits", before=_limits)
async def stop_key(call: Call[StopBody, NoQuery]) -> Reply[LimitsView]:
    """Kill switch: cancel what a key has placed; it places nothing until another key resumes it."""
    key = await own_key(call)
    return await call.submit(StopKey(key.id, call.account, call.body.release), _view(call))


@route("POST", "/v1/keys/{key}/resume", scope="keys:write", before=_limits)
async def resume_key(call: Call[NoBody, NoQuery]) -> Reply[LimitsView]:
    """Let a stopped key place bids again."""
    refuse_limited(call)
    key = await own_key(call)
    return await call.submit(ResumeKey(key.id, call.account), _view(call))


@route("GET", "/v1/operator/accounts/{account}/limits", scope="operator:read")
async def get_account_limits(call: Call[NoBody, NoQuery]) -> Reply[LimitsView]:
    """Show what an account may risk, and how much of it is used."""
    account = account_id(call)
    call.found(await call.services.reader.account(account), "account")
    return await _show(call, account, account)


@route("PUT", "/v1/operator/accounts/{account}/limits", scope="operator:write", before=_limits)
async def set_account_limits(call: Call[LimitsBody, NoQuery]) -> Reply[LimitsView]:
    """Limit an account, with all its keys: the price, the open notional, the spend of a day."""
    account = account_id(call)
    return await _set(call, account, account)


@route("PUT", "/v1/operator/accounts/{account}/affiliation", scope="operator:write", before=account_now)
async def set_affiliation(call: Call[AffiliationBody, NoQuery]) -> Reply[AccountView]:
    """Declare which accounts belong together: no two of them trade with each other."""
    return await call.submit(SetAffiliation(account_id(call), call.body.affiliation), account_view)


@route("POST", "/v1/operator/accounts/{account}/freeze", scope="operator:write", before=account_now)
async def freeze_account(call: Call[FreezeBody, NoQuery]) -> Reply[AccountView]:
    """Freeze an account: it can neither bid nor offer until it is reopened; cancel its bids if asked."""
    body = call.body
    command = SetAccountState(account_id(call), "frozen", body.cancel_bids or body.release, body.release)
    return await call.submit(command, account_view)


@route("POST", "/v1/operator/accounts/{account}/unfreeze", scope="operator:write", before=account_now)
async def unfreeze_account(call: Call[NoBody, NoQuery]) -> Reply[AccountView]:
    """Reopen a frozen account."""
    return await call.submit(SetAccountState(account_id(call), "open"), account_view)


def set_limits_command(scope: str, account: str, body: LimitsBody) -> SetLimits:
    notional, cap = body.max_open_notional_per_hour, body.spend_cap_per_day
    return SetLimits(
        scope,
        account,
        None if body.max_price_per_gpu_hour is None else Price(body.max_price_per_gpu_hour),
        None if notional is None else Amount(notional),
        None if cap is None else Amount(cap),
    )


def refuse_limited(call: Call[Any, Any]) -> None:
    """Refuse a key that is under limits itself."""
    assert call.principal is not None
    if call.principal.key in call.core.limits:
        raise Rejection("key_limited", "a key with limits, or a stopped one, does not change them")


def account_id(call: Call[Any, Any]) -> str:
    account = call.path_part("account")
    if not is_object_id(account):
        raise NotFound("account")
    return account


async def own_key(call: Call[Any, Any]) -> ApiKey:
    key = call.path_part("key")
    return call.found(await call.services.reader.key(call.account, key) if is_object_id(key) else None, "key")


async def unconfirmed_max(services: Services, market: str, now_us: int) -> Price | None:
    """Return the highest limit that needs no confirmation: ten times the median price of the last 24 hours.

    None while the market has too little history for a median, and where GPUs went for nothing: ten times
    nothing says nothing of a limit.
    """
    if market not in services.engine.core.markets:
        return None  # the engine refuses it with its own words
    known = services.medians.get(market)
    if known is None or not 0 <= now_us - known[0] < MEDIAN_STANDS_SECONDS * MICROSECONDS_PER_SECOND:
        known = now_us, await price_quantile(services.reader, market, 0.5, from_us=now_us - DAY_US)
        services.medians[market] = known
    return Price(CONFIRM_ABOVE_MEDIANS * known[1]) if known[1] else None


async def _set(call: Call[LimitsBody, NoQuery], scope: str, account: str) -> Reply[LimitsView]:
    return await call.submit(set_limits_command(scope, account, call.body), _view(call))


async def _show(call: Call[Any, Any], account: str, scope: str) -> Reply[LimitsView]:
    limits, use = await read_limits(call.services.reader, account, scope)
    return call.reply(limits_view(limits, use, call.now_us))


def _view(call: Call[Any, Any]) -> Any:
    """Show limits as the engine just left them."""

    def view(limits: Limits) -> LimitsView:
        use = call.core.limit_use(limits.id)
        return limits_view(limits, LimitUse(use.notional, use.held), call.now_us)

    return view
