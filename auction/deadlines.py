"""What falls due when: one heap for notices, leases, bids and accounts.

An entity has one entry, at the earliest time it was ever due. When that comes, the entity is asked:
a deadline that has moved on is entered again, one that is gone is forgotten. So setting a deadline
again and again costs nothing, and the heap never holds more than one entry per entity and a few.
"""

from collections.abc import Callable
from heapq import heappop, heappush


class Deadlines:
    """`due_at_us` tells when an entity is due now, None if it is not."""

    def __init__(self, due_at_us: Callable[[str], int | None]) -> None:
        self._due_at_us = due_at_us
        self._heap: list[tuple[int, str]] = []
        self._entered: dict[str, int] = {}

    def set(self, entity_id: str, at_us: int | None) -> None:
        """Look at this entity again at `at_us`; None: there is no need to."""
        if at_us is None or self._entered.get(entity_id, at_us + 1) <= at_us:
            return
        heappush(self._heap, (at_us, entity_id))
        self._entered[entity_id] = at_us

    def next_at_us(self) -> int | None:
        """Return when the next entity is due."""
        while self._heap:
            at_us, entity_id = self._heap[0]
            actual_us = self._due_at_us(entity_id)
            if actual_us == at_us:
                return at_us
            self._pop()
            self.set(entity_id, actual_us)
        return None

    def take(self, now_us: int) -> tuple[int, str] | None:
        """Take the next entity that is due by `now_us`, earliest first, by id among equals."""
        at_us = self.next_at_us()
        return None if at_us is None or at_us > now_us else self._pop()

    def _pop(self) -> tuple[int, str]:
        at_us, entity_id = heappop(self._heap)
        if self._entered.get(entity_id) == at_us:
            del self._entered[entity_id]
        return at_us, entity_id
