"""The guard against webhooks that aim inside. No socket is ever made here, let alone connected.

Every session of this file has a socket factory that writes the address down and raises; what the guard
refuses does not even get that far.
"""

import errno
import socket

import pytest
from aiohttp import ClientError
from aiohttp.abc import AbstractResolver

from api.egress import ForbiddenAddress, check_url, guarded_socket, is_forbidden, open_session
from auction.errors import Rejection

FORBIDDEN = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_not_public_is_forbidden(address):
    assert is_forbidden(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address):
    assert not is_forbidden(address)


@pytest.mark.parametrize(
    "address", ["", "localhost", "127.1", "0x7f000001", "2130706433", "1.1.1.1 ", "１.1.1.1"]
)
def test_what_is_no_ip_address_is_forbidden(address):
    assert is_forbidden(address, "private")


def test_the_operator_can_allow_more_and_never_multicast():
    assert not is_forbidden("127.0.0.1", "loopback")
    assert not is_forbidden("::1", "loopback")
    assert not is_forbidden("::ffff:127.0.0.1", "loopback")
    assert is_forbidden("10.0.0.1", "loopback")
    assert is_forbidden("2002:7f00:1::", "loopback")
    assert not is_forbidden("10.0.0.1", "private")
    assert not is_forbidden("fd00::1", "private")
    for address in ("224.0.0.1", "ff02::1", "0.0.0.0", "::"):
        assert is_forbidden(address, "private")


class Recorder:
    """A socket factory that never makes one."""

    def __init__(self):
        self.addresses = []

    def __call__(self, info):
        self.addresses.append(info[4][0])
        raise OSError(errno.ECONNREFUSED, "recorded, never connected")


class Answers(AbstractResolver):
    """A name server whose next answer may be another one."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        addresses = self.answers.pop(0)
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 6,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in addresses
        ]

    async def close(self):
        pass


async def reached(url, reach="public", resolver=None):
    """Return (the addresses a socket was asked for, the error that ended it)."""
    recorder = Recorder()
    session = open_session(reach, make=recorder)
    if resolver is not None:
        await session.connector._resolver.close()
        session.connector._resolver = resolver
    async with session:
        with pytest.raises((ClientError, OSError, ValueError)) as refused:
            await session.post(url, data=b"{}", allow_redirects=False)
    return recorder.addresses, refused.value


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://localhost/",
        "http://localhost./",
        "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://user@127.0.0.1/",
        "http://example.org@127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "https://10.0.0.1/",
        "http://0/",
    ],
)
async def test_no_spelling_of_an_inner_address_gets_a_socket(url):
    addresses, error = await reached(url)
    assert addresses == []
    cause = getattr(error, "os_error", None)
    # Some spellings are no host at all to the client: refused before the guard, which is as good.
    assert cause is None or isinstance(cause, ForbiddenAddress | socket.gaierror), repr(error)


async def test_the_guard_looks_at_the_address_and_not_at_the_name():
    for inner in ("10.0.0.1", "::1", "169.254.169.254"):
        addresses, error = await reached("http://rebound.example/", resolver=Answers([inner]))
        assert addresses == []
        assert isinstance(error.os_error, ForbiddenAddress)
    addresses, _ = await reached("http://both.example/", resolver=Answers(["10.0.0.1", "8.8.8.8"]))
    assert set(addresses) == {"8.8.8.8"}
    addresses, _ = await reached("http://outside.example/", resolver=Answers(["1.1.1.1"]))
    assert addresses == ["1.1.1.1"]


async def test_a_public_literal_reaches_the_factory_and_a_demo_reaches_itself():
    assert (await reached("http://8.8.8.8/"))[0] == ["8.8.8.8"]
    assert (await reached("http://127.0.0.1:1/", "loopback"))[0] == ["127.0.0.1"]
    assert (await reached("http://10.0.0.1/", "loopback"))[0] == []
    assert (await reached("http://10.0.0.1/", "private"))[0] == ["10.0.0.1"]


async def test_the_environments_proxy_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await reached("http://8.8.8.8/"))[0] == ["8.8.8.8"]


def test_other_families_than_ip_get_no_socket():
    with pytest.raises(ForbiddenAddress):
        guarded_socket("private", Recorder())((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("/tmp/x",)))


def code_of(url, reach="public", ports=(443,)):
    try:
        check_url(url, reach, ports)
    except Rejection as rejection:
        return rejection.code
    return None


@pytest.mark.parametrize(
    "url",
    ["https://example.org", "https://example.org/hooks?a=b", "https://example.org:443/", "https://8.8.8.8/",
     "https://[2606:4700:4700::1111]/x", "https://xn--bcher-kva.example/"],
)  # fmt: skip
def test_public_https_addresses_are_taken(url):
    assert code_of(url) is None


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://example.org/", "http://example.org/", "https://", "https:///x", "https://user@example.org/",
     "https://user:pass@example.org/", "https://example.org/#x", "https://example.org:444/",
     "https://example.org:0/", "https://example.org:99999/", "https://exa mple.org/", "https://example.org/\n",
     "https://b\u00fccher.example/", "https://0x7f000001/", "https://127.1/", "https://2130706433/",
     "https://017700000001/", "https://a.0x7f/", "https://example.org\\@127.0.0.1/", "https://[::1/",
     "https://example.org/" + "x" * 2_048, "https://\uff11\uff12\uff17.0.0.1/"],
)  # fmt: skip
def test_what_is_no_address_for_webhooks_is_refused(url):
    assert code_of(url) == "webhook_url_invalid"


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
     "https://localhost/", "https://a.localhost/", "https://LOCALHOST./", "https://169.254.169.254/latest",
     "https://[64:ff9b::7f00:1]/"],
)  # fmt: skip
def test_inner_addresses_are_refused_when_they_can_be_seen(url):
    assert code_of(url) == "webhook_address_forbidden"


def test_what_the_operator_allows_may_be_plain_http_on_any_port():
    for url in ("http://127.0.0.1:9000/x", "http://localhost:9000/", "http://[::1]:9000/"):
        assert code_of(url, "loopback") is None
        assert code_of(url, "private") is None
    assert code_of("http://10.0.0.1/", "loopback") == "webhook_address_forbidden"
    assert code_of("http://10.0.0.1:8080/", "private") is None
    assert code_of("http://example.org/", "loopback") == "webhook_url_invalid"
    assert code_of("https://example.org:8443/", "loopback") == "webhook_url_invalid"
    assert code_of("https://example.org:8443/", "loopback", (443, 8443)) is None
