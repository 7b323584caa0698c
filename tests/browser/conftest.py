"""A real Chromium before a real server: what it shows, complains of and asks for.

FALLOW_CHROMIUM names the browser and makes it required, as CI does; without the variable these tests are left
out where no Chromium is installed, and the report's head says so.
"""

import os
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright, expect

from api.config import Config
from tests.api.conftest import api_server, database, serving

__all__ = ["api_server", "database"]

HERE = Path(__file__).parent
SEEN = HERE / "seen"  # pictures of the last run, for people to look at
CHROMIUM = os.environ.get("FALLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NOTICE_SECONDS = 15
WAIT_MS = 20_000
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


def pytest_report_header():
    return None if CHROMIUM else "no Chromium here: the tests of the page in a browser are left out"


def pytest_collection_modifyitems(config, items):
    if CHROMIUM:
        return
    left_out = [item for item in items if HERE in item.path.parents]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Window:
    """One signed-in browser window, and everything in it that should not have been."""

    def __init__(self, page, origin):
        self.page = page
        self.origin = origin
        self.complaints = []
        self.strangers = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._asked)

    def _heard(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request):
        if not request.url.startswith((self.origin + "/", "data:", "blob:" + self.origin)):
            self.strangers.append(request.url)

    async def open(self, path):
        """Go to a screen by its hash."""
        await self.page.goto(f"{self.origin}/#{path}")

    async def sees(self, text, within="main"):
        """Wait until a text can be read."""
        await expect(self.page.locator(within)).to_contain_text(text, timeout=WAIT_MS)

    async def reads(self, pattern, within="main"):
        """Wait until a pattern can be read; return its first group."""
        place = self.page.locator(within)
        await expect(place).to_contain_text(re.compile(pattern), timeout=WAIT_MS)
        return re.search(pattern, await place.inner_text())[1]

    async def picture(self, name):
        SEEN.mkdir(exist_ok=True)
        await self.page.screenshot(path=SEEN / f"{name}.png", full_page=True)

    async def findings(self):
        """Return what axe has to say, in short."""
        found = await Axe().run(self.page)
        return [
            f"{one['id']}: {one['help']}: {node['html'][:160]}"
            for one in found.response["violations"]
            for node in one["nodes"]
        ]

    async def overflow(self):
        """Return by how many pixels the page is wider than its window, or a table of cards than its place."""
        return await self.page.evaluate(
            """() => Math.max(
                document.documentElement.scrollWidth - innerWidth,
                ...[...document.querySelectorAll(".markets, .cards")].map(
                    ({ parentElement: place }) => place.scrollWidth - place.clientWidth))"""
        )


class Browser:
    """Opens windows on the pages of a venue."""

    def __init__(self, chromium, venue):
        self._chromium = chromium
        self._venue = venue
        self.windows = []

    async def window(self, key=None, *, width=1280, scheme="light"):
        """Open a window, signed in by a link where a key is given."""
        context = await self._chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        window = Window(await context.new_page(), str(self._venue.client.make_url("")).rstrip("/"))
        self.windows.append(window)
        if key is None:
            await window.open("/")
        else:
            link = await self._venue.ok("POST", "/v1/sign-in-links", key, {})
            await window.open(f"/sign-in?token={link['token']}")
            await window.page.get_by_role("button", name="Sign out").wait_for()
        await window.sees("Live", within="header")
        return window


@asynccontextmanager
async def browsing(venue):
    """Start a browser; after the body, no window may have complained or asked another host."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        browser = Browser(chromium, venue)
        try:
            yield browser
        except BaseException:
            for number, window in enumerate(browser.windows):
                print(f"window {number}:", window.complaints)
                await window.picture(f"failed-{number}")
            raise
        finally:
            await chromium.close()
    for window in browser.windows:
        assert [] == window.strangers
        assert [] == window.complaints


@pytest.fixture
def config():
    """A demo market whose pauses are long enough for a browser on a busy machine."""
    return Config(
        is_demo=True,
        port=0,
        runs_simulator=True,
        simulator_start_seconds=0,
        simulator_drain_seconds=0,
        heartbeat_seconds=2,
    )


@pytest.fixture
async def venue(database, config):
    """A demo venue with time to answer a notice, a buyer with $1,000, a rival, an owner."""
    async with serving(database, config) as venue:
        await venue.open_market(notice_seconds=NOTICE_SECONDS, settlement_seconds=1)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        yield venue


@pytest.fixture
async def browser(venue):
    async with browsing(venue) as browser:
        yield browser


@pytest.fixture
async def rival(venue):
    """Another buyer's key."""
    _, key = await venue.open_account("buyer")
    await venue.ok("POST", "/v1/deposits", key, {"amount": "1000.00"})
    return key
