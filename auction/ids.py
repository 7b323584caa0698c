"""Identifiers: the only place that draws randomness, and the keyed derivation used inside a tick.

Ids that enter with a command are random and are written into the journal with it. Ids that a tick
creates (leases, notices) are derived from the tick's seed, so a replay creates the same ones.
"""

import hashlib
import os
import secrets

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 20  # log2(36^20) = 103 bits
_POOL_BYTES = 4_096


# Two digits at a time, the lower one first: a tick may name a hundred thousand objects.
_PAIRS = [low + high for high in _ALPHABET for low in _ALPHABET]


def _encode(value: int) -> str:
    digits = []
    for _ in range(_ID_LENGTH // 2):
        value, pair = divmod(value, 36 * 36)
        digits.append(_PAIRS[pair])
    return "".join(digits)


# Of the system, some two hundred ids at a time: a system call for each was most of what an id cost. A byte is
# a digit; bytes from 252 = 7 x 36 on are dropped, or some digits would come more often than others.
_DIGITS = bytes(ord(_ALPHABET[value % 36]) for value in range(256))
_UNFAIR = bytes(range(256 - 256 % 36, 256))
_pool: list[str] = []
os.register_at_fork(after_in_child=_pool.clear)  # a forked process would hand out the same ids again


def random_id(prefix: str) -> str:
    """Return a new random id such as `bid_4k…`."""
    if not _pool:
        digits = secrets.token_bytes(_POOL_BYTES).translate(_DIGITS, _UNFAIR).decode()
        _pool.extend(digits[at - _ID_LENGTH : at] for at in range(_ID_LENGTH, len(digits) + 1, _ID_LENGTH))
    return f"{prefix}_{_pool.pop()}"


def derived_id(prefix: str, seed: str, number: int) -> str:
    """Return the id that `seed` (hex) gives to its `number`-th object of this kind."""
    digest = hashlib.sha256(f"{prefix}:{seed}:{number}".encode()).digest()
    return f"{prefix}_{_encode(int.from_bytes(digest[:16], 'big'))}"


def arrival_hash(seed: str, bid_id: str) -> int:
    """Return the keyed hash that orders arrivals inside one tick (RULES.md R4), 63 bits."""
    digest = hashlib.blake2b(bid_id.encode(), key=bytes.fromhex(seed)[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def random_token(length: int) -> str:
    """Return `length` random base62 characters."""
    alphabet = _ALPHABET + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(secrets.choice(alphabet) for _ in range(length))


def random_bytes(length: int) -> bytes:
    """Return `length` random bytes: key material."""
    return secrets.token_bytes(length)


def random_below(bound: int) -> int:
    """Return a random integer in [0, bound)."""
    return secrets.randbelow(bound)
