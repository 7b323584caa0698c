"""Which signed requests are new: inside the window of time, and never seen before.

A signature holds for SIGNATURE_SECONDS_MAX, and its nonce is remembered for as long. Memory is bounded, and a
full one refuses: what was forgotten could be sent again. What the server before this one may have taken is
refused too, because its nonces are gone: whatever was signed before this one began, by a clock that may be
AHEAD_SECONDS_MAX ahead. Its sender signs anew. One process takes the requests: a second one would need to
know the nonces of the first.
"""

import hashlib
from collections import Counter, deque

from api.signing import Signed
from auction.errors import Rejection, Unavailable
from auction.units import MICROSECONDS_PER_SECOND

SIGNATURE_SECONDS_MAX = 30  # from created_us on
AHEAD_SECONDS_MAX = 2  # that a signer's clock may be ahead; so long a new server takes no signature
NONCES_MAX = 500_000
NONCES_PER_ACCOUNT_MAX = 60_000

_BEHIND_US = SIGNATURE_SECONDS_MAX * MICROSECONDS_PER_SECOND
_AHEAD_US = AHEAD_SECONDS_MAX * MICROSECONDS_PER_SECOND


class Nonces:
    """The nonces whose signatures still hold."""

    def __init__(self, began_us: int) -> None:
        self._began_us = began_us
        self._known: set[bytes] = set()
        self._by_account: Counter[str] = Counter()
        self._oldest_first: deque[tuple[int, str, bytes]] = deque()

    def refuse_untimely(self, signed: Signed, now_us: int) -> None:
        """Refuse what was signed too long ago, or in the future.

        Raises Rejection (`signature_untimely`), or Unavailable for what is older than this server.
        """
        behind_us = now_us - signed.created_us
        if not -_AHEAD_US <= behind_us <= _BEHIND_US:
            side = "behind" if behind_us > 0 else "ahead of"
            raise Rejection(
                "signature_untimely",
                f"created_us is {abs(behind_us) / MICROSECONDS_PER_SECOND:.3f} s {side} this server's clock; "
                f"expected at most {SIGNATURE_SECONDS_MAX} s behind or {AHEAD_SECONDS_MAX} s ahead",
            )
        if signed.created_us <= self._began_us + _AHEAD_US:
            raise Unavailable(
                "signed_before_start",
                f"signed before this server's first {AHEAD_SECONDS_MAX} s were over; sign again",
            )

    def use(self, account: str, signed: Signed, now_us: int) -> None:
        """Remember the nonce of a request whose signature is right.

        Raises Rejection: `signature_replayed` for one that was used, `too_many_signatures`.
        """
        self._forget(now_us)
        digest = hashlib.sha256(f"{signed.public_id}:{signed.nonce}".encode()).digest()[:16]
        if digest in self._known:
            raise Rejection("signature_replayed", "this nonce was used before")
        if len(self._known) >= NONCES_MAX or self._by_account[account] >= NONCES_PER_ACCOUNT_MAX:
            raise Rejection("too_many_signatures", "this server remembers all the nonces it can")
        self._known.add(digest)
        self._by_account[account] += 1
        self._oldest_first.append((now_us, account, digest))

    def _forget(self, now_us: int) -> None:
        while self._oldest_first and self._oldest_first[0][0] < now_us - _AHEAD_US - _BEHIND_US:
            _, account, digest = self._oldest_first.popleft()
            self._known.discard(digest)
            self._by_account[account] -= 1
            if not self._by_account[account]:
                del self._by_account[account]
