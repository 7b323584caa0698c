"""One market's book: prices on one side, the kernel's levels and handles on the other.

It translates and remembers; it decides nothing. The kernel knows levels and slots, the rest of the
domain prices and ids. It also keeps the price of every recent second, from which leases are metered.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from msgspec import Struct

import matching.book
from auction.model import Market, Node, Offer
from auction.units import Amount, Price
from matching import substitutes
from matching.types import NONE, Clearing, Outcome


class Book(Protocol):
    """The kernel's contract (matching/book.pyi), as far as one market needs it; the reference has it too."""

    def place_bid(
        self, limit: int, gpus: int, min_gpus: int, arrival_tick: int, arrival_hash: int, seq: int,
        colocated: bool = False,
    ) -> int: ...  # fmt: skip
    def amend_bid(self, handle: int, limit: int, gpus: int, min_gpus: int) -> None: ...
    def set_held(self, handle: int, held: int) -> None: ...
    def cancel_bid(self, handle: int) -> None: ...
    def place_offer(self, reserve: int, gpus: int, node: int = NONE, domain: int = NONE) -> int: ...
    def amend_offer(self, handle: int, reserve: int, gpus: int) -> None: ...
    def cancel_offer(self, handle: int) -> None: ...
    def clear(self) -> Clearing: ...
    def explain(self, handle: int) -> Outcome: ...
    def would_win(self, handle: int) -> int: ...
    def probe(self, limit: int, gpus: int, min_gpus: int, colocated: bool = False) -> tuple[int, int]: ...
    def depth(self, level: int) -> tuple[int, int, int, int]: ...


class Quote(Struct, frozen=True):
    """What `gpus` GPUs would cost at the next tick, if nothing else changes."""

    price_to_fill: Price | None
    available_gpus: int
    entry_price: Price | None
    clearing_price: Price | None


def domain_of(node: Node) -> str | None:
    """The interconnect domain of a node: its owner's, by the name that the owner gave it."""
    return None if node.fabric is None else f"{node.account}/{node.fabric}"


class _Terms(NamedTuple):
    """What the kernel's book says of one bid now."""

    handle: int
    level: int
    gpus: int
    min_gpus: int
    held: int
    colocated: bool


class MarketBook:
    """The kernel's book of one market with its handles, and the prices of recent seconds."""

    def __init__(self, market: Market, make_book: type[Book] = matching.book.Book) -> None:
        self.market = market
        self.level_count = market.price_cap // market.price_increment
        self._increment = market.price_increment
        self._book = make_book(  # type: ignore[call-arg]  # Protocols carry no constructor
            handicap_bps=market.handicap_bps,
            level_count=self.level_count,
            refine_below_bids=market.refine_below_bids,
            price_position_bps=market.price_position_bps,
        )
        self._bids: dict[str, _Terms] = {}
        self._bid_ids: dict[int, str] = {}
        self._fresh: set[str] = set()  # bids whose terms changed since the last clearing
        self._stirred: set[int] = set()  # handles whose fill a trial changed since then
        self._offers: dict[str, tuple[int, int]] = {}  # (handle, GPUs)
        self._numbers: dict[str, int] = {}  # of nodes and interconnect domains, as the kernel knows them
        self.prices: list[tuple[int, Price]] = []  # (from second, price), oldest first
        self.settlements: list[tuple[int, str]] = []  # heap of (due second, lease id)
        self.behind: set[str] = set()  # leases settled up to a heartbeat long ago: their seconds need prices
        self.last_ticks: list[tuple[int, str]] = []  # heap of (valid_until_tick, bid id)
        self.ranked_once: set[str] = set()  # bids whose rank is special at the next tick only (R3)
        self.underfunded: set[str] = set()  # bids whose hold could not be refilled since the last tick
        self.windowed: dict[str, Offer] = {}  # offers with a beginning or an end in the future
        self.is_dirty = True  # placement must be planned again, whatever the clearing says
        self.entry_price: Price | None = None
        self.clearing_price: Price | None = None  # of the last clearing; None too if nothing traded
        self.is_cleared = False  # since this book was built
        self.placed_cost = Amount(0)  # reserves of the units of the last placement, microusd per hour
        self.idle: list[tuple[Price, int]] = []  # (gross reserve, GPUs) that it left unsold

    # -- prices and levels ------------------------------------------------------------------------

    def price_of(self, level: int) -> Price | None:
        return None if level == NONE else Price(level * self._increment)

    def amount_of(self, level_gpus: int) -> Amount:
        """Turn a sum of level x GPUs into microusd per hour."""
        return Amount(level_gpus * self._increment)

    # -- the book ---------------------------------------------------------------------------------

    def set_bid(
        self, bid_id: str, *, limit: Price, gpus: int, min_gpus: int, colocated: bool, held: int,
        arrival_tick: int, arrival_hash: int, seq: int,
    ) -> None:  # fmt: skip
        """Put a bid into the book, or change it there; zero GPUs takes it out."""
        old = self._bids.get(bid_id)
        if old is not None and (gpus == 0 or colocated != old.colocated):
            self._book.cancel_bid(old.handle)
            del self._bids[bid_id], self._bid_ids[old.handle]
            self.is_dirty = True
            old = None
        if gpus == 0:
            return
        level, minimum, held = limit // self._increment, min(min_gpus, gpus), min(held, gpus)
        if old is None:
            handle = self._book.place_bid(
                level, gpus, minimum, arrival_tick, arrival_hash >> 31, seq, colocated
            )
            self._bid_ids[handle] = bid_id
            self._fresh.add(bid_id)
        else:
            handle = old.handle
            if old[1:4] != (level, gpus, minimum):
                self._book.amend_bid(handle, level, gpus, minimum)
                self._fresh.add(bid_id)
        if held != (0 if old is None else old.held):
            self._book.set_held(handle, held)
        self._bids[bid_id] = _Terms(handle, level, gpus, minimum, held, colocated)

    def lift(self, bid_id: str) -> None:
        """Take a bid without leases out, for a trial or for good; `set_bid` puts it back."""
        terms = self._bids.pop(bid_id)
        self._book.cancel_bid(terms.handle)
        del self._bid_ids[terms.handle]

    def for_trial(self) -> substitutes.Market:
        """This market as a joint clearing sees it; what a trial changes is told to `stir`."""
        return substitutes.Market(self._book, self.market.handicap_bps, self.level_count)

    def stir(self, handles: Iterable[int]) -> None:
        """A trial has cleared these bids otherwise: the next clearing tells what becomes of them."""
        self._stirred.update(handle for handle in handles if handle in self._bid_ids)
        self.is_dirty = self.is_dirty or bool(self._stirred)

    def expect_outcome(self, bid_id: str) -> None:
        """The next clearing tells what becomes of this bid, even if nothing does."""
        self._fresh.add(bid_id)

    def set_offer(self, offer_id: str, *, gross_reserve: Price, gpus: int, node: Node) -> None:
        """Put an offer into the book, or change it there; zero GPUs takes it out."""
        handle, _ = self._offers.get(offer_id, (None, 0))
        self.is_dirty = True
        level = gross_reserve // self._increment
        if gpus == 0 or level > self.level_count:
            if handle is not None:
                self._book.cancel_offer(handle)
                del self._offers[offer_id]
        elif handle is None:
            fabric = domain_of(node)
            domain = NONE if fabric is None else self._number(fabric)
            handle = self._book.place_offer(level, gpus, self._number(node.id), domain)
            self._offers[offer_id] = handle, gpus
        else:
            self._book.amend_offer(handle, level, gpus)
            self._offers[offer_id] = handle, gpus

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def has_offer(self, offer_id: str) -> bool:
        return offer_id in self._offers

    def offered_gpus(self, offer_id: str) -> int:
        """The GPUs of an offer that take part: fewer than it has while its node is cordoned."""
        return self._offers[offer_id][1]

    def demand_by_limit(self) -> dict[Price, int]:
        """The GPUs that the bids in the book ask for, by limit."""
        asked: dict[int, int] = {}
        for terms in self._bids.values():
            asked[terms.level] = asked.get(terms.level, 0) + terms.gpus
        return {Price(level * self._increment): gpus for level, gpus in asked.items()}

    def clear(self) -> tuple[Clearing, list[tuple[str, Outcome]]]:
        """Clear; return the clearing, and the outcome of every bid that it may be news to, by id."""
        clearing = self._book.clear()
        self.entry_price = self.price_of(clearing.entry)
        self.clearing_price = self.price_of(clearing.price)
        self.is_cleared = True
        fresh = {bid_id for bid_id in self._fresh if bid_id in self._bids}
        news = {self._bid_ids[handle] for handle in clearing.handles.tolist()} | fresh
        news |= {self._bid_ids[handle] for handle in self._stirred if handle in self._bid_ids}
        self._fresh, self._stirred = set(), set()
        return clearing, [(bid_id, self.explain(bid_id)) for bid_id in sorted(news)]

    def explain(self, bid_id: str) -> Outcome:
        """What the last clearing gave the bid, and why not more. KeyError if it is not in the book."""
        return self._book.explain(self._bids[bid_id].handle)

    def has_bid(self, bid_id: str) -> bool:
        return bid_id in self._bids

    def winning_limit(self, bid_id: str) -> Price | None:
        """The lowest limit that fills the whole bid if nothing else changes."""
        return self.price_of(self._book.would_win(self._bids[bid_id].handle))

    def probe(self, limit: Price, gpus: int, min_gpus: int, colocated: bool) -> tuple[int, Price | None]:
        """Return (fill, price) of a new bid at the next tick, if nothing else changes."""
        fill, level = self._book.probe(limit // self._increment, gpus, min_gpus, colocated)
        return fill, self.price_of(level)

    def quote(self, gpus: int, min_gpus: int, offered_gpus: int) -> Quote:
        """Find the lowest limit that fills `gpus` next tick, by bisection (a bid's fill grows with it)."""
        low, high = 1, self.level_count
        best = self._book.probe(high, gpus, min_gpus)[0]
        price_to_fill = None
        if best == gpus:
            while low < high:
                middle = (low + high) // 2
                if self._book.probe(middle, gpus, min_gpus)[0] == gpus:
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
