"""Reads about limits: how far they are used, and the price that a limit is compared with."""

from dataclasses import dataclass

from auction.model import Limits
from auction.units import Price
from sql import query
from sql.reads import Reader
from sql.rows import decode_rows, select_columns

PRICED_TICKS_MIN = 10  # with fewer there is no median to speak of


@dataclass(frozen=True, slots=True)
class LimitUse:
    notional: int = 0  # limits x GPUs of live bids, microusd per hour
    held: int = 0


async def read_limits(reader: Reader, account: str, scope: str) -> tuple[Limits, LimitUse]:
    """Return the limits of an account or of one of its keys, without any if none were set, and their use."""
    statement = f"SELECT {select_columns(Limits)} FROM limits WHERE account = $1 AND id = $2"
    found = decode_rows(Limits, await reader.fetch(statement, account, scope))
    key = None if scope == account else scope
    (use,) = await reader.fetch(query("limit_use"), account, key)
    return found[0] if found else Limits(scope, account), LimitUse(use["notional"], use["held"])


async def price_quantile(reader: Reader, market: str, share: float, *, from_us: int) -> Price | None:
    """Return the price that a share of the ticks since `from_us` did not pass; None with few ticks."""
    (row,) = await reader.fetch(query("price_quantile"), market, from_us, PRICED_TICKS_MIN, share)
    return None if row["price"] is None else Price(row["price"])
