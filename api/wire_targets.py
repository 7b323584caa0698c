"""The shapes of targets. See wire.py for the rules of all wire modules."""

from typing import Annotated

from msgspec import Meta, Struct

from api.fields import (
    CURRENCY,
    AmountField,
    GpuCount,
    IdField,
    InstantField,
    PriceField,
    format_instant,
    format_instant_or_none,
)
from auction.targets import Situation, Target
from auction.units import format_microusd

GPU_SECONDS_MAX = 10**12

GpuSeconds = Annotated[int, Meta(ge=1, le=GPU_SECONDS_MAX)]


class HoldBody(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hold"):
    """Hold so many GPUs at no more than the limit, until `ends_at` or until `max_spend` is spent."""

    market: IdField
    gpus: GpuCount
    limit_price_per_gpu_hour: PriceField
    min_gpus: GpuCount = 1
    ends_at: InstantField | None = None
    max_spend: AmountField | None = None
    confirm_limit: bool = False


class DeadlineBody(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="deadline"):
    """Buy so much work by `ends_at` for at most `max_spend`: 40 GPU-hours are 144000 GPU-seconds.

    Without `gpus`, at most four times as many GPUs at a time as an even rate would need; without a limit,
    at most ten times the median price of the last 24 hours. The budget is kept either way.
    """

    market: IdField
    gpu_seconds: GpuSeconds
    ends_at: InstantField
    max_spend: AmountField
    gpus: GpuCount | None = None
    min_gpus: GpuCount = 1
    limit_price_per_gpu_hour: PriceField | None = None
    confirm_limit: bool = False


class PaceBody(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pace"):
    """Spend so much a UTC day, evenly, and never more; the day it is made counts in proportion.

    GPUs it wants no longer it releases at once. Without `gpus`, at most as many as the market has.
    """

    market: IdField
    spend_per_day: AmountField
    limit_price_per_gpu_hour: PriceField
    gpus: GpuCount | None = None
    min_gpus: GpuCount = 1
    ends_at: InstantField | None = None
    max_spend: AmountField | None = None
    confirm_limit: bool = False


TargetBody = HoldBody | DeadlineBody | PaceBody


class AmendTargetBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`paused`: its bid takes nothing new, what runs goes on. A budget stays what it was."""

    paused: bool | None = None
    gpus: GpuCount | None = None
    limit_price_per_gpu_hour: PriceField | None = None
    confirm_limit: bool = False


class TargetView(Struct, frozen=True):
    """`bid` is its live bid; `reason` says why it is paused or has none: a problem code, or
    `bid_cancelled` (by you or a brake: it paused), `ahead_of_pace`, `key_revoked`, `too_many_bids`.
    `spend_cap_until_day_end` is what a pace may have spent since its beginning when the UTC day ends.
    """

    id: str
    kind: str
    market: str
    state: str
    reason: str | None
    gpus: int
    min_gpus: int
    limit_price_per_gpu_hour: str
    gpu_seconds: int | None
    ends_at: str | None
    max_spend: str | None
    spend_per_day: str | None
    spend_cap_until_day_end: str | None
    spent: str
    delivered_gpu_seconds: int | None
    running_gpus: int
    bid: str | None
    bids: int
    currency: str
    key: str
    version: int
    created_at: str
    updated_at: str


def target_view(target: Target, situation: Situation | None) -> TargetView:
    """Show a target; `situation` is how far it has come, None at its beginning."""
    delivered = 0 if situation is None else situation.gpu_seconds
    bid = None if situation is None else situation.bid
    return TargetView(
        id=target.id,
        kind=target.kind,
        market=target.market,
        state=target.state,
        reason=target.reason,
        gpus=target.gpus,
        min_gpus=target.min_gpus,
        limit_price_per_gpu_hour=format_microusd(target.limit),
        gpu_seconds=target.gpu_seconds,
        ends_at=format_instant_or_none(target.ends_at_us),
        max_spend=_amount(target.max_spend),
        spend_per_day=_amount(target.spend_per_day),
        spend_cap_until_day_end=_amount(target.day_cap) if target.day else None,
        spent=format_microusd(0 if situation is None else situation.spent),
        delivered_gpu_seconds=None if target.gpu_seconds is None else delivered,
        running_gpus=0 if situation is None else situation.running_gpus,
        bid=None if bid is None else bid.id,
        bids=target.bids,
        currency=CURRENCY,
        key=target.key,
        version=target.version,
        created_at=format_instant(target.created_at_us),
        updated_at=format_instant(target.updated_at_us),
    )


def _amount(value: int | None) -> str | None:
    return None if value is None else format_microusd(value)
