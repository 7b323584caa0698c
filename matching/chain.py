"""The chain lemma (RULES.md X1): what a set of co-located gangs needs, and what offers can carry.

Sizes are 1, 2, 4 ... 64: each divides the next, so a set fits if and only if, size by size, the items
of at least that size do, counted in that size. No search, and placing largest first cannot fail.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matching.types import CHAIN, NODE_GPUS, NONE


@dataclass(slots=True)
class Offer:
    """GPUs at one reserve. Offers of one `node` share a machine; NONE is a machine of its own."""

    reserve: int
    gpus: int
    node: int
    domain: int


def needed(used: Mapping[int, int], size: int) -> int:
    """What a set {size: count} takes, in items of `size`, by lots of at least that size."""
    return sum(count * (larger // size) for larger, count in used.items() if larger >= size)


class Supply:
    """What the offers can carry: `units[size]` has one reserve for each item of that size.

    The k-th item fits on units with reserve <= units[size][k - 1]. On a node the s-th cheapest GPU
    completes an item of size s; eight make a full block; the blocks of one interconnect domain carry
    the sizes above a node's in the same way.
    """

    def __init__(self, offers: Iterable[Offer]) -> None:
        nodes: dict[int, list[Offer]] = {}
        for number, offer in enumerate(offers):
            nodes.setdefault(offer.node if offer.node != NONE else -2 - number, []).append(offer)
        self.units: dict[int, list[int]] = {size: [] for size in CHAIN}
        blocks: dict[int, list[int]] = {}
        for shared in nodes.values():
            reserves = sorted(offer.reserve for offer in shared for _ in range(offer.gpus))
            for size in CHAIN:
                if size <= NODE_GPUS:
                    self.units[size] += reserves[size - 1 :: size]
            if shared[0].domain != NONE:
                blocks.setdefault(shared[0].domain, []).extend(reserves[NODE_GPUS - 1 :: NODE_GPUS])
        for full in blocks.values():
            full.sort()
            for size in CHAIN:
                if size > NODE_GPUS:
                    count = size // NODE_GPUS
                    self.units[size] += full[count - 1 :: count]
        for reserves in self.units.values():
            reserves.sort()

    def capacity(self, size: int, level: int) -> int:
        """Items of `size` that fit on units with reserve <= level."""
        return sum(reserve <= level for reserve in self.units[size])

    def fits(self, used: Mapping[int, int], level: int) -> bool:
        """Say whether the set fits on units with reserve <= level: the chain lemma."""
        return all(needed(used, size) <= self.capacity(size, level) for size in CHAIN)

    def floor(self, used: Mapping[int, int]) -> int:
        """The highest reserve that the set, which is not empty, needs."""
        return max(self.units[size][count - 1] for size in CHAIN if (count := needed(used, size)) > 0)

    def usable(self, used: Mapping[int, int], top: int, size: int) -> int:
        """GPUs that a lot of this size could have on units with reserve <= top beside the set.

        For a co-located lot (size > 1) it is the largest size that still fits.
        """
        if not self.fits(used, top):
            return 0
        if size == 1:
            return self.capacity(1, top) - needed(used, 1)
        largest = 0
        for candidate in CHAIN:
            if self.fits({**used, candidate: used[candidate] + 1}, top):
                largest = candidate
        return largest
