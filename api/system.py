"""Health, version, the API's own description, and the page behind every problem code."""

import html
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from api.problems import PROBLEMS, Kind
from api.services import SERVICES
from api.web.assets import get_asset
from api.web.front import get_front
from api.web.pages import get_docs, stream_page
from auction.errors import NotFound, Unavailable

OPENAPI: web.AppKey[bytes] = web.AppKey("openapi", bytes)
ASYNCAPI: web.AppKey[dict[str, Any]] = web.AppKey("asyncapi", dict)

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{code}</title>
<body><h1>{title}</h1>
<p><code>{code}</code>, HTTP status {status}</p>
<h2>Cause</h2><p>{title}. The <code>detail</code> of the answer says what was found.</p>
<h2>Fix</h2><p>{fix}</p>
<h2>Example</h2><pre>{example}</pre>
</body></html>
"""
_EXAMPLE = """{{"type": "/problems/{code}", "title": "{title}", "status": {status}, "detail": "…",
 "code": "{code}", "request_id": "req_…", "retryable": {retryable}}}"""


async def livez(request: web.Request) -> web.Response:
    """Say that the process runs."""
    return web.json_response({"status": "live"})


async def readyz(request: web.Request) -> web.Response:
    """Say whether the market answers."""
    services = request.app[SERVICES]
    if not services.engine.is_ready or services.doorway.is_closed:
        raise Unavailable("not_ready", "the engine is starting, stopping or without its database")
    return web.json_response({"status": "ready"})


async def get_version(request: web.Request) -> web.Response:
    """Tell the version."""
    return web.json_response({"name": "fallow", "version": version("fallow"), "api": "v1"})


async def get_openapi(request: web.Request) -> web.Response:
    """Describe this API."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


async def get_asyncapi(request: web.Request) -> web.Response:
    """Describe the socket."""
    return web.Response(body=msgspec.json.encode(request.app[ASYNCAPI]), content_type="application/json")


async def get_stream_docs(request: web.Request) -> web.Response:
    """Show the socket's messages."""
    return stream_page(request.app[ASYNCAPI])


async def get_problem(request: web.Request) -> web.Response:
    """Explain a problem code: cause, fix, example."""
    code = request.match_info["code"]
    kind = PROBLEMS.get(code)
    if kind is None:
        raise NotFound("problem")
    return web.Response(text=problem_page(code, kind), content_type="text/html")


def problem_page(code: str, kind: Kind) -> str:
    """Write the page of one code."""
    retryable = "true" if kind.is_retryable else "false"
    example = _EXAMPLE.format(code=code, title=kind.title, status=kind.status, retryable=retryable)
    return _PAGE.format(
        code=code,
        title=html.escape(kind.title),
        status=kind.status,
        fix=html.escape(kind.fix),
        example=html.escape(example),
    )


SYSTEM_ROUTES = [
    web.get("/", get_front),
    web.get("/livez", livez),
    web.get("/readyz", readyz),
    web.get("/version", get_version),
    web.get("/openapi.json", get_openapi),
    web.get("/asyncapi.json", get_asyncapi),
    web.get("/docs", get_docs),
    web.get("/docs/stream", get_stream_docs),
    web.get("/web/{digest}/{name:.+}", get_asset),
    web.get("/problems/{code}", get_problem),
]
