"""The audit log: who changed what, without secrets, in a chain that shows where it was touched."""

import hashlib
import json

import asyncpg
import pytest

from api.app import ROUTES
from api.sessions import SOCKET_SCOPES
from tests.api.conftest import MARKET, serving


async def entries(venue, key, path="/v1/audit-log", only=""):
    return (await venue.ok("GET", f"{path}?limit=200{only}", key))["data"]


async def test_a_change_is_written_down_with_who_asked_and_without_its_secret(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "bot", "scopes": ["bids:read"]})
    newest, *_ = await entries(venue, venue.buyer)
    assert (newest["method"], newest["path"], newest["scope"]) == ("POST", "/v1/keys", "keys:write")
    assert (newest["status"], newest["subject"], newest["address"]) == (201, made["id"], "127.0.0.1")
    assert newest["request"] == '{"name":"bot","scopes":["bids:read"]}'
    assert '"name":"bot"' in newest["answer"]
    kept = await venue.pool.fetch("SELECT t::text AS text FROM audit_log t")
    secret = made["secret"]
    assert secret not in str(kept) and secret[-20:] not in str(kept)


async def test_what_is_refused_or_only_read_is_not_in_it(venue):
    before = len(await entries(venue, venue.buyer))
    await venue.ok("GET", "/v1/keys", venue.buyer)
    refused = await venue.call("POST", "/v1/keys", venue.buyer, {"name": "x", "scopes": ["operator:write"]})
    absent = await venue.call("DELETE", "/v1/keys/key_00000000000000000000", venue.buyer)
    assert (refused.status, absent.status) == (403, 404)
    assert len(await entries(venue, venue.buyer)) == before


async def test_a_tenant_sees_its_own_rows_and_an_operator_all(venue):
    await venue.offer_node()
    await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "bot", "scopes": ["bids:read"]})
    mine, owners = await entries(venue, venue.buyer), await entries(venue, venue.owner)
    everybody = await entries(venue, venue.operator, "/v1/operator/audit-log")
    assert {row["path"] for row in mine} == {"/v1/keys", "/v1/deposits"}
    assert {row["path"] for row in owners} >= {"/v1/nodes", "/v1/offers"}
    assert [row["id"] for row in everybody] == list(range(len(everybody), 0, -1))
    assert {row["account"] for row in everybody} > {mine[0]["account"], owners[0]["account"]}
    account = mine[0]["account"]
    chosen = await entries(venue, venue.operator, "/v1/operator/audit-log", f"&account={account}")
    assert chosen == mine


def hash_of(row, at_us):
    names = [name for name in list(row)[: list(row).index("previous_hash")] if name != "before"]
    if row["before"] is not None:
        names.append("before")
    fields = [at_us if name == "at" else row[name] for name in names]
    written = "".join("-," if f is None else f"{len(str(f).encode())}:{f}," for f in fields)
    return hashlib.sha256(bytes.fromhex(row["previous_hash"]) + written.encode()).hexdigest()


async def test_the_chain_can_be_checked_by_whoever_reads_it(venue):
    await venue.offer_node()
    await venue.ok("POST", f"/v1/operator/markets/{MARKET}/halt", venue.operator, {"reason": "drill"})
    rows = (await entries(venue, venue.operator, "/v1/operator/audit-log"))[::-1]
    assert len(rows) > 5 and rows[-1]["before"] is not None
    times = dict(await venue.pool.fetch("SELECT id, at_us FROM audit_log"))
    previous = hashlib.sha256(b"fallow audit log").hexdigest()
    for row in rows:
        assert row["previous_hash"] == previous
        assert hash_of(row, times[row["id"]]) == row["hash"]
        previous = row["hash"]


async def test_a_changed_setting_is_written_down_with_what_it_was(venue):
    account, key = await venue.open_account("buyer")
    (bot,) = (await venue.ok("GET", "/v1/keys", key))["data"]
    people, market = f"/v1/operator/accounts/{account}", f"/v1/operator/markets/{MARKET}"
    limits = {"max_price_per_gpu_hour": "2.00"}
    terms = {"notice_seconds": 7}
    changes = [
        ("PATCH", market, venue.operator, terms, "notice_seconds", 1, 7),
        ("POST", f"{market}/halt", venue.operator, {"reason": "drill"}, "status", "open", "halted"),
        ("POST", f"{market}/resume", venue.operator, {}, "status", "halted", "open"),
        ("PATCH", people, venue.operator, {"name": "Lab"}, "name", "someone", "Lab"),
        ("POST", f"{people}/freeze", venue.operator, {}, "state", "open", "frozen"),
        ("POST", f"{people}/unfreeze", venue.operator, {}, "state", "frozen", "open"),
        ("PUT", f"{people}/affiliation", venue.operator, {"affiliation": "x"}, "affiliation", None, "x"),
        ("PUT", f"{people}/limits", venue.operator, limits, "max_price_per_gpu_hour", None, "2.000000"),
        ("PUT", f"{people}/limits", venue.operator, {}, "max_price_per_gpu_hour", "2.000000", None),
        ("POST", f"/v1/keys/{bot['id']}/stop", key, {}, "stopped", None, True),
    ]
    for method, path, who, body, name, was, becomes in changes:
        etag = {"If-Match": '"1"'} if method == "PATCH" else {}
        answer = await venue.ok(method, path, who, body, **etag)
        newest, *_ = await entries(venue, venue.operator, "/v1/operator/audit-log")
        before = json.loads(newest["before"] or "{}")
        assert (before.get(name), answer[name]) == (was, becomes), path
    twice = {"If-Match": '"4"', "Idempotency-Key": "once"}
    for was in (7, None):
        await venue.ok("PATCH", market, venue.operator, {"notice_seconds": 8}, **twice)
        newest, *_ = await entries(venue, venue.operator, "/v1/operator/audit-log")
        before = json.loads(newest["before"] or "{}")
        assert before.get("notice_seconds") == was, "a repeat changes nothing"
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "bot", "scopes": ["bids:read"]})
    newest, *_ = await entries(venue, venue.buyer)
    assert (newest["subject"], newest["before"]) == (made["id"], None), "there was nothing before"


async def test_every_tick_tells_the_public_where_the_log_ends(database, config):
    async def told(venue):
        async with venue.client.ws_connect("/v1/ws") as socket:
            await socket.send_json({"type": "subscribe", "channels": [f"market:{MARKET}"]})
            ticks = []
            while len(ticks) < 2:  # the first may have been written down before
                message = await socket.receive_json()
                ticks += [message["audit_log_hash"]] if message["type"] == "tick" else []
            return ticks[-1]

    async with serving(database, config) as venue:
        await venue.open_market()
        await venue.open_account("buyer")
        newest, *_ = await entries(venue, venue.operator, "/v1/operator/audit-log")
        assert await told(venue) == newest["hash"]
        operator = venue.operator
    async with serving(database, config, operator) as venue:
        assert await told(venue) == newest["hash"], "a restart reads it"


@pytest.mark.parametrize(
    "touch", ["UPDATE audit_log SET path = '/v1/innocent'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_nobody_changes_a_row_not_even_who_owns_the_tables(venue, touch):
    """What a way around this would leave behind is found by the audit (tests/integration/test_audit.py)."""
    with pytest.raises(asyncpg.RestrictViolationError, match="audit_log is append-only"):
        await venue.pool.execute(touch)


def test_what_is_audited_is_every_change_but_the_auctions_own():
    others = {route.scope for route in ROUTES if route.method != "GET" and not route.is_audited}
    assert others == {
        "agent", "bids:read", "bids:write", "supply:read",
        "operator:read",  # a replay, which changes nothing
        SOCKET_SCOPES,  # a ticket
        None,  # signing in and out, which write themselves down
    }  # fmt: skip
