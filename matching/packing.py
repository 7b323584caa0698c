"""Placement: which bid's GPUs come from which offer, once the clearing has said how many (X1).

Who runs stays where it is if everybody else still fits then; otherwise it is moved, which the clearing
has made sure it can be. Co-located gangs go largest first; the cheapest machine that has room, then
the tightest fit, then the machine's name. GPUs that may lie anywhere take the cheapest units that are
left. By the chain lemma (chain.py) none of this can fail after the clearing has accepted the fills.

Integers and names in, integers out; nothing here depends on the order of a dictionary.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from matching.chain import Offer, Supply, needed
from matching.types import CHAIN, NODE_GPUS, NONE

Place = tuple[int, int]  # (bid, offer)


class Fill(NamedTuple):
    """GPUs that a bid has won."""

    bid: int
    gpus: int
    is_colocated: bool = False


class OfferUnits(NamedTuple):
    """GPUs of one machine at one reserve."""

    reserve: int
    number: int
    gpus: int
    node: str = ""
    domain: str | None = None


def place(
    fills: Sequence[Fill],
    offers: Sequence[OfferUnits],
    held: Mapping[Place, int],
    pending: Mapping[Place, int],
) -> dict[Place, int]:
    """Assign fills, best rank first, to offers; return {(bid, offer): gpus}.

    `held` and `pending` say how many GPUs of which offer a bid occupies or waits for now. AssertionError
    if the fills do not fit: then the clearing was wrong.
    """
    gangs = [fill for fill in fills if fill.is_colocated and fill.gpus > 1]
    if not gangs:
        return _place_anywhere(fills, offers, held, pending)
    machines = _Machines(fills, offers)
    for current in (held, pending):
        for fill in fills:
            machines.stay(fill, current)
    for fill in sorted(gangs, key=lambda fill: -fill.gpus):  # stable: best rank first
        machines.put(fill)
    left = [
        Fill(fill.bid, fill.gpus - machines.placed_of(fill.bid))
        for fill in fills
        if fill.gpus > machines.placed_of(fill.bid)
    ]
    spread = _place_anywhere(left, machines.free_offers(), {}, {})
    for key, gpus in spread.items():
        machines.placed[key] = machines.placed.get(key, 0) + gpus
    return machines.placed


class _Machines:
    """Free units by machine, with what the chain lemma counts: items that fit, items still to place."""

    def __init__(self, fills: Sequence[Fill], offers: Sequence[OfferUnits]) -> None:
        self.placed: dict[Place, int] = {}
        self._of: dict[int, int] = {}
        self._to_place = dict.fromkeys(CHAIN, 0)
        for fill in fills:
            size = fill.gpus if fill.is_colocated else 1
            self._to_place[size] += fill.gpus // size
        names = sorted({offer.node for offer in offers})
        domains = sorted({offer.domain for offer in offers if offer.domain is not None})
        floor = Supply(
            Offer(
                offer.reserve,
                offer.gpus,
                names.index(offer.node),
                NONE if offer.domain is None else domains.index(offer.domain),
            )
            for offer in offers
        ).floor(self._to_place)
        self._offers = sorted(offer for offer in offers if offer.reserve <= floor)
        self._free = {offer.number: offer.gpus for offer in self._offers}
        self._on: dict[str, list[OfferUnits]] = {}
        self._node_of: dict[int, str] = {}
        self._domain_of: dict[str, str | None] = {}
        for offer in self._offers:
            self._on.setdefault(offer.node, []).append(offer)
            self._node_of[offer.number] = offer.node
            self._domain_of.setdefault(offer.node, offer.domain)
        self._free_on = {node: sum(offer.gpus for offer in on) for node, on in self._on.items()}
        self._blocks: dict[str, int] = {}
        self._capacity = dict.fromkeys(CHAIN, 0)
        for node in sorted(self._free_on):
            self._count(node, 0, self._free_on[node])

    def placed_of(self, bid: int) -> int:
        return self._of.get(bid, 0)

    def free_offers(self) -> list[OfferUnits]:
        left = (offer._replace(gpus=self._free[offer.number]) for offer in self._offers)
        return [offer for offer in left if offer.gpus > 0]

    def stay(self, fill: Fill, current: Mapping[Place, int]) -> None:
        """Leave the bid where it is, as far as everybody else still fits."""
        size = fill.gpus if fill.is_colocated else 1
        wanted = fill.gpus - self.placed_of(fill.bid)
        here = [
            (offer, min(current[fill.bid, offer.number], self._free[offer.number]))
            for offer in self._offers
            if (fill.bid, offer.number) in current
        ]
        if size > 1:
            on: dict[str, int] = {}
            for offer, gpus in here:
                on[offer.node] = on.get(offer.node, 0) + gpus
            whole = len(on) == 1 if size <= NODE_GPUS else all(gpus % NODE_GPUS == 0 for gpus in on.values())
            if wanted == size == sum(on.values()) and whole:
                self._try(fill.bid, size, here)
            return
        for offer, gpus in here:
            most = min(gpus, fill.gpus - self.placed_of(fill.bid))
            while most > 0 and not self._try(fill.bid, 1, [(offer, most)]):
                most -= 1

    def put(self, fill: Fill) -> None:
        """Give a co-located gang the cheapest machine, or machines of one domain, with room."""
        if self.placed_of(fill.bid):
            return
        if fill.gpus <= NODE_GPUS:
            node = min(
                (node for node, free in self._free_on.items() if free >= fill.gpus),
                key=lambda node: (self._reserve_of(node, fill.gpus), self._free_on[node], node),
            )
            self._take(fill.bid, fill.gpus, self._cheapest_on(node, fill.gpus))
            return
        count = fill.gpus // NODE_GPUS
        best: tuple[int, int, str] | None = None
        chosen: list[str] = []  # a machine's name for each block of eight GPUs
        for domain in sorted(self._blocks):
            blocks = sorted(
                (self._reserve_of(node, (number + 1) * NODE_GPUS), node)
                for node, free in self._free_on.items()
                if self._domain_of[node] == domain
                for number in range(free // NODE_GPUS)
            )
            if len(blocks) >= count:
                merit = (blocks[count - 1][0], len(blocks), domain)
                if best is None or merit < best:
                    best, chosen = merit, [node for _, node in blocks[:count]]
        assert best is not None, "the clearing accepted a gang that fits nowhere"
        units = [
            unit
            for node in sorted(set(chosen))
            for unit in self._cheapest_on(node, chosen.count(node) * NODE_GPUS)
        ]
        self._take(fill.bid, fill.gpus, units)

    # -- units ------------------------------------------------------------------------------------

    def _cheapest_on(self, node: str, gpus: int) -> list[tuple[OfferUnits, int]]:
        units = []
        for offer in self._on[node]:
            taken = min(gpus, self._free[offer.number])
            if taken:
                units.append((offer, taken))
                gpus -= taken
        assert gpus == 0, "the machine has room"
        return units

    def _reserve_of(self, node: str, gpus: int) -> int:
        """The reserve of the dearest of the `gpus` cheapest free units of a machine."""
        return max(offer.reserve for offer, _ in self._cheapest_on(node, gpus))

    def _try(self, bid: int, size: int, units: list[tuple[OfferUnits, int]]) -> bool:
        """Take the units if everything that is still to be placed fits beside them."""
        self._take(bid, size, units)
        if all(needed(self._to_place, size) <= self._capacity[size] for size in CHAIN):
            return True
        self._take(bid, size, [(offer, -gpus) for offer, gpus in units])
        return False

    def _take(self, bid: int, size: int, units: Iterable[tuple[OfferUnits, int]]) -> None:
        """Give units to a bid, or (with negative GPUs) take them back."""
        for offer, gpus in units:
            key = (bid, offer.number)
            self.placed[key] = self.placed.get(key, 0) + gpus
            if not self.placed[key]:
                del self.placed[key]
            self._of[bid] = self._of.get(bid, 0) + gpus
            self._free[offer.number] -= gpus
            before = self._free_on[offer.node]
            self._free_on[offer.node] = before - gpus
            self._count(offer.node, before, before - gpus)
            if size == 1:
                self._to_place[1] -= gpus
        if size > 1:
            self._to_place[size] -= 1 if self._of[bid] > 0 else -1

    def _count(self, node: str, before: int, after: int) -> None:
        """The items that a machine carries have changed with its free GPUs."""
        for size in CHAIN:
            if size <= NODE_GPUS:
                self._capacity[size] += after // size - before // size
        domain = self._domain_of[node]
        if domain is None:
            return
        old = self._blocks.get(domain, 0)
        self._blocks[domain] = new = old + after // NODE_GPUS - before // NODE_GPUS
        for size in CHAIN:
            if size > NODE_GPUS:
                count = size // NODE_GPUS
                self._capacity[size] += new // count - old // count


# -- GPUs that may lie anywhere -------------------------------------------------------------------------


def sold_by_offer(offers: Sequence[OfferUnits], sold: int, kept: Mapping[int, int]) -> dict[int, int]:
    """Spread `sold` GPUs over offers, cheapest first; return {number: gpus} without zeros.

    Inside the marginal reserve level, units on which winners run now (`kept`, by offer) come first:
    nobody is moved between equal prices without need.
    """
    result: dict[int, int] = {}
    left = sold
    ordered = sorted(offers)
    start = 0
    while left > 0:
        assert start < len(ordered), "more sold than offered"
        end = start
        while end < len(ordered) and ordered[end].reserve == ordered[start].reserve:
            end += 1
        level = ordered[start:end]
        if sum(offer.gpus for offer in level) <= left:
            for offer in level:
                result[offer.number] = offer.gpus
                left -= offer.gpus
        else:
            for offer in level:
                taken = min(left, offer.gpus, kept.get(offer.number, 0))
                if taken:
                    result[offer.number] = taken
                    left -= taken
            for offer in level:
                taken = min(left, offer.gpus - result.get(offer.number, 0))
                if taken:
                    result[offer.number] = result.get(offer.number, 0) + taken
                    left -= taken
        start = end
    return result


def _place_anywhere(
    fills: Sequence[Fill],
    offers: Sequence[OfferUnits],
    held: Mapping[Place, int],
    pending: Mapping[Place, int],
) -> dict[Place, int]:
    """A bid stays where it runs, keeps what it waits for, then takes the tightest offer that holds it."""
    wanted = {fill.bid: fill.gpus for fill in fills}
    kept: dict[int, int] = {}
    for (bid, offer), gpus in held.items():
        if bid in wanted:
            kept[offer] = kept.get(offer, 0) + min(gpus, wanted[bid])
    free = sold_by_offer(offers, sum(wanted.values()), kept)
    placed: dict[Place, int] = {}

    def take(bid: int, offer: int, gpus: int) -> None:
        taken = min(gpus, wanted[bid], free.get(offer, 0))
        if taken > 0:
            placed[bid, offer] = placed.get((bid, offer), 0) + taken
            wanted[bid] -= taken
            free[offer] -= taken

    for current in (held, pending):
        for bid, offer in sorted(current):
            if bid in wanted:
                take(bid, offer, current[bid, offer])
    by_size: dict[int, list[int]] = {}  # offers by their free GPUs, each list a heap
    for offer in sorted(free):
        by_size.setdefault(free[offer], []).append(offer)
    sizes = sorted(size for size in by_size if size > 0)
    for bid in sorted(wanted, key=lambda bid: (-wanted[bid], bid)):
        while wanted[bid] > 0:
            tightest = bisect_left(sizes, wanted[bid])
            size = sizes[min(tightest, len(sizes) - 1)]
            offer = heappop(by_size[size])
            if not by_size[size]:
                sizes.remove(size)
            take(bid, offer, size)
            left = free[offer]
            if left > 0:
                if not by_size.get(left):
                    insort(sizes, left)
                heappush(by_size.setdefault(left, []), offer)
    return placed
