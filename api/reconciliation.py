"""The last check of all invariants: it reads the whole database; one runs at a time and is kept a while."""

import asyncio

from auction.errors import Unavailable
from auction.units import MICROSECONDS_PER_SECOND
from sql.audit import Finding
from sql.reads import Reader

STANDS_US = 60 * MICROSECONDS_PER_SECOND


class Reconciliation:
    """What the audit found last, and when."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at_us = 0
        self._findings: list[Finding] = []
        self._lock = asyncio.Lock()

    async def latest(self, now_us: int) -> tuple[int, list[Finding]]:
        """Return (at_us, findings), at most a minute old; raises Unavailable."""
        async with self._lock:
            if not self._findings or not 0 <= now_us - self._at_us < STANDS_US:
                try:
                    self._findings = await self._reader.reconcile()
                except TimeoutError:
                    detail = "the checks take too long over HTTP; run `fallow audit`"
                    raise Unavailable("storage_unavailable", detail) from None
                self._at_us = now_us
            return self._at_us, self._findings
