"""/openapi.json, made from the routes and the very structs that decode the requests.

Decides nothing: what a route declares is what is written. OpenAPI 3.1.
"""

import re
from typing import Any

import msgspec

from api import signing
from api.browser import COOKIE
from api.call import ETAG, IDEMPOTENCY_KEY
from api.event_stream import StreamQuery
from api.fields import schema_of_field
from api.intake import is_all_optional
from api.problems import PROBLEMS
from api.routes import NoBody, Route
from api.web.pages import guide
from api.wire import ProblemView

_REF = "#/components/schemas/{name}"
_PATH_PART = re.compile(r"\{([a-z_]+)\}")
_MEDIA = ("application/json", "application/msgpack")
_PROBLEM_MEDIA = ("application/problem+json", "application/problem+msgpack")

SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "key": {"type": "http", "scheme": "bearer"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"An ed25519 key signs each request; what and how:\n\n```text\n{signing.__doc__}\n```",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"What `POST /v1/sessions` sets; over TLS its name is `__Host-{COOKIE}`.",
    },
}

STREAM_PATH = "/v1/stream"
_KEY = {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"}
_VERSION = {"type": "string", "pattern": f"^{ETAG.pattern}$"}
_VERSION_OR_ANY = {"type": "string", "pattern": f"^({ETAG.pattern}|[*])$"}


def describe(routes: list[Route], version: str) -> bytes:
    """Return the OpenAPI document of these routes, as JSON."""
    return msgspec.json.encode(document(routes, version))


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    types: list[Any] = [ProblemView, StreamQuery]
    for route in routes:
        types += [route.body, route.query, route.view]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=schema_of_field, ref_template=_REF
    )
    problem = schemas[0]
    paths: dict[str, dict[str, Any]] = {}
    for number, route in enumerate(routes):
        body, query, view = schemas[2 + 3 * number : 5 + 3 * number]
        operation = _operation(route, body, components[_name(query)], view, problem)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    paths[STREAM_PATH] = {"get": _stream(components[_name(schemas[1])], problem)}
    for unused in {route.query for route in routes} | {NoBody, StreamQuery}:
        components.pop(unused.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fallow",
            "version": version,
            "description": guide(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": section} for section in dict.fromkeys(route.section for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": SECURITY_SCHEMES,
        },
        "x-problems": {code: kind.status for code, kind in sorted(PROBLEMS.items())},
    }


def _operation(route: Route, body: Any, query: Any, view: Any, problem: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.section],
        "parameters": [*_path_parameters(route), *_query_parameters(query), *_header_parameters(route)],
        "responses": {
            str(route.status): {
                "description": "Done",
                "content": _content((route.media,) if route.media else _MEDIA, view)
                | _content(route.also if route.row is None else ("text/csv",), {"type": "string"}),
            },
            "default": {"description": "Refused", "content": _content(_PROBLEM_MEDIA, problem)},
        },
    }
    if route.scope is not None:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
    operation["description"] = "\n\n".join(_described(route))
    if route.body is not NoBody:
        operation["requestBody"] = {
            "required": not is_all_optional(route.body),
            "content": _content(_MEDIA, body),
        }
    return operation


def _stream(query: dict[str, Any], problem: Any) -> dict[str, Any]:
    """Describe the one route that does not end: event_stream.py."""
    return {
        "operationId": "stream",
        "summary": "Follow ticks, and with a key your account's events, as Server-Sent Events.",
        "description": "`event: tick` has a market's tick with its curve, `event: bid`, `lease`, … the "
        "event as `GET /v1/events` shows it. `Last-Event-ID` resumes the account's events without a gap; of "
        "ticks the newest counts.\n\nPublic; with `account=true` scope: `bids:read or supply:read`.",
        "tags": ["event feed"],
        "parameters": [
            *_query_parameters(query),
            {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}},
        ],
        "responses": {
            "200": {
                "description": "It begins",
                "content": _content(("text/event-stream",), {"type": "string"}),
            },
            "default": {"description": "Refused", "content": _content(_PROBLEM_MEDIA, problem)},
        },
        "security": [{}, *({name: []} for name in SECURITY_SCHEMES)],
    }


def _described(route: Route) -> list[str]:
    scope = "Public." if route.scope is None else f"Scope: `{route.scope}`."
    return [scope] if route.more is None else [route.more, scope]


def _content(media: tuple[str, ...], schema: Any) -> dict[str, Any]:
    return {name: {"schema": schema} for name in media}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PART.findall(route.path)
    ]


def _query_parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": kind}
        for name, kind in schema["properties"].items()
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    if route.method == "GET":
        return []
    headers = [_header("Idempotency-Key", _KEY)] if route.is_keyed else []
    if route.if_match == "required":
        headers.append(_header("If-Match", _VERSION, is_required=True))
    elif route.if_match == "optional":
        headers.append(_header("If-Match", _VERSION_OR_ANY))
    return headers


def _header(name: str, schema: dict[str, Any], *, is_required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": is_required, "schema": schema}


def _name(reference: dict[str, Any]) -> str:
    name: str = reference["$ref"].rpartition("/")[2]
    return name
