"""Signing keys on disk: an ed25519 key that signs a bot's requests and never leaves its machine.

The file is PEM (PKCS #8, not encrypted, for its owner's eyes only) behind one line that names the key as the
market knows it. `key="@FILE"`, or FALLOW_KEY=@FILE, has a client sign with it.
"""

import os
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from api.signatures import NONCE_CHARACTERS, sign
from auction.clock import SystemClock
from auction.ids import random_token

FILE_BYTES_MAX = 4_096
_NAME = re.compile(rb"^Fallow-Key: ([0-9A-Za-z]{10})$", re.MULTILINE)


class SigningKey:
    """A key file's contents; `authorization` signs one request."""

    def __init__(self, public_id: str, private_key: Ed25519PrivateKey) -> None:
        self.public_id = public_id
        self._private_key = private_key
        self._clock = SystemClock()

    def authorization(self, method: str, target: str, body: bytes, nonce: str | None = None) -> str:
        """Return the header of a request for `target`, the path with its query as sent."""
        return sign(
            self._private_key,
            self.public_id,
            method=method,
            target=target,
            at_us=self._clock.now_us(),
            nonce=nonce or random_token(NONCE_CHARACTERS),
            body=body,
        )


def load_signing_key(path: Path) -> SigningKey:
    """Read a key file; raises ValueError where it is not one, or others may read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise ValueError(f"{path}: others may read it; chmod 600 {path}")
    name = _NAME.search(raw)
    if name is None or len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: expected a file that `fallow key create --ed25519` made")
    try:
        private_key = load_pem_private_key(raw, None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(private_key, Ed25519PrivateKey):
        raise ValueError(f"{path}: expected an ed25519 key")
    return SigningKey(name[1].decode(), private_key)


class NewKeyFile:
    """A key made here: its file is there, for its owner only, before the market hears of the public half."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where the file exists or cannot be made."""
        self._private_key = Ed25519PrivateKey.generate()
        self.public_key = self._private_key.public_key().public_bytes_raw()
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None

    def write(self, public_id: str) -> None:
        """Keep the key under the name that the market gave it."""
        pem = self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(self._descriptor, "wb") as file:
            file.write(f"Fallow-Key: {public_id}\n".encode() + pem)
            file.flush()
            os.fsync(file.fileno())
