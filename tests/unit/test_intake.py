"""A body that does not come whole is the sender's affair."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from api.config import Config
from api.intake import read_body
from api.wire import PlaceBidBody
from auction.errors import Rejection


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_ours():
    """Found by fuzzing: it was logged as an internal error, with a traceback, as often as somebody liked."""
    loop = asyncio.get_running_loop()
    body = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    body.feed_data(b'{"market":')
    body.set_exception(ConnectionResetError("Connection lost"))
    request = make_mocked_request("POST", "/v1/bids", payload=body)
    with pytest.raises(Rejection, match="ended before the body did") as refusal:
        await read_body(request, Config(), PlaceBidBody, is_batch=False)
    assert "malformed" == refusal.value.code
