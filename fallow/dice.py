"""Chance that can be repeated: a stream of integers that one seed fixes for ever.

Its own generator rather than a library's, because the demo's world must not change with a version of
one. Integers only: what is drawn here becomes prices and amounts.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PERCENT = 100
_DRAW_BYTES = 8


class Dice:
    """Draws that follow from `seed` alone, in the order asked."""

    def __init__(self, *seed: int | str) -> None:
        self._key = hashlib.sha256(":".join(map(str, seed)).encode()).digest()
        self._block = b""
        self._blocks = 0

    def below(self, bound: int) -> int:
        """Return an integer in 0..bound-1."""
        assert bound > 0
        if len(self._block) < _DRAW_BYTES:
            self._block = hashlib.sha512(self._key + self._blocks.to_bytes(8, "big")).digest()
            self._blocks += 1
        draw, self._block = self._block[:_DRAW_BYTES], self._block[_DRAW_BYTES:]
        return int.from_bytes(draw, "big") % bound  # the bias is below 2^-40 for every bound used here

    def between(self, low: int, high: int) -> int:
        """Return an integer in low..high, both included."""
        return low + self.below(high - low + 1)

    def around(self, low: int, high: int) -> int:
        """Return an integer in low..high, the middle more often: the mean of two draws."""
        return (self.between(low, high) + self.between(low, high)) // 2

    def happens(self, percent: int) -> bool:
        return self.below(PERCENT) < percent

    def choice(self, things: Sequence[T]) -> T:
        return things[self.below(len(things))]
