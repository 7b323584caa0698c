"""Signing keys: what is signed is taken once, as it was signed, and nothing else is."""

import asyncio
import hashlib
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import signatures
from api.keys import checksum
from api.services import SERVICES
from api.signatures import Nonces, Signed, encode, parse, sign
from fallow import AsyncClient, Client
from fallow.client import AuthError
from fallow.client.signing import load_signing_key
from tests.api.conftest import MARKET
from tests.api.shell import Shell
from tests.api.test_stream import connected

BID = b'{"market":"h100-sxm.test","gpus":1,"limit_price_per_gpu_hour":"0.50"}'
SCOPES = ["bids:read", "bids:write", "billing:read", "keys:write"]


class Bot:
    """Somebody with a signing key, who signs as the documentation says."""

    def __init__(self, venue, private_key, public_id):
        self.venue, self.private_key, self.public_id = venue, private_key, public_id
        self.count = 0

    def header(self, method, target, body=b"", *, at_us=None, nonce=None):
        self.count += 1
        return sign(
            self.private_key,
            self.public_id,
            method=method,
            target=target,
            at_us=self.venue.engine.clock.now_us() if at_us is None else at_us,
            nonce=nonce or f"nonce-of-test-{self.count:06}",
            body=body,
        )

    async def send(self, method, target, body=b"", header=None):
        headers = {"Authorization": header or self.header(method, target, body)}
        if body:
            headers["Content-Type"] = "application/json"
        async with self.venue.client.request(method, target, data=body or None, headers=headers) as answered:
            return answered.status, await answered.json()


@pytest.fixture
async def bot(venue):
    private_key = Ed25519PrivateKey.generate()
    public_key = encode(private_key.public_key().public_bytes_raw())
    made = await venue.ok(
        "POST", "/v1/keys", venue.buyer, {"name": "bot", "scopes": SCOPES, "public_key": public_key}
    )
    assert (made["type"], made["public_key"], made["secret"]) == ("ed25519", public_key, None)
    bot = Bot(venue, private_key, made["public_id"])
    bot.key = made["id"]
    return bot


async def test_a_signed_bid_is_placed_and_a_stranger_can_compute_what_was_signed(venue, bot):
    status, placed = await bot.send("POST", "/v1/bids", BID)
    assert (status, placed["market"]) == (201, MARKET)
    status, listed = await bot.send("GET", "/v1/bids?limit=5&market=" + MARKET)
    assert [one["id"] for one in listed["data"]] == [placed["id"]]
    signed = parse(bot.header("GET", "/v1/balance").partition(" ")[2])
    lines = ["fallow-ed25519-1", "GET", "/v1/balance", str(signed.at_us), signed.nonce]
    by_hand = "\n".join([*lines, encode(hashlib.sha256(b"").digest())]).encode()
    bot.private_key.public_key().verify(signed.signature, by_hand)


async def test_what_was_signed_for_another_request_is_refused(venue, bot):
    good = bot.header("POST", "/v1/bids", BID)
    for method, target, body in (
        ("POST", "/v1/bids/preview", BID),
        ("POST", "/v1/bids?x=1", BID),
        ("POST", "/v1/bids", BID.replace(b"0.50", b"9.50")),
        ("GET", "/v1/bids", b""),
    ):
        status, problem = await bot.send(method, target, body, good)
        assert (status, problem["code"]) == (401, "unauthenticated"), target
    other = Bot(venue, Ed25519PrivateKey.generate(), bot.public_id)
    assert (await other.send("GET", "/v1/balance"))[0] == 401
    for nonsense in ("", "key=x", bot.header("GET", "/v1/balance")[:-2], "Ed25519 " + "a" * 480):
        assert (await bot.send("GET", "/v1/balance", header=nonsense or "Ed25519"))[0] == 401
    assert (await venue.ok("GET", "/v1/bids", venue.buyer))["data"] == []


async def test_a_signature_is_taken_once(venue, bot):
    header = bot.header("POST", "/v1/bids", BID)
    assert (await bot.send("POST", "/v1/bids", BID, header))[0] == 201
    status, problem = await bot.send("POST", "/v1/bids", BID, header)
    assert (status, problem["code"]) == (401, "signature_replayed")
    assert len((await venue.ok("GET", "/v1/bids", venue.buyer))["data"]) == 1


async def test_a_clock_that_is_off_is_told_by_how_much(venue, bot):
    now_us = venue.engine.clock.now_us()
    for offset_s, word in ((-45, "45 s behind"), (45, "ahead of")):
        header = bot.header("GET", "/v1/balance", at_us=now_us + offset_s * 1_000_000)
        status, problem = await bot.send("GET", "/v1/balance", header=header)
        assert (status, problem["code"]) == (401, "signature_stale") and word in problem["detail"]
    started_us = venue.client.app[SERVICES].authenticator._started_us
    before = bot.header("GET", "/v1/balance", at_us=started_us - 1)
    assert (await bot.send("GET", "/v1/balance", header=before))[1]["code"] == "signature_stale"


async def test_neither_a_secret_nor_a_bearer_opens_a_signing_key(venue, bot):
    async with venue.pool.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM api_keys WHERE id = $1", bot.key)
    assert len(row["public_key"]) == 32
    stem = f"fal_test_{bot.public_id}_" + "0" * 43
    assert (await venue.call("GET", "/v1/balance", stem + checksum(stem))).status == 401


async def test_a_revoked_signing_key_and_a_replaced_one_sign_no_more(venue, bot):
    fresh = Ed25519PrivateKey.generate()
    body = {"public_key": encode(fresh.public_key().public_bytes_raw())}
    assert (await venue.call("POST", f"/v1/keys/{bot.key}/rotate", venue.buyer, {})).status == 422
    rotated = await venue.ok("POST", f"/v1/keys/{bot.key}/rotate", venue.buyer, body)
    assert rotated["id"] == bot.key and rotated["public_id"] != bot.public_id
    assert (await bot.send("GET", "/v1/balance"))[0] == 401
    renewed = Bot(venue, fresh, rotated["public_id"])
    assert (await renewed.send("GET", "/v1/balance"))[0] == 200
    await venue.ok("DELETE", f"/v1/keys/{bot.key}", venue.buyer)
    assert (await renewed.send("GET", "/v1/balance"))[0] == 401


async def test_the_socket_is_opened_by_a_signature_over_its_session(venue, bot):
    async with venue.client.ws_connect("/v1/ws") as socket:
        session = (await socket.receive_json())["session"]
        signed = bot.header("GET", "/v1/ws", nonce=session)
        await socket.send_json({"type": "auth", "signed": signed, "id": 1})
        assert (await socket.receive_json())["type"] == "ack"
        order = {
            "type": "bid.place",
            "market": MARKET,
            "gpus": 1,
            "limit_price_per_gpu_hour": "0.50",
            "id": 2,
        }
        await socket.send_json(order)
        assert (await socket.receive_json())["status"] == 201
        await venue.ok("DELETE", f"/v1/keys/{bot.key}", venue.buyer)
        async with asyncio.timeout(2):
            while (message := await socket.receive_json())["type"] != "goodbye":
                pass
        assert message["close_code"] == 4001
    async with connected(venue) as client:
        await client.send(type="auth", signed=signed)  # for another session
        assert await client.close_code() == 4001


async def test_the_command_makes_a_key_file_and_both_clients_sign_with_it(venue, tmp_path):
    shell = Shell(venue, tmp_path)
    path = tmp_path / "bot.key"
    scopes = [part for scope in SCOPES for part in ("--scope", scope)]
    (made,) = await shell.json("key", "create", "bot", *scopes, "--ed25519", str(path))
    assert made["type"] == "ed25519" and stat.S_IMODE(path.stat().st_mode) == 0o600
    code, _, errors = await shell.run("key", "create", "again", *scopes, "--ed25519", str(path))
    assert code == 2 and "File exists" in errors, "a key is never overwritten"
    (balance,) = await shell.json("bill", "balance", key=f"@{path}")
    assert balance["available"] == "1000.000000"
    async with AsyncClient(shell.server, key=f"@{path}") as client:
        bid = await client.place_bid(MARKET, gpus=1, limit_price_per_gpu_hour="0.50", labels={"a": "é ?&="})
        assert [one.id async for one in client.bids(market=MARKET)] == [bid.id]
        async for message in client.stream(account=True, after_seq=0):
            assert message.event == "balance.deposited"
            break

    def block():
        with Client(shell.server, key=f"@{path}") as client:
            return client.cancel_bid(bid.id).status

    assert await asyncio.to_thread(block) == "cancelled"
    os.chmod(path, 0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        load_signing_key(path)
    path.chmod(0o600)
    path.write_text("Fallow-Key: 0123456789\nnonsense")
    with pytest.raises(ValueError, match=r"bot\.key"):
        load_signing_key(path)


async def test_a_key_that_no_market_knows_is_an_auth_error(venue, tmp_path):
    shell = Shell(venue, tmp_path)
    path = tmp_path / "bot.key"
    await shell.json("key", "create", "bot", "--scope", "bids:read", "--ed25519", str(path))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(raw.split()[1], b"0123456789"))
    async with AsyncClient(shell.server, key=f"@{path}") as client:
        with pytest.raises(AuthError):
            await client.balance()


def test_nonces_are_bounded_and_expire(monkeypatch):
    monkeypatch.setattr(signatures, "NONCES_MAX", 2)
    nonces = Nonces()
    one, two, three = (Signed("0123456789", 0, f"nonce-{number:012}", b"", b"") for number in range(3))
    assert nonces.take(one, 0) and nonces.take(two, 1)
    assert not nonces.take(one, 2)
    with pytest.raises(OverflowError):
        nonces.take(three, 3)
    later_us = 2 * signatures.WINDOW_US
    assert nonces.take(three, later_us), "the first is over"
    assert not nonces.take(two, later_us)
