"""Refunds, drills and recall previews over the API."""

import asyncio


async def test_a_drill_arrives_as_a_notice_and_ends_the_lease(venue):
    await venue.offer_node()
    bid = await venue.place()
    lease = await venue.lease_in("running")
    notice = await venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
    assert (notice["reason"], notice["state"], notice["lease"]) == ("test", "issued", lease["id"])
    again = await venue.call("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
    assert (again.status, again.json["code"]) == (409, "invalid_transition")
    _, other = await venue.open_account("buyer")
    theirs = await venue.call("POST", f"/v1/leases/{lease['id']}/test-notice", other)
    assert (theirs.status, theirs.json["code"]) == (404, "not_found")
    ended = await venue.lease_in("ended")
    assert (ended["id"], ended["end_reason"], ended["refunded"]) == (lease["id"], "test", "0.000000")
    late = await venue.call("POST", f"/v1/leases/{lease['id']}/test-notice", venue.buyer)
    assert (late.status, late.json["code"]) == (409, "lease_ended")
    assert (await venue.ok("GET", f"/v1/bids/{bid['id']}", venue.buyer))["status"] in ("open", "filled")


async def test_a_recall_is_previewed_carried_out_and_refunded(venue):
    node, _ = await venue.offer_node()
    await venue.place()
    lease = await venue.lease_in("running")
    path = f"/v1/nodes/{node['id']}/recall"
    preview = await venue.ok("POST", path, venue.owner, {"preview": True})
    assert [hit["id"] for hit in preview["leases"]] == [lease["id"]]
    assert preview["notices"] == []
    assert (await venue.lease_in("running"))["id"] == lease["id"]
    recalled = await venue.ok("POST", path, venue.owner, {})
    assert [hit["id"] for hit in recalled["leases"]] == [lease["id"]]
    ended = await venue.lease_in("ended")
    assert ended["end_reason"] == "offer_withdrawn"
    assert ended["refunded"] == ended["cost"], "the first ten minutes are free when the owner ends it"
    balance = await venue.ok("GET", "/v1/balance", venue.buyer)
    assert balance["owed"] == "0.000000"
    entries = (await venue.ok("GET", "/v1/ledger/entries", venue.buyer))["data"]
    refunds = [entry for entry in entries if entry["code"] == "refund"]
    assert sum(int(entry["amount"].replace(".", "")) for entry in refunds) == int(
        ended["refunded"].replace(".", "")
    )
    await asyncio.sleep(1.1)  # a window ends with the last whole second
    totals = (await venue.ok("GET", "/v1/owner/summary", venue.owner))["totals"]
    earning = (await venue.ok("GET", "/v1/balance", venue.owner))["earning"]
    assert totals["net"] == earning == "0.000000", "what was given back was not earned"
    _, other = await venue.open_account("owner")
    for body in ({"preview": True}, {}):
        answered = await venue.call("POST", path, other, body)
        assert (answered.status, answered.json["code"]) == (404, "not_found")
