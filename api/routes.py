"""The typed route layer: one decorator from a plain handler to decoding, scopes, codecs and OpenAPI.

A handler is `async def place(call: Call[Body, Query]) -> Reply[View]`; its annotations are the only
statement of its types, so what is decoded, answered and documented cannot drift apart. Handlers have
no try/except: everything raised becomes a problem in middleware.py.
"""

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from api.admit import admit
from api.audit_trail import record
from api.auth import Principal
from api.call import Call, Reply, respond
from api.codec import Page, codec_for_answer, prefers_csv
from api.fields import decode_field
from api.intake import read_body
from api.rate_limits import BATCH_COST, Bucket
from api.services import SERVICES
from api.sheets import CSV_TYPE, sheet
from auction.errors import Rejection
from sql.scope import EVERYBODY, PUBLIC, Scope, acting, tenant

AUDITED_SCOPES = frozenset(
    ("supply:write", "billing:write", "keys:write", "webhooks:write", "operator:write")
)

IfMatch = Literal["ignored", "optional", "required"]
Handler = Callable[[Call[Any, Any]], Awaitable[Reply[Any]]]
H = TypeVar("H", bound=Callable[..., Awaitable[Any]])


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is sent."""


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters are read."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API."""

    method: str
    path: str
    handler: Handler
    body: type[Struct]
    query: type[Struct]
    view: Any
    scope: str | None  # None: public
    status: int
    is_batch: bool
    bucket: Bucket  # that its requests are counted in, where it has a scope
    also: tuple[str, ...] = ()  # media types that a query may ask for besides JSON and msgpack
    media: str | None = None  # the one media type that it answers in, whatever Accept says
    if_match: IfMatch = "ignored"
    is_keyed: bool = True  # a repeat under its Idempotency-Key gets the first answer
    before: Callable[[Call[Any, Any]], Struct | None] | None = None  # what it changes, as it was
    row: type[Struct] | None = None  # what a list's `data` holds; None for one that answers something else

    @property
    def name(self) -> str:
        return self.handler.__name__.removesuffix("_")

    @property
    def is_audited(self) -> bool:
        """Whether it changes something that the journal does not tell of with its key."""
        return self.method != "GET" and self.scope is not None and self.scope in AUDITED_SCOPES

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or self.name).strip().splitlines()[0]

    @property
    def more(self) -> str | None:
        """What its documentation says behind the summary."""
        return inspect.cleandoc(self.handler.__doc__ or "").partition("\n")[2].strip() or None

    @property
    def section(self) -> str:
        """Where it stands in the documentation: its module's name in words."""
        return self.handler.__module__.rpartition(".")[2].replace("_", " ")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request: who, what, with which values; then the handler, then the bytes."""
        services = request.app[SERVICES]
        headers = request.headers
        content_type, accept = headers.get("Content-Type"), headers.get("Accept")
        is_sheet = self.row is not None and prefers_csv(accept)
        codec = codec_for_answer(None if self.media or is_sheet else accept, content_type)
        if codec is None:
            raise Rejection("not_acceptable", "expected application/json or application/msgpack in Accept")
        cost = BATCH_COST if self.is_batch else 1
        principal = await admit(request, services, self.bucket if self.scope else None, cost)
        if principal is not None and self.scope is not None:
            principal.require(self.scope)
        asked = dict(request.query) if request.rel_url.raw_query_string else {}
        query: Any = msgspec.convert(asked, self.query, strict=False, dec_hook=decode_field)
        raw = b""
        body: Any = None
        if request.method != "GET":
            raw, body = await read_body(
                request,
                services.config,
                self.body,
                is_batch=self.is_batch,
                is_signed=principal is not None and principal.is_signed,
            )
        call = Call(request, services, codec, principal, body, query, raw, self.status)
        with acting(self._reach(principal)):
            before = None if self.before is None else self.before(call)
            reply = await self.handler(call)
            if self.is_audited and self.scope is not None and not reply.is_read:
                await record(call, self.scope, reply, before)
            if is_sheet and reply.value is not None:
                return self._sheet(request, reply.value)
            return respond(reply, codec)

    def _sheet(self, request: web.Request, found: Page[Any]) -> web.Response:
        """Answer with a list's rows as CSV; where there are more, `Link` has their address."""
        assert self.row is not None
        response = web.Response(body=sheet(found.data, self.row.__struct_fields__))
        response.headers["Content-Type"] = CSV_TYPE
        if found.next_cursor is not None:
            more = request.rel_url.update_query(cursor=found.next_cursor)
            response.headers["Link"] = f'<{more.raw_path_qs}>; rel="next"'
        return response

    def _reach(self, principal: Principal | None) -> Scope:
        """Whose rows its statements may see."""
        if principal is None:
            return PUBLIC
        is_operators = self.scope is not None and self.scope.startswith("operator:")
        return EVERYBODY if is_operators else tenant(principal.account)


def route(
    method: str,
    path: str,
    *,
    scope: str | None = None,
    status: int = 200,
    is_batch: bool = False,
    bucket: Bucket = "requests",
    also: tuple[str, ...] = (),
    media: str | None = None,
    if_match: IfMatch = "ignored",
    is_keyed: bool = True,
    before: Callable[[Call[Any, Any]], Struct | None] | None = None,
) -> Callable[[H], Route]:
    """Declare a handler's route; `status` is that of its success."""

    def declare(handler: H) -> Route:
        hints = typing.get_type_hints(handler)
        body, query = typing.get_args(hints["call"])
        (view,) = typing.get_args(hints["return"])
        row = typing.get_args(view)[0] if typing.get_origin(view) is Page else None
        return Route(
            method, path, handler, body, query, view, scope, status,
            is_batch, bucket, also, media, if_match, is_keyed, before, row,
        )  # fmt: skip

    return declare


def routes_of(*modules: ModuleType) -> list[Route]:
    """Return the routes that these modules declare, in the order written."""
    return [value for module in modules for value in vars(module).values() if isinstance(value, Route)]
