"""The account's events by request and as a stream, as a client without a socket sees them."""

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from api.services import SERVICES
from tests.api.conftest import DEADLINE_SECONDS, MARKET, serving


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


class Stream:
    """A reader of Server-Sent Events."""

    def __init__(self, response):
        self.response = response

    async def next(self):
        """Return the next message as a dictionary of its fields; a comment is under ""."""
        fields = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (line := (await self.response.content.readline()).decode()) != "\n":
                if not line:
                    return None
                name, _, value = line.rstrip("\n").partition(":")
                fields[name] = value.strip()
        if "data" in fields:
            fields["data"] = msgspec.json.decode(fields["data"])
        return fields

    async def until(self, name):
        while True:
            message = await self.next()
            assert message is not None, name
            if message.get("event") == name or (name == "" and "" in message):
                return message


@asynccontextmanager
async def streaming(venue, query="", key=None, last=None):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    headers |= {} if last is None else {"Last-Event-ID": last}
    async with venue.client.get(f"/v1/stream?{query}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Stream(response)


async def test_a_stream_tells_ticks_and_that_it_is_alive(venue):
    await venue.offer_node()
    async with streaming(venue, f"markets={MARKET}") as stream:
        first, second = await stream.until("tick"), await stream.until("tick")
        assert second["data"]["seq"] > first["data"]["seq"]
        assert second["id"] == f"{MARKET}:{second['data']['seq']}"
        assert second["data"]["curve"]["supply"][0][1] == 8
        assert "heartbeat" in (await stream.until(""))[""]
    async with streaming(venue, last=second["id"]) as stream:
        assert (await stream.until("tick"))["data"]["seq"] >= second["data"]["seq"]


async def test_a_stream_of_the_account_resumes_without_a_gap(venue):
    """Goal: what is told before and after a break is the whole history, though ticks came in between."""
    async with streaming(venue, "account=true", venue.buyer) as stream:
        last = (await stream.next())["id"]  # before anything happened
    await venue.place(limit_price_per_gpu_hour="0.50")
    async with streaming(venue, "account=true", venue.buyer, last) as stream:
        resumed = await stream.until("bid")
        assert int(resumed["id"]) == resumed["data"]["seq"] == int(last) + 1
        assert "id" not in await stream.until("tick")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1.00"})
        deposit = await stream.until("balance")
        assert deposit["data"]["type"] == "balance.deposited"
    whole = await venue.ok("GET", f"/v1/events?after={last}", venue.buyer)
    assert whole["data"][0]["seq"] == int(resumed["id"])


async def test_a_stream_ends_with_its_key_and_with_the_server(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:read"]})
    async with streaming(venue, "account=true", made["secret"]) as stream:
        await stream.next()
        await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
        async with asyncio.timeout(3):
            while await stream.next() is not None:
                pass
    async with streaming(venue) as stream:
        await stream.next()
        venue.client.app[SERVICES].end_waits()
        async with asyncio.timeout(3):
            while await stream.next() is not None:
                pass
    assert all(one.account is None for one in venue.engine.publisher._subscriptions)


async def test_streams_that_cannot_be_served_are_refused(venue):
    for query, key, last, status in (
        ("markets=nowhere", None, None, 404),
        ("colour=red", None, None, 422),
        ("account=true", None, None, 401),
        ("account=true", venue.buyer, "99999", 422),
        ("account=true", venue.buyer, f"{MARKET}:1", 400),
        ("", None, "<script>", 400),
    ):
        sent = {} if last is None else {"Last-Event-ID": last}
        answered = await venue.call("GET", f"/v1/stream?{query}", key, **sent)
        assert answered.status == status, (query, answered.raw)
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["billing:read"]})
    assert (await venue.call("GET", "/v1/stream?account=true", made["secret"])).status == 403


async def test_a_commit_of_more_events_than_a_queue_holds_is_told_whole_and_in_order(venue):
    async with streaming(venue, "account=true", venue.buyer) as stream:
        last = int((await stream.next())["id"])
        operation = {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "0.50"}
        await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"operations": [operation] * 300})
        ids = [int((await stream.until("bid"))["id"]) for _ in range(300)]
    assert ids == list(range(last + 1, last + 301))


async def test_a_stream_that_nobody_reads_is_cut_off(database, config):
    """Method: heartbeats without a pause into small buffers that nobody empties, and little patience."""
    impatient = replace(config, send_seconds_max=0.3, heartbeat_seconds=0.0001)
    async with serving(database, impatient) as venue:
        listeners = len(venue.engine.publisher._subscriptions)
        await cut_off(venue, listeners)


async def cut_off(venue, listeners):
    """Open a stream, read nothing, wait until it is gone."""
    async with streaming(venue) as stream:
        transport = stream.response.connection.transport
        transport.pause_reading()
        ours = [one.transport for one in venue.client.server.runner.server.connections if one.transport]
        for end in [transport, *ours]:
            line = end.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        async def is_over():
            assert all(end.get_write_buffer_size() < 256 * 1024 for end in ours)
            is_cut = all(end.is_closing() for end in ours)
            return is_cut and len(venue.engine.publisher._subscriptions) == listeners

        await venue.until(is_over, "the stream was ended")
