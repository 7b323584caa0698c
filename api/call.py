"""One request on its way through a handler: its values, the engine behind it, the answer it gets.

Decides how outcomes become stored answers: encoded once, with the commit, so a repeat under the same
idempotency key is byte for byte the first answer. Must not know any particular route.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from api.auth import Principal
from api.codec import Codec, codec_of
from api.errors import RETRY_AFTER_S, problem_answer, problem_of
from api.services import Services
from api.wire import ProblemView
from auction.commands import Command
from auction.core import Core
from auction.errors import NotFound, Rejection
from auction.ports import Answer, KeyedRequest

B = TypeVar("B")
Q = TypeVar("Q")
T = TypeVar("T")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}", re.ASCII)
ETAG = re.compile(r'"([0-9]{1,18})"', re.ASCII)


class Reply(Struct, Generic[T], frozen=True):
    """What a handler answers: a value to encode, or an answer that was stored already."""

    value: T | None = None
    answer: Answer | None = None
    status: int = 200
    headers: dict[str, str] = {}
    kept: Answer | None = None  # what is stored of a value with a secret
    version: int | None = None  # that the answer shows
    is_read: bool = False  # nothing was changed, whatever the method: it is no act for the audit log


class _Versioned(Struct, frozen=True):
    version: int | None = None


class Call(Struct, Generic[B, Q], frozen=True):
    """The request as a handler sees it."""

    request: web.Request
    services: Services
    codec: Codec
    principal: Principal | None
    body: B
    query: Q
    raw: bytes
    status: int

    @property
    def account(self) -> str:
        """Return the account that asks; only routes with a scope may want to know."""
        assert self.principal is not None, "the route is public"
        return self.principal.account

    @property
    def core(self) -> Core:
        return self.services.engine.core

    @property
    def request_id(self) -> str:
        return self.request[REQUEST_ID]

    @property
    def now_us(self) -> int:
        return self.services.engine.clock.now_us()

    def path_part(self, name: str) -> str:
        return self.request.match_info[name]

    def reply(self, value: T) -> Reply[T]:
        """Answer with a value that was read."""
        return Reply(value=value, status=self.status)

    def problem(self, rejection: Rejection) -> ProblemView:
        return problem_of(rejection, self.request_id)

    def answer(self, status: int, value: Struct) -> Answer:
        """Write a value down as it will be stored."""
        return Answer(status, self.codec.content_type, self.codec.encode(value))

    async def submit(
        self,
        command: Command,
        view: Callable[[Any], Any],
        *,
        status: Callable[[Any], int] | None = None,
        absent: Rejection | None = None,
    ) -> Reply[Any]:
        """Have one command decided; answer with `view` of its outcome, or with its rejection.

        `absent` replaces `not_found`: the engine keeps live things only, the caller knows the others.
        """

        version: int | None = None

        def encode(outcomes: list[Any]) -> Answer:
            nonlocal version
            outcome = outcomes[0]
            if isinstance(outcome, Rejection):
                if absent is not None and outcome.code == "not_found":
                    outcome = absent
                return problem_answer(self.problem(outcome), self.codec)
            shown = view(outcome)
            version = getattr(shown, "version", None)
            return self.answer(status(outcome) if status else self.status, shown)

        reply = await self.submit_all([command], encode)
        return reply if version is None else replace(reply, version=version)

    async def submit_all(
        self, commands: Sequence[Command], encode: Callable[[list[Any]], Answer], *, is_atomic: bool = False
    ) -> Reply[Any]:
        """Have commands decided in order; `encode` writes the one answer to all of them."""
        engine = self.services.engine
        answer, is_replay = await engine.submit(
            commands, encode=encode, keyed=self.keyed_request(), is_atomic=is_atomic
        )
        if not is_replay:
            return Reply(answer=answer)
        return Reply(answer=answer, headers={"Idempotency-Replayed": "true"}, version=stored_version(answer))

    def reveal(self, reply: Reply[Any], value: T | None) -> Reply[T]:
        """Show a secret to the first reader only: what is stored, and repeated, is without it."""
        answer = reply.answer
        if answer is None or answer.status >= 300 or "Idempotency-Replayed" in reply.headers:
            return reply
        return Reply(value=value, status=answer.status, headers={"Cache-Control": "no-store"}, kept=answer)

    def keyed_request(self) -> KeyedRequest | None:
        """Return the request's idempotency key with the hash of everything that makes it this request."""
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if IDEMPOTENCY_KEY.fullmatch(key) is None:
            raise Rejection("malformed_header", "Idempotency-Key: expected 1..255 printable ASCII characters")
        parts = (
            self.request.method,
            self.request.rel_url.raw_path,
            self.request.rel_url.raw_query_string,
            self.request.headers.get("Content-Type", ""),
        )
        # Lengths keep "/a" + "b" apart from "/ab" + "".
        head = "".join([f"{len(part)}:{part}\n" for part in parts])
        digest = hashlib.sha256(head.encode("utf-8", "surrogateescape") + self.raw).digest()
        return KeyedRequest(self.account, key, digest)

    def expected_version(self) -> int | None:
        """Return the version that If-Match asks for, None without one or with `*`."""
        text = self.request.headers.get("If-Match")
        if text is None or text.strip() == "*":
            return None
        match = ETAG.fullmatch(text.strip())
        if match is None:
            raise Rejection("malformed_header", 'If-Match: expected one strong ETag such as "3"')
        return int(match[1])

    def required_version(self) -> int:
        """Return the version that If-Match asks for; refuse its absence."""
        version = self.expected_version()
        if version is None:
            raise Rejection("precondition_required", "If-Match with the object's ETag is required")
        return version

    def found(self, value: T | None, what: str) -> T:
        """Return what a read found; absent and not-yours are the same answer."""
        if value is None:
            raise NotFound(what)
        return value


def respond(reply: Reply[Any], codec: Codec) -> web.Response:
    """Turn a reply into bytes and headers."""
    if reply.answer is not None:
        answer, version = reply.answer, reply.version
    else:
        answer = Answer(reply.status, codec.content_type, codec.encode(reply.value))
        version = getattr(reply.value, "version", None)
    headers = {**reply.headers, "Content-Type": answer.content_type}
    if isinstance(version, int) and answer.status < 300:
        headers["ETag"] = f'"{version}"'
    if answer.status in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def stored_version(answer: Answer) -> int | None:
    """Read the version back out of a stored answer, so that a repeat carries the same ETag."""
    codec = codec_of(answer.content_type)
    if answer.status >= 300 or codec is None:
        return None
    return codec.decode(answer.body, _Versioned).version
