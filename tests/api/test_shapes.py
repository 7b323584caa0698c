"""The pieces that need no server: fields, keys, codecs, problems, the API's description."""

import hashlib
import re
from pathlib import Path

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import ROUTES
from api.codec import JSON, MSGPACK, codec_for_answer
from api.config import Config
from api.errors import problem_of
from api.fields import format_instant, parse_instant
from api.keys import checksum, matches, mint_key, parse_key
from api.openapi import STREAM_PATH, document
from api.paging import read_entry, read_key, read_number, write_cursor
from api.problems import PROBLEMS
from api.wire import PlaceBidBody
from auction.errors import NotFound, Rejection, Unavailable

SOURCES = Path(__file__).parents[2]


def test_the_openapi_document_is_valid_and_complete():
    described = document(ROUTES, "0")
    OpenAPIV31SpecValidator(described).validate()
    operations = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    assert operations == {(route.method, route.path) for route in ROUTES} | {("GET", STREAM_PATH)}
    names = [op["operationId"] for methods in described["paths"].values() for op in methods.values()]
    assert len(names) == len(set(names))
    bid = described["components"]["schemas"]["PlaceBidBody"]
    assert bid["additionalProperties"] is False
    limit = bid["properties"]["limit_price_per_gpu_hour"]["anyOf"]
    assert [choice["type"] for choice in limit] == ["string", "null"]


def test_every_code_that_is_raised_has_a_status():
    """Method: read the sources for Rejection("…") and Unavailable("…")."""
    raised = set()
    for folder in ("api", "auction", "sql"):
        for path in (SOURCES / folder).glob("*.py"):
            raised |= set(re.findall(r'(?:Rejection|Unavailable)\(\s*"([a-z_]+)"', path.read_text()))
    assert len(raised) > 30
    assert raised <= PROBLEMS.keys()


def test_a_code_without_a_status_is_our_fault_and_never_a_success():
    assert problem_of(Rejection("never_heard_of", "x"), "r").status == 500
    assert problem_of(ZeroDivisionError("secret text"), "r").code == "internal_error"
    assert "secret" not in problem_of(ZeroDivisionError("secret text"), "r").detail


def test_rejections_carry_their_numbers_as_decimal_strings():
    problem = problem_of(Rejection("insufficient_funds", "no", required=2_500_000, available=1), "req_1")
    shown = msgspec.json.decode(JSON.encode(problem))
    assert shown["required"] == "2.500000"
    assert shown["available"] == "0.000001"
    assert "below" not in shown
    assert problem_of(NotFound("bid"), "r").status == 404
    assert problem_of(Unavailable("inbox_full", "x"), "r").retryable


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b'{"gpus": "x"}', "invalid_value", "/gpus"),
        (b'{"a/b~": 1}', "unknown_field", "/a~1b~0"),
        (b"{}", "missing_field", "/gpus"),
        (b'{"labels": {"a": 1}}', "invalid_value", "/labels"),
        (b"[]", "invalid_value", ""),
    ],
)
def test_validation_names_the_field(body, code, pointer):
    with pytest.raises(msgspec.ValidationError) as refused:
        JSON.decode(body, PlaceBidBody)
    problem = problem_of(refused.value, "r")
    assert (problem.code, problem.errors[0].pointer) == (code, pointer)


def test_text_is_normalised():
    raw = {"market": "m", "gpus": 1, "limit_price_per_gpu_hour": "1", "client_bid_id": "e\u0301"}
    for codec, body in ((JSON, msgspec.json.encode(raw)), (MSGPACK, msgpack.packb(raw))):
        assert codec.decode(body, PlaceBidBody).client_bid_id == "é"


@given(st.integers(0, 253_402_300_799_999_999))
def test_instants_survive_the_wire(instant_us):
    text = format_instant(instant_us)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert parse_instant(text) == instant_us


@pytest.mark.parametrize(
    "text", ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", 5]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_instant(text)


def test_a_key_has_the_published_form_and_only_its_hash_is_kept():
    key, text = mint_key("acct_1", "n", ["bids:read"], is_live=True, now_us=7)
    match = re.fullmatch(r"fal_live_([0-9A-Za-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", text)
    assert match is not None
    assert match[1] == key.public_id
    assert match[3] == checksum(text[:-6])
    assert key.secret_sha256 == hashlib.sha256(match[2].encode()).digest()
    presented = parse_key(text)
    assert matches(key, presented)
    assert not matches(None, presented)
    assert not matches(msgspec.structs.replace(key, secret_sha256=b"\0" * 32), presented)


@given(st.text(max_size=90))
def test_no_text_is_taken_for_a_key(text):
    assert parse_key(text) is None


@pytest.mark.parametrize(
    ("accept", "content_type", "codec"),
    [
        (None, None, JSON),
        (None, "application/msgpack", MSGPACK),
        ("*/*", "application/msgpack", MSGPACK),
        ("application/msgpack", None, MSGPACK),
        ("application/vnd.msgpack", "application/json", MSGPACK),
        ("application/json;q=0.5, application/msgpack", None, MSGPACK),
        ("application/msgpack;q=0, application/json", None, JSON),
        ("text/html, */*;q=0.8", None, JSON),
        ("text/csv", None, None),
        ("application/msgpack;q=nan", None, None),
    ],
)
def test_the_answer_is_in_what_the_client_reads(accept, content_type, codec):
    assert codec_for_answer(accept, content_type) is codec


def test_cursors_survive_and_foreign_ones_are_refused():
    assert read_number(write_cursor(5)) == 5
    assert read_key(write_cursor((5, "bid_1"))) == (5, "bid_1")
    assert read_entry(write_cursor((5, [1, 2, 3, -4])), 9) == (5, [1, 2, 3, -4])
    for bad in ("", "é", "AAAA", write_cursor("x"), write_cursor(-1), write_cursor(2**63)):
        with pytest.raises(Rejection):
            read_number(bad)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org", "::"])
def test_only_loopback_is_served(host):
    with pytest.raises(ValueError, match="loopback"):
        Config(host=host)
