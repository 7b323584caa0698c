"""What stands beside a running demo: its one-time sign-in link, another one, and rivals on demand."""

import json

import aiohttp

from tests.integration.test_demo import demo, run


async def sign_in(api, link):
    """Follow a link as its page would; return the status and who is signed in."""
    address, _, token = link.partition("/#/sign-in?token=")
    assert address == api
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(api, cookie_jar=jar) as browser:
        async with browser.post("/v1/sessions", json={"token": token}, headers={"Origin": api}) as answered:
            status = answered.status
        async with browser.get("/v1/sessions/current") as current:
            return status, await current.json()


async def test_the_printed_link_signs_a_funded_buyer_in_once_and_another_can_be_had(tmp_path):
    data_dir = tmp_path / "demo"
    async with demo(data_dir, "--no-bots", "--tick-seconds", "1") as running:
        api, link = running.facts["api"], running.facts["sign_in"]
        status, who = await sign_in(api, link)
        assert (201, ["buyer"]) == (status, who["roles"])
        assert "1000.000000" == (await running.call("GET", "/v1/balance", "buyer"))["available"]
        status, who = await sign_in(api, link)
        assert (401, None) == (status, who["account"])
        code, output, errors = await run("demo", "link", "--role", "owner", "--data-dir", data_dir)
        assert 0 == code, errors
        assert ["owner"] == (await sign_in(api, output.strip()))[1]["roles"]
        code, _, errors = await run("demo", "squeeze", "--data-dir", data_dir)
        assert (1, True) == (code, "nothing of yours runs" in errors)
    code, _, errors = await run("demo", "link", "--data-dir", data_dir)
    assert 1 == code, "it was killed"
    assert "does not answer" in errors


async def test_rivals_outbid_a_lease_which_stays_by_raising(tmp_path):
    """Its notice says what to bid; that bid ends the notice, and the rivals' bids end by themselves.

    Of one GPU, because more may stand on several nodes: as many leases, and as many notices.
    """
    data_dir = tmp_path / "demo"
    async with demo(data_dir, "--tick-seconds", "1", "--notice-seconds", "20") as running:
        market = running.facts["markets"][0]
        body = {"market": market, "gpus": 1, "limit_price_per_gpu_hour": "4.000000"}
        placed = await running.call("POST", "/v1/bids", "buyer", body)
        await running.until(lambda: running.list("/v1/leases?state=running", "buyer"), lambda found: found)
        options = ("--seconds", "15", "--json", "--data-dir", data_dir)
        code, output, errors = await run("demo", "squeeze", *options)
        assert 0 == code, errors
        told = json.loads(output)
        assert (placed["id"], market) == (told["bid"], told["market"])
        assert float(told["rival_limit"]) > 4 * 1.1
        assert float(told["keep_price"]) > float(told["rival_limit"])
        raised = {"limit_price_per_gpu_hour": told["keep_price"], "confirm_limit": True}
        await running.call("PATCH", f"/v1/bids/{placed['id']}", "buyer", raised)

        async def notices():
            return [notice["state"] for notice in await running.list("/v1/notices", "buyer")]

        await running.until(notices, lambda states: states == ["withdrawn"])
        assert 1 == len(await running.list("/v1/leases?state=running", "buyer"))

        async def price():
            latest = await running.call("GET", f"/v1/markets/{market}/ticks/latest")
            return float(latest["price"] or 0)

        await running.until(price, lambda now: now < 4)
