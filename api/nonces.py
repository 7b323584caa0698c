"""Which signed requests are new: inside the window of time, and never seen before.

A signature holds for SIGNATURE_SECONDS_MAX around the server's time, and its nonce is remembered for as long.
Memory is bounded, and a full one refuses: what was forgotten could be sent again. What was signed before this
server began is refused too, because the nonces of the one before it are gone; its sender signs anew. One
process takes the requests: a second one would need to know the nonces of the first.
"""

import hashlib
from collections import Counter, deque

from api.signing import Signed
from auction.errors import Rejection, Unavailable
from auction.units import MICROSECONDS_PER_SECOND

SIGNATURE_SECONDS_MAX = 30  # that a signer's clock may be before or behind the server's
NONCES_MAX = 500_000
NONCES_PER_ACCOUNT_MAX = 60_000

_WINDOW_US = SIGNATURE_SECONDS_MAX * MICROSECONDS_PER_SECOND


class Nonces:
    """The nonces of the last minute."""

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
        if abs(behind_us) > _WINDOW_US:
            side = "behind" if behind_us > 0 else "ahead of"
            raise Rejection(
                "signature_untimely",
                f"created_us is {abs(behind_us) / MICROSECONDS_PER_SECOND:.3f} s {side} this server's clock; "
                f"expected at most {SIGNATURE_SECONDS_MAX} s",
            )
        if signed.created_us <= self._began_us:
            raise Unavailable(
                "signed_before_start", "this server has begun after that was signed; sign again"
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
        while self._oldest_first and self._oldest_first[0][0] < now_us - 2 * _WINDOW_US:
            _, account, digest = self._oldest_first.popleft()
            self._known.discard(digest)
            self._by_account[account] -= 1
            if not self._by_account[account]:
                del self._by_account[account]
