"""The documentation that is served: whole, from here alone, and true to what the socket says."""

import asyncio
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from api import asyncapi
from api.web import pages
from api.web.assets import asset
from tests.api.test_stream import connected

VENDOR = Path(pages.__file__).parent / "vendor"


class Links(HTMLParser):
    """Every address that a page loads or leads to."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.linked, self.inline = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag in ("script", "link", "img"):
            self.loaded.append(named.get("src") or named.get("href"))
        if tag == "a":
            self.linked.append(named["href"])
        self.inline += [name for name in named if name.startswith("on") or name == "style"]


def test_what_is_vendored_is_what_the_manifest_says():
    recorded = {"manifest.json"}
    for package in json.loads((VENDOR / "manifest.json").read_text()):
        assert "LICENSE" in package["files"]
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"])
        for name, digest in package["files"].items():
            file = VENDOR / package["name"] / name
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, name
            recorded.add(str(file.relative_to(VENDOR)))
    assert {str(file.relative_to(VENDOR)) for file in VENDOR.rglob("*") if file.is_file()} == recorded


@pytest.mark.parametrize("path", ["/docs", "/docs/stream"])
async def test_a_page_loads_nothing_from_elsewhere_and_leads_nowhere_in_vain(venue, path):
    page = await venue.call("GET", path)
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "default-src 'none'" in policy
    found = Links(page.raw.decode())
    assert found.inline == []
    assert found.loaded
    for address in {*found.loaded, *found.linked} - {"data:,"}:
        assert address.startswith("/") and not address.startswith("//"), address
        assert (await venue.call("GET", address)).status == 200, address


async def test_files_are_kept_for_good_and_only_under_their_hash(venue):
    path = asset("swagger-ui.js").path
    whole = await venue.call("GET", path, Accept_Encoding="identity")
    assert "immutable" in whole.headers["Cache-Control"]
    packed = await venue.call("GET", path, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.raw == whole.raw, "the client unpacks it"
    for wrong in (path.replace("/web/", "/web/0"), "/web/0/docs.js", "/web/0/manifest.json"):
        assert (await venue.call("GET", wrong)).status == 404


async def test_the_guide_begins_the_openapi_document_and_its_requests_are_real(venue):
    described = await venue.ok("GET", "/openapi.json")
    guide = described["info"]["description"]
    for method, path in re.findall(r"`(GET|POST|PATCH) (/v1/[^`? ]+)", guide):
        known = described["paths"].get(path)
        assert known is not None and method.lower() in known, (method, path)
    tags = {tag["name"] for tag in described["tags"]}
    assert {op["tags"][0] for methods in described["paths"].values() for op in methods.values()} == tags


def test_every_message_of_the_socket_is_described():
    described = asyncapi.document("0")
    messages = described["components"]["messages"]
    assert messages.keys() == described["operations"].keys()
    assert {"auth", "bid.place", "bid.batch", "notice.ack", "order.ack", "tick", "notice"} <= messages.keys()
    # Every reference leads somewhere.
    text = json.dumps(described)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found = described
        for step in reference.split("/"):
            found = found[step]


def check(described, name, message):
    payload = described["components"]["messages"][name]["payload"]
    schema = payload | {"components": described["components"]}
    jsonschema.Draft202012Validator(schema).validate(message)


async def test_what_the_socket_says_and_hears_is_what_is_described(venue):
    described = await venue.ok("GET", "/asyncapi.json")
    await venue.offer_node()
    bid = {"type": "bid.place", "market": "h100-sxm.test", "limit_price_per_gpu_hour": "2.00"}
    sent = [
        {"type": "auth", "key": venue.buyer},
        {"type": "subscribe", "channels": ["account", "markets"], "id": "s"},
        bid | {"gpus": 1, "id": 1},
        bid | {"gpus": 0, "id": 2},
        {"type": "ping"},
    ]
    heard = set()
    async with connected(venue) as client:
        check(described, "hello", client.seen[0])
        for message in sent:
            if message.get("id") != 2:
                check(described, message["type"], message)
            await client.send(**message)
        with pytest.raises(jsonschema.ValidationError):
            check(described, "bid.place", sent[3])
        async with asyncio.timeout(20):
            while not {"ack", "order.ack", "error", "tick", "bid", "lease", "heartbeat"} <= heard:
                message = await client.next()
                is_order = message["type"] == "ack" and "result" in message
                heard.add("order.ack" if is_order else message["type"])
                check(described, "order.ack" if is_order else message["type"], message)
