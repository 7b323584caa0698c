"""The audit log, read back: a tenant sees its own account's rows, an operator all of them."""

from typing import Any

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import Cursor, IdField, PageLimit, format_instant
from api.paging import page, read_number
from api.routes import NoBody, route
from sql.audit_log import Entry


class AuditLogQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


class OperatorAuditLogQuery(Struct, frozen=True, forbid_unknown_fields=True):
    account: IdField | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


class AuditEntryView(Struct, frozen=True):
    """`request` and `answer` are JSON as text, null where they were over 8 KiB; hashes are hex.

    `before` is what a setting was (a market, an account, limits), null where there is nothing to compare.
    `hash` is SHA-256 of the previous row's hash and this row's fields from `id` to `answer`, in this order
    and each with its length in bytes ("3:abc,", "-," for null; `at` in microseconds since the epoch); then
    `before`, where it is not null. Every tick's message on the socket has the newest hash of all.
    """

    id: int
    at: str
    account: str
    key: str
    scope: str
    address: str
    request_id: str
    method: str
    path: str
    request_sha256: str
    request: str | None
    status: int
    subject: str | None
    answer: str | None
    before: str | None
    previous_hash: str
    hash: str


@route("GET", "/v1/audit-log", scope="audit:read")
async def list_audit_log(call: Call[NoBody, AuditLogQuery]) -> Reply[Page[AuditEntryView]]:
    """List who changed what in your account, newest first: keys, limits, webhooks, money, nodes, offers."""
    return await _listed(call, call.account)


@route("GET", "/v1/operator/audit-log", scope="operator:read")
async def list_whole_audit_log(call: Call[NoBody, OperatorAuditLogQuery]) -> Reply[Page[AuditEntryView]]:
    """List everybody's changes, newest first; `fallow audit` checks the chain."""
    return await _listed(call, call.query.account)


async def _listed(call: Call[Any, Any], account: str | None) -> Reply[Page[AuditEntryView]]:
    before = read_number(call.query.cursor)
    found = await call.services.audit_log.entries(account, before=before, limit=call.query.limit)
    return call.reply(page([_view(entry) for entry in found.rows], found.last and found.last.id))


def _view(entry: Entry) -> AuditEntryView:
    act = entry.act
    return AuditEntryView(
        id=entry.id,
        at=format_instant(act.at_us),
        account=act.account,
        key=act.key,
        scope=act.scope,
        address=act.address,
        request_id=act.request_id,
        method=act.method,
        path=act.path,
        request_sha256=act.request_sha256.hex(),
        request=act.request,
        status=act.status,
        subject=act.subject,
        answer=act.answer,
        before=act.before,
        previous_hash=entry.previous_hash.hex(),
        hash=entry.hash.hex(),
    )
