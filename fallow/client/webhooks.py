"""What a receiver of webhooks needs: is this message the market's, and what does it say.

Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, one signature for each secret while they change.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from auction.units import MICROSECONDS_PER_SECOND
from fallow.client.errors import FallowError

TOLERANCE_SECONDS = 300
SIGNATURES_MAX = 16
SECRET_PREFIX = "whsec_"


class SignatureError(FallowError):
    """A message that the market did not sign, or not lately."""


class WebhookMessage(Struct, frozen=True):
    """A message's body; `data` is the object as it was then. The same `id` may come more than once."""

    id: str
    type: str
    seq: int | None
    at: datetime
    market: str | None
    tick: int | None
    data: Any


_message = msgspec.json.Decoder(WebhookMessage)


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, now_s: int | None = None
) -> WebhookMessage:
    """Return a genuine message; raises SignatureError for any other, ValueError for what is no secret.

    `headers` may be in any case; `now_s` (Unix seconds) is the machine's time unless given.
    """
    key = key_of_secret(secret)
    given = {name.lower(): value for name, value in headers.items()}
    message_id = given.get("webhook-id", "")
    timestamp, claimed = given.get("webhook-timestamp", ""), given.get("webhook-signature", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise SignatureError("webhook-timestamp: expected Unix seconds")
    now_s = _now_s() if now_s is None else now_s
    if abs(now_s - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureError(
            f"signed {now_s - int(timestamp)} s ago; at most {TOLERANCE_SECONDS} s are taken"
        )
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    signatures = claimed.encode().split(b" ")[:SIGNATURES_MAX]
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise SignatureError("no signature of this secret")
    try:
        return _message.decode(body)
    except msgspec.DecodeError as error:
        raise SignatureError(f"signed, but no message: {error}") from None


def _now_s() -> int:
    from auction.clock import (
        SystemClock,
    )  # an event loop's worth of modules, which the command line is without

    return SystemClock().now_us() // MICROSECONDS_PER_SECOND


def key_of_secret(secret: str) -> bytes:
    """Read a secret; raises ValueError for what is none."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"a webhook's secret: expected {SECRET_PREFIX} and base64")
    return key
