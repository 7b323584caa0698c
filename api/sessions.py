"""Signing in and out of a browser, sign-in links, and tickets for its socket.

A session is opened with a key, or with the token of a link that a key has made. Tokens are shown once, to who
asked: nothing stored or repeated has one. Decides what is answered; browser.py what a session is.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from api.admit import WRONG_WHO, address_of, authenticate
from api.audit_trail import record
from api.auth import Principal
from api.browser import (
    LINK_SECONDS_MAX,
    TOKEN_CHARACTERS,
    hash_token,
    refuse_other_origin,
    set_cookie,
    token_of,
)
from api.call import Call, Reply
from api.codec import Page
from api.fields import format_instant, is_object_id
from api.intake import refuse_other_body
from api.paging import page
from api.routes import NoBody, NoQuery, route
from auction.errors import Rejection
from auction.ids import random_id, random_token
from auction.ports import Answer
from auction.units import MICROSECONDS_PER_SECOND
from sql.scope import acting, tenant
from sql.session_store import Session, SignInLink

SOCKET_SCOPES = "bids:read or bids:write or supply:read"


class CreateSessionBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`token` is a sign-in link's; without it the key in `Authorization` signs in."""

    token: Annotated[str, Meta(max_length=TOKEN_CHARACTERS)] | None = None


class SessionView(Struct, frozen=True):
    """`last_used_at` is exact to the minute."""

    id: str
    account: str
    key: str
    address: str
    created_at: str
    last_used_at: str
    expires_at: str


class CurrentView(Struct, frozen=True):
    """Who is signed in with this cookie, and what they may do; without one `account` is null."""

    account: str | None = None
    roles: list[str] = []
    scopes: list[str] = []


class SignInLinkView(Struct, frozen=True):
    """`token` goes to `POST /v1/sessions`, once."""

    id: str
    key: str
    expires_at: str
    token: str | None = None


class TicketView(Struct, frozen=True):
    ticket: str
    expires_at: str


@route("POST", "/v1/sessions", status=201, is_keyed=False)
async def create_session(call: Call[CreateSessionBody, NoQuery]) -> Reply[SessionView]:
    """Sign a browser in, with a key in Authorization or a sign-in link's token; sets its cookie.

    The session may do what the key may, and ends with it, 12 hours on, or 2 hours after its last use. With
    its cookie every request but GET and HEAD, and the socket's upgrade, needs an `Origin` of this server.
    There is no idempotency: every answer is another session.
    """
    services, config = call.services, call.services.config
    if "Origin" in call.request.headers:
        refuse_other_origin(call.request, config)
    principal = await _signing_in(call)
    address = address_of(call.request, behind_proxy=config.behind_proxy)
    with acting(tenant(principal.account)):
        session, token = await services.browsers.open(
            principal.account, principal.key, principal.public_id, address=address, now_us=call.now_us
        )
        reply = Reply(session_view(session), status=call.status, headers=set_cookie(token, config))
        await _write_down(call, principal, reply)
    return reply


@route("DELETE", "/v1/sessions", is_keyed=False)
async def sign_out(call: Call[NoBody, NoQuery]) -> Reply[SessionView]:
    """Sign this browser out: its session ends now, and the cookie goes."""
    browsers, config = call.services.browsers, call.services.config
    token = token_of(call.request, config)
    session = None if token is None else await browsers.find(hash_token(token), call.now_us)
    if session is None:
        raise Rejection("unauthenticated", "this browser is not signed in")
    refuse_other_origin(call.request, config)
    with acting(tenant(session.account)):
        await browsers.close(session.account, session.id)
        reply = Reply(session_view(session), headers=set_cookie("", config))
        principal = Principal(session.account, session.key, frozenset(), session.public_id)
        await _write_down(call, principal, reply)
    return reply


@route("GET", "/v1/sessions/current")
async def get_current_session(call: Call[NoBody, NoQuery]) -> Reply[CurrentView]:
    """Say who is signed in here, to a page that cannot read its own cookie."""
    if token_of(call.request, call.services.config) is None or "Authorization" in call.request.headers:
        return call.reply(CurrentView())
    try:
        principal = await authenticate(call.request, call.services)
    except Rejection as refusal:
        if refusal.code not in WRONG_WHO:
            raise
        return call.reply(CurrentView())
    roles = call.core.accounts[principal.account].roles
    return call.reply(CurrentView(principal.account, roles, sorted(principal.scopes)))


@route("GET", "/v1/sessions", scope="keys:write")
async def list_sessions(call: Call[NoBody, NoQuery]) -> Reply[Page[SessionView]]:
    """List your account's browsers that are signed in, newest first: at most 100."""
    found = await call.services.browsers.sessions(call.account, call.now_us)
    return call.reply(page([session_view(session) for session in found], None))


@route("DELETE", "/v1/sessions/{session}", scope="keys:write", is_keyed=False)
async def end_session(call: Call[NoBody, NoQuery]) -> Reply[SessionView]:
    """Sign one of your account's browsers out."""
    session = call.path_part("session")
    closed = await call.services.browsers.close(call.account, session) if is_object_id(session) else None
    return call.reply(session_view(call.found(closed, "session")))


@route("POST", "/v1/sign-in-links", scope="keys:write", status=201)
async def create_sign_in_link(call: Call[NoBody, NoQuery]) -> Reply[SignInLinkView]:
    """Make a token that signs one browser in with this key, once, within 10 minutes; it is shown once."""
    assert call.principal is not None
    now_us, token = call.now_us, random_token(TOKEN_CHARACTERS)
    link = SignInLink(
        id=random_id("link"),
        account=call.account,
        key=call.principal.key,
        public_id=call.principal.public_id,
        token_sha256=hash_token(token),
        expires_at_us=now_us + LINK_SECONDS_MAX * MICROSECONDS_PER_SECOND,
    )
    view = SignInLinkView(link.id, link.key, format_instant(link.expires_at_us))

    async def answer() -> Answer:
        return call.answer(call.status, view)

    await call.services.browsers.sweep(now_us)
    stored, is_replay = await call.services.browsers.store.add_link(
        link, call.keyed_request(), now_us, answer
    )
    reply: Reply[SignInLinkView] = Reply(
        answer=stored, headers={"Idempotency-Replayed": "true"} if is_replay else {}
    )
    return call.reveal(reply, structs.replace(view, token=token))


@route("POST", "/v1/ws-tickets", scope=SOCKET_SCOPES, status=201, is_keyed=False)
async def create_ws_ticket(call: Call[NoBody, NoQuery]) -> Reply[TicketView]:
    """Give a ticket that a socket's `auth` message takes in place of a key: once, within 30 seconds.

    It is for browsers, which know no key. There is no idempotency: every answer is another ticket.
    """
    assert call.principal is not None
    ticket, until_us = call.services.tickets.give(call.principal, call.now_us)
    view = TicketView(ticket, format_instant(until_us))
    return Reply(view, status=call.status, headers={"Cache-Control": "no-store"})


def session_view(session: Session) -> SessionView:
    return SessionView(
        id=session.id,
        account=session.account,
        key=session.key,
        address=session.address,
        created_at=format_instant(session.created_at_us),
        last_used_at=format_instant(session.last_used_at_us),
        expires_at=format_instant(session.expires_at_us),
    )


async def _write_down(call: Call[Any, Any], principal: Principal, reply: Reply[SessionView]) -> None:
    """Write into the audit log who came or went; a sign-in link's token stays out of it."""
    await record(structs.replace(call, principal=principal, raw=b""), "session", reply)


async def _signing_in(call: Call[CreateSessionBody, NoQuery]) -> Principal:
    """Return who signs in; raises Rejection (`unauthenticated`) for a token or a key that is not valid."""
    if call.body.token is None and "Authorization" not in call.request.headers:
        # A session makes no other one: it would never end.
        raise Rejection("unauthenticated", "expected a key in Authorization, or a sign-in link's token")
    principal = await authenticate(call.request, call.services, link=call.body.token)
    if principal.is_signed:
        refuse_other_body(call.request, call.raw)
    return principal
