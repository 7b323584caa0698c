"""Browsers: signing in, what the cookie may do and from where, links, tickets, and the end of them all."""

import asyncio
import hashlib

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import make_mocked_request

from api.app import ROUTES
from api.auth import Principal
from api.browser import (
    IDLE_SECONDS_MAX,
    SESSION_SECONDS_MAX,
    hash_token,
    refuse_other_origin,
    set_cookie,
    token_of,
)
from api.config import Config
from api.services import SERVICES
from api.tickets import TICKET_SECONDS_MAX, TICKETS_PER_ACCOUNT_MAX, Tickets
from auction.errors import Rejection
from sql import session_store
from tests.api.conftest import MARKET

US = 1_000_000
BID = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
SCOPES = ["bids:read", "bids:write", "keys:write"]


class Browser:
    """Sends the cookie that it was given, and the Origin of the page that it shows."""

    def __init__(self, venue):
        self.venue = venue
        self.origin = str(venue.client.make_url("/")).rstrip("/")
        self.token = ""

    async def sign_in(self, key=None, token=None):
        body = {} if token is None else {"token": token}
        answered = await self.venue.call("POST", "/v1/sessions", key, body, Origin=self.origin)
        # The cookie is sent by hand: the client would add it to everybody's requests.
        self.venue.client.session.cookie_jar.clear()
        if answered.status == 201:
            name, _, rest = answered.headers["Set-Cookie"].partition("=")
            self.token, _, flags = rest.partition(";")
            assert name == "fallow_session"
            assert flags == f" Path=/; Max-Age={SESSION_SECONDS_MAX}; HttpOnly; SameSite=Strict"
            assert self.token.encode() not in answered.raw
        return answered

    @property
    def headers(self):
        return {"Cookie": f"fallow_session={self.token}", "Origin": self.origin}

    async def call(self, method, path, body=None, **headers):
        sent = {name: value for name, value in (self.headers | headers).items() if value is not None}
        return await self.venue.call(method, path, None, body, **sent)


@pytest.fixture
async def made(venue):
    return await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "browser", "scopes": SCOPES})


@pytest.fixture
async def browser(venue, made):
    browser = Browser(venue)
    assert (await browser.sign_in(made["secret"])).status == 201
    return browser


async def test_a_browser_may_do_what_its_key_may_and_signs_out(venue, made, browser):
    placed = await browser.call("POST", "/v1/bids", BID)
    assert placed.status == 201 and placed.json["key"] == made["id"]
    assert (await browser.call("GET", "/v1/bids", Origin=None)).json["data"][0]["id"] == placed.json["id"]
    poor = await browser.call("GET", "/v1/balance")
    assert (poor.status, poor.json["code"]) == (403, "scope_missing")
    (listed,) = (await browser.call("GET", "/v1/sessions")).json["data"]
    assert (listed["key"], listed["address"]) == (made["id"], "127.0.0.1")
    row = await venue.pool.fetchrow("SELECT * FROM sessions")
    assert row["token_sha256"] == hashlib.sha256(browser.token.encode()).digest()
    assert row["expires_at_us"] - row["created_at_us"] == SESSION_SECONDS_MAX * US
    out = await browser.call("DELETE", "/v1/sessions")
    assert (
        out.json["id"] == listed["id"] and "fallow_session=; Path=/; Max-Age=0" in out.headers["Set-Cookie"]
    )
    for method, path in (("GET", "/v1/bids"), ("POST", "/v1/bids"), ("DELETE", "/v1/sessions")):
        over = await browser.call(method, path)
        assert (over.status, over.json["code"]) == (401, "unauthenticated"), path
    assert await venue.pool.fetch("SELECT * FROM sessions") == []
    acts = await venue.pool.fetch("SELECT method, key FROM audit_log WHERE scope = 'session' ORDER BY id")
    assert [tuple(act) for act in acts] == [("POST", made["id"]), ("DELETE", made["id"])]


async def test_every_write_of_a_browser_needs_an_origin_of_this_server(venue, browser):
    """Goal: no route that changes something forgets it; without a cookie a key needs none."""
    port = browser.origin.rpartition(":")[2]
    for route in ROUTES:
        if route.method == "GET" or (route.scope is None and route.path != "/v1/sessions"):
            continue
        path = route.path.replace("{", "").replace("}", "")
        origin = "null" if route.path == "/v1/sessions" and route.method == "POST" else None
        refused = await browser.call(route.method, path, {} if origin else None, Origin=origin)
        assert (refused.status, refused.json["code"]) == (403, "origin_refused"), (route.method, path)
    for origin in (
        "null", "", "http://evil.example", f"https://127.0.0.1:{port}", f"http://127.0.0.1.evil.example:{port}",
        f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{int(port) - 1}", f"HTTP://127.0.0.1:{port}",
    ):  # fmt: skip
        refused = await browser.call("POST", "/v1/bids", BID, Origin=origin)
        assert (refused.status, refused.json["code"]) == (403, "origin_refused"), origin
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []
    assert (
        await venue.call("POST", "/v1/bids", venue.buyer, BID, Origin="http://evil.example")
    ).status == 201
    for headers in (
        browser.headers | {"Origin": "http://evil.example"},
        {"Cookie": browser.headers["Cookie"]},
    ):
        with pytest.raises(WSServerHandshakeError) as caught:
            await venue.client.ws_connect("/v1/ws", headers=headers)
        assert caught.value.status == 403


async def test_signing_in_needs_a_key_or_a_token_that_is_valid(venue, browser):
    for answered in (
        await Browser(venue).sign_in(),
        await Browser(venue).sign_in("fal_test_nonsense"),
        await Browser(venue).sign_in(venue.buyer, "x" * 43),
        await browser.call("POST", "/v1/sessions", {}),
    ):
        assert (answered.status, answered.json["code"]) == (401, "unauthenticated")
        assert "Set-Cookie" not in answered.headers
    for body in ({"token": "x" * 44}, {"token": 5}, {"name": "x"}):
        assert (await venue.call("POST", "/v1/sessions", venue.buyer, body)).status == 422
    form = await venue.call("POST", "/v1/sessions", venue.buyer, b"token=x", Content_Type="text/plain")
    assert form.status == 415
    elsewhere = await venue.call("POST", "/v1/sessions", venue.buyer, {}, Origin="http://evil.example")
    assert (elsewhere.status, elsewhere.json["code"]) == (403, "origin_refused")
    for cookie in ("fallow_session=", "fallow_session=" + "x" * 5_000, "fallow_session=é"):
        assert (await browser.call("GET", "/v1/bids", Cookie=cookie)).status == 401


async def test_a_session_ends_with_its_key(venue, made, browser):
    """Goal: revoked, rotated, of another network: what ends the key ends its browsers."""
    rotated = await venue.ok("POST", f"/v1/keys/{made['id']}/rotate", venue.buyer, {"overlap_seconds": 0})
    assert (await browser.call("GET", "/v1/bids")).status == 401
    assert (await venue.ok("GET", "/v1/sessions", venue.buyer))["data"] == []
    assert (await browser.sign_in(rotated["secret"])).status == 201
    assert await venue.pool.fetchval("SELECT count(*) FROM sessions") == 1, "swept"
    async with venue.client.get("/v1/stream?account=true", headers=browser.headers) as stream:
        assert stream.status == 200 and await stream.content.readline()
        await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
        async with asyncio.timeout(5):
            while await stream.content.readline():
                pass
    assert (await browser.call("GET", "/v1/bids")).status == 401
    assert (await venue.ok("GET", "/v1/sessions", venue.buyer))["data"] == []
    rotated = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "next", "scopes": SCOPES})
    assert (await browser.sign_in(rotated["secret"])).status == 201
    kept = {"overlap_seconds": 60}
    await venue.ok("POST", f"/v1/keys/{rotated['id']}/rotate", venue.buyer, kept)
    assert (await browser.call("GET", "/v1/bids")).status == 200, "as long as the old secret"
    assert len((await venue.ok("GET", "/v1/sessions", venue.buyer))["data"]) == 1


async def age(venue, table="sessions", **columns):
    """Move a row's times, and let the server forget what it remembers of it."""
    changes = ", ".join(f"{name} = {name} - {seconds * US}" for name, seconds in columns.items())
    await venue.pool.execute(f"UPDATE {table} SET {changes}")
    venue.client.server.app[SERVICES].browsers._cache.clear()


async def test_a_session_ends_unused_and_when_its_time_is_over(venue, made, browser):
    await age(venue, last_used_at_us=IDLE_SECONDS_MAX - 60)
    assert (await browser.call("GET", "/v1/bids")).status == 200
    used = await venue.pool.fetchval("SELECT last_used_at_us FROM sessions")
    assert used > venue.engine.clock.now_us() - 60 * US, "in use again"
    await age(venue, last_used_at_us=IDLE_SECONDS_MAX)
    assert (await browser.call("GET", "/v1/bids")).status == 401
    assert (await venue.ok("GET", "/v1/sessions", venue.buyer))["data"] == []
    other = Browser(venue)
    assert (await other.sign_in(made["secret"])).status == 201
    assert await venue.pool.fetchval("SELECT count(*) FROM sessions") == 1, "swept"
    await age(venue, expires_at_us=SESSION_SECONDS_MAX)
    assert (await other.call("GET", "/v1/bids")).status == 401


async def test_browsers_of_an_account_are_bounded_and_its_own(venue, made, browser, monkeypatch):
    monkeypatch.setattr(session_store, "SESSIONS_PER_ACCOUNT_MAX", 2)
    second = Browser(venue)
    assert (await second.sign_in(made["secret"])).status == 201
    full = await Browser(venue).sign_in(venue.buyer)
    assert (full.status, full.json["code"]) == (409, "sessions_reached")
    stranger = Browser(venue)
    assert (await stranger.sign_in(venue.owner)).status == 201
    newest, first = (await second.call("GET", "/v1/sessions")).json["data"]
    theirs = await stranger.call("DELETE", f"/v1/sessions/{first['id']}")
    assert theirs.status == 404
    assert (await second.call("DELETE", f"/v1/sessions/{first['id']}")).json["id"] == first["id"]
    assert (await browser.call("GET", "/v1/bids")).status == 401
    assert [one["id"] for one in (await second.call("GET", "/v1/sessions")).json["data"]] == [newest["id"]]
    acts = await venue.pool.fetch(
        "SELECT path, request, answer FROM audit_log WHERE path LIKE '/v1/sessions%'"
    )
    assert [act["path"] for act in acts].count("/v1/sessions") == 3
    assert all(second.token not in str(dict(act)) for act in acts)


async def test_a_link_signs_in_once(venue, made, monkeypatch):
    asked = [
        await venue.call("POST", "/v1/sign-in-links", made["secret"], Idempotency_Key="link")
        for _ in range(2)
    ]
    assert [one.status for one in asked] == [201, 201]
    token = asked[0].json["token"]
    assert asked[1].json == asked[0].json | {"token": None}, "shown once"
    assert await venue.pool.fetchval("SELECT token_sha256 FROM sign_in_links") == hash_token(token)
    browsers = [Browser(venue) for _ in range(4)]
    answers = await asyncio.gather(*(one.sign_in(token=token) for one in browsers))
    assert sorted(one.status for one in answers) == [201, 401, 401, 401]
    (signed_in,) = [one for one in browsers if one.token]
    assert (await signed_in.call("POST", "/v1/bids", BID)).json["key"] == made["id"]
    log = await venue.pool.fetch("SELECT * FROM audit_log")
    assert all(token not in str(dict(row)) for row in log)
    late = await venue.ok("POST", "/v1/sign-in-links", made["secret"])
    await age(venue, "sign_in_links", expires_at_us=601)
    assert (await Browser(venue).sign_in(token=late["token"])).status == 401
    monkeypatch.setattr(session_store, "LINKS_PER_ACCOUNT_MAX", 1)
    unused = await venue.ok("POST", "/v1/sign-in-links", made["secret"])
    assert await venue.pool.fetchval("SELECT count(*) FROM sign_in_links") == 1, "swept"
    full = await venue.call("POST", "/v1/sign-in-links", made["secret"])
    assert (full.status, full.json["code"]) == (409, "sign_in_links_reached")
    await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
    assert (await Browser(venue).sign_in(token=unused["token"])).status == 401, "its key was revoked"


async def test_a_ticket_opens_one_socket(venue, browser):
    ticket = (await browser.call("POST", "/v1/ws-tickets")).json["ticket"]
    async with venue.client.ws_connect("/v1/ws", headers=browser.headers) as socket:
        await socket.receive_json()
        await socket.send_json({"type": "auth", "ticket": ticket, "id": 1})
        assert (await socket.receive_json())["type"] == "ack"
        await socket.send_json({"type": "subscribe", "channels": ["account"], "id": 2})
        assert (await socket.receive_json())["id"] == 2
        for message in (
            {"type": "auth", "ticket": ticket},
            {"type": "auth", "ticket": "x" * 43},
            {
                "type": "auth",
                "ticket": (await browser.call("POST", "/v1/ws-tickets")).json["ticket"],
                "key": "",
            },
        ):
            async with venue.client.ws_connect("/v1/ws") as other:
                await other.receive_json()
                await other.send_json(message)
                assert (await other.receive_json())["type"] == "goodbye", message
                assert (await other.receive()).data == 4001, message
        await browser.call("DELETE", "/v1/sessions")
        async with asyncio.timeout(5):
            while (closed := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert closed.data == 4001, "signed out"


def test_tickets_are_bounded_and_end():
    tickets, one = Tickets(), Principal("a", "key", frozenset(), "k" * 10)
    given = [tickets.give(one, 0)[0] for _ in range(TICKETS_PER_ACCOUNT_MAX)]
    with pytest.raises(Rejection, match="unused"):
        tickets.give(one, TICKET_SECONDS_MAX * US - 1)
    assert tickets.take(given[0], TICKET_SECONDS_MAX * US - 1) is one
    with pytest.raises(Rejection, match="ticket"):
        tickets.take(given[1], TICKET_SECONDS_MAX * US)
    assert tickets.give(one, TICKET_SECONDS_MAX * US)


def test_over_tls_the_cookie_is_of_this_host_alone():
    config = Config(behind_proxy=True)
    cookie = set_cookie("t" * 43, config)["Set-Cookie"]
    assert cookie.startswith("__Host-fallow_session=ttt") and cookie.endswith("; SameSite=Strict; Secure")
    sent = {"Host": "market.example", "Origin": "https://market.example", "Cookie": "fallow_session=planted"}
    request = make_mocked_request("POST", "/v1/bids", headers=sent)
    assert token_of(request, config) is None, "the name without the prefix is anybody's to set"
    refuse_other_origin(request, config)
    with pytest.raises(Rejection, match="Origin"):
        refuse_other_origin(request, Config())


async def test_a_page_is_told_who_is_signed_in_and_nobody_is_no_error(venue, browser):
    nobody = {"account": None, "roles": [], "scopes": []}
    assert await venue.ok("GET", "/v1/sessions/current", None) == nobody
    current = (await browser.call("GET", "/v1/sessions/current")).json
    mine = await venue.ok("GET", "/v1/bids", venue.buyer)
    assert mine["data"] == [] and current["roles"] == ["buyer"]
    assert current["account"].startswith("acct_") and current["scopes"] == sorted(SCOPES)
    browser.token = "x" * 43
    assert (await browser.call("GET", "/v1/sessions/current")).json == nobody
