"""Signed requests: what the holder of an ed25519 key signs, and how the signature travels.

    Authorization: Fallow-Ed25519 key=<public id>,created_us=<n>,nonce=<text>,signature=<base64>
    Content-Digest: sha-256=:<base64 of the body's SHA-256>:        (RFC 9530; only with a body)

Signed are ten lines, joined by line feeds: `fallow-ed25519-http-v1`, the public id, `created_us` (in
microseconds since 1970), the nonce, the method, the target as sent (path and query), and Content-Type,
Content-Digest, Idempotency-Key and If-Match, each empty where it is not sent. A socket signs three lines:
`fallow-ed25519-socket-v1`, the public id, the `session` of the server's `hello`.

One fixed text instead of RFC 9421: nobody chooses what is covered, so nothing that matters can be left out,
and a bot in any language writes it in ten lines. What RFC 9421 adds is for proxies that rewrite requests.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEME = "Fallow-Ed25519"
PUBLIC_KEY_BYTES = 32
NONCE_CHARACTERS = 22  # log2(62^22) = 131 bits
SIGNATURE_FORM = r"[A-Za-z0-9+/]{86}=="

_HTTP = "fallow-ed25519-http-v1"
_SOCKET = "fallow-ed25519-socket-v1"
_HEADER = re.compile(
    r"(?i:fallow-ed25519) key=(?P<key>[0-9A-Za-z]{10}),created_us=(?P<created>[0-9]{1,18}),"
    rf"nonce=(?P<nonce>[0-9A-Za-z_-]{{16,64}}),signature=(?P<signature>{SIGNATURE_FORM})",
    re.ASCII,
)
# Checked where there is no key: an absent one must take as long as a wrong signature.
_NO_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"no such key").digest()).public_key()


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a request is signed."""

    method: str
    target: str  # path and query as they are sent
    content_type: str = ""
    content_digest: str = ""
    idempotency_key: str = ""
    if_match: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """The credentials of one signed request, as its Authorization header says them."""

    public_id: str
    created_us: int
    nonce: str
    signature: bytes


def parse_signed(authorization: str) -> Signed | None:
    """Read an Authorization header; None when it is not of this scheme or not of its form."""
    match = _HEADER.fullmatch(authorization)
    if match is None:
        return None
    return Signed(match["key"], int(match["created"]), match["nonce"], base64.b64decode(match["signature"]))


def format_signed(signed: Signed) -> str:
    """Write the Authorization header."""
    signature = base64.b64encode(signed.signature).decode()
    return (
        f"{SCHEME} key={signed.public_id},created_us={signed.created_us},"
        f"nonce={signed.nonce},signature={signature}"
    )


def request_text(parts: Parts, public_id: str, created_us: int, nonce: str) -> bytes:
    """Return what is signed for a request."""
    lines = (
        _HTTP,
        public_id,
        str(created_us),
        nonce,
        parts.method,
        parts.target,
        parts.content_type,
        parts.content_digest,
        parts.idempotency_key,
        parts.if_match,
    )
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def socket_text(public_id: str, session: str) -> bytes:
    """Return what is signed for a WebSocket's `auth` message."""
    return "\n".join((_SOCKET, public_id, session)).encode()


def digest_of(body: bytes) -> str:
    """Return the Content-Digest of a body; an empty one has none."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:" if body else ""


def is_digest_of(body: bytes, content_digest: str) -> bool:
    """Say whether this is the body that was signed."""
    return hmac.compare_digest(digest_of(body).encode(), content_digest.encode("utf-8", "surrogateescape"))


def is_signed_by(public_key: bytes | None, signature: bytes, text: bytes) -> bool:
    """Check a signature; an absent key (None) takes as long, and is never right."""
    holder = _NO_KEY if public_key is None else Ed25519PublicKey.from_public_bytes(public_key)
    try:
        holder.verify(signature, text)
    except InvalidSignature:
        return False
    return public_key is not None
