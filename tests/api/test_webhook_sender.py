"""The sender under a clock that is moved by hand: schedules, deadlines, the breaker, outages, the sweep.

The market, its HTTP face, PostgreSQL and the receiver are the real ones; only time is not.
"""

import asyncio

import asyncpg
import pytest
from aiohttp import ClientTimeout

from api.services import SERVICES
from api.webhook_messages import DAYS_3_US, own_delivery
from auction.clock import ManualClock, SystemClock
from sql.scope import EVERYBODY
from sql.webhook_outbox import (
    DELIVERIES_KEPT_US,
    PENDING_PER_ENDPOINT_MAX,
    SWEEP_ROWS_MAX,
    WebhookOutbox,
)
from tests.api.conftest import serving
from tests.api.webhook_receiver import receiving, verify

SECOND = 1_000_000
QUIET_SECONDS = 0.25  # real time in which a wrong attempt would have come


@pytest.fixture
def clock():
    return ManualClock(SystemClock().now_us())


@pytest.fixture
async def venue(database, config, clock):
    """A demo venue whose notices are 30 s long, on the clock of the test."""
    async with serving(database, config, clock=clock) as venue:
        await venue.open_market(notice_seconds=30)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


@pytest.fixture
async def receiver():
    async with receiving() as running:
        yield running


async def hook(venue, url, *types):
    return await venue.ok("POST", "/v1/webhooks", venue.buyer, {"url": url, "types": list(types)})


async def delivery(venue, endpoint, kind):
    rows = (await venue.ok("GET", f"/v1/webhooks/{endpoint['id']}/deliveries", venue.buyer))["data"]
    return next((row for row in rows if row["type"] == kind), None)


async def preempt(venue, clock):
    """Have the buyer's lease run, then withdraw its offer."""
    _, offer = await venue.offer_node(gpus=2)
    await venue.place()

    async def running():
        clock.advance(1)
        return (await venue.ok("GET", "/v1/leases?state=running", venue.buyer))["data"]

    await venue.until(running, "the lease runs")
    head = await venue.call("GET", f"/v1/offers/{offer['id']}", venue.owner)
    await venue.ok("DELETE", f"/v1/offers/{offer['id']}", venue.owner, If_Match=head.headers["ETag"])


async def attempts(venue, endpoint, kind, number):
    async def made():
        row = await delivery(venue, endpoint, kind)
        return row if row is not None and row["attempts"] >= number else None

    row = await venue.until(made, f"{number} attempts")
    assert row["attempts"] == number
    return row


async def test_a_notice_is_retried_by_its_schedule_and_delivered_before_its_deadline(venue, receiver, clock):
    made = await hook(venue, receiver.url, "notice.issued")
    port = receiver.port
    await receiver.stop_listening()
    await preempt(venue, clock)
    issued_us = clock.now_us()
    await attempts(venue, made, "notice.issued", 1)
    for number, offset_s in enumerate((1, 2, 5, 10), 2):
        clock.advance_to(issued_us + offset_s * SECOND - 1)
        await asyncio.sleep(QUIET_SECONDS)
        early = await delivery(venue, made, "notice.issued")
        assert early["attempts"] == number - 1, f"nothing before {offset_s} s"
        clock.advance_to(issued_us + offset_s * SECOND)
        row = await attempts(venue, made, "notice.issued", number)
        assert (row["state"], row["last_error"]) == ("pending", "connection_failed")
    await receiver.listen(port)
    clock.advance_to(issued_us + 20 * SECOND)
    headers, body = await receiver.first("notice.issued")
    document = verify(made["secret"], headers, body, now_s=clock.now_us() // SECOND)
    assert int(headers["webhook-timestamp"]) == (issued_us + 20 * SECOND) // SECOND
    row = await attempts(venue, made, "notice.issued", 6)
    assert (row["state"], row["event"]) == ("delivered", document["id"])
    assert row["last_attempt_at"] < row["deadline_at"]


async def test_a_notice_nobody_took_is_given_up_at_its_deadline(venue, receiver, clock):
    receiver.status = 503
    made = await hook(venue, receiver.url, "notice.issued")
    await preempt(venue, clock)
    issued_us = clock.now_us()
    for number, offset_s in enumerate((0, 1, 2, 5, 10, 20), 1):
        clock.advance_to(issued_us + offset_s * SECOND)
        row = await attempts(venue, made, "notice.issued", number)
    assert (row["state"], row["last_status"], row["next_attempt_at"]) == ("failed", 503, None)
    assert {headers["webhook-id"] for headers, _ in receiver.seen} == {row["event"]}
    clock.advance(60)
    await asyncio.sleep(QUIET_SECONDS)
    assert len(receiver.seen) == 6


async def test_a_notice_that_could_not_even_be_tried_is_recorded_as_too_late(venue, clock):
    made = await hook(venue, "http://127.0.0.1:9/", "notice.issued")
    await preempt(venue, clock)
    await attempts(venue, made, "notice.issued", 1)
    await venue.ok("PATCH", f"/v1/webhooks/{made['id']}", venue.buyer, {"enabled": False})
    clock.advance(40)

    async def given_up():
        return (await delivery(venue, made, "notice.issued"))["state"] == "failed"

    await venue.until(given_up, "the sweep gives it up")
    assert (await delivery(venue, made, "notice.issued"))["last_error"] == "deadline_passed"


async def test_a_failing_endpoint_is_left_alone_except_for_notices(venue, receiver, clock):
    """Goal: after five failures in a row ordinary messages wait, a notice does not."""
    receiver.status = 500
    made = await hook(venue, receiver.url, "bid.accepted", "notice.issued")
    for _ in range(20):
        await venue.place(limit_price_per_gpu_hour="1.50", gpus=1)

    async def closed():
        row = await venue.pool.fetchrow("SELECT consecutive_failures, closed_until_us FROM webhook_endpoints")
        return row if row["consecutive_failures"] >= 5 and len(receiver.seen) >= 5 else None

    await venue.until(closed, "the breaker opens")
    await asyncio.sleep(QUIET_SECONDS)
    row = await closed()
    assert row["closed_until_us"] > clock.now_us()
    ordinary = len(receiver.seen)
    assert ordinary <= 5 + 3  # at most three were under way beside the fifth failure
    await preempt(venue, clock)
    await receiver.first("notice.issued")
    receiver.status = 204
    clock.advance(3_600)

    async def all_told():
        clock.advance(3_600)
        rows = (await venue.ok("GET", f"/v1/webhooks/{made['id']}/deliveries", venue.buyer))["data"]
        return all(row["state"] == "delivered" for row in rows if row["type"] == "bid.accepted")

    await venue.until(all_told, "everything arrives when the receiver is back")
    shown = await venue.ok("GET", f"/v1/webhooks/{made['id']}", venue.buyer)
    assert (shown["state"], shown["consecutive_failures"]) == ("enabled", 0)


async def test_nothing_is_lost_when_every_connection_of_the_pool_breaks(venue, receiver, database):
    made = await hook(venue, receiver.url, "bid.accepted")
    for round_ in range(3):
        connection = await database.connect()
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()

        async def placed(key=f"bid {round_}"):
            answered = await venue.call(
                "POST", "/v1/bids", venue.buyer,
                {"market": "h100-sxm.test", "gpus": 1, "limit_price_per_gpu_hour": "1.00"},
                Idempotency_Key=key,
            )  # fmt: skip
            return answered.status == 201

        await venue.until(placed, "the market is back")

    # One bid a round, each told: the sender went on from its position.
    async def told():
        return len({headers["webhook-id"] for headers, _ in receiver.seen}) == 3

    await venue.until(told, "all three bids are told")
    assert made["state"] == "enabled"


async def test_the_sweep_forgets_in_bounded_batches(venue, clock):
    made = await hook(venue, "http://127.0.0.1:9/", "notice.issued")
    outbox, pool, now_us = WebhookOutbox(venue.app_pool.fixed(EVERYBODY)), venue.pool, clock.now_us()
    await pool.execute("UPDATE webhook_endpoints SET state = 'disabled', reason = 'owner'")

    def message(at_us):
        return own_delivery(made["id"], "evt_x", "webhook.test", at_us, b"{}", keep_us=DELIVERIES_KEPT_US)

    async def count(condition):
        return await pool.fetchval(f"SELECT count(*) FROM webhook_deliveries WHERE {condition}")

    # More than the queue of one endpoint holds: the oldest fail.
    await outbox.add([message(now_us) for _ in range(PENDING_PER_ENDPOINT_MAX + 10)])
    await outbox.sweep(now_us)
    assert await count("state = 'pending'") == PENDING_PER_ENDPOINT_MAX
    assert await count("state = 'failed' AND last_error = 'backlog_full'") == 10
    # Too late: one batch at a time.
    late_us = now_us + DELIVERIES_KEPT_US
    await outbox.sweep(late_us)
    assert await count("state = 'pending'") == PENDING_PER_ENDPOINT_MAX - SWEEP_ROWS_MAX
    await outbox.sweep(late_us)
    assert await count("state = 'pending'") == 0
    # Old: finished ones of events before the last thirty days.
    await outbox.sweep(late_us + 1)
    assert await count("true") == PENDING_PER_ENDPOINT_MAX + 10 - SWEEP_ROWS_MAX
    await outbox.sweep(late_us + 1)
    await outbox.sweep(late_us + 1)
    assert await count("true") == 0
    # Deleted: the deliveries first, then the endpoint.
    await outbox.add([message(now_us)])
    await venue.ok("DELETE", f"/v1/webhooks/{made['id']}", venue.buyer)
    await outbox.sweep(now_us)
    await outbox.sweep(now_us)
    assert await pool.fetchval("SELECT count(*) FROM webhook_endpoints") == 0
    # Rotations that are over.
    other = await hook(venue, "http://127.0.0.1:9/")
    await venue.ok("POST", f"/v1/webhooks/{other['id']}/rotate-secret", venue.buyer)
    assert await pool.fetchval("SELECT previous_secret IS NOT NULL FROM webhook_endpoints")
    await outbox.sweep(now_us + DAYS_3_US)
    assert await pool.fetchval("SELECT previous_secret IS NULL FROM webhook_endpoints")


async def test_an_event_is_one_delivery_however_often_the_outbox_is_read(venue, receiver, clock):
    await hook(venue, receiver.url, "bid.accepted")
    for _ in range(3):
        await venue.place()
    await receiver.count(3)
    await venue.pool.execute("UPDATE webhook_outbox SET position = 0")
    sender = sender_of(venue)
    sender._position = None
    sender.look_again()
    await venue.place()
    await receiver.count(4)
    await asyncio.sleep(QUIET_SECONDS)
    assert len(receiver.seen) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 4


def sender_of(venue):
    return venue.client.server.app[SERVICES].sender


async def test_many_events_are_followed_and_replayed_page_by_page(venue):
    """Goal: more matches than a page holds become deliveries once each, and are replayed once each."""
    made = await hook(venue, "http://127.0.0.1:9/", "bid.accepted")
    sender = sender_of(venue)
    await sender.stop()
    operation = {"op": "place", "market": "h100-sxm.test", "gpus": 1, "limit_price_per_gpu_hour": "1.00"}
    for _ in range(2):
        await venue.ok("POST", "/v1/bids/batch", venue.buyer, {"operations": [operation] * 600})
    # The sender was away all the time: everything is ahead of it.
    await venue.pool.execute("UPDATE webhook_outbox SET position = 0")
    sender._position, sender._parts, sender._knows_watched = None, [], False
    sender.start()

    async def all_there():
        return await venue.pool.fetchval("SELECT count(*) FROM webhook_deliveries") == 1_200

    await venue.until(all_there, "1,200 deliveries")
    assert await venue.pool.fetchval("SELECT count(DISTINCT event) FROM webhook_deliveries") == 1_200
    await venue.pool.execute("UPDATE webhook_deliveries SET state = 'delivered'")
    path, body = f"/v1/webhooks/{made['id']}/replay", {"since": "2020-01-01T00:00:00Z"}
    assert (await venue.ok("POST", path, venue.buyer, body))["scheduled"] == 0
    first = await venue.ok("POST", path, venue.buyer, body | {"include_delivered": True})
    assert first["scheduled"] == 1_000
    last = await venue.ok(
        "POST", path, venue.buyer, body | {"include_delivered": True, "cursor": first["next_cursor"]}
    )
    assert last == {"scheduled": 200, "next_cursor": None}


async def test_every_failure_has_its_word(venue, receiver):
    receiver.hangs = True
    sender_of(venue)._client._timeout = ClientTimeout(total=0.3)
    for url, word in [
        (receiver.url, "timeout"),
        (receiver.url.replace("http:", "https:"), "tls_failed"),
        ("http://127.0.0.1:9/", "connection_failed"),
    ]:
        made = await hook(venue, url)
        await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.buyer)
        row = await attempts(venue, made, "webhook.test", 1)
        assert (row["state"], row["last_status"], row["last_error"]) == ("pending", None, word)


async def test_what_was_stored_before_the_guard_is_still_refused(venue, receiver):
    """Goal: the guard at connect time holds whatever the row says. The address gets no socket."""
    made = await hook(venue, "http://127.0.0.1:9/")
    await venue.pool.execute("UPDATE webhook_endpoints SET url = 'https://10.0.0.1/'")
    await venue.ok("POST", f"/v1/webhooks/{made['id']}/test", venue.buyer)
    row = await attempts(venue, made, "webhook.test", 1)
    assert row["last_error"] == "address_forbidden"


async def test_a_message_that_cannot_be_made_backs_off_alone(venue, receiver, clock):
    made = await hook(venue, receiver.url, "bid.accepted", "bid.cancelled")
    receiver.status = 500
    bid = await venue.place()
    await attempts(venue, made, "bid.accepted", 1)
    await venue.pool.execute("UPDATE events SET body = '' WHERE kind = 'bid.accepted'")
    receiver.status = 204
    clock.advance(10)
    row = await attempts(venue, made, "bid.accepted", 2)
    assert (row["state"], row["last_error"]) == ("pending", "internal_error")
    await venue.ok("DELETE", f"/v1/bids/{bid['id']}", venue.buyer)
    await receiver.first("bid.cancelled")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'paused'", "webhook_endpoints_state_known"),
        ("state = 'disabled'", "webhook_endpoints_reason"),
        ("reason = 'owner'", "webhook_endpoints_reason"),
        ("secret = ''", "webhook_endpoints_secret"),
        ("previous_secret = secret", "webhook_endpoints_rotation"),
        ("url = 'x'", "webhook_endpoints_bounds"),
    ],
)
async def test_bad_endpoints_cannot_be_written(venue, change, constraint):
    await hook(venue, "http://127.0.0.1:9/", "notice.issued")
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await venue.pool.execute(f"UPDATE webhook_endpoints SET {change}")
    assert refused.value.constraint_name == constraint


async def test_a_month_that_is_final_is_told_once(database, config, receiver):
    """The first look tells nobody; then each endpoint that wants it, a minute after the month's end."""
    kind, clock = "statement.final", ManualClock(1_793_490_000 * SECOND)  # 2026-10-31T23:40:00Z
    async with serving(database, config, clock=clock) as venue:
        _, venue.buyer = await venue.open_account("buyer")
        endpoint = await hook(venue, receiver.url, kind)
        other = await hook(venue, f"{receiver.url}/other", "bid.accepted")

        async def looked():
            return await venue.pool.fetchval("SELECT statement_told FROM webhook_outbox") == "2026-09"

        await venue.until(looked, "the first look")
        assert await delivery(venue, endpoint, kind) is None
        clock.advance(20 * 60 + 30)
        _, late = await venue.open_account("buyer")
        body = {"url": f"{receiver.url}/late", "types": []}
        await venue.ok("POST", "/v1/webhooks", late, body)
        await asyncio.sleep(QUIET_SECONDS)
        assert await delivery(venue, endpoint, kind) is None, "half a minute is too early"
        clock.advance(90)
        headers, raw = await receiver.first(kind)
        told = verify(endpoint["secret"], headers, raw, now_s=clock.now_us() // SECOND)
        assert told["data"] == {"statement": "2026-10", "path": "/v1/statements/2026-10"}
        shown = await venue.ok("GET", told["data"]["path"], venue.buyer)
        assert shown["state"] == "final"
        operator, buyer = venue.operator, venue.buyer
    async with serving(database, config, operator, clock=clock) as venue:
        venue.buyer = buyer
        clock.advance(600)
        await asyncio.sleep(QUIET_SECONDS)
        assert receiver.paths == ["/hook"]
        assert await delivery(venue, other, kind) is None
