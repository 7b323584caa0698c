"""The files that pages load: read once, packed once, each under the hash of its content.

A browser keeps what it has for good; a new version has new addresses.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from aiohttp import web

from auction.errors import NotFound

DIGEST_CHARACTERS = 16
FOREVER = "public, max-age=31536000, immutable"

_MEDIA = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "txt": "text/plain"}
VENDORED = {
    "swagger-ui.js": "swagger-ui-dist/swagger-ui-bundle.js",
    "swagger-ui.css": "swagger-ui-dist/swagger-ui.css",
    "swagger-ui.license.txt": "swagger-ui-dist/LICENSE",
    "preact.mjs": "preact/dist/preact.mjs",
    "preact-hooks.mjs": "preact/hooks/dist/hooks.mjs",
    "preact.license.txt": "preact/LICENSE",
    "signals.mjs": "@preact/signals/dist/signals.mjs",
    "signals.license.txt": "@preact/signals/LICENSE",
    "signals-core.mjs": "@preact/signals-core/dist/signals-core.mjs",
    "signals-core.license.txt": "@preact/signals-core/LICENSE",
    "htm.mjs": "htm/dist/htm.mjs",
    "htm.license.txt": "htm/LICENSE",
    "lightweight-charts.mjs": "lightweight-charts/dist/lightweight-charts.standalone.production.mjs",
    "lightweight-charts.license.txt": "lightweight-charts/LICENSE",
    "uplot.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
    "uplot.license.txt": "uplot/LICENSE",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    gzipped: bytes
    media: str
    path: str


@cache
def own_files() -> tuple[str, ...]:
    """Return the names of our own files, in order: those of static/ and, as `page/…`, of the page."""
    static = resources.files("api.web").joinpath("static")
    names = [file.name for file in static.iterdir() if file.is_file()]
    names += [f"page/{file.name}" for file in static.joinpath("page").iterdir()]
    return tuple(sorted(names))


@cache
def asset(name: str) -> Asset:
    """Read a file that pages use; raises KeyError for any other."""
    folder = resources.files("api.web")
    if name in VENDORED:
        file = folder.joinpath("vendor", *VENDORED[name].split("/"))
    elif name in own_files():
        file = folder.joinpath("static", *name.split("/"))
    else:
        raise KeyError(name)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS]
    media = _MEDIA[name.rpartition(".")[2]]
    return Asset(content, gzip.compress(content, mtime=0), media, f"/web/{digest}/{name}")


async def get_asset(request: web.Request) -> web.Response:
    """Serve a file under its hash."""
    name = request.match_info["name"]
    if name not in VENDORED and name not in own_files():
        raise NotFound("file")
    found = asset(name)
    if found.path != request.path:
        raise NotFound("file")
    headers = {"Cache-Control": FOREVER, "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    content = found.content
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], content = "gzip", found.gzipped
    return web.Response(body=content, content_type=found.media, charset="utf-8", headers=headers)
