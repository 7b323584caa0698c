"""The operator's acts: markets, accounts, halting and resuming."""

from typing import Any

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import Cursor, PageLimit
from api.keys import mint_key, scopes_of
from api.limits import account_now
from api.paging import page, read_key
from api.routes import NoBody, NoQuery, route
from api.wire_market import (
    AmendMarketBody,
    CreateMarketBody,
    MarketStatusBody,
    MarketView,
    make_market,
    market_view,
)
from api.wire_money import AccountView, AmendAccountBody, CreateAccountBody, account_view
from auction.commands import AmendAccount, AmendMarket, CreateAccount, CreateMarket, SetMarketStatus
from auction.errors import Rejection
from auction.ids import random_id
from auction.model import MarketStatus


class AccountsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


def _market(call: Call[Any, Any]) -> MarketView | None:
    """Return the market that a request names, as it is now."""
    market = call.core.markets.get(call.path_part("market"))
    return None if market is None else market_view(market)


@route("POST", "/v1/operator/markets", scope="operator:write", status=201)
async def create_market(call: Call[CreateMarketBody, NoQuery]) -> Reply[MarketView]:
    """Open a market; its first tick falls one tick length from now."""
    market = make_market(call.body, is_demo=call.services.config.is_demo, now_us=call.now_us)
    return await call.submit(CreateMarket(market), market_view)


@route("PATCH", "/v1/operator/markets/{market}", scope="operator:write", if_match="required", before=_market)
async def amend_market(call: Call[AmendMarketBody, NoQuery]) -> Reply[MarketView]:
    """Change a market's beat and promises; a new tick length begins now; needs If-Match."""
    version = call.required_version()
    if call.body == AmendMarketBody():
        raise Rejection("nothing_to_change", "expected at least one field")
    settings = msgspec.structs.asdict(call.body)
    command = AmendMarket(call.path_part("market"), **settings, expected_version=version)
    return await call.submit(command, market_view)


@route("POST", "/v1/operator/markets/{market}/halt", scope="operator:write", before=_market)
async def halt_market(call: Call[MarketStatusBody, NoQuery]) -> Reply[MarketView]:
    """Stop a market, or let it take cancels only; tenants run on at the last price."""
    command = SetMarketStatus(call.path_part("market"), call.body.status, call.body.reason)
    return await call.submit(command, market_view)


@route("POST", "/v1/operator/markets/{market}/resume", scope="operator:write", before=_market)
async def resume_market(call: Call[NoBody, NoQuery]) -> Reply[MarketView]:
    """Open a halted market again."""
    command = SetMarketStatus(call.path_part("market"), MarketStatus.OPEN.value, None)
    return await call.submit(command, market_view)


@route("POST", "/v1/operator/accounts", scope="operator:write", status=201)
async def create_account(call: Call[CreateAccountBody, NoQuery]) -> Reply[AccountView]:
    """Open an account with its first key, whose secret is shown once."""
    account_id = random_id("acct")
    key, text = mint_key(
        account_id,
        "first key",
        scopes_of(call.body.roles),
        is_live=not call.services.config.is_demo,
        now_us=call.now_us,
    )
    created: list[AccountView] = []

    def view(account: Any) -> AccountView:
        created.append(account_view(account))
        return created[0]

    command = CreateAccount(account_id, call.body.name, sorted(set(call.body.roles)), key)
    reply = await call.submit(command, view)
    return call.reveal(reply, msgspec.structs.replace(created[0], key=text) if created else None)


@route(
    "PATCH",
    "/v1/operator/accounts/{account}",
    scope="operator:write",
    if_match="required",
    before=account_now,
)
async def amend_account(call: Call[AmendAccountBody, NoQuery]) -> Reply[AccountView]:
    """Change an account's name or roles; needs If-Match.

    What it loses it can ask for no more; what runs goes on.
    """
    version = call.required_version()
    if call.body == AmendAccountBody():
        raise Rejection("nothing_to_change", "expected at least one field")
    roles: list[str] | None = None if call.body.roles is None else [*call.body.roles]
    command = AmendAccount(call.path_part("account"), call.body.name, roles, version)
    return await call.submit(command, account_view)


@route("GET", "/v1/operator/accounts", scope="operator:read")
async def list_accounts(call: Call[NoBody, AccountsQuery]) -> Reply[Page[AccountView]]:
    """List all accounts, newest first."""
    found = await call.services.reader.accounts(before=read_key(call.query.cursor), limit=call.query.limit)
    last = found.last and (found.last.created_at_us, found.last.id)
    return call.reply(page([account_view(account) for account in found.rows], last))
