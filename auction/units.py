"""Money, price and time as integers: bounds, conversions, and the one charging formula.

A bare `price` in this package is microusd per GPU-hour, a bare `amount` is microusd, `_us` is
microseconds since the Unix epoch and `_s` whole seconds. People quote dollars per GPU-hour and a
millionth is finer than any step they quote, so no float ever stands for money.

The bounds below make 64 bits safe: the relation of the constants is asserted once, at import.
"""

import re
from typing import NewType

Price = NewType("Price", int)
Amount = NewType("Amount", int)

MICROUSD_PER_USD = 1_000_000
MICROSECONDS_PER_SECOND = 1_000_000
SECONDS_PER_HOUR = 3_600
BASIS_POINTS = 10_000

PRICE_MAX = Price(1_000_000_000)  # $1,000 per GPU-hour
GPU_COUNT_MAX = 1_000_000
CHARGE_INTERVAL_S_MAX = 3_600
AMOUNT_MAX = Amount(10**15)  # a billion dollars in one command
LEVEL_COUNT_MAX = 1 << 17

INT64_MAX = (1 << 63) - 1
assert PRICE_MAX * GPU_COUNT_MAX * CHARGE_INTERVAL_S_MAX + SECONDS_PER_HOUR <= INT64_MAX

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,6}))?", re.ASCII)


def parse_microusd(text: str) -> int:
    """Read a decimal string such as "2.35" as microusd; raise ValueError on anything else."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError("expected a decimal string with at most 12 digits before and 6 after the point")
    whole, fraction = match.groups()
    return int(whole) * MICROUSD_PER_USD + int((fraction or "").ljust(6, "0"))


def format_microusd(value: int) -> str:
    """Write microusd as a decimal string with six places."""
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), MICROUSD_PER_USD)
    return f"{sign}{whole}.{fraction:06d}"


def charge(remainder: int, price: Price, gpu_count: int, seconds: int) -> tuple[Amount, int]:
    """Charge `seconds` of `gpu_count` GPUs at `price`; return (amount, new remainder).

    The remainder (0..3599, in microusd·s/h) is carried on the lease, so the charges of a lease add
    up to the exact sum with one floor for its whole life, however often the price changes.
    """
    assert 0 <= remainder < SECONDS_PER_HOUR
    assert 0 <= price <= PRICE_MAX and 0 < gpu_count <= GPU_COUNT_MAX and seconds >= 0
    amount, remainder = divmod(remainder + price * gpu_count * seconds, SECONDS_PER_HOUR)
    return Amount(amount), remainder


def exposure(price: Price, gpu_count: int, seconds: int) -> Amount:
    """Return the most that `gpu_count` GPUs can cost in `seconds` at `price`, rounded up."""
    return Amount(-(-price * gpu_count * seconds // SECONDS_PER_HOUR))


def next_beat_us(now_us: int, tick_seconds: int) -> int:
    """Return when the clock next beats: markets with ticks of one length clear at the same instants."""
    period_us = tick_seconds * MICROSECONDS_PER_SECOND
    return (now_us // period_us + 1) * period_us


def fee_share(amount: Amount, fee_bps: int) -> Amount:
    """Return the operator's share of a charge, rounded down in the owner's favour."""
    return Amount(amount * fee_bps // BASIS_POINTS)


def gross_reserve(reserve: Price, *, fee_bps: int, increment: int) -> Price:
    """Return the reserve the auction sees: ceil(r / (1 - fee)), up to the increment (RULES.md R1)."""
    gross = -(-reserve * BASIS_POINTS // (BASIS_POINTS - fee_bps))
    return Price(-(-gross // increment) * increment)
