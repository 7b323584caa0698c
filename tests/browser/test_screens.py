"""Every screen at two widths in both themes: it shows its content, fits, and nothing finds fault with it."""

import pytest

from tests.api.conftest import MARKET

# Who looks, where, and a word that is only there when the screen has its data.
SCREENS = [
    ("nobody", "/", "80 GiB|test", "markets"),
    ("nobody", f"/market/{MARKET}", "what happens when you are outbid", "market"),
    ("nobody", "/sign-in", "Sign in", "sign-in"),
    ("buyer", f"/bid/{MARKET}", "would win now at", "ticket"),
    ("buyer", "/bids", "running", "bids"),
    ("buyer", "/money", "GPU-hours", "money"),
    ("buyer", "/settings", "first key", "settings"),
    ("owner", "/owner", "node 0", "owner"),
    ("operator", "/operator", "of \\d+ hold", "operator"),
]


async def unfold(window, name):
    """Open what a screen hides until it is asked for."""
    page = window.page
    if name == "owner":
        await page.get_by_role("button", name="Take it back…").first.click()
        await window.sees("get their notice")
        await page.get_by_role("button", name=MARKET, exact=True).click()
        await window.sees("of record, for each GPU")
    if name == "ticket":
        await page.get_by_label("Limit, $ per GPU·h").fill("2.00")
        await window.sees("Held of your balance")
    for summary in await page.locator("summary").all():
        await summary.click()
    if name == "bids":
        await window.sees("bid accepted")
    if name == "money":
        await page.get_by_role("button", name="by label team").click()
        await window.sees("vision")


async def populate(venue):
    """Give every screen something to show."""
    await venue.offer_node(8, "1.00")
    await venue.place(gpus=2, labels={"team": "vision"})
    await venue.lease_in("running")
    await venue.place(gpus=8, limit_price_per_gpu_hour="0.50")

    async def charged():
        return (await venue.ok("GET", "/v1/usage", venue.buyer))["data"]

    await venue.until(charged, "a settled interval")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_every_screen_fits_and_nothing_finds_fault(venue, browser, width, scheme):
    await populate(venue)
    windows = {}
    faults = []
    for who, path, words, name in SCREENS:
        if who not in windows:
            key = None if who == "nobody" else getattr(venue, who)
            windows[who] = await browser.window(key, width=width, scheme=scheme)
        window = windows[who]
        await window.open(path)
        await window.reads(f"({words})")
        await unfold(window, name)
        faults += [f"{name}: {finding}" for finding in await window.findings()]
        if (over := await window.overflow()) > 0:
            faults.append(f"{name}: {over} pixels wider than its window")
        await window.picture(f"{name}-{width}-{scheme}")
    assert "" == "\n".join(faults)
