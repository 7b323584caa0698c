"""The two codecs, and which of them a message gets.

JSON and msgpack carry the same field names and come from the same structs. Content-Type names what
the client sends, Accept what it reads; without an Accept it is answered in what it sent.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from api.fields import decode_field

T = TypeVar("T")


class Codec:
    """One way to write structs as bytes. Decoders are built once per struct."""

    def __init__(
        self, content_type: str, problem_type: str, encode: Callable[[Any], bytes], decoder: Any
    ) -> None:
        self.content_type = content_type
        self.problem_type = problem_type
        self.encode = encode
        self._decoder = decoder
        self._decoders: dict[Any, Any] = {}

    def decode(self, body: bytes, kind: type[T]) -> T:
        """Read `body`; raises msgspec.DecodeError (malformed) or its ValidationError (values)."""
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = self._decoder(kind, dec_hook=decode_field)
        value: T = decoder.decode(body)
        return value


JSON = Codec(
    "application/json",
    "application/problem+json",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder,
)
MSGPACK = Codec(
    "application/msgpack",
    "application/problem+msgpack",
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder,
)

_BY_CONTENT_TYPE = {
    "application/json": JSON,
    "application/problem+json": JSON,
    "application/msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/problem+msgpack": MSGPACK,
}
CSV = "text/csv"
OURS = "ours"
_ANY = frozenset({"*/*", "application/*"})


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list, newest first; `next_cursor` is null on the last one."""

    data: list[T]
    next_cursor: str | None = None


def codec_of(content_type: str) -> Codec | None:
    """Return the codec that a Content-Type names, or None."""
    return _BY_CONTENT_TYPE.get(content_type.partition(";")[0].strip().lower())


def codec_for_answer(accept: str | None, content_type: str | None) -> Codec | None:
    """Return the codec the client reads; None when its Accept leaves none of ours."""
    fallback = (codec_of(content_type) if content_type else None) or JSON
    if not accept:
        return fallback
    best: tuple[float, Codec] | None = None
    for part in accept[:1024].split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        codec = fallback if media in _ANY else _BY_CONTENT_TYPE.get(media)
        if codec is not None and quality > 0 and (best is None or quality > best[0]):
            best = (quality, codec)
    return best[1] if best else None


def prefers_csv(accept: str | None) -> bool:
    """Say whether a client asks for CSV, and for JSON or msgpack no more than that."""
    named = {CSV: 0.0, OURS: 0.0}
    for part in (accept or "")[:1024].split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind = CSV if media == CSV else OURS if media in _BY_CONTENT_TYPE else None
        if kind is not None:
            named[kind] = max(named[kind], _quality(parameters))
    return 0.0 < named[CSV] >= named[OURS]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            digits = value.strip()
            return float(digits) if digits.replace(".", "", 1).isdecimal() and digits.isascii() else 0.0
    return 1.0
