"""Keys of which the server knows the public half only: what a signature covers, and what is refused."""

import base64
import dataclasses
import json
import stat

import pytest
from aiohttp import WSMsgType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api import nonces
from api.nonces import AHEAD_SECONDS_MAX, SIGNATURE_SECONDS_MAX, Nonces
from api.services import SERVICES
from api.signing import Parts, Signed, digest_of, format_signed, parse_signed, request_text, socket_text
from auction.errors import Rejection, Unavailable
from auction.ids import random_token
from fallow.client import AsyncClient, AuthError
from fallow.client.signing import NewKeyFile, SigningKey
from tests.api.conftest import MARKET
from tests.api.shell import Shell

SCOPES = ["bids:read", "bids:write", "keys:write"]
BID = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
US = 1_000_000


def pair():
    """Return a new private half, and the public one as it is sent."""
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return private, base64.b64encode(raw).decode()


class Bot:
    """Signs by hand, as a bot in another language would."""

    def __init__(self, venue, private, made):
        self.venue, self.private, self.id, self.public_id = venue, private, made["id"], made["public_id"]

    def sign(self, method, path, body=None, *, age_us=0, nonce=None, **fields):
        """Return (headers, body) of a signed request."""
        raw = b"" if body is None else json.dumps(body).encode()
        parts = Parts(method, path, "application/json" if raw else "", digest_of(raw), **fields)
        created_us = self.venue.engine.clock.now_us() - age_us
        if not age_us:
            # As by a clock that is as far ahead as it may be: a new server takes what is signed by a right
            # one only after so long.
            began_us = self.venue.client.server.app[SERVICES].authenticator._nonces._began_us
            created_us = max(created_us, began_us + AHEAD_SECONDS_MAX * US + 1)
        nonce = nonce or random_token(22)
        signature = self.private.sign(request_text(parts, self.public_id, created_us, nonce))
        headers = {"Authorization": format_signed(Signed(self.public_id, created_us, nonce, signature))}
        for name in ("content_type", "content_digest", "idempotency_key", "if_match"):
            if getattr(parts, name):
                headers[name.title().replace("_", "-")] = getattr(parts, name)
        return headers, raw

    async def send(self, method, path, headers, raw=b""):
        return await self.venue.call(method, path, None, raw or None, **headers)

    async def call(self, method, path, body=None, **fields):
        return await self.send(method, path, *self.sign(method, path, body, **fields))


@pytest.fixture
def mint(venue):
    async def make(**fields):
        private, public_key = pair()
        body = {"name": "bot", "type": "ed25519", "public_key": public_key, "scopes": SCOPES} | fields
        made = await venue.ok("POST", "/v1/keys", venue.buyer, body)
        return Bot(venue, private, made)

    return make


async def test_the_server_keeps_the_public_half_and_no_secret(venue):
    _, public_key = pair()
    body = {"name": "bot", "type": "ed25519", "public_key": public_key, "scopes": SCOPES}
    answered = [
        await venue.call("POST", "/v1/keys", venue.buyer, body, Idempotency_Key="once") for _ in range(2)
    ]
    assert answered[0].raw == answered[1].raw, "there is nothing to show once"
    made = answered[0].json
    assert (made["type"], made["public_key"], made["secret"]) == ("ed25519", public_key, None)
    row = await venue.pool.fetchrow("SELECT * FROM api_keys WHERE id = $1", made["id"])
    assert row["secret_sha256"] is None and row["public_key"] == base64.b64decode(public_key)
    plain = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "plain", "scopes": SCOPES})
    assert (plain["type"], plain["public_key"]) == ("secret", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ed25519"},
        {"public_key": "A" * 43 + "="},
        {"type": "ed25519", "public_key": "A" * 42 + "=="},
        {"type": "ed25519", "public_key": "A" * 43},
        {"type": "ed25519", "public_key": 5},
        {"type": "ed25519", "public_key": "-" * 43 + "="},
        {"type": "rsa", "public_key": "A" * 43 + "="},
    ],
)
async def test_a_key_without_its_kind_of_public_half_is_refused(venue, fields):
    refused = await venue.call("POST", "/v1/keys", venue.buyer, {"name": "x", "scopes": SCOPES} | fields)
    assert (refused.status, refused.json["code"]) == (422, "invalid_value")


async def test_a_signed_request_is_let_in_within_its_scopes(mint):
    bot = await mint()
    placed = await bot.call("POST", "/v1/bids", BID, idempotency_key="a bid")
    assert placed.status == 201 and placed.json["key"] == bot.id
    again = await bot.call("POST", "/v1/bids", BID, idempotency_key="a bid")
    assert again.raw == placed.raw, "signed anew, it happens once"
    path = f"/v1/bids/{placed.json['id']}"
    assert (await bot.call("GET", "/v1/bids?limit=1&status=open")).status == 200
    assert (await bot.call("PATCH", path, {"gpus": 2}, if_match='"99"')).status == 412
    assert (await bot.call("DELETE", path)).json["status"] == "cancelled"
    refused = await bot.call("GET", "/v1/balance")
    assert (refused.status, refused.json["code"]) == (403, "scope_missing")


async def test_what_was_not_signed_is_refused(venue, mint):
    """Goal: method, path, query, every covered header and the body are each held to the signature."""
    bot = await mint()
    headers, raw = bot.sign("POST", "/v1/bids", BID, idempotency_key="k", if_match='"1"')
    other = json.dumps(BID | {"gpus": 3}).encode()
    signature = headers["Authorization"]
    for method, path, changed, body in (
        ("GET", "/v1/bids", {}, raw),
        ("POST", "/v1/bids/preview", {}, raw),
        ("POST", "/v1/bids?x=1", {}, raw),
        ("POST", "/v1/bids", {"Content-Type": "application/msgpack"}, raw),
        ("POST", "/v1/bids", {"Idempotency-Key": "l"}, raw),
        ("POST", "/v1/bids", {"If-Match": '"2"'}, raw),
        ("POST", "/v1/bids", {"Content-Digest": digest_of(other)}, other),
        ("POST", "/v1/bids", {"Authorization": signature.replace("nonce=", "nonce=a")}, raw),
        ("POST", "/v1/bids", {"Authorization": signature[:-6] + "AAAA=="}, raw),
        ("POST", "/v1/bids", {"Authorization": signature + ",alg=none"}, raw),
    ):
        refused = await bot.send(method, path, headers | changed | {"Accept": "application/json"}, body)
        assert (refused.status, refused.json["code"]) == (401, "unauthenticated"), (method, path, changed)
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []
    assert (await bot.send("POST", "/v1/bids", headers, raw)).status == 201, "refusals use up no nonce"


async def test_another_body_under_the_same_digest_is_refused(venue, mint):
    bot = await mint()
    headers, _ = bot.sign("POST", "/v1/bids", BID)
    for body in (json.dumps(BID | {"gpus": 3}).encode(), b"not even JSON"):
        headers, _ = bot.sign("POST", "/v1/bids", BID)
        refused = await bot.send("POST", "/v1/bids", headers, body)
        assert (refused.status, refused.json["code"]) == (401, "content_digest_mismatch")
    signing_in, _ = bot.sign("POST", "/v1/sessions", {})
    slipped = await bot.send("POST", "/v1/sessions", signing_in, b'{"token": null}')
    assert (slipped.status, slipped.json["code"]) == (401, "content_digest_mismatch")
    bare, _ = bot.sign("DELETE", "/v1/bids?market=" + MARKET)
    slipped = await bot.send("DELETE", "/v1/bids?market=" + MARKET, bare, b"{}")
    assert slipped.status == 401, "a body where none was signed"
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []


async def test_a_replay_is_refused_and_a_wrong_clock_is_told_by_how_much(mint):
    bot = await mint()
    headers, raw = bot.sign("POST", "/v1/bids", BID)
    assert (await bot.send("POST", "/v1/bids", headers, raw)).status == 201
    replayed = await bot.send("POST", "/v1/bids", headers, raw)
    assert (replayed.status, replayed.json["code"]) == (401, "signature_replayed")
    for age_us, side in ((45 * US, "behind"), (-15 * US, "ahead of")):
        refused = await bot.call("GET", "/v1/bids", age_us=age_us)
        assert (refused.status, refused.json["code"]) == (401, "signature_untimely")
        seconds, _, rest = refused.json["detail"].removeprefix("created_us is ").partition(" s ")
        assert rest.startswith(side) and abs(float(seconds) - abs(age_us) / US) < 5
    assert (await bot.call("GET", "/v1/bids")).status == 200
    early = await bot.call("GET", "/v1/bids", age_us=29 * US)
    assert (early.status, early.json["code"]) == (503, "signed_before_start")
    assert early.json["retryable"] is True and int(early.headers["Retry-After"]) >= 1


def test_a_nonce_is_remembered_for_as_long_as_its_signature_holds():
    began_us = 1_000 * US
    memory, now_us = Nonces(began_us), began_us + 100 * US
    ahead_us, behind_us = AHEAD_SECONDS_MAX * US, SIGNATURE_SECONDS_MAX * US
    ahead = Signed("k" * 10, now_us + ahead_us, "n" * 22, bytes(64))
    with pytest.raises(Rejection, match="ahead of"):
        memory.refuse_untimely(ahead, now_us - 1)
    memory.refuse_untimely(ahead, now_us)
    memory.use("acct", ahead, now_us)
    last_us = now_us + ahead_us + behind_us
    memory.refuse_untimely(ahead, last_us)
    with pytest.raises(Rejection, match="used before"):
        memory.use("acct", ahead, last_us)
    with pytest.raises(Rejection, match="behind"):
        memory.refuse_untimely(ahead, last_us + 1)
    memory.use("acct", ahead, last_us + 1)


def test_what_the_server_before_may_have_taken_is_refused():
    """Goal: it was signed by a clock as far ahead as it may be, taken, and then the server began anew."""
    taken_us = 1_000 * US
    ahead = Signed("k" * 10, taken_us + AHEAD_SECONDS_MAX * US, "n" * 22, bytes(64))
    Nonces(0).refuse_untimely(ahead, taken_us)
    began_us = taken_us
    for now_us in (began_us, began_us + AHEAD_SECONDS_MAX * US, began_us + 9 * US):
        with pytest.raises(Unavailable, match="sign again"):
            Nonces(began_us).refuse_untimely(ahead, now_us)
    later = dataclasses.replace(ahead, created_us=ahead.created_us + 1)
    Nonces(began_us).refuse_untimely(later, began_us + 1)


def test_a_full_memory_refuses_and_forgets_nothing(monkeypatch):
    monkeypatch.setattr(nonces, "NONCES_PER_ACCOUNT_MAX", 2)
    monkeypatch.setattr(nonces, "NONCES_MAX", 3)
    memory = Nonces(0)
    one, two, three, four = (Signed("k" * 10, US, str(n) * 22, bytes(64)) for n in range(4))
    memory.use("a", one, US)
    memory.use("a", two, US)
    with pytest.raises(Rejection, match="remembers all"):
        memory.use("a", three, US)
    memory.use("b", three, US)
    with pytest.raises(Rejection, match="remembers all"):
        memory.use("c", four, US)
    with pytest.raises(Rejection, match="used before"):
        memory.use("a", one, US)
    memory.use("a", four, US + 61 * US)


async def test_expiry_networks_and_revocation_hold_for_pairs_too(venue, mint):
    there = await mint(allowed_networks=["192.0.2.0/24"])
    assert (await there.call("GET", "/v1/bids")).json["code"] == "address_not_allowed"
    limited = await mint(limits={"max_price_per_gpu_hour": "0.50"})
    assert (await limited.call("POST", "/v1/bids", BID)).json["code"] == "max_price_exceeded"
    bot = await mint()
    assert (await bot.call("GET", "/v1/bids")).status == 200
    await venue.ok("DELETE", f"/v1/keys/{bot.id}", venue.buyer)
    unknown = Bot(venue, bot.private, {"id": "", "public_id": "x" * 10})
    private, _ = pair()
    wrong = Bot(venue, private, {"id": "", "public_id": (await mint()).public_id})
    answers = [await one.call("GET", "/v1/bids") for one in (bot, unknown, wrong)]
    assert {(one.status, one.json["detail"]) for one in answers} == {(401, "no valid key was presented")}


async def test_a_pair_is_rotated_with_a_new_public_half(venue, mint):
    bot = await mint()
    private, public_key = pair()
    path = f"/v1/keys/{bot.id}/rotate"
    bare = await venue.call("POST", path, venue.buyer, {})
    assert (bare.status, bare.json["errors"][0]["pointer"]) == (422, "/public_key")
    rotated = await bot.call("POST", path, {"public_key": public_key, "overlap_seconds": 60})
    assert rotated.status == 200 and rotated.json["secret"] is None
    assert rotated.json["public_id"] != bot.public_id and rotated.json["id"] == bot.id
    fresh = Bot(venue, private, rotated.json)
    assert (await bot.call("GET", "/v1/bids")).status == 200, "both, for a while"
    assert (await fresh.call("GET", "/v1/bids")).status == 200
    mixed = Bot(venue, bot.private, rotated.json)
    assert (await mixed.call("GET", "/v1/bids")).status == 401
    _, last = pair()
    await venue.ok("POST", path, venue.buyer, {"public_key": last, "overlap_seconds": 0})
    for one in (bot, fresh):
        assert (await one.call("GET", "/v1/bids")).status == 401
    plain = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "plain", "scopes": SCOPES})
    crossed = await venue.call(
        "POST", f"/v1/keys/{plain['id']}/rotate", venue.buyer, {"public_key": public_key}
    )
    assert (crossed.status, crossed.json["code"]) == (422, "invalid_value")


async def hello(socket):
    return (await socket.receive_json())["session"]


def auth(bot, session):
    signature = bot.private.sign(socket_text(bot.public_id, session))
    return {
        "type": "auth",
        "public_id": bot.public_id,
        "signature": base64.b64encode(signature).decode(),
        "id": 1,
    }


async def test_a_socket_is_opened_by_signing_its_session(venue, mint):
    bot = await mint()
    async with venue.client.ws_connect("/v1/ws") as socket:
        session = await hello(socket)
        message = auth(bot, session)
        await socket.send_json(message)
        assert (await socket.receive_json())["type"] == "ack"
        await socket.send_json({"type": "bid.place", "id": 2, **BID})
        answer = await socket.receive_json()
        while answer.get("id") != 2:
            answer = await socket.receive_json()
        assert answer["result"]["key"] == bot.id
        await venue.ok("DELETE", f"/v1/keys/{bot.id}", venue.buyer)
        while (closed := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert closed.data == 4001, "revoked"
    other = await mint()
    for refused in (
        message,  # of another session
        auth(Bot(venue, bot.private, {"id": "", "public_id": other.public_id}), session),
        auth(other, session) | {"key": venue.buyer},
        {"type": "auth"},
        {"type": "auth", "public_id": other.public_id},
    ):
        async with venue.client.ws_connect("/v1/ws") as socket:
            await hello(socket)
            await socket.send_json(refused)
            assert (await socket.receive_json())["close_code"] == 4001, refused


async def test_an_event_stream_goes_on_behind_its_one_signature(venue, mint):
    """Goal: the stream looks at its key again every second, and a nonce is good once."""
    bot = await mint()
    path = "/v1/stream?account=true"
    headers, _ = bot.sign("GET", path)
    async with venue.client.get(path, headers=headers) as stream:
        assert stream.status == 200
        began_us = venue.engine.clock.now_us()
        while venue.engine.clock.now_us() < began_us + 2 * US:
            assert await stream.content.readline(), "still open"
        await venue.ok("DELETE", f"/v1/keys/{bot.id}", venue.buyer)
        while await stream.content.readline():
            pass


@pytest.mark.parametrize("text", ["", "Fallow-Ed25519", "Fallow-Ed25519 key=a", "Bearer x", "é" * 40])
def test_no_text_is_taken_for_a_signature(text):
    assert parse_signed(text) is None


async def test_one_line_makes_a_bot_of_a_key_file(venue, tmp_path):
    """Goal: the command makes the pair, the client signs with it: requests, conditions, the socket."""
    shell = Shell(venue, tmp_path)
    file = tmp_path / "bot.pem"
    create = ("key", "create", "bot", "--scope", "bids:read", "--scope", "bids:write", "--ed25519", str(file))
    (made,) = await shell.json(*create)
    assert made["secret"] is None and made["type"] == "ed25519"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    code, _, errors = await shell.run(*create)
    assert code == 2 and "File exists" in errors and file.read_bytes() == before
    url = str(venue.client.make_url("/"))
    async with AsyncClient(url, signing_key=file) as client:
        bid = await client.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour="1.00", client_bid_id="ü/?&")
        assert [one.id async for one in client.bids(status="open")] == [bid.id]
        assert (await client.cancel_bid(bid.id)).status == "cancelled"
        async for message in client.stream(account=True, after_seq=0):
            assert message.event.startswith("balance"), "its first event: the deposit"
            break
    rotated = tmp_path / "next.pem"
    (turned,) = await shell.json(
        "key", "rotate", made["id"], "--ed25519", str(rotated), "--overlap-seconds", "0"
    )
    assert turned["public_id"] == SigningKey.load(rotated).public_id
    async with AsyncClient(url, signing_key=file) as client:
        with pytest.raises(AuthError):
            await anext(client.bids())
    async with AsyncClient(url, signing_key=str(rotated)) as client:
        assert [one.id async for one in client.bids()] == [bid.id]


async def test_a_refused_pair_leaves_no_file(venue, tmp_path):
    shell, file = Shell(venue, tmp_path), tmp_path / "bot.pem"
    code, _, errors = await shell.run(
        "key", "create", "bot", "--scope", "operator:write", "--ed25519", str(file)
    )
    assert code == 4 and "scope" in errors and not file.exists()


def test_a_key_file_is_ours_private_and_small_or_refused(tmp_path):
    path = tmp_path / "bot.pem"
    NewKeyFile(path).name("k" * 10)
    good = path.read_bytes()
    assert repr(SigningKey.load(path)) == "<SigningKey kkkkkkkkkk>"
    for content, match in (
        (good.partition(b"\n")[2], "expected a line"),
        (good[:60], "expected an ed25519"),
        (good + b" " * 5_000, "expected a line"),
        (b"", "expected a line"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            SigningKey.load(path)
    path.write_bytes(good)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        SigningKey.load(path)
    with pytest.raises(ValueError, match="No such file"):
        SigningKey.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="not both"):
        AsyncClient(key="k", signing_key=path)
