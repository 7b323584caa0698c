"""Webhook endpoints over HTTP, and what is sent to them: real PostgreSQL, receivers on loopback."""

import asyncio
from dataclasses import replace

import pytest

from api.services import SERVICES
from api.webhooks import ENDPOINTS_PER_ACCOUNT_MAX
from tests.api.conftest import serving
from tests.api.webhook_receiver import receiving, verify

NOWHERE = "http://127.0.0.1:9/hook"  # the discard port: nothing listens


@pytest.fixture
async def receiver():
    async with receiving() as running:
        yield running


async def hook(venue, key, url, *types):
    return await venue.ok("POST", "/v1/webhooks", key, {"url": url, "types": list(types)})


async def deliveries(venue, key, endpoint, state=None):
    tail = f"?state={state}" if state else ""
    return (await venue.ok("GET", f"/v1/webhooks/{endpoint['id']}/deliveries{tail}", key))["data"]


# -- endpoints -------------------------------------------------------------------------------------


async def test_an_endpoints_life(venue, receiver):
    made = await hook(venue, venue.buyer, receiver.url, "notice.issued", "bid.filled")
    assert made["id"].startswith("wh_")
    assert made["secret"].startswith("whsec_")
    assert made["types"] == ["bid.filled", "notice.issued"]
    path = f"/v1/webhooks/{made['id']}"
    shown = await venue.call("GET", path, venue.buyer)
    assert shown.json == made | {"secret": None}
    assert shown.headers["ETag"] == '"1"'
    assert (await venue.ok("GET", "/v1/webhooks", venue.buyer))["data"] == [shown.json]
    changed = await venue.ok(
        "PATCH", path, venue.buyer, {"types": [], "description": "all of it", "enabled": False}
    )
    assert (changed["types"], changed["state"], changed["reason"]) == ([], "disabled", "owner")
    assert changed["version"] == 2
    stale = await venue.call("PATCH", path, venue.buyer, {"enabled": True}, If_Match='"1"')
    assert (stale.status, stale.json["code"], stale.json["current"]) == (412, "version_mismatch", 2)
    refused = await venue.call("POST", f"{path}/test", venue.buyer)
    assert (refused.status, refused.json["code"]) == (409, "webhook_disabled")
    enabled = await venue.ok("PATCH", path, venue.buyer, {"enabled": True})
    assert (enabled["state"], enabled["reason"]) == ("enabled", None)
    assert (await venue.ok("DELETE", path, venue.buyer))["id"] == made["id"]
    assert (await venue.call("GET", path, venue.buyer)).status == 404
    assert (await venue.call("DELETE", path, venue.buyer)).status == 404
    assert (await venue.ok("GET", "/v1/webhooks", venue.buyer))["data"] == []


async def test_another_tenants_endpoint_is_not_there(venue):
    made = await hook(venue, venue.buyer, NOWHERE)
    absent = "wh_" + "0" * 20
    requests = [
        ("GET", "", None), ("PATCH", "", {"enabled": False}), ("DELETE", "", None), ("POST", "/test", None),
        ("POST", "/rotate-secret", None), ("GET", "/deliveries", None),
        ("POST", "/replay", {"since": "2026-01-01T00:00:00Z"}),
    ]  # fmt: skip
    for method, tail, body in requests:
        others = await venue.call(method, f"/v1/webhooks/{made['id']}{tail}", venue.owner, body)
        nobodys = await venue.call(method, f"/v1/webhooks/{absent}{tail}", venue.owner, body)
        assert others.status == nobodys.status == 404, (method, tail)
        assert others.json | {"request_id": ""} == nobodys.json | {"request_id": ""}
        strange = await venue.call(method, f"/v1/webhooks/%00;'{tail}", venue.owner, body)
        assert strange.status == 404
    assert (await venue.ok("GET", "/v1/webhooks", venue.owner))["data"] == []
    assert (await venue.ok("GET", f"/v1/webhooks/{made['id']}", venue.buyer))["version"] == 1


async def test_bad_addresses_and_values_are_refused_and_change_nothing(venue):
    for url, code in [
        ("http://example.org/", "webhook_url_invalid"),
        ("https://user@127.0.0.1/", "webhook_url_invalid"),
        ("https://0x7f000001/", "webhook_url_invalid"),
        ("https://10.0.0.1/", "webhook_address_forbidden"),
        ("https://169.254.169.254/", "webhook_address_forbidden"),
        ("https://[fe80::1]/", "webhook_address_forbidden"),
    ]:
        answered = await venue.call("POST", "/v1/webhooks", venue.buyer, {"url": url})
        assert (answered.status, answered.json["code"]) == (422, code), url
        assert answered.json["errors"][0]["pointer"] == "/url"
        assert "expected" in answered.json["detail"]
    for body, code in [
        ({}, "missing_field"),
        ({"url": NOWHERE, "types": ["bid.nonsense"]}, "invalid_value"),
        ({"url": NOWHERE, "types": ["bid.filled"] * 100}, "invalid_value"),
        ({"url": NOWHERE, "secret": "whsec_x"}, "unknown_field"),
        ({"url": NOWHERE, "description": "x" * 129}, "invalid_value"),
        ({"url": "https://example.org/" + "x" * 2_048}, "invalid_value"),
    ]:
        answered = await venue.call("POST", "/v1/webhooks", venue.buyer, body)
        assert (answered.status, answered.json["code"]) == (422, code), body
    assert (await venue.ok("GET", "/v1/webhooks", venue.buyer))["data"] == []
    made = await hook(venue, venue.buyer, NOWHERE)
    path = f"/v1/webhooks/{made['id']}"
    for tail, method, body in [
        ("", "PATCH", {}),
        ("", "PATCH", {"url": "https://10.0.0.1/"}),
        ("/rotate-secret", "POST", {"overlap_seconds": 604_801}),
        ("/replay", "POST", {"since": "yesterday"}),
        ("/replay", "POST", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        ("/replay", "POST", {"since": "2026-01-02T00:00:00Z", "cursor": "nonsense"}),
    ]:
        assert (await venue.call(method, path + tail, venue.buyer, body)).status == 422, (tail, body)
    assert (await venue.call("GET", f"{path}/deliveries?cursor=x", venue.buyer)).status == 422
    assert (await venue.ok("GET", path, venue.buyer))["version"] == 1


async def test_outside_a_demo_even_loopback_is_refused(database, config):
    async with serving(database, replace(config, is_demo=False, runs_simulator=False)) as venue:
        operator = venue.operator.replace("fal_test_", "fal_live_")
        # A test key is no live key; what is asked here is the configuration alone.
        assert (await venue.call("GET", "/v1/webhooks", operator)).status == 401
        assert venue.config.reach == "public"
    assert replace(config, webhook_reach="private").reach == "private"
    with pytest.raises(ValueError, match="webhook_ports"):
        replace(config, webhook_ports=(0,))


async def test_the_scope_is_asked_for(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:read"]})
    refused = await venue.call("GET", "/v1/webhooks", made["secret"])
    assert (refused.status, refused.json["scope"]) == (403, "webhooks:write")
    assert (await venue.call("GET", "/v1/webhooks")).status == 401


async def test_an_account_has_so_many_endpoints_and_no_more_however_they_are_asked_for(venue):
    body = {"url": NOWHERE}
    calls = [
        venue.call("POST", "/v1/webhooks", venue.buyer, body) for _ in range(ENDPOINTS_PER_ACCOUNT_MAX + 4)
    ]
    statuses = sorted(answered.status for answered in await asyncio.gather(*calls))
    assert statuses == [201] * ENDPOINTS_PER_ACCOUNT_MAX + [409] * 4
    refused = await venue.call("POST", "/v1/webhooks", venue.buyer, body)
    assert refused.json["code"] == "webhook_limit_reached"
    assert (await venue.call("POST", "/v1/webhooks", venue.owner, body)).status == 201


async def test_a_repeat_under_the_same_key_makes_nothing_new(venue):
    body = {"url": NOWHERE}
    calls = [venue.call("POST", "/v1/webhooks", venue.buyer, body, Idempotency_Key="one") for _ in range(5)]
    answers = await asyncio.gather(*calls)
    assert {answered.status for answered in answers} == {201}
    assert len({answered.json["id"] for answered in answers}) == 1
    assert sum(answered.json["secret"] is not None for answered in answers) == 1
    assert sum("Idempotency-Replayed" in answered.headers for answered in answers) == 4
    assert len((await venue.ok("GET", "/v1/webhooks", venue.buyer))["data"]) == 1
    other = await venue.call(
        "POST", "/v1/webhooks", venue.buyer, {"url": NOWHERE + "2"}, Idempotency_Key="one"
    )
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    elsewhere = await venue.call("POST", "/v1/deposits", venue.buyer, {"amount": "1"}, Idempotency_Key="one")
    assert (elsewhere.status, elsewhere.json["code"]) == (422, "idempotency_key_reused")
    absent = "/v1/webhooks/wh_00000000000000000000"
    first = await venue.call("DELETE", absent, venue.buyer, Idempotency_Key="two")
    again = await venue.call("DELETE", absent, venue.buyer, Idempotency_Key="two")
    assert first.status == again.status == 404
    assert first.raw == again.raw


async def test_a_frozen_account_adds_nothing(venue):
    account, key = await venue.open_account("buyer")
    made = await hook(venue, key, NOWHERE)
    await venue.ok("POST", f"/v1/operator/accounts/{account}/freeze", venue.operator)
    refused = await venue.call("POST", "/v1/webhooks", key, {"url": NOWHERE})
    assert (refused.status, refused.json["code"]) == (403, "account_frozen")
    assert (await venue.call("PATCH", f"/v1/webhooks/{made['id']}", key, {"enabled": False})).status == 403
    await venue.ok("DELETE", f"/v1/webhooks/{made['id']}", key)


# -- sending ---------------------------------------------------------------------------------------


async def test_a_preemption_arrives_signed(venue, receiver):
    """Goal: the notice of a real preemption, checked by a verifier that knows only the standard."""
    made = await hook(venue, venue.buyer, receiver.url, "notice.issued", "lease.preempting")
    _, offer = await venue.offer_node(gpus=2)
    await venue.place()
    await venue.lease_in("running")
    await venue.ok("DELETE", f"/v1/offers/{offer['id']}", venue.owner, If_Match=await etag(venue, offer))
    headers, body = await receiver.first("notice.issued")
    document = verify(made["secret"], headers, body)
    [notice] = (await venue.ok("GET", "/v1/notices", venue.buyer))["data"]
    assert document["data"]["id"] == notice["id"]
    assert document["data"]["reclaim_at"] == notice["reclaim_at"]
    assert document["at"] <= notice["reclaim_at"]
    assert document["type"] == "notice.issued"
    assert isinstance(document["seq"], int)
    with pytest.raises(AssertionError):
        verify(made["secret"], headers, body + b" ")
    with pytest.raises(AssertionError):
        verify("whsec_" + "A" * 43 + "=", headers, body)
    with pytest.raises(AssertionError):
        verify(made["secret"], headers | {"webhook-id": "evt_1"}, body)

    async def delivered():
        return len(await deliveries(venue, venue.buyer, made, "delivered")) == 2

    await venue.until(delivered, "both deliveries are recorded")
    [row] = [d for d in await deliveries(venue, venue.buyer, made) if d["type"] == "notice.issued"]
    assert (row["event"], row["attempts"], row["last_status"]) == (document["id"], 1, 204)
    assert row["deadline_at"] == notice["reclaim_at"]


async def etag(venue, offer):
    return (await venue.call("GET", f"/v1/offers/{offer['id']}", venue.owner)).headers["ETag"]


async def test_only_what_was_asked_for_is_told_and_only_to_its_account(venue, receiver):
    async with receiving() as others:
        made = await hook(venue, venue.buyer, receiver.url, "bid.accepted", "market.halted")
        await hook(venue, venue.owner, others.url)
        await venue.place()
        await venue.ok("POST", "/v1/operator/markets/h100-sxm.test/halt", venue.operator, {"reason": "x"})
        for listener in (receiver, others):
            headers, _ = await listener.first("market.halted")
        verify(made["secret"], *(await receiver.first("market.halted")))
        await receiver.first("bid.accepted")
        assert {document["type"] for _, document in received(receiver)} == {"bid.accepted", "market.halted"}
        assert not others.of_type("bid.accepted")
        assert headers["webhook-id"] == receiver.of_type("market.halted")[0][0]["webhook-id"]
        assert others.of_type("market.halted")[0][1]["seq"] is None


def received(receiver):
    kinds = ("bid.accepted", "bid.filled", "bid.outbid", "market.halted", "market.resumed", "node.online")
    return [pair for kind in kinds for pair in receiver.of_type(kind)]


async def test_a_test_message_and_the_rotation_of_secrets(venue, receiver):
    made = await hook(venue, venue.buyer, receiver.url, "notice.issued")
    path = f"/v1/webhooks/{made['id']}"
    queued = await venue.call("POST", f"{path}/test", venue.buyer)
    assert (queued.status, queued.json["type"], queued.json["state"]) == (202, "webhook.test", "pending")
    headers, body = await receiver.first("webhook.test")
    assert verify(made["secret"], headers, body)["id"] == queued.json["event"]

    rotated = await venue.ok("POST", f"{path}/rotate-secret", venue.buyer)
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] is not None
    receiver.seen.clear()
    await venue.ok("POST", f"{path}/test", venue.buyer)
    headers, body = await receiver.first("webhook.test")
    verify(made["secret"], headers, body)
    verify(rotated["secret"], headers, body)
    assert len(headers["webhook-signature"].split(" ")) == 2

    last = await venue.ok("POST", f"{path}/rotate-secret", venue.buyer, {"overlap_seconds": 0})
    assert last["previous_secret_until"] is None
    receiver.seen.clear()
    await venue.ok("POST", f"{path}/test", venue.buyer)
    headers, body = await receiver.first("webhook.test")
    verify(last["secret"], headers, body)
    with pytest.raises(AssertionError):
        verify(rotated["secret"], headers, body)


async def test_gone_disables_and_the_other_endpoints_hear_of_it(venue, receiver):
    async with receiving() as other:
        made = await hook(venue, venue.buyer, receiver.url)
        await hook(venue, venue.buyer, other.url, "webhook.disabled")
        receiver.status = 410
        await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.buyer)
        _, body = await other.first("webhook.disabled")
        assert b'"reason":"gone"' in body
        shown = await venue.ok("GET", f"/v1/webhooks/{made['id']}", venue.buyer)
        assert (shown["state"], shown["reason"]) == ("disabled", "gone")
        await venue.place()
        [row] = await deliveries(venue, venue.buyer, made)
        assert (row["state"], row["last_status"], row["attempts"]) == ("failed", 410, 1)
        assert len(receiver.seen) == 1


async def test_redirects_are_not_followed_and_a_huge_reply_is_not_read(venue, receiver):
    async with receiving() as target:
        made = await hook(venue, venue.buyer, receiver.url, "notice.issued")
        receiver.status, receiver.headers = 307, {"Location": target.url}
        await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.buyer)
        await receiver.first("webhook.test")

        async def attempted():
            return (await deliveries(venue, venue.buyer, made))[0]["attempts"]

        await venue.until(attempted, "the redirect is written down")
        [row] = await deliveries(venue, venue.buyer, made)
        assert (row["last_status"], row["last_error"]) == (307, "status_307")
        assert target.seen == []
    receiver.status, receiver.headers, receiver.body = 200, {}, b"x" * 10_000_000
    receiver.seen.clear()
    await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.buyer)
    await receiver.first("webhook.test")

    async def delivered():
        return await deliveries(venue, venue.buyer, made, "delivered")

    await venue.until(delivered, "a reply that is too long is still an answer")


async def test_a_receiver_that_never_answers_delays_nobody_else(venue, receiver):
    """Goal: with one tenant's slots all hanging, another tenant's message goes out at once."""
    async with receiving() as stuck:
        stuck.hangs = True
        hanging = await hook(venue, venue.buyer, stuck.url)
        for _ in range(12):
            await venue.ok("POST", f"/v1/webhooks/{hanging['id']}/test", venue.buyer)
        await stuck.count(4)
        made = await hook(venue, venue.owner, receiver.url)
        async with asyncio.timeout(2):
            await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.owner)
            await receiver.first("webhook.test")
        # And its own notices have slots beside the messages that hang.
        stuck_count = len(stuck.seen)
        assert stuck_count == 4
        _, offer = await venue.offer_node(gpus=2)
        await venue.place()
        await venue.lease_in("running")
        await venue.ok("DELETE", f"/v1/offers/{offer['id']}", venue.owner, If_Match=await etag(venue, offer))
        await stuck.first("notice.issued")


async def test_what_was_not_sent_is_sent_after_a_restart(database, config):
    async with receiving() as receiver:
        async with serving(database, config) as venue:
            await venue.open_market()
            _, venue.buyer = await venue.open_account("buyer")
            await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
            made = await hook(venue, venue.buyer, receiver.url, "bid.accepted", "bid.cancelled")
            receiver.hangs = True
            bid = await venue.place()
            await receiver.first("bid.accepted")
            # Committed and never seen by the sender, as after a kill between commit and publish.
            await venue.client.server.app[SERVICES].sender.stop()
            await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
            buyer, operator = venue.buyer, venue.operator
        first_id = receiver.seen[0][0]["webhook-id"]
        receiver.seen.clear()
        receiver.hangs = False
        async with serving(database, config, operator) as venue:
            headers, body = await receiver.first("bid.accepted")
            assert headers["webhook-id"] == first_id
            assert verify(made["secret"], headers, body)["data"]["id"] == bid["id"]
            await receiver.first("bid.cancelled")

            async def delivered():
                return len(await deliveries(venue, buyer, made, "delivered")) == 2

            await venue.until(delivered, "both are recorded")


async def test_replay_tells_again_what_failed_or_was_never_told(venue, receiver):
    begin = (await venue.ok("GET", "/v1/time"))["time"]
    bid = await venue.place()
    made = await hook(venue, venue.buyer, receiver.url, "bid.accepted", "bid.cancelled")
    await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
    await receiver.first("bid.cancelled")
    path = f"/v1/webhooks/{made['id']}/replay"

    async def delivered():
        return await deliveries(venue, venue.buyer, made, "delivered")

    await venue.until(delivered, "the first is recorded")
    assert not receiver.of_type("bid.accepted")
    answer = await venue.call("POST", path, venue.buyer, {"since": begin})
    assert (answer.status, answer.json) == (202, {"scheduled": 1, "next_cursor": None})
    verify(made["secret"], *(await receiver.first("bid.accepted")))

    async def both():
        return len(await delivered()) == 2

    await venue.until(both, "the second is recorded")
    assert (await venue.ok("POST", path, venue.buyer, {"since": begin}))["scheduled"] == 0
    seen = len(receiver.seen)
    again = await venue.ok("POST", path, venue.buyer, {"since": begin, "include_delivered": True})
    assert again["scheduled"] == 2
    await receiver.count(seen + 2)
    ids = [headers["webhook-id"] for headers, _ in receiver.seen]
    assert len(set(ids)) == 2 < len(ids), "told again under the same id"
    await venue.until(both, "recorded again")


async def test_a_deleted_endpoint_gets_nothing_more(venue, receiver):
    receiver.status = 500
    made = await hook(venue, venue.buyer, receiver.url)
    await venue.place()
    await receiver.first("bid.accepted")
    await venue.ok("DELETE", f"/v1/webhooks/{made['id']}", venue.buyer)
    rows = await venue.pool.fetch("SELECT octet_length(secret) AS size, state FROM webhook_endpoints")
    assert [(row["size"], row["state"]) for row in rows] == [(0, "deleted")]
