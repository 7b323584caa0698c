"""From a request's bytes to its struct, within bounds.

Decides how much is read, for how long and in which form. A body is never decompressed: a kilobyte could
become a gigabyte. One that was signed for is the one that was signed, or is not looked at.
"""

import asyncio
from functools import cache

from aiohttp import web
from msgspec import Struct
from msgspec.structs import fields

from api.codec import JSON, codec_of
from api.config import Config
from api.signing import is_digest_of
from auction.errors import Rejection


async def read_body(
    request: web.Request, config: Config, kind: type[Struct], *, is_batch: bool, is_signed: bool = False
) -> tuple[bytes, Struct]:
    """Return the raw body and its struct; an absent body stands for one without fields.

    Raises Rejection, `content_digest_mismatch` where `is_signed` and it is another body.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise Rejection("unsupported_media_type", "a compressed request body is not read")
    raw = await _read(request, config.batch_body_bytes_max if is_batch else config.body_bytes_max, config)
    if is_signed:
        refuse_other_body(request, raw)
    if not raw and is_all_optional(kind):
        return raw, kind()
    codec = codec_of(request.headers.get("Content-Type", ""))
    if codec is None:
        if not raw:
            # Nothing was sent: what is missing is the better thing to tell.
            return raw, JSON.decode(b"{}", kind)
        raise Rejection(
            "unsupported_media_type", "Content-Type is neither application/json nor application/msgpack"
        )
    return raw, codec.decode(raw, kind)


def refuse_other_body(request: web.Request, raw: bytes) -> None:
    """Refuse a body of another digest than was signed; raises Rejection (`content_digest_mismatch`)."""
    if not is_digest_of(raw, request.headers.get("Content-Digest", "")):
        raise Rejection("content_digest_mismatch", "the body is not the one that was signed")


async def _read(request: web.Request, bytes_max: int, config: Config) -> bytes:
    content, length = request.content, request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    if content.is_eof():
        # All of it came with the headers, as nearly every body does: there is nothing to wait for.
        body = content.read_nowait()
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    parts = bytearray()
    try:
        async with asyncio.timeout(config.body_seconds_max):
            async for chunk in content.iter_any():
                parts += chunk
                if len(parts) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError:
        raise Rejection("request_timeout", f"the body took over {config.body_seconds_max} s") from None
    except ConnectionError:
        # Whoever leaves in the middle of its body is told nothing, and is no fault of ours to be logged.
        raise Rejection("malformed", "the connection ended before the body did") from None
    return bytes(parts)


def _too_large(bytes_max: int) -> Rejection:
    return Rejection("too_large", f"the body exceeds {bytes_max} bytes")


@cache
def is_all_optional(kind: type[Struct]) -> bool:
    """Say whether a body may be left out; one of several kinds may not."""
    return isinstance(kind, type) and not any(field.required for field in fields(kind))
