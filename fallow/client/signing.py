"""A bot's own key pair: the file it is kept in, and the signature of each request.

The file (mode 0600) is a line `Fallow-Key: <public id>`, by which the server knows the other half, and the
private half as PEM. What is signed is decided in api/signing.py. The private half never leaves this machine.
"""

import base64
import os
import re
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from api.signing import (
    NONCE_CHARACTERS,
    Parts,
    Signed,
    digest_of,
    format_signed,
    request_text,
    socket_text,
)
from auction.clock import SystemClock
from auction.ids import random_token

FILE_BYTES_MAX = 4_096

_HEAD = re.compile(rb"Fallow-Key: ([0-9A-Za-z]{10})\n(?=-----BEGIN )")


class SigningKey:
    """The private half of a key pair, and the public id under which the server knows the other half."""

    def __init__(self, public_id: str, private: Ed25519PrivateKey) -> None:
        self.public_id = public_id
        self._private = private

    def __repr__(self) -> str:
        return f"<SigningKey {self.public_id}>"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key's file; raises ValueError for one that is not ours, or that others may read."""
        try:
            with Path(path).expanduser().open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ValueError(f"{path} holds a key and others may read it; chmod 600 it")
                raw = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        head = _HEAD.match(raw)
        if head is None or len(raw) > FILE_BYTES_MAX:
            raise ValueError(f"{path}: expected a line `Fallow-Key: …` and a PEM private key")
        try:
            private = load_pem_private_key(raw[head.end() :], password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError(f"{path}: expected an ed25519 private key as PEM, without a password") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError(f"{path}: expected an ed25519 key")
        return cls(head[1].decode(), private)

    def headers(self, method: str, target: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Return the headers that sign a request; `target` is its path and query as they are sent."""
        digest = digest_of(body)
        parts = Parts(
            method,
            target,
            content_type=headers.get("Content-Type", ""),
            content_digest=digest,
            idempotency_key=headers.get("Idempotency-Key", ""),
            if_match=headers.get("If-Match", ""),
        )
        # A clock of its own: a bot that runs for months follows the wall as it is set.
        created_us, nonce = SystemClock().now_us(), random_token(NONCE_CHARACTERS)
        signature = self._private.sign(request_text(parts, self.public_id, created_us, nonce))
        signed = format_signed(Signed(self.public_id, created_us, nonce, signature))
        return {"Authorization": signed} | ({"Content-Digest": digest} if digest else {})

    def proof(self, session: str) -> dict[str, str]:
        """Return what signs a socket's session in its `auth` message."""
        signature = self._private.sign(socket_text(self.public_id, session))
        return {"public_id": self.public_id, "signature": base64.b64encode(signature).decode()}


class NewKeyFile:
    """A key pair on its way into a file that did not exist: first the private half, then its public id."""

    def __init__(self, path: Path) -> None:
        """Make the pair and the file, mode 0600; raises ValueError where there is one already."""
        private = Ed25519PrivateKey.generate()
        self._path = path
        self._pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode()
        try:
            # Before the server hears of it: a key without its private half would be of no use.
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        self._write(self._pem)

    def name(self, public_id: str) -> None:
        """Write the id that the server gave, and close the file."""
        self._write(f"Fallow-Key: {public_id}\n".encode() + self._pem)
        os.close(self._descriptor)

    def drop(self) -> None:
        """Remove the file: the server did not take the key."""
        os.close(self._descriptor)
        self._path.unlink()

    def _write(self, content: bytes) -> None:
        written = os.pwrite(self._descriptor, content, 0)
        assert written == len(content)
        os.fsync(self._descriptor)


def loaded(key: SigningKey | str | Path) -> SigningKey:
    """Return the key of a file, or the key itself."""
    return key if isinstance(key, SigningKey) else SigningKey.load(key)
