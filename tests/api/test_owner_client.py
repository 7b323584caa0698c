"""The client's owner, key and bill routes against a real market; field for field the server's views."""

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from api import (
    wire_history,
    wire_money,
    wire_owner,
    wire_statements,
    wire_summary,
    wire_supply,
    wire_webhooks,
)
from fallow import AsyncClient, Client
from fallow.client import AuthError, RefusedError, owner_model
from tests.api.conftest import MARKET

VIEWS = {
    "Reliability": wire_supply.NodeReliability,
    "Node": wire_supply.NodeView,
    "Offer": wire_supply.OfferView,
    "Recall": wire_supply.RecallView,
    "Term": wire_owner.TermView,
    "Cost": wire_owner.CostView,
    "ShutDown": wire_owner.ShutDownView,
    "IdleSeconds": wire_summary.IdleSecondsView,
    "Against": wire_summary.AgainstView,
    "OwnerGroup": wire_summary.GroupView,
    "OwnerSummary": wire_summary.SummaryView,
    "Key": wire_money.KeyView,
    "Webhook": wire_webhooks.WebhookView,
    "Delivery": wire_webhooks.DeliveryView,
    "Replay": wire_webhooks.ReplayView,
    "Candle": wire_history.CandleView,
    "Entry": wire_money.EntryView,
    "Usage": wire_statements.UsageView,
    "StatementHead": wire_statements.StatementHead,
    "StatementLine": wire_statements.StatementLineView,
    "Pocket": wire_statements.PocketView,
    "Statement": wire_statements.StatementView,
}


def client_of(venue, key):
    return AsyncClient(str(venue.client.make_url("/")), key=key)


def test_every_value_has_the_fields_that_the_server_writes():
    found = {
        name: value
        for name, value in vars(owner_model).items()
        if inspect.isclass(value)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == owner_model.__name__
    }
    assert found.keys() == VIEWS.keys()
    for name, mine in found.items():
        assert mine.__struct_encode_fields__ == VIEWS[name].__struct_encode_fields__, name


async def test_an_owners_node_from_its_enrolment_to_its_recall(venue):
    async with client_of(venue, venue.owner) as owner:
        node = await owner.create_node("rack 1", MARKET, gpus=8, simulated=True)
        assert (node.name, node.gpus, node.simulated) == ("rack 1", 8, True)
        until = datetime.now(UTC) + timedelta(hours=1)
        offer = await owner.create_offer(
            node.id, gpus=8, reserve_price_per_gpu_hour="1.10", available_until=until, notice_seconds=5
        )
        assert (offer.reserve_price_per_gpu_hour, offer.notice_seconds) == (Decimal("1.10"), 5)
        assert offer.available_until == until
        amended = await owner.amend_offer(offer.id, reserve_price_per_gpu_hour=Decimal("1.20"))
        assert amended.reserve_price_per_gpu_hour == Decimal("1.20") and amended.version > offer.version
        with pytest.raises(RefusedError) as stale:
            await owner.amend_offer(offer.id, reserve_price_per_gpu_hour=2, version=offer.version)
        assert stale.value.code == "version_mismatch"
        await venue.place(gpus=2)
        lease = await venue.lease_in("running")
        assert (await owner.cordon(node.id)).state != (await owner.uncordon(node.id)).state
        preview = await owner.preview_recall(node.id)
        assert [one.id for one in preview.leases] == [lease["id"]]
        assert [one.id async for one in owner.offers(node=node.id)] == [offer.id]
        assert (await owner.offer(offer.id)).status == "partly_leased", "a preview does nothing"
        recalled = await owner.recall(node.id, notice_seconds=5, version=preview.node.version)
        assert [notice.reason for notice in recalled.notices] == ["offer_withdrawn"]
        assert [one.id async for one in owner.nodes()] == [node.id]
        assert (await owner.node(node.id)).reliability_30d.started == 1


async def test_an_offer_is_withdrawn_and_the_summary_has_its_hours(venue):
    node, offer = await venue.offer_node()
    async with client_of(venue, venue.owner) as owner:
        withdrawn = await owner.withdraw_offer(offer["id"])
        assert withdrawn.status == "withdrawn"
        with pytest.raises(RefusedError) as final:
            await owner.withdraw_offer(offer["id"])
        assert final.value.code == "offer_final"
        summary = await owner.owner_summary(group_by="node", purchase_price_per_gpu=25_000)
        assert summary.short_run_floor.net_per_gpu_hour > 0 and summary.from_time < summary.to_time
        assert {group.node for group in summary.data} <= {node["id"]}


async def test_a_withdrawal_whose_answer_was_lost_is_not_refused_when_it_is_sent_again(venue):
    """Its If-Match is stale by then: the idempotency key has to come first."""
    _, offer = await venue.offer_node()
    sent = []

    async def lose_the_first(request):
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Idempotency-Key", "If-Match")
            if name in request.headers
        }
        async with venue.client.request(request.method, request.path_qs, headers=headers) as response:
            raw = await response.read()
        if request.method == "DELETE":
            sent.append((headers["Idempotency-Key"], headers["If-Match"]))
            if len(sent) == 1:
                request.transport.abort()
        return web.Response(status=response.status, body=raw, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", lose_the_first)
    front = TestServer(app, host="127.0.0.1")
    await front.start_server()
    async with front, AsyncClient(str(front.make_url("/")), key=venue.owner) as owner:
        assert (await owner.withdraw_offer(offer["id"])).status == "withdrawn"
    assert len(sent) == 2 and len(set(sent)) == 1 and sent[0][1] == f'"{offer["version"]}"'


async def test_a_key_is_made_rotated_and_revoked(venue):
    async with client_of(venue, venue.buyer) as buyer:
        key = await buyer.create_key(
            "bot", ["bids:read"], spend_cap_per_day="50", allowed_networks=["127.0.0.0/8"]
        )
        assert key.scopes == ["bids:read"] and key.allowed_networks == ["127.0.0.0/8"]
        async with client_of(venue, key.secret) as bot:
            assert [bid async for bid in bot.bids()] == []
            with pytest.raises(AuthError):
                await bot.create_key("more", ["bids:write"])
        rotated = await buyer.rotate_key(key.id, overlap_seconds=0)
        assert rotated.id == key.id and rotated.secret != key.secret
        async with client_of(venue, key.secret) as old:
            with pytest.raises(AuthError):
                [bid async for bid in old.bids()]
        assert (await buyer.revoke_key(key.id)).revoked_at is not None
        listed = buyer.keys()
        assert {one.id: one.secret async for one in listed}[key.id] is None


async def test_a_bill_adds_up(venue):
    async with client_of(venue, venue.buyer) as buyer:
        entries = [entry async for entry in buyer.ledger()]
        assert sum(one.amount for one in entries) == Decimal(1_000) == entries[0].balance
        (head,) = await buyer.statements()
        statement = await buyer.statement(head.id)
        money = next(pocket for pocket in statement.pockets if pocket.name == "money")
        assert money.opening + sum(line.amount for line in money.lines) == money.closing == Decimal(1_000)
        assert [row async for row in buyer.usage(group_by="market")] == []


async def test_the_market_shows_its_curve_and_its_candles(venue):
    await venue.offer_node()
    async with client_of(venue, None) as anybody:
        await venue.until(lambda: _supply(anybody), "the offer in the curve")
        (candle,) = await venue.until(lambda: _candles(anybody), "the first candle")
        assert candle.ticks >= 1 and candle.start_at.tzinfo is not None


async def _supply(client):
    return (await client.curve(MARKET)).supply


async def _candles(client):
    return [candle async for candle in client.candles(MARKET, interval="1d")]


async def test_the_blocking_client_has_the_same_routes(venue):
    def work():
        with Client(str(venue.client.make_url("/")), key=venue.owner) as owner:
            node = owner.create_node("rack", MARKET, gpus=4, simulated=True)
            offer = owner.create_offer(node.id, gpus=4, reserve_price_per_gpu_hour="1")
            owner.amend_offer(offer.id, reserve_price_per_gpu_hour="1.50")
            assert [one.id for one in owner.offers()] == [offer.id]
            assert owner.preview_recall(node.id).leases == []
            assert owner.withdraw_offer(offer.id).status == "withdrawn"
            assert [one.name for one in owner.nodes()] == ["rack"]
            assert owner.owner_summary().currency == "USD"
            assert len(list(owner.keys())) == len(owner.statements()) == 1
            return list(owner.ledger())

    assert await asyncio.to_thread(work) == []
