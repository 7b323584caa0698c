"""What may be changed later: a node and its end, a market's beat, an account's name and roles."""

import pytest

from tests.api.conftest import MARKET


async def node_of(venue, **fields):
    body = {"name": "rack 1", "market": MARKET, "gpus": 8} | fields
    return await venue.ok("POST", "/v1/nodes", venue.owner, body)


async def refused(venue, method, path, key, body=None, **headers):
    answered = await venue.call(method, path, key, body, **headers)
    return answered.status, answered.json["code"]


async def test_a_node_is_renamed_and_described_anew(venue):
    node = await node_of(venue)
    path = f"/v1/nodes/{node['id']}"
    changed = await venue.ok("PATCH", path, venue.owner, {"name": "rack 2", "gpus": 16, "fabric": "ib-1"})
    assert (changed["name"], changed["gpus"], changed["fabric"]) == ("rack 2", 16, "ib-1")
    assert changed["version"] == node["version"] + 1
    await node_of(venue)  # the first name is free
    assert await refused(venue, "PATCH", path, venue.owner, {"name": "rack 1"}) == (409, "node_name_taken")
    assert await refused(venue, "PATCH", path, venue.owner, {}) == (422, "nothing_to_change")
    stale = await refused(venue, "PATCH", path, venue.owner, {"name": "x"}, **{"If-Match": '"1"'})
    assert stale == (412, "version_mismatch")
    _, other = await venue.open_account("owner")
    assert await refused(venue, "PATCH", path, other, {"name": "x"}) == (404, "not_found")
    await venue.ok("PATCH", path, venue.owner, {"name": "rack 2"})  # its own name is not taken
    fewer = await refused(venue, "PATCH", path, venue.owner, {"gpus": 8})
    assert fewer == (422, "gpus_out_of_range"), "its leases of the past name the others"
    assert (await venue.ok("GET", path, venue.owner))["gpus"] == 16


async def test_what_is_lent_keeps_its_shape_and_its_node(venue):
    node, offer = await venue.offer_node()
    path = f"/v1/nodes/{node['id']}"
    for body in ({"gpus": 16}, {"fabric": "ib-1"}):
        assert await refused(venue, "PATCH", path, venue.owner, body) == (409, "node_in_use")
    assert await refused(venue, "DELETE", path, venue.owner) == (409, "node_in_use")
    await venue.ok("PATCH", path, venue.owner, {"name": "still lent", "gpus": 8})
    await venue.ok(
        "DELETE", f"/v1/offers/{offer['id']}", venue.owner, **{"If-Match": f'"{offer["version"]}"'}
    )
    assert (await venue.ok("PATCH", path, venue.owner, {"gpus": 16}))["gpus"] == 16


async def test_a_retired_node_is_gone_but_for_its_record(venue):
    node, _ = await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    path = f"/v1/nodes/{node['id']}"
    await venue.ok("POST", f"{path}/recall", venue.owner, {})

    async def over():
        return (await venue.ok("GET", f"/v1/leases/{lease['id']}", venue.buyer))["state"] == "ended"

    await venue.until(over, "the lease's end")
    retired = await venue.ok("DELETE", path, venue.owner)
    assert retired["state"] == "retired"
    assert (await venue.ok("GET", path, venue.owner))["state"] == "retired"
    assert (await venue.ok("GET", "/v1/nodes", venue.owner))["data"] == []
    assert (await venue.ok("GET", "/v1/agent/desired", venue.owner))["nodes"] == []
    assert await refused(venue, "DELETE", path, venue.owner) == (404, "not_found")
    offer = {"node": node["id"], "gpus": 1, "reserve_price_per_gpu_hour": "1.00"}
    assert await refused(venue, "POST", "/v1/offers", venue.owner, offer) == (404, "not_found")
    again = await node_of(venue, name=node["name"], simulated=True)
    assert again["id"] != node["id"]
    live = await venue.engine._store.load()
    assert [one.id for one in live.nodes] == [again["id"]], "a restart does not know it either"


async def test_a_market_changes_its_beat_and_promises(venue):
    path = f"/v1/operator/markets/{MARKET}"
    terms = {"tick_seconds": 2, "notice_seconds": 30, "provisioning_seconds": 60, "stagger_share_bps": 500}
    changed = await venue.ok("PATCH", path, venue.operator, terms, If_Match='"1"')
    assert {name: changed[name] for name in terms} == terms
    assert changed["settlement_seconds"] == 60, "what is left out stays"
    off = await venue.ok("PATCH", path, venue.operator, {"stagger_share_bps": 0}, If_Match='"2"')
    assert (off["stagger_share_bps"], off["tick_seconds"]) == (None, 2)
    shown = await venue.ok("GET", f"/v1/markets/{MARKET}")
    assert (shown["notice_seconds"], shown["stagger_share_bps"]) == (30, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "nothing_to_change")),
        ({"tick_seconds": 0}, (422, "invalid_value")),
        ({"fee_bps": 100}, (422, "unknown_field")),
        ({"price_cap": "20.00"}, (422, "unknown_field")),
        ({"stagger_share_bps": 10_001}, (422, "invalid_value")),
    ],
)
async def test_what_was_agreed_with_a_market_stays(venue, body, expected):
    path = f"/v1/operator/markets/{MARKET}"
    assert await refused(venue, "PATCH", path, venue.operator, body, If_Match='"1"') == expected


async def test_an_amended_market_must_exist_and_an_operator_must_ask(venue):
    body = {"tick_seconds": 2}
    assert await refused(
        venue, "PATCH", "/v1/operator/markets/none", venue.operator, body, If_Match='"1"'
    ) == (404, "market_not_found")
    assert await refused(venue, "PATCH", f"/v1/operator/markets/{MARKET}", venue.owner, body) == (
        403, "scope_missing",
    )  # fmt: skip


async def test_a_market_is_changed_under_its_etag_which_ticks_do_not_move(venue):
    """Two operators with the same page open: the second is told, whatever was cleared meanwhile."""
    path, shown = f"/v1/operator/markets/{MARKET}", f"/v1/markets/{MARKET}"
    body = {"notice_seconds": 5}
    assert await refused(venue, "PATCH", path, venue.operator, body) == (428, "precondition_required")

    async def has_ticked():
        return (await venue.ok("GET", shown))["tick"] >= 1

    await venue.until(has_ticked, "a tick")
    read = await venue.call("GET", shown)
    assert (read.headers["ETag"], read.json["version"]) == ('"1"', 1)
    first = await venue.call("PATCH", path, venue.operator, body, If_Match=read.headers["ETag"])
    assert (first.status, first.headers["ETag"]) == (200, '"2"')
    assert await refused(venue, "PATCH", path, venue.operator, body, If_Match=read.headers["ETag"]) == (
        412,
        "version_mismatch",
    )
    halted = await venue.call("POST", f"{path}/halt", venue.operator, {"reason": "maintenance"})
    assert (halted.headers["ETag"], (await venue.ok("GET", shown))["version"]) == ('"3"', 3)


async def test_an_account_is_changed_under_its_etag(venue):
    made = await venue.call(
        "POST", "/v1/operator/accounts", venue.operator, {"name": "someone", "roles": ["buyer"]}
    )
    path = f"/v1/operator/accounts/{made.json['id']}"
    body = {"name": "Lab"}
    assert made.headers["ETag"] == '"1"'
    assert await refused(venue, "PATCH", path, venue.operator, body) == (428, "precondition_required")
    assert (await venue.ok("POST", f"{path}/freeze", venue.operator))["version"] == 2
    assert await refused(venue, "PATCH", path, venue.operator, body, If_Match='"1"') == (
        412,
        "version_mismatch",
    )
    changed = await venue.call("PATCH", path, venue.operator, body, If_Match='"2"')
    assert (changed.status, changed.headers["ETag"]) == (200, '"3"')
    placed = await venue.ok("PUT", f"{path}/affiliation", venue.operator, {"affiliation": "lab"})
    listed = (await venue.ok("GET", "/v1/operator/accounts", venue.operator))["data"]
    assert [one["version"] for one in listed if one["id"] == placed["id"]] == [4]


async def test_an_account_gets_a_name_and_other_roles(venue):
    account, key = await venue.open_account("buyer")
    path = f"/v1/operator/accounts/{account}"
    changed = await venue.ok(
        "PATCH", path, venue.operator, {"name": "Lab", "roles": ["owner"]}, If_Match='"1"'
    )
    assert (changed["name"], changed["roles"]) == ("Lab", ["owner"])
    bid = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
    assert await refused(venue, "POST", "/v1/bids", key, bid) == (403, "not_a_buyer")
    kept = await venue.ok(
        "PATCH",
        "/v1/operator/accounts/acct_operator",
        venue.operator,
        {"roles": ["buyer"]},
        If_Match='"1"',
    )
    assert kept["roles"] == ["buyer", "operator"]
    assert await refused(venue, "PATCH", path, venue.operator, {"roles": []}) == (422, "invalid_value")
    assert await refused(venue, "PATCH", path, venue.operator, {"roles": ["operator"]}) == (
        422,
        "invalid_value",
    )
    nobody = "/v1/operator/accounts/acct_none"
    assert await refused(venue, "PATCH", nobody, venue.operator, {"name": "x"}, If_Match='"1"') == (
        404,
        "not_found",
    )
