"""The shapes of webhook endpoints and deliveries. See wire.py for the rules that all wire modules follow.

An endpoint's secret appears in `secret` of the answer that made it, once; what is stored says null.
"""

from typing import Annotated

from msgspec import Meta, Struct

from api.egress import URL_CHARACTERS_MAX
from api.fields import Cursor, InstantField, ReferenceField, format_instant, format_instant_or_none
from api.webhook_messages import WEBHOOK_TYPES, WebhookType
from sql.webhook_store import Delivery, Endpoint

OVERLAP_SECONDS_MAX = 7 * 24 * 3_600

UrlText = Annotated[str, Meta(min_length=1, max_length=URL_CHARACTERS_MAX)]
Types = Annotated[list[WebhookType], Meta(max_length=len(WEBHOOK_TYPES))]


class CreateWebhookBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Without `types` everything is told that webhooks carry, also what is added later."""

    url: UrlText
    types: Types = []
    description: ReferenceField | None = None


class AmendWebhookBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is. Enabled again, it is told what happens from then on."""

    url: UrlText | None = None
    types: Types | None = None
    description: ReferenceField | None = None
    enabled: bool | None = None


class RotateSecretBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Both secrets sign for `overlap_seconds`, so that a receiver can change over."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=OVERLAP_SECONDS_MAX)] = 24 * 3_600


class ReplayBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Tell again what failed, or was never told, of your account's events in this time."""

    since: InstantField
    until: InstantField | None = None
    include_delivered: bool = False
    cursor: Cursor | None = None


class WebhookView(Struct, frozen=True):
    """`previous_secret_until` is set while a rotation lasts; `consecutive_failures` counts attempts."""

    id: str
    url: str
    types: list[str]
    description: str
    state: str
    reason: str | None
    consecutive_failures: int
    previous_secret_until: str | None
    version: int
    created_at: str
    updated_at: str
    secret: str | None = None


class DeliveryView(Struct, frozen=True):
    """`last_error` is one word of ours, or the status: nothing of the receiver's reply is kept."""

    id: str
    event: str
    type: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    last_attempt_at: str | None
    next_attempt_at: str | None
    deadline_at: str
    at: str


class ReplayView(Struct, frozen=True):
    """`next_cursor` is null when the whole time was looked at; otherwise send it to go on."""

    scheduled: int
    next_cursor: str | None


def webhook_view(endpoint: Endpoint) -> WebhookView:
    return WebhookView(
        id=endpoint.id,
        url=endpoint.url,
        types=endpoint.types,
        description=endpoint.description,
        state=endpoint.state,
        reason=endpoint.reason,
        consecutive_failures=endpoint.consecutive_failures,
        previous_secret_until=format_instant_or_none(endpoint.previous_until_us),
        version=endpoint.version,
        created_at=format_instant(endpoint.created_at_us),
        updated_at=format_instant(endpoint.updated_at_us),
    )


def delivery_view(delivery: Delivery) -> DeliveryView:
    is_pending = delivery.state == "pending"
    return DeliveryView(
        id=str(delivery.id),
        event=delivery.message,
        type=delivery.kind,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        last_attempt_at=format_instant_or_none(delivery.last_attempt_at_us),
        next_attempt_at=format_instant(delivery.next_attempt_at_us) if is_pending else None,
        deadline_at=format_instant(delivery.deadline_us),
        at=format_instant(delivery.at_us),
    )
