"""What a webhook carries and how it is signed: Standard Webhooks 1.0.

`webhook-id` is the event's id, the same on every attempt and for every endpoint; the body is the event
as the feed and the sockets tell it. Signed is `id.timestamp.body` with HMAC-SHA256 under each secret
that is valid now. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from api.events import Setting, event_view
from api.fields import format_instant
from auction.ids import derived_id, random_bytes
from auction.model import Event, Notice
from auction.units import MICROSECONDS_PER_SECOND
from sql.webhook_store import NewDelivery, StoredEvent

SECRET_BYTES = 32  # Standard Webhooks: 24 to 64
SECRET_PREFIX = "whsec_"
DAYS_3_US = 3 * 24 * 3_600 * MICROSECONDS_PER_SECOND
URGENT_PREFIX = "notice."

WebhookType = Literal[
    "bid.accepted",
    "bid.filled",
    "bid.partial",
    "bid.outbid",
    "bid.cancelled",
    "bid.expired",
    "bid.exhausted",
    "bid.rejected",
    "lease.started",
    "lease.resized",
    "lease.preempting",
    "lease.ended",
    "lease.failed",
    "notice.issued",
    "notice.withdrawn",
    "offer.leased",
    "offer.withdrawn",
    "node.online",
    "node.offline",
    "node.degraded",
    "balance.low",
    "balance.exhausted",
    "statement.final",
    "payout.created",
    "payout.paid",
    "payout.failed",
    "limit.warning",
    "key.stopped",
    "key.resumed",
    "market.halted",
    "market.resumed",
    "webhook.disabled",
]
WEBHOOK_TYPES: tuple[str, ...] = get_args(WebhookType)

_notice_of = msgspec.msgpack.Decoder(Notice).decode


class WebhookMessage(Struct, frozen=True):
    """The body of a webhook. `seq` is null where the message is no event of the account's sequence."""

    id: str
    type: str
    seq: int | None
    at: str
    market: str | None
    tick: int | None
    data: Any


def new_secret() -> bytes:
    return random_bytes(SECRET_BYTES)


def write_secret(secret: bytes) -> str:
    """Write a secret as its owner gets to see it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(message_id: str, timestamp_s: int, body: bytes, secrets: list[bytes]) -> dict[str, str]:
    """Return the headers that prove the body's origin, one signature a secret."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets
    ]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def event_id(account: str | None, number: int) -> str:
    """Return the public id of an event.

    `number` is its place in the account's sequence, or, of a public one, in the outbox. Account ids are
    random, so nobody else can guess it, and it needs no column.
    """
    return derived_id("evt", account or "public", number)


def event_message(message_id: str, event: Event, setting: Setting) -> bytes:
    """Write an event down as it is sent."""
    view = event_view(event, setting)
    seq = None if event.account is None else view.seq
    message = WebhookMessage(message_id, view.type, seq, view.at, view.market, view.tick, view.data)
    return msgspec.json.encode(message)


def own_message(message_id: str, kind: str, at_us: int, data: Any) -> bytes:
    """Write down a message that is no event: a test, or the news that an endpoint was disabled."""
    return msgspec.json.encode(
        WebhookMessage(message_id, kind, None, format_instant(at_us), None, None, data)
    )


def delivery_of(stored: StoredEvent) -> NewDelivery:
    """Plan the delivery of an event: a notice until its GPUs are reclaimed, all else for three days."""
    number = stored.event if stored.account is None else stored.account_seq
    deadline_us = stored.at_us + DAYS_3_US
    if stored.notice is not None:
        deadline_us = _notice_of(stored.notice).reclaim_at_us
    return NewDelivery(
        endpoint=stored.endpoint,
        message=event_id(stored.account, number),
        kind=stored.kind,
        event=stored.event,
        body=None,
        is_urgent=stored.notice is not None,
        at_us=stored.at_us,
        deadline_us=deadline_us,
        next_attempt_at_us=stored.at_us,
    )


def own_delivery(
    endpoint: str, message_id: str, kind: str, at_us: int, body: bytes, *, keep_us: int = DAYS_3_US
) -> NewDelivery:
    """Plan the delivery of a message that is no event."""
    return NewDelivery(endpoint, message_id, kind, None, body, False, at_us, at_us + keep_us, at_us)
