"""The account's events by request and as a stream, as a client without a socket sees them."""

import asyncio


async def test_events_come_in_order_page_by_page(venue):
    """Goal: pages put together are the whole history, gapless, whatever the page's size."""
    for _ in range(5):
        await venue.place()
    whole = await venue.ok("GET", "/v1/events?limit=500", venue.buyer)
    seqs = [event["seq"] for event in whole["data"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert whole["next_after"] == seqs[-1]
    after, told = 0, []
    while True:
        page = await venue.ok("GET", f"/v1/events?limit=2&after={after}", venue.buyer)
        if not page["data"]:
            break
        told += page["data"]
        after = page["next_after"]
    # What is shown of the market beside a bid is of now, so only what happened is compared.
    happened = [
        [(event["seq"], event["type"], event["at"]) for event in some] for some in (told, whole["data"])
    ]
    assert happened[0][: len(seqs)] == happened[1]


async def test_types_are_words_or_kinds(venue):
    await venue.place()
    bids = await venue.ok("GET", "/v1/events?types=bid", venue.buyer)
    assert {event["type"].partition(".")[0] for event in bids["data"]} == {"bid"}
    deposits = await venue.ok("GET", "/v1/events?types=balance.deposited,lease", venue.buyer)
    assert [event["type"] for event in deposits["data"]] == ["balance.deposited"]
    nothing = await venue.ok("GET", "/v1/events?types=payout", venue.buyer)
    assert nothing["data"] == [] and nothing["next_after"] >= bids["data"][-1]["seq"]


async def test_a_long_poll_ends_with_the_next_event_of_its_types(venue):
    head = (await venue.ok("GET", "/v1/events", venue.buyer))["next_after"]
    path = f"/v1/events?after={head}&types=balance&wait_seconds=20"
    waiting = asyncio.create_task(venue.ok("GET", path, venue.buyer))

    async def listens():
        return any(one.account is not None for one in venue.engine.publisher._subscriptions)

    await venue.until(listens, "the poll listens")
    await venue.place(limit_price_per_gpu_hour="0.50")
    await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1.00"})
    async with asyncio.timeout(5):
        found = await waiting
    assert [event["type"] for event in found["data"]] == ["balance.deposited"]
    assert found["next_after"] >= found["data"][-1]["seq"]
    assert (await venue.ok("GET", f"/v1/events?after={head}&types=x&wait_seconds=1", venue.buyer))[
        "data"
    ] == []


async def test_events_are_for_either_reader_and_only_ones_own(venue):
    owners = await venue.ok("GET", "/v1/events", venue.owner)
    assert {event["type"].partition(".")[0] for event in owners["data"]}.isdisjoint({"bid", "lease"})
    for scope, status in (("bids:read", 200), ("billing:read", 403)):
        made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": scope, "scopes": [scope]})
        assert (await venue.call("GET", "/v1/events", made["secret"])).status == status
    made = await venue.ok("POST", "/v1/keys", venue.owner, {"name": "o", "scopes": ["supply:read"]})
    assert (await venue.call("GET", "/v1/events", made["secret"])).status == 200


async def test_what_cannot_be_asked_is_refused(venue):
    for query in ("after=-1", "after=99999", "types=", "types=A", "limit=501", "wait_seconds=61", "x=1"):
        answered = await venue.call("GET", f"/v1/events?{query}", venue.buyer)
        assert answered.status == 422, (query, answered.raw)
