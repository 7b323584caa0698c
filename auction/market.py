"""One market's book: prices on one side, the kernel's levels and handles on the other.

It translates and remembers; it decides nothing. The kernel knows levels and slots, the rest of the
domain prices and ids. It also keeps the price of every recent second, from which leases are metered.
"""

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

import matching.book
from auction.model import Market, Offer
from auction.units import Price
from matching.types import NONE, Clearing, Reason


class Book(Protocol):
    """The kernel's contract (matching/book.pyi); the reference implements it too."""

    def place_bid(
        self, *, limit: int, gpus: int, min_gpus: int, arrival_tick: int, arrival_hash: int, seq: int
    ) -> int: ...
    def amend_bid(self, handle: int, *, limit: int, gpus: int, min_gpus: int) -> None: ...
    def set_held(self, handle: int, held: int) -> None: ...
    def cancel_bid(self, handle: int) -> None: ...
    def place_offer(self, *, reserve: int, gpus: int) -> int: ...
    def amend_offer(self, handle: int, *, reserve: int, gpus: int) -> None: ...
    def cancel_offer(self, handle: int) -> None: ...
    def clear(self) -> Clearing: ...
    def probe(self, *, limit: int, gpus: int, min_gpus: int) -> tuple[int, int]: ...


class Quote(Struct, frozen=True):
    """What `gpus` GPUs would cost at the next tick, if nothing else changes."""

    price_to_fill: Price | None
    available_gpus: int
    entry_price: Price | None
    clearing_price: Price | None


class Curve(Struct, frozen=True):
    """Cumulative GPUs by price: demand from the highest limit down, supply from the lowest reserve up."""

    tick: int
    demand: list[tuple[Price, int]]
    supply: list[tuple[Price, int]]


class MarketBook:
    """The kernel's book of one market with its handles, and the prices of recent seconds."""

    def __init__(self, market: Market, make_book: type[Book] = matching.book.Book) -> None:
        self.market = market
        self.level_count = market.price_cap // market.price_increment
        self._increment = market.price_increment
        self._book = make_book(  # type: ignore[call-arg]  # Protocols carry no constructor
            handicap_bps=market.handicap_bps, level_count=self.level_count
        )
        self._bids: dict[str, int] = {}
        self._bid_ids: dict[int, str] = {}
        self._offers: dict[str, int] = {}
        self.prices: list[tuple[int, Price]] = []  # (from second, price), oldest first
        self.settlements: list[tuple[int, str]] = []  # heap of (due second, lease id)
        self.ranked_once: set[str] = set()  # bids whose rank is special at the next tick only (R3)
        self.underfunded: set[str] = set()  # bids whose hold could not be refilled since the last tick
        self.windowed: dict[str, Offer] = {}  # offers with a beginning or an end in the future
        self.is_dirty = True  # placement must be planned again, whatever the clearing says
        self.entry_price: Price | None = None

    # -- prices and levels ------------------------------------------------------------------------

    def price_of(self, level: int) -> Price | None:
        return None if level == NONE else Price(level * self._increment)

    # -- the book ---------------------------------------------------------------------------------

    def set_bid(
        self, bid_id: str, *, limit: Price, gpus: int, min_gpus: int, held: int,
        arrival_tick: int, arrival_hash: int, seq: int,
    ) -> None:  # fmt: skip
        """Put a bid into the book, or change it there; zero GPUs takes it out."""
        handle = self._bids.get(bid_id)
        if gpus == 0:
            if handle is not None:
                self._book.cancel_bid(handle)
                del self._bids[bid_id], self._bid_ids[handle]
                self.is_dirty = True
            return
        level = limit // self._increment
        minimum = min(min_gpus, gpus)
        if handle is None:
            handle = self._book.place_bid(
                limit=level, gpus=gpus, min_gpus=minimum,
                arrival_tick=arrival_tick, arrival_hash=arrival_hash, seq=seq,
            )  # fmt: skip
            self._bids[bid_id], self._bid_ids[handle] = handle, bid_id
        else:
            self._book.amend_bid(handle, limit=level, gpus=gpus, min_gpus=minimum)
        self._book.set_held(handle, min(held, gpus))

    def set_offer(self, offer_id: str, *, gross_reserve: Price, gpus: int) -> None:
        """Put an offer into the book, or change it there; zero GPUs takes it out."""
        handle = self._offers.get(offer_id)
        self.is_dirty = True
        level = gross_reserve // self._increment
        if gpus == 0 or level > self.level_count:
            if handle is not None:
                self._book.cancel_offer(handle)
                del self._offers[offer_id]
        elif handle is None:
            self._offers[offer_id] = self._book.place_offer(reserve=level, gpus=gpus)
        else:
            self._book.amend_offer(handle, reserve=level, gpus=gpus)

    def has_offer(self, offer_id: str) -> bool:
        return offer_id in self._offers

    def clear(self) -> tuple[Clearing, list[tuple[str, int, Reason, int, int]]]:
        """Clear; return the clearing and its changes by bid id: (bid, fill, reason, needed, usable)."""
        clearing = self._book.clear()
        self.entry_price = self.price_of(clearing.entry)
        changes = [(self._bid_ids[change[0]], *change[1:]) for change in clearing.changes]
        changes.sort()
        return clearing, changes

    def probe(self, limit: Price, gpus: int, min_gpus: int) -> tuple[int, Price | None]:
        """Return (fill, price) of a new bid at the next tick, if nothing else changes."""
        fill, level = self._book.probe(limit=limit // self._increment, gpus=gpus, min_gpus=min_gpus)
        return fill, self.price_of(level)

    def quote(self, gpus: int, min_gpus: int, offered_gpus: int) -> Quote:
        """Find the lowest limit that fills `gpus` next tick, by bisection (a bid's fill grows with it)."""
        low, high = 1, self.level_count
        best = self._book.probe(limit=high, gpus=gpus, min_gpus=min_gpus)[0]
        price_to_fill = None
        if best == gpus:
            while low < high:
                middle = (low + high) // 2
                if self._book.probe(limit=middle, gpus=gpus, min_gpus=min_gpus)[0] == gpus:
                    high = middle
                else:
                    low = middle + 1
            price_to_fill = self.price_of(low)
        return Quote(price_to_fill, offered_gpus, self.entry_price, self.market.price)

    # -- the price of each second -----------------------------------------------------------------

    def set_price(self, from_s: int, price: Price) -> None:
        """From this second on the price is `price`."""
        if self.prices and self.prices[-1][0] == from_s:
            self.prices.pop()
        if not self.prices or self.prices[-1][1] != price:
            self.prices.append((from_s, price))

    def forget_prices_before(self, second: int) -> None:
        """Drop what no lease can need any more."""
        while len(self.prices) > 1 and self.prices[1][0] <= second:
            self.prices.pop(0)

    def segments(self, from_s: int, to_s: int) -> Iterator[tuple[int, int, Price]]:
        """Yield (from, to, price) that cover [from_s, to_s) without gap."""
        for i, (start, price) in enumerate(self.prices):
            end = self.prices[i + 1][0] if i + 1 < len(self.prices) else to_s
            begin, end = max(start, from_s), min(end, to_s)
            if begin < end:
                yield begin, end, price
