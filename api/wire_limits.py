"""The shapes of limits: what an account or key may risk. See wire.py for the rules of all wire modules."""

from msgspec import Struct

from api.fields import CURRENCY, AmountField, NameField, PriceField, format_instant, format_price_or_none
from auction.limits import DAY_US, LimitWarning, spent_today
from auction.model import Limits
from auction.units import format_microusd
from sql.limit_reads import LimitUse


class LimitsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """All three are replaced; null, or left out, is no limit.

    Open notional is the sum of limit x GPUs over live bids: what they could cost in an hour. The cap of the
    day counts what was charged since 00:00 UTC and what is held for more.
    """

    max_price_per_gpu_hour: PriceField | None = None
    max_open_notional_per_hour: AmountField | None = None
    spend_cap_per_day: AmountField | None = None


class LimitsView(Struct, frozen=True):
    """`id` is the account's or the key's; `stopped` is the kill switch."""

    id: str
    account: str
    max_price_per_gpu_hour: str | None
    max_open_notional_per_hour: str | None
    spend_cap_per_day: str | None
    open_notional_per_hour: str
    spent_today: str
    held: str
    stopped: bool
    day_ends_at: str
    currency: str
    version: int


class StopBody(Struct, frozen=True, forbid_unknown_fields=True):
    """With `release` the leases of the cancelled bids end now; otherwise they run on while they win."""

    release: bool = False


class FreezeBody(Struct, frozen=True, forbid_unknown_fields=True):
    cancel_bids: bool = False
    release: bool = False


class AffiliationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Accounts with the same affiliation count as one party of a market; null ends it."""

    affiliation: NameField | None


class LimitWarningView(Struct, frozen=True):
    """`limit` is max_open_notional_per_hour or spend_cap_per_day; `percent` of it is used: 50, 75 or 90."""

    id: str
    limit: str
    percent: int
    used: str
    maximum: str
    currency: str


def limits_view(limits: Limits, use: LimitUse, now_us: int) -> LimitsView:
    return LimitsView(
        id=limits.id,
        account=limits.account,
        max_price_per_gpu_hour=format_price_or_none(limits.max_price),
        max_open_notional_per_hour=_amount(limits.max_open_notional),
        spend_cap_per_day=_amount(limits.spend_cap_per_day),
        open_notional_per_hour=format_microusd(use.notional),
        spent_today=format_microusd(spent_today(limits, now_us)),
        held=format_microusd(use.held),
        stopped=limits.is_stopped,
        day_ends_at=format_instant((now_us // DAY_US + 1) * DAY_US),
        currency=CURRENCY,
        version=limits.version,
    )


def warning_view(warning: LimitWarning) -> LimitWarningView:
    used, maximum = format_microusd(warning.used), format_microusd(warning.maximum)
    return LimitWarningView(warning.id, warning.limit, warning.percent, used, maximum, CURRENCY)


def _amount(value: int | None) -> str | None:
    return None if value is None else format_microusd(value)
