"""The WebSocket, as a client sees it."""

import asyncio
import gc
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgpack
import msgspec
from aiohttp import WSMsgType

from api.services import SERVICES
from api.stream_writer import QUEUE_BYTES_MAX, Writer
from tests.api.conftest import DEADLINE_SECONDS, MARKET, serving


class Socket:
    """A client of the JSON or the msgpack sub-protocol that remembers everything it was told."""

    def __init__(self, socket, *, is_packed=False):
        self.socket = socket
        self.is_packed = is_packed
        self.seen = []

    async def send(self, **message):
        if self.is_packed:
            await self.socket.send_bytes(msgpack.packb(message))
        else:
            await self.socket.send_str(msgspec.json.encode(message).decode())

    async def next(self):
        message = await self.socket.receive(timeout=DEADLINE_SECONDS)
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            return None
        shown = msgpack.unpackb(message.data) if self.is_packed else msgspec.json.decode(message.data)
        self.seen.append(shown)
        return shown

    async def until(self, **wanted):
        """Read on until a message carries these values."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                message = await self.next()
                assert message is not None, (self.socket.close_code, wanted)
                if all(message.get(name) == value for name, value in wanted.items()):
                    return message

    async def close_code(self):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self.next() is not None:
                pass
        return self.socket.close_code


@asynccontextmanager
async def connected(venue, protocol="fallow.v1.json"):
    async with venue.client.ws_connect("/v1/ws", protocols=[protocol]) as socket:
        client = Socket(socket, is_packed=protocol.endswith("msgpack"))
        assert (await client.next())["type"] == "hello"
        yield client


async def test_public_ticks_carry_the_curve(venue):
    await venue.offer_node()
    for protocol in ("fallow.v1.json", "fallow.v1.msgpack"):
        async with connected(venue, protocol) as client:
            await client.send(type="subscribe", id=1, channels=[f"market:{MARKET}"])
            assert (await client.until(type="ack"))["id"] == 1
            first = await client.until(type="tick")
            second = await client.until(type="tick")
            assert second["seq"] == second["tick"]["tick"] > first["seq"]
            assert second["curve"]["supply"][0][1] == 8
            beat = await client.until(type="heartbeat")
            assert beat["seqs"] == {f"market:{MARKET}": client.seen[-2].get("seq", second["seq"])}


async def test_account_events_are_gapless_and_resume(venue):
    """Goal: a second session that resumes from seq n sees exactly what the first one saw after n."""
    await venue.offer_node()
    async with connected(venue) as client:
        await client.send(type="auth", key=venue.buyer)
        await client.send(type="subscribe", channels=["account"], after_seq=0)
        await client.until(type="ack", channels=["account"])
        await client.until(event="balance.deposited")
        await venue.place()
        started = await client.until(event="lease.started")
        assert started["data"]["state"] == "running"
        first = [message for message in client.seen if message.get("channel") == "account"]
    assert [message["seq"] for message in first] == list(range(1, len(first) + 1))
    async with connected(venue, "fallow.v1.msgpack") as client:
        await client.send(type="auth", key=venue.buyer)
        await client.send(type="subscribe", id="a", channels=["account", "markets"], after_seq=2)
        assert (await client.until(type="ack", id="a"))["seq"] == 2
        while client.seen[-1].get("seq") != first[-1]["seq"] or client.seen[-1]["type"] == "tick":
            await client.next()
        resumed = [message for message in client.seen if message.get("channel") == "account"]
    assert [(m["seq"], m["event"], m["at"]) for m in resumed] == [
        (m["seq"], m["event"], m["at"]) for m in first[2:]
    ]


async def test_ping_errors_and_unsubscribe(venue):
    async with connected(venue) as client:
        await client.send(type="ping", id="p")
        assert (await client.until(type="ack"))["id"] == "p"
        await client.send(type="subscribe", channels=["market:nowhere"])
        assert (await client.until(type="error"))["code"] == "not_found"
        await client.socket.send_str("[" * 20_000)
        assert (await client.until(type="error"))["code"] == "invalid_value"
        await client.send(type="dance")
        assert (await client.until(type="error"))["code"] == "invalid_value"
        await client.send(type="ping", extra=1)
        assert (await client.until(type="error"))["code"] == "unknown_field"
        await client.send(type="subscribe", channels=["markets"])
        await client.until(type="tick")
        await client.send(type="unsubscribe", id=9, channels=["markets"])
        await client.until(type="ack", id=9)


async def test_close_codes(venue):
    async with connected(venue) as client:
        await client.send(type="auth", key="fal_test_nonsense")
        assert await client.close_code() == 4001
    async with connected(venue) as client:
        await client.send(type="subscribe", channels=["account"])
        assert await client.close_code() == 4001
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["billing:read"]})
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(type="subscribe", channels=["account"])
        assert await client.close_code() == 4003
    for raw in ("{", "nonsense", ""):
        async with connected(venue) as client:
            await client.socket.send_str(raw)
            assert await client.close_code() == 4010
    async with connected(venue) as client:
        await client.socket.send_bytes(b"{}")
        assert await client.close_code() == 4010


async def test_revoking_a_key_closes_its_sockets_within_two_seconds(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:read"]})
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(type="subscribe", channels=["account"])
        await client.until(type="ack", channels=["account"])
        await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
        async with asyncio.timeout(2):
            assert await client.close_code() == 4001


async def test_a_commit_of_more_events_than_a_queue_holds_is_told_whole_and_in_order(venue):
    """Method: a batch is one commit, and so one burst."""
    async with connected(venue) as client:
        await client.send(type="auth", key=venue.buyer)
        await client.send(type="subscribe", channels=["account"])
        await client.until(type="ack", channels=["account"])
        operation = {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
        await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"operations": [operation] * 300})
        seqs = []
        while len(seqs) < 300:
            message = await client.next()
            if message.get("channel") == "account":
                seqs.append(message["seq"])
        assert seqs == list(range(2, 302)), "behind the deposit"


async def test_the_last_message_says_why_and_where_to_resume(venue):
    made = await venue.ok("POST", "/v1/keys", venue.buyer, {"name": "b", "scopes": ["bids:read"]})
    async with connected(venue) as client:
        await client.send(type="auth", key=made["secret"])
        await client.send(type="subscribe", channels=["account"], after_seq=0)
        await client.until(event="balance.deposited")
        await venue.ok("DELETE", f"/v1/keys/{made['id']}", venue.buyer)
        goodbye = await client.until(type="goodbye")
        assert (goodbye["close_code"], goodbye["seqs"]) == (4001, {"account": 1})
        assert await client.close_code() == 4001


async def test_who_was_told_of_no_tick_for_a_while_is_told_which_ones(venue):
    async with connected(venue) as client:
        await client.send(type="subscribe", id=1, channels=["markets"])
        first = (await client.until(type="tick"))["seq"]
        await client.send(type="unsubscribe", id=2, channels=["markets"])
        await client.until(type="ack", id=2)

        while (await venue.ok("GET", f"/v1/markets/{MARKET}"))["tick"] < first + 3:
            await client.send(type="ping", id="p")  # who reads nothing answers no ping of the server's
            await client.until(type="ack", id="p")
            await asyncio.sleep(0.1)
        await client.send(type="subscribe", id=3, channels=["markets"])
        gap = await client.until(type="gap")
        tick = await client.next()
        assert (gap["channel"], tick["type"]) == (f"market:{MARKET}", "tick")
        assert first <= gap["after"] < gap["before"] - 1 == tick["seq"] - 1


async def test_a_server_that_stops_says_so_before_it_closes(database, config):
    async with serving(database, config) as venue:
        await venue.open_market()
        async with connected(venue) as client:
            await client.send(type="subscribe", id=1, channels=["markets"])
            await client.until(type="ack")
            stopping = asyncio.create_task(venue.client.app.shutdown())
            assert (await client.until(type="goodbye"))["close_code"] == 1012
            assert await client.close_code() == 1012
            await stopping


async def test_a_plain_request_is_refused(venue):
    assert (await venue.call("GET", "/v1/ws")).status == 400


@asynccontextmanager
async def silent(client):
    """Ask on and on, and read nothing until the end of it."""
    line = client.socket._response.connection.transport
    line.pause_reading()

    async def flood():
        with suppress(ConnectionError):
            while True:
                await client.send(type="ping", id="x" * 128)

    flooding = asyncio.create_task(flood())
    try:
        yield
    finally:
        line.resume_reading()
        flooding.cancel()
        await asyncio.wait([flooding])


async def test_a_reader_that_never_reads_is_closed_with_4008(database, config):
    """Goal: what a silent reader makes the server keep is bounded. Method: ask on and on, read nothing."""
    impatient = replace(config, send_seconds_max=0.5, heartbeat_seconds=30)
    async with serving(database, impatient) as venue, connected(venue) as client:
        sockets = venue.client.app[SERVICES].sockets
        most = 0
        writers = [thing for thing in gc.get_objects() if isinstance(thing, Writer)]
        (writer,) = (found for found in writers if found._socket in sockets)
        async with silent(client), asyncio.timeout(DEADLINE_SECONDS):
            while not all(socket.closed for socket in sockets):
                most = max(most, writer.waiting_bytes)
                await asyncio.sleep(0.01)
        assert 0 < most < QUEUE_BYTES_MAX
        assert await client.close_code() == 4008
