"""`fallow webhook`, `fallow login` and the receiver's check of signatures."""

import asyncio
import json
import signal
from datetime import UTC, datetime, timedelta

import pytest

from api import webhook_messages
from api.webhook_messages import new_secret, signed_headers, write_secret
from fallow import AsyncClient
from fallow.client import SignatureError, WebhookMessage, verify_webhook
from fallow.webhook_receiver import BODY_BYTES_MAX, MESSAGES_WAITING_MAX, Receiver
from tests.api.conftest import MARKET
from tests.api.shell import Shell
from tests.api.webhook_receiver import receiving

NOW_S = 1_800_000_000
BODY = (
    b'{"id":"evt_1","type":"webhook.test","seq":null,"at":"2027-01-15T08:00:00Z",'
    b'"market":null,"tick":null,"data":{}}'
)


@pytest.fixture
async def shell(venue, tmp_path):
    return Shell(venue, tmp_path)


def test_a_message_has_the_fields_that_the_server_writes():
    assert WebhookMessage.__struct_fields__ == webhook_messages.WebhookMessage.__struct_fields__


def test_only_what_was_signed_lately_with_the_secret_is_taken():
    secret = new_secret()
    headers = signed_headers("evt_1", NOW_S, BODY, [new_secret(), secret])
    message = verify_webhook(write_secret(secret), headers, BODY, now_s=NOW_S + 300)
    assert (message.id, message.type) == ("evt_1", "webhook.test")
    loud = {name.upper(): value for name, value in headers.items()}
    assert verify_webhook(write_secret(secret), loud, BODY, now_s=NOW_S) == message
    for given, body, now_s in (
        (headers, BODY + b" ", NOW_S),
        (headers, BODY, NOW_S + 301),
        (headers, BODY, NOW_S - 301),
        (headers | {"webhook-id": "evt_2"}, BODY, NOW_S),
        (headers | {"webhook-timestamp": str(NOW_S + 1)}, BODY, NOW_S),
        (headers | {"webhook-timestamp": "soon"}, BODY, NOW_S),
        (headers | {"webhook-signature": "v1,é"}, BODY, NOW_S),
        ({}, BODY, NOW_S),
        (signed_headers("evt_1", NOW_S, b"[]", [secret]), b"[]", NOW_S),
    ):
        with pytest.raises(SignatureError):
            verify_webhook(write_secret(secret), given, body, now_s=now_s)
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook("whsec_", headers, BODY, now_s=NOW_S)


async def test_the_receiver_takes_what_is_genuine_and_no_more_than_it_can_hold(venue):
    secret, refused = new_secret(), []
    receiver = await Receiver(refused.append).start(0)
    receiver.secret = write_secret(secret)
    now_s = int(datetime.now(UTC).timestamp())
    headers = signed_headers("evt_1", now_s, BODY, [secret])
    session = venue.client.session

    async def post(body, **options):
        async with session.post(receiver.url, data=body, headers=headers, **options) as response:
            return response.status

    assert receiver.url.startswith("http://127.0.0.1:")
    assert await post(BODY + b" ") == 401 and len(refused) == 1
    assert await post(b"x" * (BODY_BYTES_MAX + 1)) == 413
    assert {await post(BODY) for _ in range(MESSAGES_WAITING_MAX)} == {204}
    assert await post(BODY) == 503
    assert (await receiver.next()).id == "evt_1"
    assert await post(BODY) == 204
    await receiver.stop()


async def test_listening_prints_events_and_leaves_no_endpoint_behind(shell, venue):
    process = await shell.start(
        "webhook", "listen", "--type", "bid.accepted", "--messages", "1", "-o", "json"
    )
    assert (await process.stderr.readline()).startswith(b"listening at http://127.0.0.1:")
    bid = await venue.place(gpus=1)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors
    message = json.loads(output)
    assert (message["type"], message["data"]["id"]) == ("bid.accepted", bid["id"])
    for ending in (signal.SIGINT, signal.SIGTERM):
        process = await shell.start("webhook", "listen")
        await process.stderr.readline()
        (listed,) = await shell.json("webhook", "ls")
        assert listed["description"] == "fallow webhook listen"
        process.send_signal(ending)
        assert (await process.communicate())[1] == b"" and process.returncode == 0
        assert await shell.json("webhook", "ls") == []


async def test_a_test_message_and_a_replay(shell, venue):
    began = datetime.now(UTC) - timedelta(minutes=1)
    await venue.place(gpus=1)
    async with receiving() as receiver, AsyncClient(shell.server, key=shell.key) as client:
        hook = await client.create_webhook(receiver.url, types=["bid.accepted"])
        (delivery,) = await shell.json("webhook", "test", hook.id)
        assert (delivery["state"], delivery["last_status"]) == ("delivered", 204)
        (replayed,) = await shell.json("webhook", "replay", hook.id, "--since", f"{began:%Y-%m-%dT%H:%MZ}")
        assert replayed == {"scheduled": 1, "next_cursor": None}
        await receiver.first("bid.accepted")
        receiver.status = 500
        code, output, _ = await shell.run("webhook", "test", hook.id)
        assert code == 1 and "500" in output
        kept = client.webhook_deliveries(hook.id)
        assert {one.type async for one in kept} == {"bid.accepted", "webhook.test"}


async def test_a_profile_serves_its_own_server_only(shell, venue):
    nowhere = {"server": "", "key": ""}
    code, output, errors = await shell.run(
        "login", "--server", shell.server, text=shell.key + "\n", **nowhere
    )
    assert code == 0 and shell.key not in output + errors
    path = shell.home / "fallow" / "profiles.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await shell.json("bill", "balance", **nowhere))[0]["available"] == "1000.000000"
    assert (await shell.run("node", "ls", "--profile", "default", key=venue.owner))[0] == 4, "it was named"
    other = shell.server.replace("127.0.0.1", "localhost")
    assert (await shell.run("bill", "balance", "--server", other, **nowhere))[0] == 4, "it got no key"
    text = venue.owner + "\n"
    assert (await shell.run("login", "--server", shell.server, "--profile", "owner", text=text))[0] == 0
    assert (await shell.run("node", "ls", "--profile", "owner", **nowhere))[0] == 0
    code, _, errors = await shell.run("bill", "balance", "--profile", "none", **nowhere)
    assert code == 2 and "fallow login --profile none" in errors
    code, _, errors = await shell.run("login", "--server", shell.server, text="fal_test_wrong\n")
    assert code == 4
    path.chmod(0o644)
    code, _, errors = await shell.run("bill", "balance", **nowhere)
    assert code == 2 and "chmod 600" in errors
    path.unlink()
    path.mkdir()
    for command in (("bill", "balance"), ("login", "--server", shell.server)):
        code, _, errors = await shell.run(*command, text=text, **nowhere)
        assert code == 2 and "Is a directory" in errors


async def test_a_market_that_is_away_has_its_exit_code(shell):
    code, output, errors = await asyncio.wait_for(
        shell.run("market", "depth", MARKET, server="http://127.0.0.1:9"), 60
    )
    assert (code, output) == (5, "") and "not answered" in errors
