"""Money as integers: what is read, what is written, and the one charging formula."""

import random

import pytest

from auction.units import (
    CHARGE_INTERVAL_S_MAX,
    GPU_COUNT_MAX,
    INT64_MAX,
    PRICE_MAX,
    charge,
    exposure,
    fee_share,
    format_microusd,
    gross_reserve,
    next_beat_us,
    parse_microusd,
)


@pytest.mark.parametrize(
    ("text", "microusd"),
    [("0", 0), ("2.35", 2_350_000), ("0.000001", 1), ("1000", 10**9), ("999999999999.999999", 10**18 - 1)],
)
def test_decimal_strings_are_read_exactly(text, microusd):
    assert microusd == parse_microusd(text)
    assert microusd == parse_microusd(format_microusd(microusd))


@pytest.mark.parametrize(
    "text",
    ["", ".5", "5.", "-1", "+1", "1e3", "NaN", "inf", "0.0000001", "01", "1 ", "1_0", "٣", "1" * 13, "0x1"],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="decimal string"):
        parse_microusd(text)


def test_negative_amounts_are_written_with_their_sign():
    assert "-0.500000" == format_microusd(-500_000)


def test_the_remainder_is_carried_exactly():
    """However often the price changes, a lease's charges add up to the exact sum with one floor."""
    dice = random.Random(7)
    for _ in range(200):
        exact = total = remainder = 0
        for _ in range(50):
            price, gpus, seconds = dice.randint(0, PRICE_MAX), dice.randint(1, 64), dice.randint(0, 3600)
            amount, remainder = charge(remainder, price, gpus, seconds)
            exact += price * gpus * seconds
            total += amount
        assert exact == total * 3600 + remainder


def test_the_largest_charge_fits_64_bits():
    amount, remainder = charge(3599, PRICE_MAX, GPU_COUNT_MAX, CHARGE_INTERVAL_S_MAX)
    assert amount * 3600 + remainder <= INT64_MAX


def test_exposure_rounds_up_and_the_fee_rounds_down():
    assert 1 == exposure(1, 1, 1)
    assert (0, 0, 3) == (fee_share(0, 300), fee_share(33, 300), fee_share(100, 300))


@pytest.mark.parametrize("fee_bps", [0, 1, 300, 5000])
@pytest.mark.parametrize("reserve", [0, 1, 99, 1_000_000, 2_349_900])
def test_an_owner_never_nets_less_than_its_reserve(reserve, fee_bps):
    """R1: the gross reserve is the least on the grid that leaves the owner its reserve."""
    gross = gross_reserve(reserve, fee_bps=fee_bps, increment=100)
    hour = charge(0, gross, 1, 3600)[0]
    assert hour - fee_share(hour, fee_bps) >= reserve
    assert 0 == gross % 100


@pytest.mark.parametrize(("value", "text"), [(0, "0.000000"), (-1, "-0.000001"), (1_000_000, "1.000000")])
def test_six_places_are_written_and_zero_has_no_sign(value, text):
    assert text == format_microusd(value)


@pytest.mark.parametrize(
    ("now_us", "beat_us"),
    [(0, 10_000_000), (1, 10_000_000), (9_999_999, 10_000_000), (10_000_000, 20_000_000)],
)
def test_the_next_beat_is_the_next_multiple_of_the_period_after_now(now_us, beat_us):
    assert beat_us == next_beat_us(now_us, 10)


@pytest.mark.parametrize(
    ("price", "gpus", "seconds", "most"),
    [(3_600, 2, 3, 6), (3_601, 1, 1, 2), (1, 3, 1_200, 1), (1, 3, 1_201, 2), (0, 8, 60, 0)],
)
def test_exposure_is_the_exact_product_rounded_up(price, gpus, seconds, most):
    assert most == exposure(price, gpus, seconds)
