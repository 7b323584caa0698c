"""Money out: owners ask for their earnings, the operator pays them; and the operator's corrections."""

from msgspec import Struct

from api.call import Call, Reply
from api.codec import Page
from api.fields import CURRENCY, Cursor, PageLimit, is_object_id
from api.paging import page, read_key
from api.routes import NoBody, NoQuery, route
from api.wire_money import (
    AdjustBody,
    AdjustmentView,
    ClosePayoutBody,
    PayoutBody,
    PayoutView,
    balance_view,
    payout_view,
)
from auction.commands import Adjust, ClosePayout, RequestPayout
from auction.errors import NotFound, Rejection
from auction.ids import random_id
from auction.money import Payout, PayoutState
from auction.state import Balance
from auction.units import Amount, format_microusd
from sql.reads import Slice


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: PageLimit = 50
    cursor: Cursor | None = None


@route("POST", "/v1/payouts", scope="billing:write", status=201)
async def create_payout(call: Call[PayoutBody, NoQuery]) -> Reply[PayoutView]:
    """Ask for some of your earnings: set aside now, paid by the operator."""
    command = RequestPayout(random_id("pay"), call.account, Amount(call.body.amount))
    return await call.submit(command, payout_view)


@route("GET", "/v1/payouts", scope="billing:read")
async def list_payouts(call: Call[NoBody, ListQuery]) -> Reply[Page[PayoutView]]:
    """List your payouts, newest first."""
    query = call.query
    return call.reply(
        _page(
            await call.services.reader.payouts(call.account, before=read_key(query.cursor), limit=query.limit)
        )
    )


@route("GET", "/v1/operator/payouts", scope="operator:read")
async def list_open_payouts(call: Call[NoBody, ListQuery]) -> Reply[Page[PayoutView]]:
    """List everybody's payouts that are still to be paid, newest first."""
    query = call.query
    return call.reply(
        _page(await call.services.reader.payouts(None, before=read_key(query.cursor), limit=query.limit))
    )


@route("POST", "/v1/operator/payouts/{payout}/paid", scope="operator:write")
async def mark_paid(call: Call[ClosePayoutBody, NoQuery]) -> Reply[PayoutView]:
    """Say that a payout has been paid."""
    return await _close(call, PayoutState.PAID)


@route("POST", "/v1/operator/payouts/{payout}/failed", scope="operator:write")
async def mark_failed(call: Call[ClosePayoutBody, NoQuery]) -> Reply[PayoutView]:
    """Say that a payout could not be paid: the owner gets its earnings back."""
    return await _close(call, PayoutState.FAILED)


@route("POST", "/v1/operator/adjustments", scope="operator:write", status=201)
async def create_adjustment(call: Call[AdjustBody, NoQuery]) -> Reply[AdjustmentView]:
    """Correct a balance by a transfer of its own, with a reason; never below zero."""
    body, adjustment = call.body, random_id("adj")
    signed = body.amount if body.direction == "credit" else -body.amount

    def view(balance: Balance) -> AdjustmentView:
        return AdjustmentView(
            adjustment,
            body.account,
            body.direction,
            format_microusd(body.amount),
            CURRENCY,
            body.reason,
            balance_view(balance, 0),
        )

    return await call.submit(
        Adjust(adjustment, body.account, body.balance, Amount(signed), body.reason), view
    )


def _page(found: Slice[Payout]) -> Page[PayoutView]:
    last = found.last and (found.last.created_at_us, found.last.id)
    return page([payout_view(payout) for payout in found.rows], last)


async def _close(call: Call[ClosePayoutBody, NoQuery], state: PayoutState) -> Reply[PayoutView]:
    payout = call.path_part("payout")
    if not is_object_id(payout):
        raise NotFound("payout")
    stored = await call.services.reader.payout(payout)
    absent = None if stored is None else Rejection("payout_closed", f"the payout is {stored.state}")
    command = ClosePayout(payout, state.value, call.body.reference or "")
    return await call.submit(command, payout_view, absent=absent)
