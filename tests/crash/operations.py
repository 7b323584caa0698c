"""Every public operation that changes something, each with what it needs to be carried out once more.

A preparation runs undisturbed and makes a fresh thing to act on; what it returns is the one request (or, for
the tick, the one act of the clock) whose every connection to the database will be cut.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from auction.ids import random_id
from tests.api.conftest import MARKET
from tests.crash.stage import Stage

TICK = "tick"  # the method of the request that is none


@dataclass(frozen=True)
class Request:
    """One request as it is sent, and sent again."""

    method: str
    path: str
    key: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Prepare = Callable[[Stage], Awaitable[Request]]
OPERATIONS: dict[str, Prepare] = {}


def operation(prepare: Prepare) -> Prepare:
    """List a preparation under its name."""
    OPERATIONS[prepare.__name__.removeprefix("the_")] = prepare
    return prepare


@operation
async def the_tick(stage: Stage) -> Request:
    await stage.bid()
    return Request(TICK, MARKET)


@operation
async def place_bid(stage: Stage) -> Request:
    body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    return Request("POST", "/v1/bids", stage.venue.buyer, body)


@operation
async def place_bid_with_client_id(stage: Stage) -> Request:
    body = {"market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00", "client_bid_id": random_id("c")}
    return Request("POST", "/v1/bids", stage.venue.buyer, body)


@operation
async def amend_bid(stage: Stage) -> Request:
    bid = await stage.bid()
    body = {"limit_price_per_gpu_hour": "2.50"}
    return Request("PATCH", f"/v1/bids/{bid['id']}", stage.venue.buyer, body, {"If-Match": '"1"'})


@operation
async def cancel_bid(stage: Stage) -> Request:
    return Request("DELETE", f"/v1/bids/{(await stage.bid())['id']}", stage.venue.buyer)


@operation
async def cancel_bids(stage: Stage) -> Request:
    await stage.bid()
    await stage.bid()
    return Request("DELETE", f"/v1/bids?market={MARKET}&release=true", stage.venue.buyer)


@operation
async def cancel_after(stage: Stage) -> Request:
    return Request("POST", "/v1/bids/cancel-after", stage.venue.buyer, {"timeout_seconds": 3_600})


@operation
async def batch(stage: Stage) -> Request:
    return Request("POST", "/v1/bids/batch", stage.venue.buyer, await _batch(stage, is_atomic=False))


@operation
async def atomic_batch(stage: Stage) -> Request:
    return Request("POST", "/v1/bids/batch", stage.venue.buyer, await _batch(stage, is_atomic=True))


@operation
async def release_lease(stage: Stage) -> Request:
    return Request("POST", f"/v1/leases/{(await stage.lease())['id']}/release", stage.venue.buyer)


@operation
async def test_notice(stage: Stage) -> Request:
    return Request("POST", f"/v1/leases/{(await stage.lease())['id']}/test-notice", stage.venue.buyer)


@operation
async def acknowledge_notice(stage: Stage) -> Request:
    lease = await stage.lease()
    notice = await stage.venue.ok("POST", f"/v1/leases/{lease['id']}/test-notice", stage.venue.buyer)
    stage.clock.advance(5)
    return Request("POST", f"/v1/notices/{notice['id']}/ack", stage.venue.buyer, {"ready": True})


@operation
async def deposit(stage: Stage) -> Request:
    return Request("POST", "/v1/deposits", stage.venue.buyer, {"amount": "1.25"})


@operation
async def adjust(stage: Stage) -> Request:
    body = {"account": stage.buyer_account, "direction": "credit", "amount": "0.50", "reason": "a gift"}
    return Request("POST", "/v1/operator/adjustments", stage.venue.operator, body)


@operation
async def request_payout(stage: Stage) -> Request:
    await _earn(stage)
    return Request("POST", "/v1/payouts", stage.venue.owner, {"amount": "0.01"})


@operation
async def pay_out(stage: Stage) -> Request:
    await _earn(stage)
    payout = await stage.venue.ok("POST", "/v1/payouts", stage.venue.owner, {"amount": "0.01"})
    return Request("POST", f"/v1/operator/payouts/{payout['id']}/paid", stage.venue.operator, {})


@operation
async def create_node(stage: Stage) -> Request:
    body = {"name": random_id("n"), "market": MARKET, "gpus": 4, "simulated": True}
    return Request("POST", "/v1/nodes", stage.venue.owner, body)


@operation
async def amend_node(stage: Stage) -> Request:
    node = await _node(stage)
    return Request("PATCH", f"/v1/nodes/{node['id']}", stage.venue.owner, {"gpus": 6})


@operation
async def cordon_node(stage: Stage) -> Request:
    return Request("POST", f"/v1/nodes/{(await _node(stage))['id']}/cordon", stage.venue.owner)


@operation
async def recall_node(stage: Stage) -> Request:
    offer = await _offer(stage)
    return Request("POST", f"/v1/nodes/{offer['node']}/recall", stage.venue.owner, {})


@operation
async def retire_node(stage: Stage) -> Request:
    node = await _node(stage)
    await stage.venue.ok("POST", f"/v1/nodes/{node['id']}/recall", stage.venue.owner, {})
    return Request("DELETE", f"/v1/nodes/{node['id']}", stage.venue.owner)


@operation
async def create_offer(stage: Stage) -> Request:
    body = {"node": (await _node(stage))["id"], "gpus": 4, "reserve_price_per_gpu_hour": "9.00"}
    return Request("POST", "/v1/offers", stage.venue.owner, body)


@operation
async def batch_offers(stage: Stage) -> Request:
    nodes = [(await _node(stage))["id"], (await _node(stage))["id"]]
    offers = [{"node": node, "gpus": 4, "reserve_price_per_gpu_hour": "9.00"} for node in nodes]
    return Request("POST", "/v1/offers/batch", stage.venue.owner, {"offers": offers})


@operation
async def amend_offer(stage: Stage) -> Request:
    offer = await _offer(stage)
    body = {"reserve_price_per_gpu_hour": "9.50"}
    return Request("PATCH", f"/v1/offers/{offer['id']}", stage.venue.owner, body, {"If-Match": '"1"'})


@operation
async def withdraw_offer(stage: Stage) -> Request:
    offer = await _offer(stage)
    return Request("DELETE", f"/v1/offers/{offer['id']}", stage.venue.owner, None, {"If-Match": '"1"'})


@operation
async def create_key(stage: Stage) -> Request:
    return Request("POST", "/v1/keys", stage.venue.buyer, {"name": "bot", "scopes": ["bids:write"]})


@operation
async def rotate_key(stage: Stage) -> Request:
    return Request("POST", f"/v1/keys/{(await _key(stage))['id']}/rotate", stage.venue.buyer, {})


@operation
async def revoke_key(stage: Stage) -> Request:
    return Request("DELETE", f"/v1/keys/{(await _key(stage))['id']}", stage.venue.buyer)


@operation
async def limit_key(stage: Stage) -> Request:
    body = {"max_price_per_gpu_hour": "3.00"}
    return Request("PUT", f"/v1/keys/{(await _key(stage))['id']}/limits", stage.venue.buyer, body)


@operation
async def stop_key(stage: Stage) -> Request:
    return Request("POST", f"/v1/keys/{(await _key(stage))['id']}/stop", stage.venue.buyer, {})


@operation
async def resume_key(stage: Stage) -> Request:
    key = await _key(stage)
    await stage.venue.ok("POST", f"/v1/keys/{key['id']}/stop", stage.venue.buyer, {})
    return Request("POST", f"/v1/keys/{key['id']}/resume", stage.venue.buyer)


@operation
async def create_target(stage: Stage) -> Request:
    body = {"kind": "hold", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    return Request("POST", "/v1/targets", stage.venue.buyer, body)


@operation
async def amend_target(stage: Stage) -> Request:
    target = await _target(stage)
    return Request("PATCH", f"/v1/targets/{target['id']}", stage.venue.buyer, {"gpus": 2})


@operation
async def cancel_target(stage: Stage) -> Request:
    return Request("DELETE", f"/v1/targets/{(await _target(stage))['id']}", stage.venue.buyer)


@operation
async def create_webhook(stage: Stage) -> Request:
    return Request("POST", "/v1/webhooks", stage.venue.buyer, {"url": "http://127.0.0.1:9/never"})


@operation
async def amend_webhook(stage: Stage) -> Request:
    webhook = await _webhook(stage)
    return Request("PATCH", f"/v1/webhooks/{webhook['id']}", stage.venue.buyer, {"description": "mine"})


@operation
async def rotate_webhook_secret(stage: Stage) -> Request:
    webhook = await _webhook(stage)
    return Request("POST", f"/v1/webhooks/{webhook['id']}/rotate-secret", stage.venue.buyer, {})


@operation
async def delete_webhook(stage: Stage) -> Request:
    return Request("DELETE", f"/v1/webhooks/{(await _webhook(stage))['id']}", stage.venue.buyer)


@operation
async def create_sign_in_link(stage: Stage) -> Request:
    return Request("POST", "/v1/sign-in-links", stage.venue.buyer)


@operation
async def create_account(stage: Stage) -> Request:
    body = {"name": "new", "roles": ["buyer"]}
    return Request("POST", "/v1/operator/accounts", stage.venue.operator, body)


@operation
async def freeze_account(stage: Stage) -> Request:
    account, _ = await stage.venue.open_account("buyer")
    return Request("POST", f"/v1/operator/accounts/{account}/freeze", stage.venue.operator, {})


@operation
async def create_market(stage: Stage) -> Request:
    body = {
        "id": random_id("m").replace("_", "-"),
        "gpu_model": "H100",
        "gpu_memory_gib": 80,
        "gpus_per_node": 8,
        "interconnect": "sxm",
        "region": "test",
        "tick_seconds": 3_600,
        "notice_seconds": 1,
    }
    return Request("POST", "/v1/operator/markets", stage.venue.operator, body)


@operation
async def halt_market(stage: Stage) -> Request:
    market = (await stage.venue.open_market(random_id("m").replace("_", "-"), tick_seconds=3_600))["id"]
    body = {"status": "halted", "reason": "a drill"}
    return Request("POST", f"/v1/operator/markets/{market}/halt", stage.venue.operator, body)


async def _batch(stage: Stage, *, is_atomic: bool) -> dict[str, Any]:
    amended, cancelled = await stage.bid(), await stage.bid()
    place = {"op": "place", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    amend = {"op": "amend", "id": amended["id"], "limit_price_per_gpu_hour": "2.50"}
    return {"operations": [place, amend, {"op": "cancel", "id": cancelled["id"]}], "atomic": is_atomic}


async def _earn(stage: Stage) -> None:
    """Let the owner have some earnings, by the operator's hand."""
    body = {
        "account": stage.owner_account,
        "direction": "credit",
        "amount": "0.01",
        "reason": "earned",
        "balance": "earning",
    }
    await stage.venue.ok("POST", "/v1/operator/adjustments", stage.venue.operator, body)


async def _node(stage: Stage) -> dict[str, Any]:
    body = {"name": random_id("n"), "market": MARKET, "gpus": 4, "simulated": True}
    return dict(await stage.venue.ok("POST", "/v1/nodes", stage.venue.owner, body))


async def _offer(stage: Stage) -> dict[str, Any]:
    body = {"node": (await _node(stage))["id"], "gpus": 4, "reserve_price_per_gpu_hour": "9.00"}
    return dict(await stage.venue.ok("POST", "/v1/offers", stage.venue.owner, body))


async def _key(stage: Stage) -> dict[str, Any]:
    body = {"name": "bot", "scopes": ["bids:write"]}
    return dict(await stage.venue.ok("POST", "/v1/keys", stage.venue.buyer, body))


async def _target(stage: Stage) -> dict[str, Any]:
    body = {"kind": "hold", "market": MARKET, "gpus": 1, "limit_price_per_gpu_hour": "2.00"}
    return dict(await stage.venue.ok("POST", "/v1/targets", stage.venue.buyer, body))


async def _webhook(stage: Stage) -> dict[str, Any]:
    body = {"url": "http://127.0.0.1:9/never"}
    return dict(await stage.venue.ok("POST", "/v1/webhooks", stage.venue.buyer, body))
