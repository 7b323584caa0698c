"""An account's money and keys: balance, ledger lines, deposits, keys.

A deposit is the operator's act; on a demo market everybody may credit itself. A new key's secret goes
to its first reader only: the stored answer says null. A key pair's private half never comes here.
"""

from typing import Any

import msgspec
from msgspec import Struct

from api.auth import is_within
from api.call import Call, Reply
from api.codec import Page
from api.fields import CURRENCY, Cursor, PageLimit, format_instant
from api.keys import as_pair, mint_key, rotate, scopes_of
from api.limits import own_key, refuse_limited, set_limits_command
from api.paging import page, read_entry, read_key
from api.routes import NoBody, NoQuery, route
from api.wire_money import (
    BalanceView,
    CreateKeyBody,
    DepositBody,
    DepositView,
    EntryView,
    KeyView,
    RotateKeyBody,
    balance_view,
    key_view,
)
from auction.commands import CreateKey, Deposit, RevokeKey, RotateKey
from auction.errors import Rejection
from auction.ids import random_id
from auction.model import ApiKey
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
    """Make a key with some of this key's scopes; its secret is shown once.

    One of type `ed25519` has none: its holder signs each request with the private half of `public_key`.
    """
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
    _require_public_key(body.type == "ed25519", body.public_key)
    key, text = mint_key(
        call.account,
        body.name,
        body.scopes,
        is_live=not call.services.config.is_demo,
        now_us=call.now_us,
        expires_at_us=body.expires_at,
        allowed_networks=await _networks(call),
    )
    if body.public_key is not None:
        key = as_pair(key, body.public_key)
    limits = None if body.limits is None else set_limits_command(key.id, call.account, body.limits)
    reply = await call.submit(CreateKey(key, limits), key_view)
    return _revealed(call, reply, key, text)


@route("GET", "/v1/keys", scope="keys:write")
async def list_keys(call: Call[NoBody, ListQuery]) -> Reply[Page[KeyView]]:
    """List your keys, newest first; never their secrets."""
    found = await call.services.reader.keys(
        call.account, before=read_key(call.query.cursor), limit=call.query.limit
    )
    last = found.last and (found.last.created_at_us, found.last.id)
    return call.reply(page([key_view(key) for key in found.rows], last))


@route("POST", "/v1/keys/{key}/rotate", scope="keys:write")
async def rotate_key(call: Call[RotateKeyBody, NoQuery]) -> Reply[KeyView]:
    """Give a key a new secret, shown once; id, limits and bids stay, and for a while the old secret.

    One of type `ed25519` is given a new `public_key`, and has a new public id to sign with.
    """
    assert call.principal is not None
    key = await own_key(call)
    if key.id != call.principal.key:
        # Whoever rotates a key holds it: not one that may do more.
        refuse_limited(call)
        for scope in key.scopes:
            if scope not in call.principal.scopes:
                raise Rejection("scope_exceeded", f"this key cannot give the scope {scope}", scope=scope)
    if key.revoked_at_us is not None:
        raise Rejection("key_revoked", "the key was revoked")
    _require_public_key(key.public_key is not None, call.body.public_key)
    overlap_us = call.body.overlap_seconds * MICROSECONDS_PER_SECOND
    is_live = not call.services.config.is_demo
    rotated, text = rotate(
        key, is_live=is_live, now_us=call.now_us, overlap_us=overlap_us, public_key=call.body.public_key
    )
    reply = await call.submit(RotateKey(rotated), key_view)
    _forget(call, key)
    return _revealed(call, reply, rotated, text)


@route("DELETE", "/v1/keys/{key}", scope="keys:write")
async def revoke_key(call: Call[NoBody, NoQuery]) -> Reply[KeyView]:
    """Revoke a key: it stops working now, open sockets of it within 2 s."""
    key = await own_key(call)
    if key.revoked_at_us is not None and "Idempotency-Key" not in call.request.headers:
        # With an idempotency key the repeat is the engine's to recognise.
        raise Rejection("key_revoked", "the key was revoked before")
    reply = await call.submit(RevokeKey(key), key_view)
    _forget(call, key)
    return reply


def _require_public_key(is_pair: bool, public_key: bytes | None) -> None:
    """Refuse a pair without its public half, and a secret key with one."""
    if is_pair and public_key is None:
        raise Rejection("invalid_value", "an ed25519 key needs its public_key", pointer="/public_key")
    if public_key is not None and not is_pair:
        raise Rejection("invalid_value", "only an ed25519 key has a public_key", pointer="/public_key")


def _revealed(call: Call[Any, Any], reply: Reply[Any], key: ApiKey, text: str) -> Reply[KeyView]:
    """Show the secret of a new key, if it has one."""
    if key.public_key is not None:
        return reply
    return call.reveal(reply, msgspec.structs.replace(key_view(key), secret=text))


def _forget(call: Call[Any, Any], key: ApiKey) -> None:
    for public_id in (key.public_id, key.previous_public_id):
        if public_id is not None:
            call.services.authenticator.forget(public_id)


async def _networks(call: Call[CreateKeyBody, NoQuery]) -> list[str]:
    """Return the networks of a new key: within those of the key that makes it."""
    assert call.principal is not None
    maker = await call.services.reader.key(call.account, call.principal.key)
    own = [] if maker is None else maker.allowed_networks
    asked: list[str] = [*call.body.allowed_networks] or own
    for network in asked:
        if own and not any(is_within(network, outer) for outer in own):
            raise Rejection("address_not_allowed", f"this key may not be used from {network} itself")
    return asked


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
