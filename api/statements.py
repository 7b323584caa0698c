"""What an account was charged, paid and earned: usage by group, and monthly statements down to each transfer.

A statement is computed from the ledger when it is asked for. A month that is over cannot change, because the
ledger is append-only and books everything at the time it happens to it.
"""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.accounts import entry_view
from api.call import Call, Reply
from api.codec import Page
from api.fields import CURRENCY, Cursor, InstantField, PageLimit, format_instant
from api.months import FINAL_AFTER_US, is_month, month_of, window
from api.paging import page, read_name, read_number
from api.routes import NoBody, NoQuery, route
from api.sheets import CSV_TYPE
from api.wire_money import EntryView
from api.wire_statements import (
    KINDS,
    POCKETS,
    LegView,
    StatementHead,
    StatementView,
    UsageView,
    head_of,
    statement_csv,
    statement_html,
    statement_view,
    usage_csv,
)
from auction.errors import NotFound, Rejection
from auction.ports import Answer
from auction.units import MICROSECONDS_PER_SECOND, format_microusd
from sql.reads import INT64_MAX
from sql.statement_reads import GROUPS_MAX, line_legs, statement, transfer, usage_by_label

USAGE_DAYS_MAX = {"hour": 31}
USAGE_DAYS_MAX_OTHER = 400
MONTHS_SHOWN_MAX = 120
HTML_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}

_TRANSFER = re.compile(r"[0-9]{1,18}", re.ASCII)


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    group_by: Literal["lease", "bid", "market", "day", "hour", "label"] = "day"
    label: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    from_: InstantField | None = None
    to: InstantField | None = None
    format: Literal["json", "csv"] = "json"
    limit: PageLimit = 50
    cursor: Cursor | None = None


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["json", "csv", "html"] = "json"


class LegsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("GET", "/v1/usage", scope="billing:read", also=("text/csv",))
async def list_usage(call: Call[NoBody, UsageQuery]) -> Reply[Page[UsageView]]:
    """Sum up metered GPU time and its cost by lease, bid, market, day, hour or a label of your bids.

    A CSV holds all groups, and so does the only page of labels; without bounds it is of the last 400 days
    (31 by hour).
    """
    query = call.query
    from_s, to_s = _usage_window(query, call.now_us)
    if (query.group_by == "label") is not (query.label is not None):
        raise Rejection("invalid_value", "group_by=label and label=NAME belong together", pointer="/label")
    if query.label is not None:
        rows = await usage_by_label(call.services.reader, call.account, query.label, from_s=from_s, to_s=to_s)
        if rows is None:
            raise Rejection("too_many_groups", "the bids of this time carry too many different labels")
        last = None
    else:
        is_whole = query.format == "csv"
        found = await call.services.reader.usage(
            call.account,
            group_by=query.group_by,
            before=read_name(query.cursor),
            limit=GROUPS_MAX if is_whole else query.limit,
            from_s=from_s,
            to_s=to_s,
        )
        rows, last = found.rows, found.last and found.last.group
        if is_whole and last is not None:
            raise Rejection("too_many_groups", f"a CSV has at most {GROUPS_MAX} groups; ask for pages")
    data = [UsageView(row.group, row.gpu_seconds, format_microusd(row.amount), CURRENCY) for row in rows]
    if query.format == "csv":
        return _text(usage_csv(data), CSV_TYPE)
    return call.reply(page(data, last))


@route("GET", "/v1/statements", scope="billing:read")
async def list_statements(call: Call[NoBody, NoQuery]) -> Reply[Page[StatementHead]]:
    """List the months since your account was opened, newest first, the last 120 of them."""
    account = call.found(await call.services.reader.account(call.account), "account")
    heads: list[StatementHead] = []
    statement_id = month_of(call.now_us)
    while len(heads) < MONTHS_SHOWN_MAX:
        from_us, to_us = window(statement_id)
        heads.append(_head(call, statement_id, from_us, to_us))
        if from_us <= account.created_at_us:
            break
        statement_id = month_of(from_us - 1)
    return call.reply(page(heads, None))


@route("GET", "/v1/statements/{statement}", scope="billing:read", also=("text/csv", "text/html"))
async def get_statement(call: Call[NoBody, StatementQuery]) -> Reply[StatementView]:
    """Show a month: what it began with, what moved by kind and market, and what it ended with."""
    statement_id, from_us, to_us = _named(call)
    pockets, lines = await statement(call.services.reader, call.account, from_us=from_us, to_us=to_us)
    view = statement_view(_head(call, statement_id, from_us, to_us), call.account, pockets, lines)
    if call.query.format == "csv":
        return _text(statement_csv(view), CSV_TYPE)
    if call.query.format == "html":
        return _text(statement_html(view), "text/html; charset=utf-8", **HTML_HEADERS)
    return call.reply(view)


@route("GET", "/v1/statements/{statement}/lines/{line}", scope="billing:read")
async def list_line(call: Call[NoBody, LegsQuery]) -> Reply[Page[LegView]]:
    """List the transfers behind a line, newest first: their sum is the line."""
    _, from_us, to_us = _named(call)
    pocket, _, rest = call.path_part("line").partition(":")
    kind, _, market = rest.partition(":")
    if pocket not in POCKETS or kind not in KINDS or len(market) > 64:
        raise NotFound("line")
    found = await line_legs(
        call.services.reader,
        call.account,
        from_us=from_us,
        to_us=to_us,
        pocket=POCKETS.index(pocket),
        kind=kind,
        market=market or None,
        before=read_number(call.query.cursor, INT64_MAX),
        limit=call.query.limit,
    )
    data = [
        LegView(
            str(row.transfer),
            row.code,
            format_microusd(row.amount),
            CURRENCY,
            row.reference,
            format_instant(row.interval_end_s * MICROSECONDS_PER_SECOND) if row.interval_end_s else None,
            format_instant(row.at_us),
        )
        for row in found.rows
    ]
    return call.reply(page(data, found.last and found.last.leg))


@route("GET", "/v1/ledger/transfers/{transfer}", scope="billing:read")
async def get_transfer(call: Call[NoBody, NoQuery]) -> Reply[Page[EntryView]]:
    """Show your sides of one transfer, each with the balance of its ledger account after it."""
    number = call.path_part("transfer")
    if _TRANSFER.fullmatch(number) is None:
        raise NotFound("transfer")
    rows = await transfer(call.services.reader, call.account, int(number))
    return call.reply(page([entry_view(row) for row in call.found(rows or None, "transfer")], None))


def _usage_window(query: UsageQuery, now_us: int) -> tuple[int, int]:
    """Return the seconds that are asked for; without bounds, as long as the group allows."""
    days = USAGE_DAYS_MAX.get(query.group_by, USAGE_DAYS_MAX_OTHER)
    to_us = now_us + MICROSECONDS_PER_SECOND if query.to is None else int(query.to)
    longest_us = days * 86_400 * MICROSECONDS_PER_SECOND
    from_us = to_us - longest_us if query.from_ is None else int(query.from_)
    if not 0 < to_us - from_us <= longest_us:
        raise Rejection(
            "window_too_long", f"from lies before to, at most {days} days for this group", pointer="/from"
        )
    return from_us // MICROSECONDS_PER_SECOND, to_us // MICROSECONDS_PER_SECOND


def _named(call: Call[Any, Any]) -> tuple[str, int, int]:
    statement_id = call.path_part("statement")
    if not is_month(statement_id) or window(statement_id)[0] > call.now_us:
        raise NotFound("statement")
    return statement_id, *window(statement_id)


def _head(call: Call[Any, Any], statement_id: str, from_us: int, to_us: int) -> StatementHead:
    return head_of(statement_id, from_us, to_us, is_final=call.now_us >= to_us + FINAL_AFTER_US)


def _text(body: bytes, content_type: str, **headers: str) -> Reply[Any]:
    return Reply(answer=Answer(200, content_type, body), headers=headers)
