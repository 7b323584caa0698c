"""Substitutes (RULES.md X3): bids that would take GPUs in any of up to eight markets, at a limit each.

1. Find the least dual prices of the divisible relaxation. The dual is a sum of convex functions of one
   price each, and of max(0, value - price) over each wish's alternatives: L-natural-convex, so steepest
   descent over subsets of markets reaches its least minimizer (K. Murota, "Discrete Convex Analysis",
   2003, ch. 10; it is the ascending auction of Demange, Gale and Sotomayor, 1986). Slopes are counts of
   GPUs; steps are as long as the slope lasts; the last tick's prices are where it starts.
2. Each wish joins the market with the largest value - price; ties are split so that every market gets
   what it can sell at those prices (an augmenting flow between groups of wishes and markets).
3. Every market clears by its own rules. Up to three rounds in which losers try their next alternative
   with value > price; the round with the best welfare stays.

For divisible wishes without a handicap the first round is already the LP's optimum.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from matching.types import MARKETS_MAX, NONE, Clearing, Outcome

ROUNDS_MAX = 3
_UNWANTED = -(1 << 40)  # the value of a market that a wish does not name

Assignment = dict[int, dict[int, int]]  # wish: {market: GPUs asked for there}


class Book(Protocol):
    """What a market's book (book.pyi) is asked here."""

    def place_bid(
        self, limit: int, gpus: int, min_gpus: int, arrival_tick: int, arrival_hash: int, seq: int,
        colocated: bool = False,
    ) -> int: ...  # fmt: skip
    def cancel_bid(self, handle: int) -> None: ...
    def set_held(self, handle: int, held: int) -> None: ...
    def clear(self) -> Clearing: ...
    def explain(self, handle: int) -> Outcome: ...
    def depth(self, level: int) -> tuple[int, int, int, int]: ...


class Market(NamedTuple):
    """One market: its book holds the bids that want nothing else."""

    book: Book
    handicap_bps: int
    level_count: int


class Wish(NamedTuple):
    """A bid over several markets: `limits[k]` in market k, NONE where it wants nothing.

    A wish with a minimum above 1 goes to one market; a divisible one may be split. `held_in` is the
    market where it holds `held` GPUs now: there its limit counts in full, elsewhere less the handicap.
    `arrivals` is its arrival by market, where every market counts its own ticks.
    """

    gpus: int
    min_gpus: int
    limits: tuple[int, ...]
    arrival: tuple[int, int, int]
    held_in: int = NONE
    held: int = 0
    colocated: bool = False
    arrivals: tuple[tuple[int, int, int], ...] = ()


class Joint(NamedTuple):
    """The joint clearing: each market's own, and the GPUs of each wish by market."""

    clearings: list[Clearing]
    # By market, what resting bids got that were cleared again (handle: GPUs); it may be what they had.
    changes: list[dict[int, int]]
    fills: list[dict[int, int]]  # by wish
    rounds: int


class Substitutes:
    """Joint clearings of a group of markets that share wishes; it remembers the dual prices."""

    def __init__(self, markets: Sequence[Market]) -> None:
        if not 1 <= len(markets) <= MARKETS_MAX:
            raise ValueError(f"{len(markets)} markets are outside 1..{MARKETS_MAX}")
        self._markets = list(markets)
        self.prices = [0] * len(markets)  # least dual prices of the last clearing, as ranks
        self.steps = 0  # of the last descent

    def clear(self, wishes: Sequence[Wish]) -> Joint:
        """Clear all markets together; the wishes are in their books only while this runs.

        Raises ValueError for a wish without an alternative, or with the wrong number of limits.
        """
        for wish in wishes:
            if len(wish.limits) != len(self._markets) or max(wish.limits) == NONE:
                raise ValueError(f"limits {wish.limits} do not name one of {len(self._markets)} markets")
        values = self._values(wishes)
        gpus = np.array([wish.gpus for wish in wishes], dtype=np.int64)
        self.prices = self._least_prices(values, gpus)
        assignment = self._join(wishes, values, gpus)

        best: tuple[int, Assignment] | None = None
        merged: list[dict[int, int]] = [{} for _ in self._markets]
        rounds = 0
        while True:
            rounds += 1
            welfare, joint = self._round(wishes, assignment, merged)
            if best is None or welfare > best[0]:
                best = welfare, assignment
            following = self._next_assignment(wishes, values, assignment, joint)
            if rounds == ROUNDS_MAX or following == assignment:
                break
            assignment = following
        if assignment != best[1]:
            _, joint = self._round(wishes, best[1], merged)
        return Joint(joint.clearings, merged, joint.fills, rounds)

    def _values(self, wishes: Sequence[Wish]) -> NDArray[np.int64]:
        """The rank of each wish in each market: (wishes, markets)."""
        values = np.full((len(wishes), len(self._markets)), _UNWANTED, dtype=np.int64)
        for i, wish in enumerate(wishes):
            for k, limit in enumerate(wish.limits):
                if limit != NONE:
                    scale = 10_000 + (0 if k == wish.held_in else self._markets[k].handicap_bps)
                    values[i, k] = limit * 10_000 // scale
        return values

    # -- 1. least dual prices ------------------------------------------------------------------------

    def _least_prices(self, values: NDArray[np.int64], gpus: NDArray[np.int64]) -> list[int]:
        """Steepest descent of the dual from the last prices, then down to its least minimizer."""
        prices = [
            min(price, market.level_count) for price, market in zip(self.prices, self._markets, strict=True)
        ]
        self.steps = 0
        while True:
            slopes = {sign: self._slopes(values, gpus, prices, sign) for sign in (1, -1)}
            sign = 1 if slopes[1].min() <= slopes[-1].min() else -1
            subset = int(slopes[sign].argmin())
            if slopes[sign][subset] >= 0:
                break
            prices = self._move(values, gpus, prices, subset, sign, below=0)
        while True:
            # The union of all subsets that cost nothing to lower costs nothing either (submodularity).
            flat = np.flatnonzero(self._slopes(values, gpus, prices, -1) == 0)
            subset = int(np.bitwise_or.reduce(flat))
            if subset == 0:
                return prices
            prices = self._move(values, gpus, prices, subset, -1, below=1)

    def _move(
        self,
        values: NDArray[np.int64],
        gpus: NDArray[np.int64],
        prices: list[int],
        subset: int,
        sign: int,
        below: int,
    ) -> list[int]:
        """Go as far along the subset as the dual's slope stays under `below`."""
        self.steps += 1
        members = [k for k in range(len(prices)) if subset >> k & 1]

        def at(length: int) -> list[int]:
            return [price + sign * length * (subset >> k & 1) for k, price in enumerate(prices)]

        room = min(self._markets[k].level_count - prices[k] if sign > 0 else prices[k] for k in members)
        low, high = 1, room  # the first step is known to be good
        while low < high:
            middle = (low + high + 1) // 2
            # The step that ends at `middle` starts one before it.
            if self._slopes(values, gpus, at(middle - 1), sign)[subset] < below:
                low = middle
            else:
                high = middle - 1
        return at(low)

    def _slopes(
        self, values: NDArray[np.int64], gpus: NDArray[np.int64], prices: list[int], sign: int
    ) -> NDArray[np.int64]:
        """How the dual changes when the prices of a subset go one level up or down: one entry a subset."""
        count = len(prices)
        best, masks = _demand(values, prices)
        own = np.zeros(count, dtype=np.int64)
        for k, market in enumerate(self._markets):
            above, wanted, below, offered = market.book.depth(prices[k])
            own[k] = offered - above if sign > 0 else wanted - below
        by_mask = np.zeros(1 << count, dtype=np.int64)
        served = best > 0 if sign > 0 else best >= 0
        np.add.at(by_mask, masks[served], gpus[served])
        inside = by_mask  # becomes: GPUs of the wishes whose best markets all lie in the subset
        slopes = np.zeros(1 << count, dtype=np.int64)
        subsets = np.arange(1 << count)
        for k in range(count):
            has = (subsets >> k & 1) == 1
            inside[has] += inside[subsets[has] ^ (1 << k)]
            slopes[has] += own[k]
        # Up: who has all its best markets in the subset pays more. Down: who has any gains.
        slopes += -inside if sign > 0 else inside[-1] - inside[::-1]
        # No market leaves its grid.
        for k, market in enumerate(self._markets):
            if prices[k] == (market.level_count if sign > 0 else 0):
                slopes[(subsets >> k & 1) == 1] = np.iinfo(np.int64).max
        slopes[0] = np.iinfo(np.int64).max
        return slopes

    # -- 2. who joins which market ---------------------------------------------------------------------

    def _join(self, wishes: Sequence[Wish], values: NDArray[np.int64], gpus: NDArray[np.int64]) -> Assignment:
        """Send each wish to its best market; split ties as the dual prices can carry them."""
        prices = self.prices
        best, masks = _demand(values, prices)
        order = sorted(range(len(prices)), key=lambda k: (prices[k], k))
        groups: dict[tuple[bool, int], int] = {}
        for i in np.flatnonzero(best >= 0).tolist():
            key = (bool(best[i] == 0), int(masks[i]))
            groups[key] = groups.get(key, 0) + int(gpus[i])
        flow = _Flow(sorted(groups.items()), order)
        sold: list[int] = []
        for k, market in enumerate(self._markets):
            above, wanted, below, offered = market.book.depth(prices[k])
            sold.append(max(0, offered - above))
            flow.widen(k, max(0, below - wanted))
        flow.push(is_zero_included=True)  # what must be sold at these prices
        for k, capacity in enumerate(sold):
            flow.widen(k, capacity)
        flow.push(is_zero_included=False)

        assignment: Assignment = {}
        for i in sorted(range(len(wishes)), key=lambda i: wishes[i].arrival):
            key = (bool(best[i] == 0), int(masks[i]))
            if best[i] < 0:
                continue
            left = flow.shares[key]
            held_first = [wishes[i].held_in] if wishes[i].held_in in order else []
            choices = [k for k in held_first + order if masks[i] >> k & 1]
            if wishes[i].min_gpus > 1:
                chosen = next((k for k in choices if left.get(k, 0) >= wishes[i].gpus), choices[0])
                left[chosen] = left.get(chosen, 0) - wishes[i].gpus
                assignment[i] = {chosen: wishes[i].gpus}
                continue
            asked: dict[int, int] = {}
            wanted = wishes[i].gpus
            for k in choices:
                taken = min(wanted, max(0, left.get(k, 0)))
                if taken:
                    asked[k] = asked.get(k, 0) + taken
                    left[k] -= taken
                    wanted -= taken
            if wanted:
                asked[choices[0]] = asked.get(choices[0], 0) + wanted
            assignment[i] = asked
        return assignment

    # -- 3. rounds ---------------------------------------------------------------------------------------

    def _round(
        self, wishes: Sequence[Wish], assignment: Assignment, merged: list[dict[int, int]]
    ) -> tuple[int, Joint]:
        """Clear every market with the wishes where they are assigned; merge what changes for the rest."""
        placed: list[tuple[int, int, int]] = []
        for i, by_market in sorted(assignment.items()):
            wish = wishes[i]
            for k, gpus in sorted(by_market.items()):
                minimum = min(wish.min_gpus, gpus)
                arrival = wish.arrivals[k] if wish.arrivals else wish.arrival
                handle = self._markets[k].book.place_bid(
                    wish.limits[k], gpus, minimum, *arrival, wish.colocated
                )
                if k == wish.held_in:
                    self._markets[k].book.set_held(handle, min(wish.held, gpus))
                placed.append((i, k, handle))
        clearings = [market.book.clear() for market in self._markets]
        fills: list[dict[int, int]] = [{} for _ in wishes]
        own = {(k, handle) for _, k, handle in placed}
        for i, k, handle in placed:
            fill = self._markets[k].book.explain(handle).fill
            if fill:
                fills[i][k] = fill
            self._markets[k].book.cancel_bid(handle)
        for k, clearing in enumerate(clearings):
            for handle, fill in zip(clearing.handles.tolist(), clearing.fills.tolist(), strict=True):
                if (k, handle) not in own:
                    merged[k][handle] = fill
        welfare = sum(clearing.value - clearing.cost for clearing in clearings)
        return welfare, Joint(clearings, merged, fills, 0)

    def _next_assignment(
        self, wishes: Sequence[Wish], values: NDArray[np.int64], assignment: Assignment, joint: Joint
    ) -> Assignment:
        """Losers try their best other market in which they would pay less than they are worth."""
        prices = [max(0, clearing.price) for clearing in joint.clearings]
        following: Assignment = {}
        for i, wish in enumerate(wishes):
            served = joint.fills[i]
            unserved = wish.gpus - sum(served.values())
            tried = assignment.get(i, {})
            choices = [
                k
                for k in range(len(prices))
                if k not in tried and wish.limits[k] != NONE and values[i, k] > prices[k]
            ]
            if unserved == 0 or not choices or (wish.min_gpus > 1 and served):
                if tried:
                    following[i] = tried
                continue
            chosen = min(choices, key=lambda k: (prices[k] - int(values[i, k]), prices[k], k))
            following[i] = {**served, chosen: unserved}
        return following


def _demand(values: NDArray[np.int64], prices: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each wish's best gain at these prices, and the set of markets (bits) that give it."""
    gains = values - np.array(prices, dtype=np.int64)
    if not len(values):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    best = gains.max(axis=1)
    bits = np.int64(1) << np.arange(len(prices), dtype=np.int64)
    return best, ((gains == best[:, None]) * bits).sum(axis=1)


class _Flow:
    """Augmenting flow from groups of wishes (key: zero gain?, markets) to markets.

    A market's flow never falls when another group is pushed, so what was filled first stays filled.
    """

    def __init__(self, groups: list[tuple[tuple[bool, int], int]], order: list[int]) -> None:
        self._left = dict(groups)
        self._order = order
        self._room = dict.fromkeys(order, 0)
        self._sent = dict.fromkeys(order, 0)
        self.shares: dict[tuple[bool, int], dict[int, int]] = {key: {} for key, _ in groups}

    def widen(self, market: int, capacity: int) -> None:
        """The market can take `capacity` in all."""
        self._room[market] = max(self._room[market], capacity - self._sent[market])

    def push(self, *, is_zero_included: bool) -> None:
        """Send what the groups have left, those with a gain first, as far as the markets have room."""
        for key in sorted(self._left):
            if key[0] and not is_zero_included:
                continue
            while self._left[key] > 0 and self._augment(key):
                pass

    def _augment(self, start: tuple[bool, int]) -> bool:
        """Find a shortest way from a group to a market with room, over groups that can give way."""
        came_from: dict[int, tuple[int, tuple[bool, int]]] = {}
        frontier: list[tuple[int, tuple[bool, int]]] = [(NONE, start)]
        while frontier:
            following = []
            for through, group in frontier:
                for k in self._order:
                    if not group[1] >> k & 1 or k in came_from:
                        continue
                    came_from[k] = (through, group)
                    if self._room[k] > 0:
                        self._send(start, k, came_from)
                        return True
                    following += [(k, other) for other, share in sorted(self.shares.items()) if share.get(k)]
            frontier = following
        return False

    def _send(
        self, start: tuple[bool, int], end: int, came_from: dict[int, tuple[int, tuple[bool, int]]]
    ) -> None:
        way = []
        amount, k = min(self._left[start], self._room[end]), end
        while k != NONE:
            through, group = came_from[k]
            way.append((k, through, group))
            if through != NONE:
                amount = min(amount, self.shares[group][through])
            k = through
        for k, through, group in way:
            self.shares[group][k] = self.shares[group].get(k, 0) + amount
            if through != NONE:
                self.shares[group][through] -= amount
        self._left[start] -= amount
        self._room[end] -= amount
        self._sent[end] += amount
