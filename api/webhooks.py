"""Webhook endpoints over HTTP: make, change, rotate, test, see what was told, tell it again.

Endpoints are no part of the auction, so nothing here passes the engine: a change and the answer kept
under its idempotency key are one transaction (sql/webhook_store.py). A secret goes to its first reader.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from api.call import Call, Reply
from api.codec import Page
from api.egress import check_url
from api.errors import problem_answer
from api.fields import Cursor, PageLimit, is_object_id
from api.paging import page, read_key, read_number, write_cursor
from api.routes import NoBody, NoQuery, route
from api.webhook_messages import (
    DAYS_3_US,
    WEBHOOK_TYPES,
    delivery_of,
    new_secret,
    own_delivery,
    own_message,
    write_secret,
)
from api.wire_webhooks import (
    AmendWebhookBody,
    CreateWebhookBody,
    DeliveryView,
    ReplayBody,
    ReplayView,
    RotateSecretBody,
    WebhookView,
    delivery_view,
    webhook_view,
)
from auction.errors import NotFound, Rejection
from auction.ids import random_id
from auction.ports import Answer
from auction.units import MICROSECONDS_PER_SECOND
from sql.webhook_store import Editor, Endpoint

ENDPOINTS_PER_ACCOUNT_MAX = 16
REPLAY_EVENTS_MAX = 1_000
TEST_KEPT_US = 60 * MICROSECONDS_PER_SECOND

V = TypeVar("V", bound=Struct)


class WebhooksQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


class DeliveriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["pending", "delivered", "failed"] | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("POST", "/v1/webhooks", scope="webhooks:write", status=201)
async def create_webhook(call: Call[CreateWebhookBody, NoQuery]) -> Reply[WebhookView]:
    """Have events sent to an address of yours; the signing secret is shown once."""
    body, config = call.body, call.services.config
    check_url(body.url, config.reach, config.webhook_ports)
    now_us = call.now_us
    endpoint = Endpoint(
        id=random_id("wh"),
        account=call.account,
        url=body.url,
        types=sorted(set(body.types)),
        description=body.description or "",
        state="enabled",
        reason=None,
        secret=new_secret(),
        previous_secret=None,
        previous_until_us=None,
        enabled_from_us=now_us,
        created_at_us=now_us,
        updated_at_us=now_us,
    )

    async def act(editor: Editor) -> WebhookView:
        _require_open(call)
        if await editor.count() >= ENDPOINTS_PER_ACCOUNT_MAX:
            raise Rejection("webhook_limit_reached", f"an account has {ENDPOINTS_PER_ACCOUNT_MAX} at most")
        await editor.add(endpoint)
        return webhook_view(endpoint)

    reply = await _change(call, act)
    return call.reveal(reply, replace(webhook_view(endpoint), secret=write_secret(endpoint.secret)))


@route("GET", "/v1/webhooks", scope="webhooks:write")
async def list_webhooks(call: Call[NoBody, WebhooksQuery]) -> Reply[Page[WebhookView]]:
    """List your endpoints, newest first; never their secrets."""
    found = await call.services.webhooks.endpoints(
        call.account, before=read_key(call.query.cursor), limit=call.query.limit
    )
    last = found.last and (found.last.created_at_us, found.last.id)
    return call.reply(page([webhook_view(endpoint) for endpoint in found.rows], last))


@route("GET", "/v1/webhooks/{webhook}", scope="webhooks:write")
async def get_webhook(call: Call[NoBody, NoQuery]) -> Reply[WebhookView]:
    """Show one endpoint."""
    return call.reply(webhook_view(await _read(call)))


@route("PATCH", "/v1/webhooks/{webhook}", scope="webhooks:write", if_match="optional")
async def amend_webhook(call: Call[AmendWebhookBody, NoQuery]) -> Reply[WebhookView]:
    """Change an endpoint's address or types, disable it, or enable it again."""
    body, config, version = call.body, call.services.config, call.expected_version()
    if body == AmendWebhookBody():
        raise Rejection("nothing_to_change", "expected at least one field")
    if body.url is not None:
        check_url(body.url, config.reach, config.webhook_ports)

    async def act(editor: Editor) -> WebhookView:
        _require_open(call)
        found = await _find(call, editor, version)
        amended = replace(
            found,
            url=found.url if body.url is None else body.url,
            types=found.types if body.types is None else sorted(set(body.types)),
            description=found.description if body.description is None else body.description,
            version=found.version + 1,
            updated_at_us=call.now_us,
        )
        if body.enabled is False and found.state == "enabled":
            amended = replace(amended, state="disabled", reason="owner")
        elif body.enabled is True and found.state == "disabled":
            amended = replace(amended, state="enabled", reason=None, enabled_from_us=call.now_us)
        if body.enabled is True or body.url is not None:
            amended = replace(amended, consecutive_failures=0, closed_until_us=0)
        await editor.save(amended)
        return webhook_view(amended)

    return await _change(call, act)


@route("DELETE", "/v1/webhooks/{webhook}", scope="webhooks:write", if_match="optional")
async def delete_webhook(call: Call[NoBody, NoQuery]) -> Reply[WebhookView]:
    """Remove an endpoint and all that was still to be sent to it."""
    version = call.expected_version()

    async def act(editor: Editor) -> WebhookView:
        found = await _find(call, editor, version)
        await editor.delete(found.id, call.now_us)
        return webhook_view(found)

    return await _change(call, act)


@route("POST", "/v1/webhooks/{webhook}/test", scope="webhooks:write", status=202)
async def test_webhook(call: Call[NoBody, NoQuery]) -> Reply[DeliveryView]:
    """Send a signed `webhook.test` message; its delivery shows within moments how that went."""

    async def act(editor: Editor) -> DeliveryView:
        found = await _find_enabled(call, editor)
        message_id = random_id("evt")
        body = own_message(message_id, "webhook.test", call.now_us, {"endpoint": found.id})
        planned = own_delivery(found.id, message_id, "webhook.test", call.now_us, body, keep_us=TEST_KEPT_US)
        return delivery_view(await editor.add_message(planned))

    return await _change(call, act)


@route("POST", "/v1/webhooks/{webhook}/rotate-secret", scope="webhooks:write")
async def rotate_webhook_secret(call: Call[RotateSecretBody, NoQuery]) -> Reply[WebhookView]:
    """Make a new secret, shown once; the one before signs beside it for a while."""
    secret, overlap_us = new_secret(), call.body.overlap_seconds * MICROSECONDS_PER_SECOND
    shown: list[WebhookView] = []

    async def act(editor: Editor) -> WebhookView:
        found = await _find(call, editor, None)
        rotated = replace(
            found,
            secret=secret,
            previous_secret=found.secret if overlap_us else None,
            previous_until_us=call.now_us + overlap_us if overlap_us else None,
            version=found.version + 1,
            updated_at_us=call.now_us,
        )
        await editor.save(rotated)
        shown.append(replace(webhook_view(rotated), secret=write_secret(secret)))
        return webhook_view(rotated)

    reply = await _change(call, act)
    return call.reveal(reply, shown[0] if shown else None)


@route("GET", "/v1/webhooks/{webhook}/deliveries", scope="webhooks:write")
async def list_webhook_deliveries(call: Call[NoBody, DeliveriesQuery]) -> Reply[Page[DeliveryView]]:
    """List what was and is to be told to an endpoint, newest first; kept for 30 days."""
    endpoint, query = await _read(call), call.query
    found = await call.services.webhooks.deliveries(
        call.account,
        endpoint.id,
        state=query.state,
        before=read_number(query.cursor),
        limit=query.limit,
    )
    return call.reply(page([delivery_view(row) for row in found.rows], found.last and found.last.id))


@route("POST", "/v1/webhooks/{webhook}/replay", scope="webhooks:write", status=202)
async def replay_webhook(call: Call[ReplayBody, NoQuery]) -> Reply[ReplayView]:
    """Tell your account's events of a time again, oldest first, up to 1,000 a call."""
    body, until_us = call.body, call.now_us if call.body.until is None else call.body.until
    after_seq = read_number(body.cursor, 0)
    if until_us < body.since:
        raise Rejection("invalid_value", "expected a time after since", pointer="/until")

    async def act(editor: Editor) -> ReplayView:
        found = await _find_enabled(call, editor)
        events = await editor.find_replayable(
            found.id,
            types=found.types or WEBHOOK_TYPES,
            after_seq=after_seq,
            from_us=body.since,
            to_us=until_us,
            with_delivered=body.include_delivered,
            limit=REPLAY_EVENTS_MAX,
        )
        # A notice told again is news of the past: it waits its turn.
        await editor.replay(
            [
                replace(
                    delivery_of(event),
                    deadline_us=call.now_us + DAYS_3_US,
                    next_attempt_at_us=call.now_us,
                )
                for event in events
            ]
        )
        is_full = len(events) == REPLAY_EVENTS_MAX
        return ReplayView(len(events), write_cursor(events[-1].account_seq) if is_full else None)

    return await _change(call, act)


async def _change(call: Call[Any, Any], act: Callable[[Editor], Awaitable[V]]) -> Reply[Any]:
    """Let `act` change this account's endpoints; its answer, or why not, is kept with the change."""

    async def decide(editor: Editor) -> Answer:
        try:
            return call.answer(call.status, await act(editor))
        except Rejection as rejection:
            # Nothing was written: every act looks before it writes.
            return problem_answer(call.problem(rejection), call.codec)

    answer, is_replay = await call.services.webhooks.once(
        call.account, call.keyed_request(), call.now_us, decide
    )
    call.services.sender.look_again()
    return Reply(answer=answer, headers={"Idempotency-Replayed": "true"} if is_replay else {})


async def _read(call: Call[Any, Any]) -> Endpoint:
    name = call.path_part("webhook")
    found = await call.services.webhooks.endpoint(call.account, name) if is_object_id(name) else None
    return call.found(found, "webhook endpoint")


async def _find(call: Call[Any, Any], editor: Editor, version: int | None) -> Endpoint:
    name = call.path_part("webhook")
    if not is_object_id(name):
        raise NotFound("webhook endpoint")
    found = await editor.find(name)
    if version is not None and version != found.version:
        raise Rejection(
            "version_mismatch", f"the endpoint is at version {found.version}", current=found.version
        )
    return found


async def _find_enabled(call: Call[Any, Any], editor: Editor) -> Endpoint:
    found = await _find(call, editor, None)
    if found.state != "enabled":
        raise Rejection("webhook_disabled", f"the endpoint is disabled: {found.reason}")
    return found


def _require_open(call: Call[Any, Any]) -> None:
    """Refuse a frozen account: what it has goes on, notices above all, but nothing is added."""
    account = call.core.accounts.get(call.account)
    if account is None or account.state != "open":
        raise Rejection("account_frozen", "this account is frozen; its operator can reopen it")
