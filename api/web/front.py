"""The page at `/`: one document that names its modules, their hashes and a policy that allows nothing else.

The modules import each other by the names of an import map, so a file never contains an address. Browsers
want that map inside the document; the policy allows it by its hash, and no other script without a file.
"""

import base64
import hashlib
from functools import cache

import msgspec
from aiohttp import web

from api.web.assets import asset, own_files

_LIBRARIES = {
    "preact": "preact.mjs",
    "preact/hooks": "preact-hooks.mjs",
    "@preact/signals": "signals.mjs",
    "@preact/signals-core": "signals-core.mjs",
    "htm": "htm.mjs",
    "lightweight-charts": "lightweight-charts.mjs",
}
# Drawn by almost every screen, so fetched at once rather than when the first module asks for them.
_NEEDED_AT_ONCE = ("preact", "preact/hooks", "@preact/signals", "@preact/signals-core", "htm")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Fallow: the spot market for idle GPUs</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{style}">
<link rel="stylesheet" href="{uplot_style}">
<script type="importmap">{imports}</script>
{preloads}
<script defer src="{uplot}"></script>
<script type="module" src="{main}"></script>
</head>
<body>
<div id="app"><p class="quiet">Loading the market…</p></div>
<noscript><p>This page draws live auctions and needs JavaScript. Everything it shows is in the
<a href="/docs">HTTP API</a> too.</p></noscript>
</body>
</html>
"""


async def get_front(request: web.Request) -> web.Response:
    """Show the market."""
    text, policy = _front()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.Response(text=text, content_type="text/html", headers=headers)


@cache
def _front() -> tuple[str, str]:
    """Return the document and its policy."""
    modules = {name: asset(file).path for name, file in _LIBRARIES.items()}
    for name in own_files():
        if name.startswith("page/") and name.endswith(".js"):
            modules["fallow" + name.removeprefix("page")] = asset(name).path
    imports = msgspec.json.encode({"imports": modules}).decode()
    at_once = [*_NEEDED_AT_ONCE, *(name for name in modules if name.startswith("fallow/"))]
    text = _PAGE.format(
        style=asset("page/page.css").path,
        uplot_style=asset("uplot.css").path,
        imports=imports,
        preloads="\n".join(f'<link rel="modulepreload" href="{modules[name]}">' for name in at_once),
        uplot=asset("uplot.js").path,
        main=asset("page/main.js").path,
    )
    digest = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy
