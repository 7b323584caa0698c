"""Money on its way out: Decimal, int or str; never float, which cannot say 2.40."""

from decimal import Decimal, InvalidOperation

_MICRO = Decimal("0.000001")

Money = Decimal | int | str


def write_money(value: Money, name: str) -> str:
    """Write US dollars as the wire wants them; raises TypeError for a float, ValueError for no amount."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise TypeError(f'{name}: expected Decimal("2.40"), an int or "2.40", not {type(value).__name__}')
    try:
        amount = Decimal(value)
        if not amount.is_finite() or amount != amount.quantize(_MICRO):
            raise ValueError(f"{name}: expected dollars with at most six places, not {value}")
    except InvalidOperation:
        raise ValueError(f"{name}: {value!r} is no amount") from None
    return f"{amount.quantize(_MICRO):f}"
