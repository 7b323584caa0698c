"""Money out and corrections: what an owner and an operator see, and what is refused."""


async def earn(venue):
    """Sell a lease for a moment; return what the owner has earned, in microusd."""
    await venue.offer_node(gpus=8, reserve="5.00")
    await venue.place(gpus=8, limit_price_per_gpu_hour="9.00")
    lease = await venue.lease_in("running")
    await venue.ok("POST", f"/v1/leases/{lease['id']}/release", venue.buyer)

    async def earned():
        balance = await venue.ok("GET", "/v1/balance", venue.owner)
        return balance["earning"] != "0.000000" and balance

    # A lease may end within its first second, unbilled: try again.
    for _ in range(20):
        balance = await venue.ok("GET", "/v1/balance", venue.owner)
        if balance["earning"] != "0.000000":
            return int(balance["earning"].replace(".", ""))
        await venue.place(gpus=8, limit_price_per_gpu_hour="9.00", max_run_seconds=1)
        await venue.until(earned, "the owner has earned something")
    raise AssertionError("nothing was earned")


def dollars(microusd):
    return f"{microusd // 1_000_000}.{microusd % 1_000_000:06d}"


async def test_a_payout_is_set_aside_then_paid_or_given_back(venue):
    earned = await earn(venue)
    half = dollars(earned // 2)
    paid = await venue.ok("POST", "/v1/payouts", venue.owner, {"amount": half})
    failed = await venue.ok("POST", "/v1/payouts", venue.owner, {"amount": dollars(earned - earned // 2)})
    balance = await venue.ok("GET", "/v1/balance", venue.owner)
    assert (balance["earning"], balance["payable"]) == ("0.000000", dollars(earned))
    queue = (await venue.ok("GET", "/v1/operator/payouts", venue.operator))["data"]
    assert [payout["id"] for payout in queue] == [failed["id"], paid["id"]]
    done = await venue.ok(
        "POST", f"/v1/operator/payouts/{paid['id']}/paid", venue.operator, {"reference": "wire 1"}
    )
    assert (done["state"], done["reference"], done["amount"]) == ("paid", "wire 1", half)
    await venue.ok("POST", f"/v1/operator/payouts/{failed['id']}/failed", venue.operator, {})
    again = await venue.call("POST", f"/v1/operator/payouts/{paid['id']}/failed", venue.operator, {})
    assert (again.status, again.json["code"]) == (409, "payout_closed")
    balance = await venue.ok("GET", "/v1/balance", venue.owner)
    assert (balance["earning"], balance["payable"]) == (dollars(earned - earned // 2), "0.000000")
    listed = (await venue.ok("GET", "/v1/payouts", venue.owner))["data"]
    assert {payout["id"]: payout["state"] for payout in listed} == {
        paid["id"]: "paid",
        failed["id"]: "failed",
    }
    assert (await venue.ok("GET", "/v1/operator/payouts", venue.operator))["data"] == []


async def test_more_than_is_earned_is_not_paid_out(venue):
    answered = await venue.call("POST", "/v1/payouts", venue.owner, {"amount": "0.000001"})
    assert (answered.status, answered.json["code"]) == (409, "payout_above_earning")
    assert answered.json["available"] == "0.000000"
    buyer = await venue.call("POST", "/v1/payouts", venue.buyer, {"amount": "1.00"})
    assert (buyer.status, buyer.json["code"]) == (403, "not_an_owner")
    for amount in ("0", "-1.00", 5, "1e3"):
        answered = await venue.call("POST", "/v1/payouts", venue.owner, {"amount": amount})
        assert (answered.status, answered.json["code"]) == (422, "invalid_value")
    for path in ("/v1/operator/payouts", "/v1/operator/adjustments"):
        answered = await venue.call("GET" if path.endswith("payouts") else "POST", path, venue.owner, {})
        assert (answered.status, answered.json["code"]) == (403, "scope_missing")
    absent = await venue.call("POST", "/v1/operator/payouts/pay_none/paid", venue.operator, {})
    assert (absent.status, absent.json["code"]) == (404, "not_found")


async def test_an_adjustment_is_balanced_has_a_reason_and_never_overdraws(venue):
    account = next(a.id for a in venue.engine.core.accounts.values() if a.roles == ["buyer"])
    body = {"account": account, "direction": "credit", "amount": "2.50", "reason": "outage of 23 November"}
    given = await venue.ok("POST", "/v1/operator/adjustments", venue.operator, body)
    assert (given["reason"], given["balance"]["available"]) == (body["reason"], "1002.500000")
    taken = await venue.ok(
        "POST", "/v1/operator/adjustments", venue.operator, body | {"direction": "debit", "amount": "1002.50"}
    )
    assert taken["balance"]["available"] == "0.000000"
    more = await venue.call(
        "POST", "/v1/operator/adjustments", venue.operator,
        body | {"direction": "debit", "amount": "0.000001"},
    )  # fmt: skip
    assert (more.status, more.json["code"]) == (402, "insufficient_funds")
    unknown = await venue.call(
        "POST", "/v1/operator/adjustments", venue.operator, body | {"account": "acct_none"}
    )
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")
    entries = (await venue.ok("GET", "/v1/ledger/entries", venue.buyer))["data"]
    assert [entry["amount"] for entry in entries if entry["code"] == "adjustment"] == [
        "-1002.500000",
        "2.500000",
    ]
