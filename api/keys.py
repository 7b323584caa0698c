"""API keys: their text form, how one is made, how one is checked.

`fal_<live|test>_<10-char public id>_<43-char secret><6-char crc>`, all base62. The checksum lets a
scanner and this server tell a key from junk without a look-up; only SHA-256 of the secret is stored.
A 256-bit random secret needs no slow hash: it cannot be guessed. Of an ed25519 key only the public half is
known here (signing.py); it has a public id and no secret.
"""

import hashlib
import hmac
import re
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from auction.ids import random_id, random_token
from auction.model import ApiKey

PUBLIC_ID_CHARACTERS = 10
SECRET_CHARACTERS = 43  # 43 * log2(62) = 256 bits
CHECKSUM_CHARACTERS = 6  # 62^6 > 2^32
PUBLIC_ID_PLACE = slice(9, 9 + PUBLIC_ID_CHARACTERS)  # in a key's text, behind fal_live_ or fal_test_

ROLE_SCOPES: dict[str, tuple[str, ...]] = {
    "buyer": ("bids:read", "bids:write"),
    "owner": ("supply:read", "supply:write", "agent"),
    "operator": ("operator:read", "operator:write"),
}
_COMMON_SCOPES = ("audit:read", "billing:read", "billing:write", "keys:write", "webhooks:write")

_ALPHABET = string.digits + string.ascii_lowercase + string.ascii_uppercase
_KEY = re.compile(r"fal_(live|test)_([0-9A-Za-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_NO_KEY = hashlib.sha256(b"no such key").digest()


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key as a client sent it."""

    is_live: bool
    public_id: str
    secret: str


def scopes_of(roles: Sequence[str]) -> list[str]:
    """Return every scope that an account with these roles may use."""
    return [*(scope for role in sorted(set(roles)) for scope in ROLE_SCOPES[role]), *_COMMON_SCOPES]


def mint_key(
    account: str,
    name: str,
    scopes: Sequence[str],
    *,
    is_live: bool,
    now_us: int,
    expires_at_us: int | None = None,
    allowed_networks: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """Make a key with a secret; return (what is stored, the text shown once)."""
    public_id = random_token(PUBLIC_ID_CHARACTERS)
    secret = random_token(SECRET_CHARACTERS)
    stem = f"fal_{'live' if is_live else 'test'}_{public_id}_{secret}"
    key = ApiKey(
        id=random_id("key"),
        account=account,
        public_id=public_id,
        secret_sha256=hash_secret(secret),
        name=name,
        scopes=sorted(set(scopes)),
        created_at_us=now_us,
        expires_at_us=expires_at_us,
        allowed_networks=sorted(set(allowed_networks)),
    )
    return key, stem + checksum(stem)


def parse_key(text: str) -> PresentedKey | None:
    """Read a key's text; None when the form or the checksum is wrong."""
    match = _KEY.fullmatch(text)
    if match is None or checksum(text[:-CHECKSUM_CHARACTERS]) != match[4]:
        return None
    return PresentedKey(match[1] == "live", match[2], match[3])


def checksum(stem: str) -> str:
    """Return the CRC-32 of the key's text before it, as six base62 characters."""
    value = zlib.crc32(stem.encode())
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def as_pair(key: ApiKey, public_key: bytes) -> ApiKey:
    """Return a key without its secret: its holder signs with the other half of this pair."""
    return replace(key, secret_sha256=None, public_key=public_key)


def rotate(
    key: ApiKey, *, is_live: bool, now_us: int, overlap_us: int, public_key: bytes | None = None
) -> tuple[ApiKey, str]:
    """Give a key a new secret, or a pair its new public half, the old one staying good for a while.

    Return (row, the text shown once).
    """
    assert (public_key is None) == (key.public_key is None)
    fresh, text = mint_key(key.account, key.name, key.scopes, is_live=is_live, now_us=now_us)
    rotated = replace(
        key,
        public_id=fresh.public_id,
        secret_sha256=fresh.secret_sha256 if public_key is None else None,
        public_key=public_key,
        previous_public_id=key.public_id if overlap_us else None,
        previous_secret_sha256=key.secret_sha256 if overlap_us else None,
        previous_public_key=key.public_key if overlap_us else None,
        previous_until_us=now_us + overlap_us if overlap_us else None,
    )
    return rotated, text


def is_current(key: ApiKey, public_id: str, now_us: int) -> bool:
    """Say whether a key that is known by this id may still be used: not revoked, expired or rotated away."""
    if key.revoked_at_us is not None or (key.expires_at_us is not None and key.expires_at_us <= now_us):
        return False
    return public_id == key.public_id or (
        key.previous_until_us is not None and now_us < key.previous_until_us
    )


def secret_hash_of(key: ApiKey, public_id: str) -> bytes | None:
    """Return the hash of the secret that belongs to this id; None for a pair."""
    return key.secret_sha256 if public_id == key.public_id else key.previous_secret_sha256


def public_key_of(key: ApiKey, public_id: str) -> bytes | None:
    """Return the public half that belongs to this id; None for a key with a secret."""
    return key.public_key if public_id == key.public_id else key.previous_public_key


def matches(key: ApiKey | None, presented: PresentedKey) -> bool:
    """Compare in constant time; an absent key takes the same path as a wrong secret."""
    expected = None if key is None else secret_hash_of(key, presented.public_id)
    is_right = hmac.compare_digest(expected or _NO_KEY, hash_secret(presented.secret))
    return is_right and expected is not None
