"""Which co-located items each offer adds or takes away, as nodes and interconnect domains change (X1).

On a node the s-th cheapest GPU completes an item of size s <= 8; eight complete a block, and the
blocks of one domain, cheapest first, complete the larger sizes. So a change to one offer changes the
items of its node and, if its blocks change, of its domain; nothing else is looked at.
"""

from collections import Counter
from collections.abc import Iterator

from matching.types import CHAIN, NODE_GPUS, NONE

Item = tuple[int, int]  # (log2 of the size, reserve at which it fits)


class NodeItems:
    """The items of all nodes and domains of one book."""

    def __init__(self) -> None:
        self._nodes: dict[int, Counter[int]] = {}  # node: GPUs by reserve
        self._domain_of: dict[int, int] = {}
        self._blocks: dict[int, Counter[int]] = {}  # domain: full blocks by reserve

    def change(self, node: int, domain: int, reserve: int, gpus: int) -> Iterator[tuple[int, int, int]]:
        """Add GPUs to a node, or take them away; yield (log2 of the size, reserve, change)."""
        units = self._nodes.setdefault(node, Counter())
        before = list(_items(units, CHAIN[1:4], 1))
        units[reserve] += gpus
        assert units[reserve] >= 0
        after = list(_items(units, CHAIN[1:4], 1))
        home = self._domain_of.setdefault(node, domain)
        if not +units:
            del self._nodes[node], self._domain_of[node]
        yield from _difference(before, after)
        if home != NONE:
            yield from self._change_blocks(home, before, after)

    def _change_blocks(
        self, domain: int, before: list[Item], after: list[Item]
    ) -> Iterator[tuple[int, int, int]]:
        blocks = self._blocks.setdefault(domain, Counter())
        old = list(_items(blocks, CHAIN[4:], NODE_GPUS))
        full = NODE_GPUS.bit_length() - 1
        blocks.subtract(reserve for k, reserve in before if k == full)
        blocks.update(reserve for k, reserve in after if k == full)
        new = list(_items(blocks, CHAIN[4:], NODE_GPUS))
        if not +blocks:
            del self._blocks[domain]
        yield from _difference(old, new)


def _items(units: Counter[int], sizes: tuple[int, ...], unit: int) -> Iterator[Item]:
    """Yield the items that units of `unit` GPUs complete, cheapest first."""
    counted = 0
    for reserve in sorted(units):
        first, counted = counted, counted + units[reserve]
        for size in sizes:
            per_item = size // unit
            completed = counted // per_item - first // per_item
            for _ in range(completed):
                yield size.bit_length() - 1, reserve


def _difference(before: list[Item], after: list[Item]) -> Iterator[tuple[int, int, int]]:
    change = Counter(after)
    change.subtract(before)
    for (k, reserve), count in sorted(change.items()):
        if count:
            yield k, reserve, count
