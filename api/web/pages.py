"""/docs and its parts: the HTTP contract in swagger-ui, the socket's messages as one plain page.

Nothing is loaded from elsewhere, and the policy sent with each page says so.
"""

import html
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web

from api.web.assets import asset

# swagger-ui draws with inline styles; scripts come from here alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fallow: {title}</title>
<link rel="icon" href="data:,">
{styles}
</head>
<body>
<nav><strong>Fallow</strong> <a href="/docs">HTTP</a> <a href="/docs/stream">Socket</a>
<a href="/openapi.json">openapi.json</a> <a href="/asyncapi.json">asyncapi.json</a></nav>
{body}
</body>
</html>
"""


def guide() -> str:
    """Return the text that begins the documentation, Markdown."""
    return resources.files("api.web").joinpath("guide.md").read_text(encoding="utf-8")


async def get_docs(request: web.Request) -> web.Response:
    """Show the HTTP contract."""
    body = f'<div id="api"></div>\n<script src="{asset("swagger-ui.js").path}"></script>\n'
    body += f'<script src="{asset("docs.js").path}"></script>\n'
    license_path = asset("swagger-ui.license.txt").path
    body += f'<p><small>Shown by swagger-ui, <a href="{license_path}">Apache-2.0</a>.</small></p>'
    return _page("the HTTP API", body, "swagger-ui.css", "docs.css")


def stream_page(described: dict[str, Any]) -> web.Response:
    """Show an AsyncAPI document to people."""
    info, session = described["info"], described["channels"]["session"]
    components = described["components"]
    parts = [f"<h1>The socket</h1><p>{_text(info['description'])}</p>"]
    parts.append(f"<p><code>{_text(session['address'])}</code>. {_text(session['description'])}</p>")
    parts.append("<h2>Channels</h2>" + _table(session["x-channels"].items()))
    for action, title in (("receive", "What you send"), ("send", "What you get")):
        parts.append(f"<h2>{title}</h2>")
        for name, operation in described["operations"].items():
            if operation["action"] == action:
                parts.append(_message(components["messages"][name], components["schemas"]))
    parts.append("<h2>Why it closes</h2>" + _table(session["x-close-codes"].items()))
    return _page("the socket", "\n".join(parts), "docs.css")


def _message(message: dict[str, Any], schemas: dict[str, Any]) -> str:
    payload = message["payload"]
    named = payload["allOf"][0] if "allOf" in payload else payload
    schema = schemas[named["$ref"].rpartition("/")[2]]
    if "allOf" in payload:
        own = payload["allOf"][1]["properties"]
        schema = schema | {"properties": schema["properties"] | own}
    required = schema.get("required", [])
    rows = [
        (name, f"{_kind(kind, schemas)}{'' if name in required else ', optional'}")
        for name, kind in schema["properties"].items()
    ]
    anchor = html.escape(message["name"])
    return f'<section id="{anchor}"><h3><code>{anchor}</code></h3><p>{_text(message["summary"])}</p>' + (
        _table(rows) + "</section>"
    )


def _kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Say in a few words what a field holds."""
    if "$ref" in schema:
        name = str(schema["$ref"].rpartition("/")[2])
        return _kind(schemas[name], schemas) if "enum" in schemas[name] else name
    if "anyOf" in schema:
        return " or ".join(_kind(part, schemas) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(
            msgspec.json.encode(value).decode() for value in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}"
    return str(schema.get("format") or schema.get("type") or "anything")


def _table(rows: Any) -> str:
    cells = (f"<tr><th><code>{_text(str(a))}</code></th><td>{_text(str(b))}</td></tr>" for a, b in rows)
    return f"<table>{''.join(cells)}</table>"


def _text(words: str) -> str:
    """Escape for HTML; `words` in backquotes become code."""
    parts = html.escape(words).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _page(title: str, body: str, *styles: str) -> web.Response:
    links = "\n".join(f'<link rel="stylesheet" href="{asset(name).path}">' for name in styles)
    text = _PAGE.format(title=html.escape(title), styles=links, body=body)
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.Response(text=text, content_type="text/html", headers=headers)
