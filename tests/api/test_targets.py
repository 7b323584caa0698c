"""Server-side targets over the API: hold, deadline, pace; their bids are ordinary bids."""

from datetime import UTC, datetime

from auction import clearing
from auction.targets import bid_of
from tests.api.conftest import MARKET, serving


async def aim(venue, key=None, **fields):
    return await venue.call("POST", "/v1/targets", key or venue.buyer, {"market": MARKET} | fields)


async def hold(venue, **fields):
    answered = await aim(venue, **({"kind": "hold", "gpus": 4, "limit_price_per_gpu_hour": "2.00"} | fields))
    assert answered.status == 201, answered.raw
    return answered.json


async def seen(venue, target):
    return await venue.ok("GET", f"/v1/targets/{target['id']}", venue.buyer)


async def bids_of(venue, target):
    return (await venue.ok("GET", f"/v1/targets/{target['id']}/bids", venue.buyer))["data"]


def problem(answered):
    return answered.status, answered.json["code"]


def at(venue, seconds):
    moment = datetime.fromtimestamp(venue.engine.clock.now_us() / 1e6 + seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_a_hold_is_one_ordinary_bid_from_its_first_moment(venue):
    await venue.offer_node()
    target = await hold(venue)
    assert (target["state"], target["bids"], target["spent"]) == ("active", 0, "0.000000")
    (bid,) = await bids_of(venue, target)
    assert bid["id"] == bid_of(target["id"], 1)
    assert (bid["gpus"], bid["limit_price_per_gpu_hour"], bid["labels"]) == (
        4,
        "2.000000",
        {"target": target["id"]},
    )
    await venue.lease_in("running")
    shown = await seen(venue, target)
    assert (shown["bid"], shown["bids"], shown["running_gpus"]) == (bid["id"], 1, 4)
    by_label = await venue.ok("GET", "/v1/bids?limit=1", venue.buyer)
    assert by_label["data"][0]["id"] == bid["id"]


async def test_work_is_bought_by_its_deadline_and_ends_by_the_second(venue):
    await venue.offer_node()
    asked = {"kind": "deadline", "gpu_seconds": 20, "ends_at": at(venue, 300), "max_spend": "1.00", "gpus": 4}
    answered = await aim(venue, **asked)
    assert answered.status == 201, answered.raw

    async def met():
        shown = await seen(venue, answered.json)
        return shown if shown["state"] != "active" else None

    shown = await venue.until(met, "the end of the target")
    assert (shown["state"], shown["reason"], shown["running_gpus"]) == ("met", None, 0)
    assert 20 <= shown["delivered_gpu_seconds"] <= 32
    (bid,) = await bids_of(venue, shown)
    assert (bid["spent"], bid["status"]) == (shown["spent"], bid["status"])
    assert 0 < float(shown["spent"]) <= 32 * 1.04 / 3600
    assert problem(await venue.call("DELETE", f"/v1/targets/{shown['id']}", venue.buyer)) == (
        409,
        "target_final",
    )


async def test_a_pace_shows_what_its_day_allows(venue):
    await venue.offer_node()
    answered = await aim(venue, kind="pace", spend_per_day="110.00", limit_price_per_gpu_hour="2.00")
    assert answered.status == 201, answered.raw
    cap = float(answered.json["spend_cap_until_day_end"])
    left_s = 86_400 - venue.engine.clock.now_us() // 10**6 % 86_400
    assert abs(cap - 110 * left_s / 86_400) < 0.1

    async def placed():
        return (await seen(venue, answered.json))["bid"]

    name = await venue.until(placed, "its bid")
    bid = await venue.ok("GET", f"/v1/bids/{name}", venue.buyer)
    assert bid["gpus"] == 4, "$4.58 an hour at less than $1.10"
    assert bid["max_spend"] == answered.json["spend_cap_until_day_end"]


async def test_its_bid_is_changed_through_the_target_only(venue):
    await venue.offer_node()
    target = await hold(venue)
    path = f"/v1/targets/{target['id']}"
    bid = (await seen(venue, target))["bid"]
    refused = await venue.call("PATCH", f"/v1/bids/{bid}", venue.buyer, {"limit_price_per_gpu_hour": "3.00"})
    assert problem(refused) == (409, "bid_of_target")
    changed = await venue.ok("PATCH", path, venue.buyer, {"limit_price_per_gpu_hour": "2.50", "gpus": 6})
    assert (changed["limit_price_per_gpu_hour"], changed["gpus"]) == ("2.500000", 6)
    shown = await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer)
    assert (shown["limit_price_per_gpu_hour"], shown["gpus"]) == ("2.500000", 6)
    paused = await venue.ok("PATCH", path, venue.buyer, {"paused": True})
    assert paused["state"] == "paused"
    assert (await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer))["paused"] is True
    await venue.ok("PATCH", path, venue.buyer, {"paused": False})
    assert (await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer))["paused"] is False
    for body, code in (
        ({}, "nothing_to_change"),
        ({"limit_price_per_gpu_hour": "2.005001"}, "price_not_on_increment"),
        ({"max_spend": "5.00"}, "unknown_field"),
    ):
        assert problem(await venue.call("PATCH", path, venue.buyer, body)) == (422, code)
    stale = await venue.call("PATCH", path, venue.buyer, {"gpus": 2}, If_Match='"1"')
    assert problem(stale) == (412, "version_mismatch")
    cancelled = await venue.ok("DELETE", path, venue.buyer)
    assert cancelled["state"] == "cancelled"
    assert (await venue.ok("GET", f"/v1/bids/{bid}", venue.buyer))["status"] == "cancelled"


async def test_who_cancels_its_bid_pauses_it_and_a_person_resumes_it(venue):
    """A tenant, or a brake that lets leases run on: nothing comes back by itself."""
    await venue.offer_node()
    target = await hold(venue)
    path = f"/v1/targets/{target['id']}"
    first = (await seen(venue, target))["bid"]
    await venue.lease_in("running")
    await venue.ok("DELETE", f"/v1/bids/{first}?release=false", venue.buyer)

    async def paused():
        shown = await seen(venue, target)
        return shown if shown["state"] == "paused" else None

    shown = await venue.until(paused, "the pause")
    assert (shown["reason"], shown["bid"], shown["running_gpus"]) == ("bid_cancelled", first, 4)
    await venue.ok("PATCH", path, venue.buyer, {"paused": False})
    await venue.ok("DELETE", f"/v1/bids/{first}", venue.buyer)

    async def second():
        shown = await seen(venue, target)
        return shown if shown["bids"] == 2 else None

    shown = await venue.until(second, "the second bid")
    assert (shown["state"], shown["reason"]) == ("active", None)
    assert [bid["id"] for bid in await bids_of(venue, target)] == [bid_of(target["id"], n) for n in (2, 1)]
    stop = {"timeout_seconds": 1, "release": True}
    await venue.ok("POST", "/v1/bids/cancel-after", venue.buyer, stop)
    shown = await venue.until(paused, "the dead man's switch")
    assert (shown["reason"], shown["bids"]) == ("bid_cancelled", 2)


async def test_a_target_whose_bid_the_market_fails_on_pauses_and_places_no_other(venue, monkeypatch):
    """What is rejected for a defect of ours is rejected again: nobody tries it at every tick."""
    run_tick = clearing.run_tick

    def failing(state, market):
        poison = [bid for bid in state.bids.values() if bid.gpus == 7]
        tick = run_tick(state, market)
        assert not poison, "planted"
        return tick

    monkeypatch.setattr(clearing, "run_tick", failing)
    await venue.offer_node()
    target = await hold(venue, gpus=7)

    async def paused():
        shown = await seen(venue, target)
        return shown if shown["state"] == "paused" else None

    shown = await venue.until(paused, "the pause")
    assert (shown["reason"], shown["bids"]) == ("bid_rejected", 1)
    (bid,) = await bids_of(venue, target)
    assert (bid["status"], bid["reason"]["code"], bid["held"]) == ("rejected", "engine_error", "0.000000")
    assert (await venue.ok("GET", f"/v1/markets/{MARKET}", venue.buyer))["status"] == "open"


async def test_a_target_is_bound_by_its_key(venue):
    await venue.offer_node()
    made = await venue.ok(
        "POST", "/v1/keys", venue.buyer, {"name": "bot", "scopes": ["bids:read", "bids:write"]}
    )
    terms = {"kind": "hold", "gpus": 4, "limit_price_per_gpu_hour": "2.00"}
    answered = await aim(venue, made["secret"], **terms)
    assert answered.json["key"] == made["id"]
    path = f"/v1/keys/{made['id']}"
    await venue.ok("PUT", f"{path}/limits", venue.buyer, {"max_price_per_gpu_hour": "2.00"})
    refused = await aim(venue, made["secret"], **(terms | {"limit_price_per_gpu_hour": "2.10"}))
    assert problem(refused) == (422, "max_price_exceeded")
    await venue.ok("POST", f"{path}/stop", venue.buyer)

    async def paused():
        return (await seen(venue, answered.json))["state"] == "paused"

    await venue.until(paused, "the kill switch")
    await venue.ok("DELETE", path, venue.buyer)
    await venue.ok("PATCH", f"/v1/targets/{answered.json['id']}", venue.buyer, {"paused": False})

    async def revoked():
        return (await seen(venue, answered.json))["reason"] == "key_revoked"

    await venue.until(revoked, "the pause for want of a key")


async def test_targets_that_cannot_be_met_say_what_could_be(venue):
    await venue.offer_node()
    work = {"kind": "deadline", "gpu_seconds": 144_000, "ends_at": at(venue, 36_000), "max_spend": "60.00"}
    assert (await aim(venue, **work)).status == 201
    for change, field in (
        ({"gpu_seconds": 1_000_000, "max_spend": "900.00"}, "gpu_seconds"),
        ({"max_spend": "10.00"}, "max_spend"),
        ({"limit_price_per_gpu_hour": "0.50"}, "limit_price_per_gpu_hour"),
        ({"ends_at": at(venue, -5)}, "ends_at"),
        ({"ends_at": at(venue, 40 * 86_400)}, "ends_at"),
        ({"kind": "hold", "gpus": 9, "limit_price_per_gpu_hour": "2.00"}, "gpus"),
    ):
        body = change if "kind" in change else work | change
        refused = await aim(venue, **body)
        assert problem(refused) == (422, "target_unreachable"), (change, refused.raw)
        accepted = refused.json["accepted"]
        assert refused.json["errors"][0]["pointer"] == f"/{field}"
        if field != "ends_at":
            again = await aim(venue, **(body | {field: accepted[field]}))
            assert again.status == 201, again.raw
    one = {"kind": "hold", "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    for body, code in (
        (one | {"market": "none"}, (404, "market_not_found")),
        (one | {"limit_price_per_gpu_hour": "900.00"}, (422, "price_out_of_range")),
        (one | {"min_gpus": 2}, (422, "min_gpus_out_of_range")),
        ({"kind": "sniff"}, (422, "invalid_value")),
        ({"gpus": 1}, (422, "missing_field")),
        ({"kind": "pace", "limit_price_per_gpu_hour": "2.00", "spend_per_day": 5}, (422, "invalid_value")),
    ):
        assert problem(await aim(venue, **body)) == code


async def test_targets_are_their_accounts_own_and_counted(venue, monkeypatch):
    await venue.offer_node()
    target = await hold(venue)
    _, stranger = await venue.open_account("buyer")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/bids")):
        body = {"paused": True} if method == "PATCH" else None
        answered = await venue.call(method, f"/v1/targets/{target['id']}{path}", stranger, body)
        assert problem(answered) == (404, "not_found")
    assert (await venue.ok("GET", "/v1/targets", stranger))["data"] == []
    assert (await aim(venue, venue.owner, kind="hold", gpus=1, limit_price_per_gpu_hour="1.00")).status == 403
    monkeypatch.setattr("api.targets.TARGETS_PER_ACCOUNT_MAX", 2)
    body = {"kind": "hold", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
    answers = [
        await venue.call("POST", "/v1/targets", venue.buyer, body, Idempotency_Key="once") for _ in range(2)
    ]
    assert answers[0].raw == answers[1].raw and answers[1].headers["Idempotency-Replayed"] == "true"
    assert problem(await aim(venue, **body)) == (409, "target_limit_reached")
    listed = await venue.ok("GET", "/v1/targets?limit=1", venue.buyer)
    assert [one["id"] for one in listed["data"]] == [answers[0].json["id"]]
    rest = await venue.ok("GET", f"/v1/targets?cursor={listed['next_cursor']}", venue.buyer)
    assert [one["id"] for one in rest["data"]] == [target["id"]]


async def test_a_runner_that_died_finds_what_it_had_placed(database, config):
    """A bid was placed that its row does not know yet: the next runner takes it over; no second comes."""
    async with serving(database, config) as venue:
        await venue.open_market()
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        await venue.offer_node()
        target = await hold(venue)
        buyer, operator = venue.buyer, venue.operator
        assert (await seen(venue, target))["bids"] == 1
    connection = await database.connect()
    await connection.execute("UPDATE targets SET bids = 0")
    await connection.close()
    async with serving(database, config, operator) as venue:
        venue.buyer = buyer

        async def adopted():
            return (await seen(venue, target))["bids"] == 1

        await venue.until(adopted, "the bid to be found again")
        tick = venue.engine.core.markets[MARKET].tick

        async def later():
            return venue.engine.core.markets[MARKET].tick >= tick + 3

        await venue.until(later, "three ticks")
        (bid,) = (await venue.ok("GET", "/v1/bids", venue.buyer))["data"]
        assert bid["id"] == bid_of(target["id"], 1)
        assert (await seen(venue, target))["bids"] == 1


async def test_a_hold_without_money_says_so_and_goes_on_when_there_is_some(venue):
    await venue.offer_node()
    _, buyer = await venue.open_account("buyer")
    await venue.ok("POST", "/v1/deposits", buyer, {"amount": "0.20"})
    terms = {"kind": "hold", "limit_price_per_gpu_hour": "2.00"}
    assert problem(await aim(venue, buyer, gpus=8, **terms)) == (402, "insufficient_funds")
    answered = await aim(venue, buyer, gpus=2, **terms)
    path = f"/v1/targets/{answered.json['id']}"
    await venue.ok("PATCH", path, buyer, {"gpus": 8})

    async def short():
        shown = await venue.ok("GET", path, buyer)
        return shown["state"] == "active" and shown["reason"] == "insufficient_funds"

    await venue.until(short, "the reason")
    await venue.ok("POST", "/v1/deposits", buyer, {"amount": "20.00"})

    async def filled():
        shown = await venue.ok("GET", path, buyer)
        return shown["running_gpus"] == 8 and shown["reason"] is None

    await venue.until(filled, "all GPUs")


async def test_the_same_key_gets_the_same_target_though_its_bid_has_taken_the_money(venue):
    """A client that lost the first answer asks again: what it made must not stand in its own way."""
    await venue.offer_node()
    _, key = await venue.open_account("buyer")
    body = {"market": MARKET, "kind": "hold", "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    refused = await venue.call("POST", "/v1/targets", key, body)
    assert problem(refused) == (402, "insufficient_funds")
    await venue.ok("POST", "/v1/deposits", key, {"amount": refused.json["required"]})
    first = await venue.call("POST", "/v1/targets", key, body, Idempotency_Key="once")
    assert first.status == 201, first.raw
    again = await venue.call("POST", "/v1/targets", key, body, Idempotency_Key="once")
    assert (first.status, first.raw) == (again.status, again.raw)
