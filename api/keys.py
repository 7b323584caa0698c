"""API keys: their text form, how one is made, how one is checked.

`fal_<live|test>_<10-char public id>_<43-char secret><6-char crc>`, all base62. The checksum lets a
scanner and this server tell a key from junk without a look-up; only SHA-256 of the secret is stored.
A 256-bit random secret needs no slow hash: it cannot be guessed.
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
    """Make a key; return (what is stored, the text shown once)."""
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


def rotate(key: ApiKey, *, is_live: bool, now_us: int, overlap_us: int) -> tuple[ApiKey, str]:
    """Give a key a new secret, the old one staying good for a while; return (row, the text shown once)."""
    fresh, text = mint_key(key.account, key.name, key.scopes, is_live=is_live, now_us=now_us)
    rotated = replace(
        key,
        public_id=fresh.public_id,
        secret_sha256=fresh.secret_sha256,
        previous_public_id=key.public_id if overlap_us else None,
        previous_secret_sha256=key.secret_sha256 if overlap_us else None,
        previous_until_us=now_us + overlap_us if overlap_us else None,
    )
    return rotated, text


def matches(key: ApiKey | None, presented: PresentedKey, now_us: int) -> bool:
    """Compare in constant time; an absent key takes the same path as a wrong secret."""
    expected = _NO_KEY if key is None else key.secret_sha256
    is_valid = key is not None
    if key is not None and presented.public_id == key.previous_public_id:
        assert key.previous_secret_sha256 is not None and key.previous_until_us is not None
        expected, is_valid = key.previous_secret_sha256, now_us < key.previous_until_us
    return hmac.compare_digest(expected, hash_secret(presented.secret)) and is_valid
