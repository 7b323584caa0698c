"""What every part of the client stands on: an object read, a list followed page by page, a body written.

What was not given is not sent. A time without its zone and money as a float are refused before they leave.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct

from fallow.client.money import write_money
from fallow.client.transport import Transport

PAGE = 100
ROWS_MAX = 10_000  # of one iteration

T = TypeVar("T")

_MONEY = frozenset(
    {
        "limit_price_per_gpu_hour",
        "max_open_notional_per_hour",
        "max_price_per_gpu_hour",
        "max_spend",
        "purchase_price_per_gpu",
        "reserve_price_per_gpu_hour",
        "spend_cap_per_day",
        "spend_per_day",
    }
)


class Page(Struct, Generic[T], frozen=True):
    """One page of a list; `next_cursor` asks for the next."""

    data: list[T]
    next_cursor: str | None = None


class Requests:
    """A transport, and the shapes of request that all routes are made of."""

    _transport: Transport

    async def _get(self, path: str, view: type[T], **query: Any) -> T:
        found: T = await self._transport.ask("GET", path, view, query=query)
        return found

    async def _post(self, path: str, view: type[T], terms: dict[str, Any] | None = None) -> T:
        found: T = await self._transport.ask("POST", path, view, body=terms)
        return found

    async def _all(self, path: str, view: type[T], **query: Any) -> AsyncIterator[T]:
        cursor: str | None = None
        count = 0
        while count < ROWS_MAX:
            asked = query | {"limit": PAGE, "cursor": cursor}
            found: Page[T] = await self._transport.ask("GET", path, Page[view], query=asked)  # type: ignore[valid-type]
            for row in found.data:
                yield row
            count += len(found.data)
            cursor = found.next_cursor
            if cursor is None:
                return


def terms_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a body as they are sent; raises TypeError or ValueError for one that cannot be."""
    terms = {name: value for name, value in named.items() if name != "self" and value is not None}
    for name, value in terms.items():
        if name in _MONEY:
            terms[name] = write_money(value, name)
        elif name == "alternatives":
            terms[name] = [
                {"market": market, "limit_price_per_gpu_hour": write_money(limit, name)}
                for market, limit in value.items()
            ]
        elif isinstance(value, datetime):
            terms[name] = write_time(value, name)
    return terms


def write_time(value: datetime, name: str) -> str:
    """Write a time as the wire wants it; raises ValueError for one without a zone."""
    if value.tzinfo is None:
        raise ValueError(f"{name}: expected a time with its zone, such as datetime(…, tzinfo=UTC)")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
