"""Signed requests: what the holder of an ed25519 key signs, and how a server reads it.

    Authorization: Ed25519 key=<public id>,at=<Unix time, microseconds>,nonce=<16 to 64 characters>,
        body=<SHA-256 of the body>,signature=<Ed25519 over `canonical`>

Hashes and signatures are base64url without padding (RFC 4648); the signature is RFC 8032's. The private key
never leaves its holder. A signature holds for one method, target, body and moment, and once: `Nonces`. HTTP
Message Signatures (RFC 9421) would say the same with many more ways to say it.
"""

import base64
import hashlib
import re
from collections import deque
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEME = "Ed25519"
VERSION = "fallow-ed25519-1"
WINDOW_US = 30_000_000  # a signer's clock may be off by so much
NONCES_MAX = 200_000
NONCE_CHARACTERS = 22  # of a client's own: 128 bits
PUBLIC_KEY_BYTES = 32

_FORM = re.compile(
    r"key=([0-9A-Za-z]{10}),at=([0-9]{1,18}),nonce=([0-9A-Za-z_-]{16,64}),"
    r"body=([0-9A-Za-z_-]{43}),signature=([0-9A-Za-z_-]{86})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Signed:
    """What a header claims; nothing of it is checked yet."""

    public_id: str
    at_us: int
    nonce: str
    body_sha256: bytes
    signature: bytes


class Nonces:
    """Which signatures were taken within the window. Bounded: a full one refuses and forgets none."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._order: deque[tuple[int, tuple[str, str]]] = deque()

    def take(self, signed: Signed, now_us: int) -> bool:
        """Remember a signature; False where it was taken before. Raises OverflowError when full."""
        while self._order and self._order[0][0] <= now_us:
            self._taken.discard(self._order.popleft()[1])
        name = signed.public_id, signed.nonce
        if name in self._taken:
            return False
        if len(self._taken) >= NONCES_MAX:
            raise OverflowError(f"{NONCES_MAX} signatures were taken within {WINDOW_US // 500_000} s")
        self._taken.add(name)
        self._order.append((now_us + 2 * WINDOW_US, name))
        return True


def canonical(method: str, target: str, at_us: int, nonce: str, body_sha256: bytes) -> bytes:
    """Return the bytes that are signed; `target` is the path with its query, as sent."""
    lines = (VERSION, method, target, str(at_us), nonce, encode(body_sha256))
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def parse(text: str) -> Signed | None:
    """Read what follows the scheme's name; None where the form is wrong."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Signed(match[1], int(match[2]), match[3], decode(match[4]), decode(match[5]))


def is_signed_by(public_key: bytes, signed: Signed, method: str, target: str) -> bool:
    """Say whether the key's holder signed this request."""
    message = canonical(method, target, signed.at_us, signed.nonce, signed.body_sha256)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed.signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(
    private_key: Ed25519PrivateKey,
    public_id: str,
    *,
    method: str,
    target: str,
    at_us: int,
    nonce: str,
    body: bytes,
) -> str:
    """Return the Authorization header of a request."""
    digest = hashlib.sha256(body).digest()
    signature = encode(private_key.sign(canonical(method, target, at_us, nonce, digest)))
    return f"{SCHEME} key={public_id},at={at_us},nonce={nonce},body={encode(digest)},signature={signature}"


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
