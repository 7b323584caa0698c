"""What people come for, from sign-in to the end, by clicking: a buyer, an owner, an operator, a bad line."""

import re
from contextlib import AsyncExitStack

from playwright.async_api import expect

from tests.api.conftest import MARKET, serving
from tests.browser.conftest import browsing


async def bid_from_the_ticket(window, gpus, limit):
    """Fill the ticket in, look at the preview, place it."""
    page = window.page
    await page.get_by_label("GPUs", exact=True).fill(str(gpus))
    await page.get_by_label("Limit, $ per GPU·h").fill(limit)
    await window.sees(f"{gpus} GPUs at $1.0527")  # the preview's fill
    await page.get_by_role("button", name="Place the bid").click()


async def test_a_buyer_is_outbid_and_stays_by_raising(venue, browser, rival):
    """Link, quote, bid, lease, squeeze, notice with its countdown, raise, notice withdrawn."""
    await venue.offer_node(8, "1.00")
    window = await browser.window(venue.buyer)
    page = window.page
    await window.sees("$1,000.00 available", within="header")
    await page.get_by_role("link", name=MARKET).first.click()
    await window.sees("Yes: a limit of $1.0527 would win 8 GPUs")
    await page.get_by_role("link", name="Place a bid").click()
    await bid_from_the_ticket(window, 8, "2.00")
    await expect(page.get_by_role("row", name=re.compile(f"{MARKET}.*running")).first).to_be_visible()

    body = {"market": MARKET, "gpus": 8, "limit_price_per_gpu_hour": "3.00"}
    await venue.ok("POST", "/v1/bids", rival, body)
    notice = page.locator("section.notice")
    await expect(notice).to_contain_text("somebody bids more for them")
    shown = int(await window.reads(r"(\d+) s\s+until they are reclaimed"))
    await expect(notice.locator(".countdown strong")).not_to_have_text(f"{shown} s")
    assert int(await window.reads(r"(\d+) s\s+until they are reclaimed")) < shown
    await window.picture("story-notice")
    await page.get_by_role("button", name=re.compile(r"Raise to \$3\.\d+ to stay")).click()
    await expect(notice).to_have_count(0)
    (told,) = (await venue.ok("GET", "/v1/notices", venue.buyer))["data"]
    assert ("outbid", "withdrawn") == (told["reason"], told["state"])
    assert "running" == (await venue.lease_in("running"))["state"]


async def test_an_owner_lends_a_node_earns_and_takes_it_back(venue, browser):
    window = await browser.window(venue.owner)
    page = window.page
    await window.open("/owner")
    await page.get_by_text("Add a node").click()
    await page.get_by_label("Name").fill("hall 3")
    await page.get_by_label("Simulated: no agent needed").check()
    await page.get_by_role("button", name="Add it").click()
    await window.sees("hall 3")
    await page.get_by_text("Offer GPUs").click()
    await page.get_by_label("Reserve, $ per GPU·h").fill("1.00")
    await page.get_by_role("button", name="Offer them").click()
    await window.sees("listed")
    tiles = page.get_by_role("img", name="8 idle")
    await expect(tiles).to_be_visible()

    await venue.place(gpus=8)
    await venue.lease_in("running")
    await expect(page.get_by_role("img", name="8 leased")).to_be_visible()
    assert "0.00" != await window.reads(r"Net, [^$]*\$(0\.\d*[1-9]\d*)")
    await window.picture("story-owner")
    await page.get_by_role("button", name="Take it back…").click()
    await window.sees("1 lease with 8 GPUs get their notice")
    await window.picture("story-recall")
    await page.get_by_role("button", name="Take it back", exact=True).click()
    await expect(page.get_by_role("img", name="8 draining")).to_be_visible()
    (told,) = (await venue.ok("GET", "/v1/notices", venue.buyer))["data"]
    assert "offer_withdrawn" == told["reason"]
    await venue.ok("POST", f"/v1/notices/{told['id']}/ack", venue.buyer, {"ready": True})
    await expect(tiles).to_be_visible()
    acts = (await venue.ok("GET", "/v1/operator/audit-log?limit=100", venue.operator))["data"]
    assert 1 == sum(act["path"].endswith("/recall") for act in acts), "looking is no act"


async def test_an_operator_halts_a_market_and_resumes_it(venue, browser):
    await venue.offer_node(8, "1.00")
    public = await browser.window()
    window = await browser.window(venue.operator)
    page = window.page
    await window.open("/operator")
    page.once("dialog", lambda dialog: dialog.accept("a fire drill"))
    await page.get_by_role("button", name=f"Halt {MARKET}").click()
    await window.sees("✕ halted")
    await public.open(f"/market/{MARKET}")
    await public.sees("halted: a fire drill")
    await window.picture("story-halted")
    await page.get_by_role("button", name=f"Resume {MARKET}").click()
    await window.sees("✓ open")
    await public.reads(r"(in \d+ s)")
    await page.get_by_role("button", name="Replay", exact=True).click()
    await window.sees("✓ The same")


async def test_a_lost_connection_is_said_and_what_came_meanwhile_is_read(database, config):
    """Reload in the middle; then the server goes, comes back, and numbers are fresh again."""
    async with AsyncExitStack() as first:
        venue = await first.enter_async_context(serving(database, config))
        await venue.open_market(notice_seconds=20)
        _, venue.buyer = await venue.open_account("buyer")
        _, venue.owner = await venue.open_account("owner")
        await venue.ok("POST", "/v1/deposits", venue.buyer, {"amount": "1000.00"})
        await venue.offer_node(8, "1.00")
        await venue.place(gpus=2)
        port = venue.client.port
        async with browsing(venue) as browser:
            window = await browser.window(venue.buyer)
            await window.open("/bids")
            await window.sees("running")
            await window.page.reload()
            await window.sees("running")
            await window.open(f"/market/{MARKET}")
            before = int(await window.reads(r"Tick (\d+) \(newest\)"))
            await first.aclose()
            await window.sees("Connection lost: these numbers are old", within="header")
            await expect(window.page.locator("main.stale")).to_be_visible()
            await expect(window.page.get_by_text("Live", exact=True)).to_have_count(0)
            await window.picture("story-lost")
            async with serving(database, config, venue.operator, port=port):
                await window.sees("Live", within="header")
                await expect(window.page.locator("main.stale")).to_have_count(0)
                assert before < int(await window.reads(r"Tick (\d+) \(newest\)"))
                await window.open("/bids")
                await window.sees("running")
            # A browser reports every attempt to connect that failed, which no page can prevent.
            window.complaints[:] = [one for one in window.complaints if "ERR_CONNECTION_REFUSED" not in one]
