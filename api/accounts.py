"""An account's money and keys: balance, ledger lines, deposits, keys.

A deposit is the operator's act; on a demo market everybody may credit itself. A new key's secret goes
to its first reader only: the stored answer says null.
"""

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import CURRENCY, Cursor, PageLimit, format_instant, is_object_id
from api.keys import mint_key, scopes_of
from api.limits import refuse_limited, set_limits_command
from api.paging import page, read_entry, read_key
from api.routes import NoBody, NoQuery, route
from api.wire_money import (
    BalanceView,
    CreateKeyBody,
    DepositBody,
    DepositView,
    EntryView,
    KeyView,
    balance_view,
    key_view,
)
from auction.commands import CreateKey, Deposit, RevokeKey
from auction.errors import NotFound, Rejection
from auction.ids import random_id
from auction.state import Balance
from auction.units import MICROSECONDS_PER_SECOND, Amount, format_microusd
from sql.reads import NEWEST_ENTRY, EntryRow

_LEDGER_NAMES = ("available", "held", "earning", "payable")


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("GET", "/v1/balance", scope="billing:read")
async def get_balance(call: Call[NoBody, NoQuery]) -> Reply[BalanceView]:
    """Show what is available, held, owed and earned."""
    return call.reply(balance_view(*await call.services.reader.balance(call.account)))


@route("GET", "/v1/ledger/entries", scope="billing:read")
async def list_entries(call: Call[NoBody, ListQuery]) -> Reply[Page[EntryView]]:
    """List every line of your ledger, newest first, each with the balance after it."""
    before, balances = read_entry(call.query.cursor, NEWEST_ENTRY)
    rows, at_end = await call.services.reader.entries(
        call.account, before=before, balances=balances, limit=call.query.limit
    )
    last = None if at_end is None else (rows[-1].position, at_end)
    return call.reply(page([entry_view(row) for row in rows], last))


@route("POST", "/v1/deposits", scope="billing:write", status=201)
async def create_deposit(call: Call[DepositBody, NoQuery]) -> Reply[DepositView]:
    """Credit an account: the operator any, everybody else its own on a demo market."""
    assert call.principal is not None
    account = call.body.account or call.account
    is_operator = "operator:write" in call.principal.scopes
    if not is_operator and not (call.services.config.is_demo and account == call.account):
        raise Rejection("deposit_not_allowed", "only an operator credits accounts on this market")
    deposit_id, reference = random_id("dep"), call.body.reference or ""
    amount = Amount(call.body.amount)

    def view(balance: Balance) -> DepositView:
        return DepositView(
            deposit_id, account, format_microusd(amount), CURRENCY, reference, balance_view(balance, 0)
        )

    return await call.submit(Deposit(deposit_id, account, amount, reference), view)


@route("POST", "/v1/keys", scope="keys:write", status=201)
async def create_key(call: Call[CreateKeyBody, NoQuery]) -> Reply[KeyView]:
    """Make a key with some of this key's scopes; its secret is shown once."""
    assert call.principal is not None
    refuse_limited(call)
    body = call.body
    account = call.core.accounts.get(call.account)
    allowed = call.principal.scopes & set(scopes_of(account.roles if account else []))
    for scope in body.scopes:
        if scope not in allowed:
            raise Rejection("scope_exceeded", f"this key cannot give the scope {scope}", scope=scope)
    if body.expires_at is not None and body.expires_at <= call.now_us:
        raise Rejection("invalid_value", "a key cannot expire in the past", pointer="/expires_at")
    key, text = mint_key(
        call.account,
        body.name,
        body.scopes,
        is_live=not call.services.config.is_demo,
        now_us=call.now_us,
        expires_at_us=body.expires_at,
    )
    limits = None if body.limits is None else set_limits_command(key.id, call.account, body.limits)
    reply = await call.submit(CreateKey(key, limits), key_view)
    return call.reveal(reply, msgspec.structs.replace(key_view(key), secret=text))


@route("GET", "/v1/keys", scope="keys:write")
async def list_keys(call: Call[NoBody, ListQuery]) -> Reply[Page[KeyView]]:
    """List your keys, newest first; never their secrets."""
    found = await call.services.reader.keys(
        call.account, before=read_key(call.query.cursor), limit=call.query.limit
    )
    last = found.last and (found.last.created_at_us, found.last.id)
    return call.reply(page([key_view(key) for key in found.rows], last))


@route("DELETE", "/v1/keys/{key}", scope="keys:write")
async def revoke_key(call: Call[NoBody, NoQuery]) -> Reply[KeyView]:
    """Revoke a key: it stops working now, open sockets of it within 2 s."""
    key_id = call.path_part("key")
    key = await call.services.reader.key(call.account, key_id) if is_object_id(key_id) else None
    if key is None:
        raise NotFound("key")
    if key.revoked_at_us is not None and "Idempotency-Key" not in call.request.headers:
        # With an idempotency key the repeat is the engine's to recognise.
        raise Rejection("key_revoked", "the key was revoked before")
    reply = await call.submit(RevokeKey(key), key_view)
    call.services.authenticator.forget(key.public_id)
    return reply


def entry_view(row: EntryRow) -> EntryView:
    end_us = row.interval_end_s * MICROSECONDS_PER_SECOND
    return EntryView(
        id=str(row.position),
        transfer=str(row.transfer),
        code=row.code,
        ledger_account=_LEDGER_NAMES[row.ledger_code],
        amount=format_microusd(row.amount),
        balance=format_microusd(row.balance),
        currency=CURRENCY,
        reference=row.reference,
        interval_end=format_instant(end_us) if row.interval_end_s else None,
        created_at=format_instant(row.at_us),
    )
