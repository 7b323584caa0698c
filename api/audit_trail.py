"""What of a request is written down in the audit log.

Every request that changed something outside the auction's own flow (keys, limits, webhooks, money, nodes,
offers, markets, accounts) is in it, with who asked; bids, leases and notices are in the journal. A row is
written when the change is durable and before the answer leaves, so that nobody is told of a change without
one. Secrets never are: what is kept is the answer as it is stored for repeats.
"""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from api.admit import address_of
from api.call import Call, Reply
from api.codec import codec_of
from auction.ports import Answer
from sql.audit_log import Act

TEXT_BYTES_MAX = 8_192  # of a request or an answer; of a longer one the hash must do


class _Named(Struct, frozen=True):
    id: str | None = None


async def record(call: Call[Any, Any], scope: str, reply: Reply[Any], before: Struct | None = None) -> None:
    """Write a request that has succeeded down, with what it changed; raises Unavailable."""
    principal = call.principal
    assert principal is not None
    answer = reply.kept or reply.answer
    if "Idempotency-Replayed" in reply.headers:
        before = None  # nothing was changed this time
    if answer is None:
        value = reply.value
        answer = Answer(reply.status, "", b"") if value is None else call.answer(reply.status, value)
    if answer.status >= 400:
        return
    await call.services.audit_log.append(
        Act(
            at_us=call.now_us,
            account=principal.account,
            key=principal.key,
            scope=scope,
            address=address_of(call.request, behind_proxy=call.services.config.behind_proxy),
            request_id=call.request_id,
            method=call.request.method,
            path=call.request.rel_url.raw_path[:1_024],
            request_sha256=hashlib.sha256(call.raw).digest(),
            request=_json(call.raw, call.request.headers.get("Content-Type", "")),
            status=answer.status,
            subject=_subject(answer),
            answer=_json(answer.body, answer.content_type),
            before=None if before is None else msgspec.json.encode(before).decode(),
        )
    )


def _json(body: bytes, content_type: str) -> str | None:
    codec = codec_of(content_type)
    if codec is None or not body or len(body) > TEXT_BYTES_MAX:
        return None
    return msgspec.json.encode(codec.decode(body, dict)).decode()


def _subject(answer: Answer) -> str | None:
    codec = codec_of(answer.content_type)
    return codec.decode(answer.body, _Named).id if codec is not None and answer.body else None
