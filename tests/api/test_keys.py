"""Keys: every route against every kind of key, rotation, networks."""

from itertools import product

import pytest

from api.app import ROUTES
from api.keys import checksum, mint_key, scopes_of
from auction.commands import CreateKey, RevokeKey

ROLES = ("buyer", "owner", "operator")
SCOPED = [route for route in ROUTES if route.scope is not None]


@pytest.fixture
async def keys(venue):
    """A key of each kind, all of one account that plays every role."""
    core, now_us = venue.engine.core, venue.engine.clock.now_us()
    account = next(one.id for one in core.accounts.values() if one.roles == ["buyer"])

    async def make(scopes, **fields):
        key, text = mint_key(account, "k", scopes, is_live=False, now_us=now_us, **fields)
        await venue.engine.execute(CreateKey(key))
        return key, text

    made = {role: (await make(scopes_of([role])))[1] for role in ROLES}
    made["expired"] = (await make(scopes_of(ROLES), expires_at_us=now_us + 1))[1]
    revoked, made["revoked"] = await make(scopes_of(ROLES))
    await venue.engine.execute(RevokeKey(revoked))
    made["elsewhere"] = (await make(scopes_of(ROLES), allowed_networks=["192.0.2.0/24"]))[1]
    made["no scope"] = (await make([]))[1]
    made["none"] = None
    made["nonsense"] = "fal_test_nonsense"
    return made


async def test_every_route_with_every_kind_of_key(venue, keys):
    """Goal: no route forgets a check. What passes them meets a 4xx of its own, or succeeds, never a 5xx."""
    refused = {
        "none": (401, "unauthenticated"),
        "nonsense": (401, "unauthenticated"),
        "revoked": (401, "unauthenticated"),
        "expired": (401, "unauthenticated"),
        "elsewhere": (403, "address_not_allowed"),
        "no scope": (403, "scope_missing"),
    }
    for route, (kind, key) in product(SCOPED, keys.items()):
        path = route.path.replace("{", "").replace("}", "")
        body = None if route.method == "GET" else {"never": "heard of"}
        answered = await venue.call(route.method, path, key, body)
        found = (answered.status, (answered.json or {}).get("code"))
        if kind in refused:
            # Wrong keys from one address are slowed down after a while.
            assert found in (refused[kind], (429, "rate_limited")), (route.name, kind)
            assert found[0] != 429 or refused[kind][0] == 401
        elif not set(scopes_of([kind])).isdisjoint(route.scope.split(" or ")):
            assert found[1] not in ("scope_missing", "unauthenticated"), (route.name, kind)
            assert found[0] < 500, (route.name, kind, found)
        else:
            assert found == (403, "scope_missing"), (route.name, kind)


async def mint(venue, key, **fields):
    body = {"name": "bot", "scopes": ["bids:read", "bids:write", "keys:write"]} | fields
    return await venue.call("POST", "/v1/keys", key, body)


async def test_a_rotated_key_keeps_its_id_limits_and_bids(venue):
    made = (await mint(venue, venue.buyer, limits={"max_price_per_gpu_hour": "2.00"})).json
    terms = {"market": "h100-sxm.test", "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
    bid = await venue.ok("POST", "/v1/bids", made["secret"], terms)
    rotated = await venue.ok("POST", f"/v1/keys/{made['id']}/rotate", made["secret"], {"overlap_seconds": 1})
    assert rotated["id"] == made["id"] == bid["key"]
    assert rotated["secret"] not in (None, made["secret"]) and rotated["public_id"] != made["public_id"]
    for secret in (made["secret"], rotated["secret"]):
        assert (await venue.call("GET", "/v1/bids", secret)).status == 200, "both, for a second"
    dear = await venue.call(
        "POST", "/v1/bids", rotated["secret"], terms | {"limit_price_per_gpu_hour": "3.00"}
    )
    assert dear.json["code"] == "max_price_exceeded"

    async def old_is_over():
        return (await venue.call("GET", "/v1/bids", made["secret"])).status == 401

    await venue.until(old_is_over, "the end of the overlap")
    at_once = await venue.ok("POST", f"/v1/keys/{made['id']}/rotate", venue.buyer, {"overlap_seconds": 0})
    assert (await venue.call("GET", "/v1/bids", rotated["secret"])).status == 401
    assert (await venue.call("GET", "/v1/bids", at_once["secret"])).status == 200
    (listed,) = [
        key for key in (await venue.ok("GET", "/v1/keys", venue.buyer))["data"] if key["id"] == made["id"]
    ]
    assert listed["secret"] is None
    await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
    again = await venue.call("POST", f"/v1/keys/{made['id']}/rotate", venue.buyer)
    assert (again.status, again.json["code"]) == (409, "key_revoked")


async def test_rotation_is_no_way_to_more_than_one_has(venue):
    """Whoever rotates a key sees its secret: it must not be a stronger, a freer or another tenant's."""
    strong = (await mint(venue, venue.buyer, scopes=["billing:read", "keys:write"])).json
    weak = (await mint(venue, venue.buyer, scopes=["bids:read", "keys:write"])).json
    refused = await venue.call("POST", f"/v1/keys/{strong['id']}/rotate", weak["secret"])
    assert (refused.status, refused.json["code"]) == (403, "scope_exceeded")
    limited = (await mint(venue, venue.buyer, limits={"max_price_per_gpu_hour": "2.00"})).json
    free = (await mint(venue, venue.buyer, scopes=["bids:write"])).json
    refused = await venue.call("POST", f"/v1/keys/{free['id']}/rotate", limited["secret"])
    assert (refused.status, refused.json["code"]) == (403, "key_limited")
    _, stranger = await venue.open_account("buyer")
    assert (await venue.call("POST", f"/v1/keys/{weak['id']}/rotate", stranger)).status == 404
    repeated = [
        await venue.call("POST", f"/v1/keys/{weak['id']}/rotate", venue.buyer, {}, Idempotency_Key="turn")
        for _ in range(2)
    ]
    assert repeated[0].json["secret"] and repeated[1].json["secret"] is None, "shown once"
    assert (await venue.call("GET", "/v1/keys", repeated[0].json["secret"])).status == 200


async def test_a_key_is_used_from_its_networks_only_and_makes_none_beyond_them(venue):
    here = (await mint(venue, venue.buyer, allowed_networks=["127.0.0.0/8", "2001:db8::/32"])).json
    assert here["allowed_networks"] == ["127.0.0.0/8", "2001:db8::/32"]
    assert (await venue.call("GET", "/v1/bids", here["secret"])).status == 200
    there = (await mint(venue, venue.buyer, allowed_networks=["192.0.2.7"])).json
    assert there["allowed_networks"] == ["192.0.2.7/32"]
    refused = await venue.call("GET", "/v1/bids", there["secret"])
    assert (refused.status, refused.json["code"]) == (403, "address_not_allowed")
    child = (await mint(venue, here["secret"])).json
    assert child["allowed_networks"] == here["allowed_networks"], "inherited"
    assert (await mint(venue, here["secret"], allowed_networks=["127.0.0.1"])).status == 201
    for beyond in (["0.0.0.0/0"], ["192.0.2.0/24"], ["::/0"]):
        assert (await mint(venue, here["secret"], allowed_networks=beyond)).json[
            "code"
        ] == "address_not_allowed"
    for nonsense in (["127.0.0.1/8"], ["example.org"], ["1.2.3.4"] * 17):
        assert (await mint(venue, venue.buyer, allowed_networks=nonsense)).json["code"] == "invalid_value"
    async with venue.client.ws_connect("/v1/ws") as socket:
        await socket.receive_json()
        await socket.send_json({"type": "auth", "key": there["secret"]})
        assert (await socket.receive_json())["reason"] == "address_not_allowed"
        closed = await socket.receive()
        assert closed.data == 4001


async def test_a_key_that_was_just_right_does_not_let_near_misses_in(venue):
    """Goal: what is remembered of a key lets in its very text, and only while it may be used."""
    made = (await mint(venue, venue.buyer)).json
    text = made["secret"]

    async def asked(presented):
        answered = await venue.call("GET", "/v1/bids", presented)
        return answered.status

    def other(at):
        return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]

    stem = text[:-7] + ("1" if text[-7] == "0" else "0")
    near = [other(-1), other(25), stem + checksum(stem), text[:-1], text + "0", text.replace("test", "live")]
    assert 200 == await asked(text)
    assert [401] * len(near) == [await asked(presented) for presented in near]
    assert 200 == await asked(text), "nor do they make it forgotten"
    await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
    assert 401 == await asked(text)
