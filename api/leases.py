"""Tenants' leases and preemption notices: look, release, wait for a notice, acknowledge it."""

from contextlib import suppress
from typing import Literal

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import Cursor, IdField, PageLimit, WaitSeconds, is_object_id
from api.order_entry import absent_notice
from api.paging import page, read_key
from api.routes import NoBody, NoQuery, route
from api.wire import AckNoticeBody, LeaseView, NoticeView, lease_view, notice_view
from auction.commands import AckNotice, ReleaseLease, TestNotice
from auction.errors import Rejection
from auction.model import Notice
from sql.reads import Key, LeaseRow

LeaseStateName = Literal["pending", "starting", "running", "noticed", "ended"]
NoticeStateName = Literal["issued", "acknowledged", "withdrawn", "done"]


class LeasesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    bid: IdField | None = None
    market: IdField | None = None
    state: LeaseStateName | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


class NoticesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`after` names the last notice you know: what came since is told, oldest first, even after a wait."""

    after: IdField | None = None
    wait_seconds: WaitSeconds = 0
    state: NoticeStateName | None = None
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("GET", "/v1/leases", scope="bids:read")
async def list_leases(call: Call[NoBody, LeasesQuery]) -> Reply[Page[LeaseView]]:
    """List your leases, newest first."""
    query = call.query
    found = await call.services.reader.leases(
        call.account,
        bid=query.bid,
        market=query.market,
        state=query.state,
        before=read_key(query.cursor),
        limit=query.limit,
    )
    last = found.last and (found.last.lease.awarded_at_us, found.last.lease.id)
    return call.reply(page([_read(row) for row in found.rows], last))


@route("GET", "/v1/leases/{lease}", scope="bids:read")
async def get_lease(call: Call[NoBody, NoQuery]) -> Reply[LeaseView]:
    """Show one lease."""
    lease = call.path_part("lease")
    row = await call.services.reader.lease(call.account, lease) if is_object_id(lease) else None
    return call.reply(_read(call.found(row, "lease")))


@route("POST", "/v1/leases/{lease}/release", scope="bids:write", bucket="exits")
async def release_lease(call: Call[NoBody, NoQuery]) -> Reply[LeaseView]:
    """Give a lease back: it and its bill end now, and its bid asks for that much less."""
    lease = call.path_part("lease")
    absent = None
    if lease not in call.core.leases and is_object_id(lease):
        row = await call.services.reader.lease(call.account, lease)
        absent = None if row is None else Rejection("lease_ended", f"the lease is {row.lease.state}")
    return await call.submit(
        ReleaseLease(lease, call.account),
        lambda ended: lease_view(ended, call.core.markets[ended.market]),
        absent=absent,
    )


@route("POST", "/v1/leases/{lease}/test-notice", scope="bids:write", status=201)
async def test_lease_notice(call: Call[NoBody, NoQuery]) -> Reply[NoticeView]:
    """Be interrupted for a test: a real notice on every channel, at no charge of its own.

    The lease ends at `reclaim_at` and is billed until then; its bid stays and wins again like any other.
    """
    lease = call.path_part("lease")
    absent = None
    if lease not in call.core.leases and is_object_id(lease):
        row = await call.services.reader.lease(call.account, lease)
        absent = None if row is None else Rejection("lease_ended", f"the lease is {row.lease.state}")
    return await call.submit(TestNotice(lease, call.account), notice_view, absent=absent)


@route("GET", "/v1/notices", scope="bids:read")
async def list_notices(call: Call[NoBody, NoticesQuery]) -> Reply[Page[NoticeView]]:
    """List your preemption notices, newest first; or wait for the next one."""
    query = call.query
    if query.after is not None or query.wait_seconds:
        notices = await _wait_for_notices(call)
        return call.reply(Page([notice_view(notice) for notice in notices]))
    found = await call.services.reader.notices(
        call.account, state=query.state, before=read_key(query.cursor), limit=query.limit
    )
    last = found.last and (found.last.issued_at_us, found.last.id)
    return call.reply(page([notice_view(notice) for notice in found.rows], last))


@route("POST", "/v1/notices/{notice}/ack", scope="bids:write", bucket="exits")
async def acknowledge_notice(call: Call[AckNoticeBody, NoQuery]) -> Reply[NoticeView]:
    """Acknowledge a notice; `ready` ends the lease and its bill now."""
    notice = call.path_part("notice")
    absent = await absent_notice(call.services, call.account, notice)
    return await call.submit(AckNotice(notice, call.account, call.body.ready), notice_view, absent=absent)


def _read(row: LeaseRow) -> LeaseView:
    return lease_view(row.lease, row.head)


async def _wait_for_notices(call: Call[NoBody, NoticesQuery]) -> list[Notice]:
    """Return notices after the one named, waiting at most `wait_seconds` for the first."""
    query, reader, services = call.query, call.services.reader, call.services
    # Listening starts before the first look: what is committed in between wakes the wait.
    subscription = services.listen(call.account)
    try:
        after = await _position(call)
        notices = await reader.notices_after(call.account, after, query.limit)
        with suppress(TimeoutError):
            async with services.patience(query.wait_seconds):
                while not notices and query.wait_seconds:
                    await subscription.next()
                    notices = await reader.notices_after(call.account, after, query.limit)
        return notices
    finally:
        services.engine.publisher.unsubscribe(subscription)


async def _position(call: Call[NoBody, NoticesQuery]) -> Key:
    if call.query.after is None:
        # Without a known notice the wait is for what is issued from now on.
        return call.now_us, ""
    notice = await call.services.reader.notice(call.account, call.query.after)
    found = call.found(notice, "notice")
    return found.issued_at_us, found.id
