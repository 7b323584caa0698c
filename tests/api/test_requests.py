"""Who may ask, what is refused, what is repeated: the promises around every route."""

import asyncio
import json

import msgpack
import msgspec
import pytest

from api.app import ROUTES
from api.keys import mint_key
from api.problems import PROBLEMS
from auction.commands import CreateKey
from tests.api.conftest import MARKET, serving

BID = {"market": MARKET, "gpus": 2, "limit_price_per_gpu_hour": "2.00"}


def with_field(**fields):
    return json.dumps(BID | fields).encode()


BAD_BODIES = {
    "zero": (with_field(gpus=0), 422),
    "negative": (with_field(gpus=-1), 422),
    "nan": (b'{"market": "m", "gpus": NaN, "limit_price_per_gpu_hour": "2.00"}', 400),
    "infinity": (b'{"market": "m", "gpus": Infinity, "limit_price_per_gpu_hour": "2.00"}', 400),
    "two to the 63": (with_field(gpus=2**63), 422),
    "ten to the 400": (with_field(gpus=10**400), 422),
    "five thousand digits": (b'{"market": "m", "gpus": ' + b"9" * 5000 + b"}", 422),
    "huge exponent": (b'{"market": "m", "gpus": 1e400}', 422),
    "float": (with_field(gpus=2.5), 422),
    "integral float": (with_field(gpus=4.0), 422),
    "text for a number": (with_field(gpus="2"), 422),
    "true for a number": (with_field(gpus=True), 422),
    "null": (with_field(gpus=None), 422),
    "number for a price": (with_field(limit_price_per_gpu_hour=2.0), 422),
    "negative price": (with_field(limit_price_per_gpu_hour="-2.00"), 422),
    "zero price": (with_field(limit_price_per_gpu_hour="0"), 422),
    "price in words": (with_field(limit_price_per_gpu_hour="NaN"), 422),
    "price with seven places": (with_field(limit_price_per_gpu_hour="2.0000001"), 422),
    "price of 5,000 digits": (with_field(limit_price_per_gpu_hour="9" * 5000), 422),
    "price off the increment": (with_field(limit_price_per_gpu_hour="2.00005"), 422),
    "price above the cap": (with_field(limit_price_per_gpu_hour="999"), 422),
    "min above gpus": (with_field(min_gpus=3), 422),
    "unknown field": (with_field(bonus=1), 422),
    "a later feature": (with_field(payload="x"), 422),
    "missing field": (b'{"market": "m"}', 422),
    "deep unknown": (b'{"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 422),
    "deep labels": (b'{"labels": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
    "bad utf-8": (b'{"market": "\xff\xfe"}', 400),
    "lone surrogate": (b'{"market": "m", "client_bid_id": "\\ud800"}', 400),
    "nul": (with_field(client_bid_id="a\0b"), 422),
    "nul in a label": (with_field(labels={"a": "\0"}), 422),
    "bidi control": (with_field(labels={"a": "\u202e"}), 422),
    "long client_bid_id": (with_field(client_bid_id="x" * 65), 422),
    "long label": (with_field(labels={"a": "x" * 65}), 422),
    "many labels": (with_field(labels={str(n): "" for n in range(17)}), 422),
    "missing market": (with_field(market="nowhere"), 404),
    "nul in a market": (with_field(market="a\0"), 422),
    "empty": (b"", 400),
    "array": (b"[]", 422),
    "cut short": (b'{"market": "m"', 400),
    "trailing": (b"{} {}", 422),
}


async def state_of(venue):
    """Return what no refused request may change: the market's clock aside, everything."""
    live = venue.engine.core.live()
    return (
        [msgspec.msgpack.encode(bid) for bid in live.bids],
        dict(live.balances),
        [msgspec.msgpack.encode(account) for account in live.accounts],
        (await venue.ok("GET", "/v1/bids", venue.buyer))["data"],
    )


async def test_bad_bodies_are_refused_with_a_stable_code_and_change_nothing(venue):
    before = await state_of(venue)
    for name, (body, status) in BAD_BODIES.items():
        answered = await venue.call("POST", "/v1/bids", venue.buyer, body)
        assert answered.status == status, (name, answered.raw)
        assert answered.headers["Content-Type"] == "application/problem+json", name
        problem = answered.json
        assert PROBLEMS[problem["code"]].status == problem["status"] == status, name
        assert problem["type"] == f"/problems/{problem['code']}", name
        assert problem["request_id"] == answered.headers["X-Request-Id"], name
        if status == 422:
            assert problem["errors"], name
        assert "Server" not in answered.headers
    assert await state_of(venue) == before


async def test_bad_msgpack_is_refused(venue):
    before = await state_of(venue)
    bodies = {
        "reserved opcode": b"\xc1",
        "huge array": b"\xdd\xff\xff\xff\xff",
        "huge map": b"\xdf\xff\xff\xff\xff",
        "nested": b"\x91" * 50_000,
        "nested labels": b"\x81\xa6labels" + b"\x91" * 50_000,
        "bad utf-8": b"\x81\xa6market\xa2\xff\xfe",
        "nan": msgpack.packb(BID | {"gpus": float("nan")}),
        "two to the 64": msgpack.packb(BID | {"gpus": 2**64 - 1}),
        "extension": b"\x81\xa4gpus\xd4\x05a",
        "timestamp": msgpack.packb(BID | {"gpus": msgpack.Timestamp(1)}),
        "bytes": msgpack.packb(BID | {"market": b"m"}),
        "cut short": msgpack.packb(BID)[:-1],
    }
    for name, body in bodies.items():
        answered = await venue.call("POST", "/v1/bids", venue.buyer, body, Content_Type="application/msgpack")
        assert answered.status in (400, 422), (name, answered.raw)
        assert answered.headers["Content-Type"] == "application/problem+msgpack"
        assert msgpack.unpackb(answered.raw)["code"] in PROBLEMS
    assert await state_of(venue) == before


async def test_bad_queries_and_paths_are_refused(venue):
    for path, status in {
        "/v1/bids?limit=0": 422,
        "/v1/bids?limit=501": 422,
        "/v1/bids?limit=x": 422,
        f"/v1/bids?limit={'9' * 5000}": 422,
        "/v1/bids?bogus=1": 422,
        "/v1/bids?market=%00": 422,
        "/v1/bids?cursor=zzz": 422,
        "/v1/leases?cursor=AAAA": 422,
        "/v1/ledger/entries?cursor=kgHA": 422,
        "/v1/bids/%00": 404,
        "/v1/bids/bid_unknown": 404,
        "/v1/bids/by-client-id/a%00": 404,
        "/v1/bids/by-client-id/%ff": 404,
        "/v1/leases/%FF%FE": 404,
        "/v1/markets/nowhere": 404,
        "/v1/markets/nowhere/ticks": 404,
        f"/v1/markets/{MARKET}/ticks/x": 404,
        f"/v1/markets/{MARKET}/ticks/{'9' * 30}": 404,
        f"/v1/markets/{MARKET}/ticks?from=yesterday": 422,
        f"/v1/markets/{MARKET}/quote": 422,
        f"/v1/markets/{MARKET}/quote?gpus=0": 422,
        "/v1/nothing": 404,
        "/problems/nothing": 404,
    }.items():
        answered = await venue.call("GET", path, venue.buyer)
        assert (answered.status, answered.json["status"]) == (status, status), path
        assert answered.json["code"] in PROBLEMS


async def test_sizes_types_and_encodings_are_refused(venue):
    long_label = with_field(labels={"a": "x" * 70_000})
    large = await venue.call("POST", "/v1/bids", venue.buyer, long_label)
    assert (large.status, large.json["code"]) == (413, "too_large")
    batch = b'{"operations": [' + b" " * 256_000 + b"]}"
    larger = await venue.call("POST", "/v1/bids/batch", venue.buyer, batch)
    assert (larger.status, larger.json["code"]) == (413, "too_large")
    for headers in (
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": "br"},
    ):
        answered = await venue.call("POST", "/v1/bids", venue.buyer, with_field(), **headers)
        assert (answered.status, answered.json["code"]) == (415, "unsupported_media_type"), headers
    csv = await venue.call("GET", "/v1/balance", venue.buyer, Accept="text/csv")
    assert (csv.status, csv.json["code"]) == (406, "not_acceptable")
    put = await venue.call("PUT", "/v1/bids", venue.buyer, with_field())
    assert (put.status, put.json["code"]) == (405, "method_not_allowed")
    assert "POST" in put.headers["Allow"]


async def test_both_codecs_say_the_same(venue):
    bid = await venue.place()
    path = f"/v1/bids/{bid['id']}"
    as_json = await venue.call("GET", path, venue.buyer, Accept="application/json")
    for accept in ("application/msgpack", "application/vnd.msgpack"):
        packed = await venue.call("GET", path, venue.buyer, Accept=accept)
        assert packed.headers["Content-Type"] == "application/msgpack"
        shown = msgpack.unpackb(packed.raw)
        assert {**shown, "effective_tick": 0, "cutoff_at": ""} == {
            **as_json.json,
            "effective_tick": 0,
            "cutoff_at": "",
        }
    sent = await venue.call(
        "POST", "/v1/bids", venue.buyer, msgpack.packb(BID), Content_Type="application/msgpack"
    )
    assert sent.status == 201
    assert msgpack.unpackb(sent.raw)["gpus"] == 2


async def test_every_scoped_route_refuses_no_key_and_a_key_without_its_scope(venue):
    """Goal: no route forgets its scope. Each is called without a key and with one of no use."""
    assert {route.scope for route in ROUTES if route.scope is None} == {None}
    account = next(iter(venue.engine.core.accounts))
    key, bare = mint_key(account, "bare", [], is_live=False, now_us=venue.engine.clock.now_us())
    await venue.engine.execute(CreateKey(key))
    checked = 0
    for route in ROUTES:
        if route.scope is None:
            assert route.path.startswith(("/v1/time", "/v1/markets", "/v1/catalog.")) or (
                # Whoever signs in or out, or asks who is: test_sessions.py.
                route.path in ("/v1/sessions", "/v1/sessions/current")
            ), route.path
            continue
        path = route.path.replace("{", "").replace("}", "")
        nobody = await venue.call(route.method, path)
        assert (nobody.status, nobody.json["code"]) == (401, "unauthenticated"), path
        assert nobody.headers["WWW-Authenticate"] == "Bearer"
        poor = await venue.call(route.method, path, bare)
        assert (poor.status, poor.json["code"]) == (403, "scope_missing"), path
        assert poor.json["scope"] == route.scope
        checked += 1
    assert checked > 30


async def test_wrong_keys_are_all_the_same_answer(venue):
    key = venue.buyer
    _, unknown = mint_key("acct_x", "x", [], is_live=False, now_us=1)
    _, live = mint_key("acct_x", "x", [], is_live=True, now_us=1)
    bodies = set()
    for wrong in (key[:-1] + ("a" if key[-1] != "a" else "b"), unknown, live, "junk", "", "x" * 5000, "é"):
        answered = await venue.call("GET", "/v1/balance", wrong)
        assert answered.status == 401
        bodies.add(answered.json["detail"])
    assert len(bodies) == 1


async def test_what_is_not_yours_is_not_there(venue):
    """Goal: the same body, but for its request id, for another's object and for none."""
    await venue.offer_node()
    bid = await venue.place()
    lease = await venue.lease_in("running")
    _, stranger = await venue.open_account("buyer", "owner")
    node = next(iter(venue.engine.core.nodes))
    offer = next(iter(venue.engine.core.offers))
    key = (await venue.ok("GET", "/v1/keys", venue.buyer))["data"][0]["id"]
    for method, path, own in (
        ("GET", "/v1/bids/{}", bid["id"]),
        ("GET", "/v1/bids/{}/events", bid["id"]),
        ("DELETE", "/v1/bids/{}", bid["id"]),
        ("GET", "/v1/leases/{}", lease["id"]),
        ("POST", "/v1/leases/{}/release", lease["id"]),
        ("POST", "/v1/agent/leases/{}/report", lease["id"]),
        ("GET", "/v1/nodes/{}", node),
        ("POST", "/v1/nodes/{}/cordon", node),
        ("POST", "/v1/nodes/{}/recall", node),
        ("GET", "/v1/offers/{}", offer),
        ("DELETE", "/v1/keys/{}", key),
    ):
        body = {"state": "stopped"} if path.endswith("report") else None
        theirs = await venue.call(method, path.format(own), stranger, body)
        absent = await venue.call(method, path.format("nothing_here"), stranger, body)
        assert theirs.status == absent.status == 404, path
        assert theirs.json | {"request_id": ""} == absent.json | {"request_id": ""}, path
    for path in ("/v1/bids", "/v1/leases", "/v1/nodes", "/v1/offers", "/v1/ledger/entries"):
        assert (await venue.ok("GET", path, stranger))["data"] == []


async def test_a_key_mints_a_subset_of_its_scopes_and_revoking_it_works_at_once(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "reader", "scopes": ["bids:read"]})
    reader = made["secret"]
    await venue.ok("GET", "/v1/bids", reader)
    more = await venue.call(
        "POST", "/v1/keys", venue.buyer, {"name": "x", "scopes": ["bids:read", "operator:write"]}
    )
    assert (more.status, more.json["code"], more.json["scope"]) == (403, "scope_exceeded", "operator:write")
    bogus = await venue.call("POST", "/v1/keys", venue.buyer, {"name": "x", "scopes": ["root"]})
    assert bogus.status == 422
    listed = await venue.ok("GET", "/v1/keys", venue.buyer)
    assert all(key["secret"] is None for key in listed["data"])
    revoked = await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
    assert revoked["revoked_at"] is not None
    assert (await venue.call("GET", "/v1/bids", reader)).status == 401
    again = await venue.call("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
    assert again.json["code"] == "key_revoked"


async def test_money_answers(venue):
    poor = await venue.call("POST", "/v1/bids", venue.buyer, BID | {"gpus": 100_000})
    assert (poor.status, poor.json["code"]) == (402, "insufficient_funds")
    assert poor.json["available"] == "1000.000000"
    assert float(poor.json["required"]) > 1000
    account = venue.engine.core.accounts
    buyer = next(found.id for found in account.values() if found.roles == ["buyer"])
    other = await venue.call("POST", "/v1/deposits", venue.owner, {"amount": "1", "account": buyer})
    assert (other.status, other.json["code"]) == (403, "deposit_not_allowed")
    given = await venue.ok("POST", "/v1/deposits", venue.operator, {"amount": "1", "account": buyer})
    assert given["balance"]["available"] == "1001.000000"
    for amount in ("0", "-1", "1e3", "0.0000001", 5, "9999999999999"):
        refused = await venue.call("POST", "/v1/deposits", venue.buyer, {"amount": amount})
        assert refused.status == 422, amount
    frozen = await venue.ok("POST", f"/v1/operator/accounts/{buyer}/freeze", venue.operator)
    assert frozen["state"] == "frozen"
    refused = await venue.call("POST", "/v1/bids", venue.buyer, BID)
    assert (refused.status, refused.json["code"]) == (403, "account_frozen")


async def test_an_idempotency_key_gives_the_first_answer_also_after_a_restart(venue, database, config):
    first = await venue.call("POST", "/v1/bids", venue.buyer, BID, Idempotency_Key="k 1")
    again = await venue.call("POST", "/v1/bids", venue.buyer, BID, Idempotency_Key="k 1")
    assert (first.status, again.status) == (201, 201)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.raw == first.raw
    assert again.headers["ETag"] == first.headers["ETag"]
    other = await venue.call("POST", "/v1/bids", venue.buyer, BID | {"gpus": 1}, Idempotency_Key="k 1")
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    _, stranger = await venue.open_account("buyer")
    theirs = await venue.call("POST", "/v1/bids", stranger, BID, Idempotency_Key="k 1")
    assert theirs.status == 402  # their own key space, their own empty account
    for bad in ("x" * 256, "é", "a\tb"):
        refused = await venue.call("POST", "/v1/bids", venue.buyer, BID, Idempotency_Key=bad)
        assert (refused.status, refused.json["code"]) == (400, "malformed_header"), bad
    buyer, operator = venue.buyer, venue.operator
    await venue.client.close()
    await venue.engine.stop()
    async with serving(database, config, operator) as restarted:
        replayed = await restarted.call("POST", "/v1/bids", buyer, BID, Idempotency_Key="k 1")
        assert replayed.raw == first.raw
        assert replayed.headers["Idempotency-Replayed"] == "true"


async def test_concurrent_requests_with_one_key_have_one_effect(venue):
    answers = await asyncio.gather(
        *(venue.call("POST", "/v1/bids", venue.buyer, BID, Idempotency_Key="same") for _ in range(20))
    )
    good = [answer for answer in answers if answer.status == 201]
    assert len({answer.raw for answer in good}) == 1
    assert {answer.json["code"] for answer in answers if answer.status != 201} <= {"idempotency_in_progress"}
    assert len((await venue.ok("GET", "/v1/bids", venue.buyer))["data"]) == 1


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/operator/accounts"])
async def test_a_stored_answer_never_holds_a_secret(venue, database, path):
    """Goal: the first reader gets the secret, a repeat and the database do not."""
    body = {"name": "once", "scopes": ["billing:read"]}
    if path.endswith("accounts"):
        body = {"name": "once", "roles": ["owner"]}
    name = "key" if path.endswith("accounts") else "secret"
    key = venue.operator
    first = await venue.call("POST", path, key, body, Idempotency_Key="secret")
    again = await venue.call("POST", path, key, body, Idempotency_Key="secret")
    assert first.json[name].startswith("fal_test_")
    assert again.json == first.json | {name: None}
    connection = await database.connect()
    stored = await connection.fetchval("SELECT body FROM idempotency_keys WHERE key = 'secret'")
    await connection.close()
    assert stored == again.raw
    assert (await venue.call("GET", "/v1/balance", first.json[name])).status == 200


async def test_the_system_pages_answer(venue):
    assert (await venue.ok("GET", "/livez"))["status"] == "live"
    assert (await venue.ok("GET", "/readyz"))["status"] == "ready"
    assert (await venue.ok("GET", "/version"))["api"] == "v1"
    assert (await venue.ok("GET", "/openapi.json"))["openapi"] == "3.1.0"
    for code in PROBLEMS:
        page = await venue.call("GET", f"/problems/{code}")
        assert page.status == 200
        assert code.encode() in page.raw
    time = await venue.ok("GET", "/v1/time")
    assert time["time"].endswith("Z")
    shown = await venue.ok("GET", f"/v1/markets/{MARKET}")
    assert (shown["price_increment"], shown["currency"]) == ("0.000100", "USD")
    assert [market["id"] for market in (await venue.ok("GET", "/v1/markets"))["data"]] == [MARKET]


async def test_reads_without_a_database_are_unavailable_and_say_when_to_return(venue):
    await venue.app_pool.close()
    answered = await venue.call("GET", "/v1/bids", venue.buyer)
    assert (answered.status, answered.json["code"]) == (503, "storage_unavailable")
    assert answered.json["retryable"] is True
    assert int(answered.headers["Retry-After"]) >= 1
    assert (await venue.call("GET", "/livez")).status == 200
