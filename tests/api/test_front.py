"""The page at `/` as it is served: its policy, its modules and their names, its weight."""

import base64
import gzip
import hashlib
import json
import re

from api.web import assets
from tests.api.test_docs import Links

GZIPPED_BYTES_MAX = 150_000
LINES_MAX = 300
IMPORTED = re.compile(r'(?:from|import) ?\(?"([^"]+)"')


async def front(venue):
    page = await venue.call("GET", "/")
    assert page.status == 200
    return page, page.raw.decode()


def import_map(text):
    (written,) = re.findall(r'<script type="importmap">(.*?)</script>', text)
    return written, json.loads(written)["imports"]


async def test_the_policy_allows_the_import_map_and_no_other_inline_script(venue):
    page, text = await front(venue)
    policy = page.headers["Content-Security-Policy"]
    written, _ = import_map(text)
    digest = base64.b64encode(hashlib.sha256(written.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert re.findall(r"<script(?![^>]*(?:src=|importmap))", text) == []
    assert Links(text).inline == []


async def test_everything_it_loads_is_here_and_kept_for_good(venue):
    _, text = await front(venue)
    _, modules = import_map(text)
    loaded = {path for path in Links(text).loaded if path not in (None, "data:,")} | set(modules.values())
    for path in sorted(loaded):
        assert path.startswith("/web/")
        answered = await venue.call("GET", path)
        assert answered.status == 200 and "immutable" in answered.headers["Cache-Control"], path


async def test_every_module_imports_only_names_of_the_map(venue):
    _, modules = import_map((await front(venue))[1])
    imported = set()
    for name in assets.own_files():
        if name.endswith(".js") and name.startswith("page/"):
            source = assets.asset(name).content.decode()
            assert source.count("\n") <= LINES_MAX, name
            assert "http://" not in source and "innerHTML" not in source, name
            found = set(IMPORTED.findall(source))
            assert found <= set(modules), name
            imported |= found
    own = {name for name in modules if name.startswith("fallow/")}
    assert own - imported == {"fallow/main.js"}, "what nothing imports is dead"


async def test_the_whole_page_is_light(venue):
    page, text = await front(venue)
    _, modules = import_map(text)
    paths = {path for path in Links(text).loaded if path and path != "data:,"} | set(modules.values())
    by_path = {one.path: one for one in map(assets.asset, [*assets.own_files(), *assets.VENDORED])}
    size = len(gzip.compress(page.raw)) + sum(len(by_path[path].gzipped) for path in paths)
    assert size <= GZIPPED_BYTES_MAX, f"{size} bytes"
