"""Where the server itself may connect to: the guard against webhooks that aim inside (SSRF).

Decides at connect time, on the address that was resolved, so neither a literal in disguise nor a DNS
answer that changes between a check and its use gets through. Must not know what is sent. What Python
calls global includes ranges that lead to other addresses (NAT64, 6to4, IPv4-compatible): refused here.
Invariant: no socket exists for an address that is not allowed.
"""

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client import ClientSession
from yarl import URL

from api.config import Reach
from auction.errors import Rejection

CONNECTIONS_MAX = 256
LOOKUPS_MAX = 256
SEND_SECONDS_MAX = 10.0
URL_CHARACTERS_MAX = 2_048

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressInfo = tuple[int, int, int, str, Any]
MakeSocket = Callable[[AddressInfo], socket.socket]

# Each carries an IPv4 address inside, or is a private range of old, while `is_global` says yes.
_TRANSLATED = tuple(
    ipaddress.IPv6Network(network)
    for network in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")
)


# Printable ASCII without what some parser somewhere reads as a slash, a quote or an end.
_URL = re.compile(r"https?://[!-~]+", re.ASCII)
_NOT_IN_URL = frozenset('\\"<>^`{|}')
_LOOKS_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?", re.ASCII)
_EXPECTED = "expected https://host/path in ASCII, at most 2,048 characters, without user or fragment"


class ForbiddenAddress(OSError):
    """The address is none that this server connects to."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not allowed")


def is_forbidden(address: str, reach: Reach = "public") -> bool:
    """Say whether nothing may be sent to this IP address; what is no IP address is forbidden.

    `loopback` also allows this machine, `private` every unicast address.
    """
    try:
        parsed: IPAddress = ipaddress.ip_address(address)
    except ValueError:
        return True
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_multicast or parsed.is_unspecified:
        return True
    if reach == "private" or (reach == "loopback" and parsed.is_loopback):
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and any(parsed in network for network in _TRANSLATED):
        return True
    return not parsed.is_global


def guarded_socket(reach: Reach, make: MakeSocket | None = None) -> MakeSocket:
    """Return a socket factory that raises ForbiddenAddress instead of making a socket."""
    create = make or _make_socket

    def guard(info: AddressInfo) -> socket.socket:
        family, address = info[0], info[4]
        if family not in (socket.AF_INET, socket.AF_INET6) or is_forbidden(address[0], reach):
            raise ForbiddenAddress
        return create(info)

    return guard


def _make_socket(info: AddressInfo) -> socket.socket:
    return socket.socket(info[0], info[1], info[2])


class ThreadResolver(AbstractResolver):
    """Looks names up in threads of its own: a name server that never answers holds up no one else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name; raises OSError when there is none."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def open_session(reach: Reach, *, make: MakeSocket | None = None) -> ClientSession:
    """Return a client that follows no proxy of the environment, keeps no cookies, and is guarded."""
    connector = TCPConnector(
        socket_factory=guarded_socket(reach, make),
        resolver=ThreadResolver(),
        limit=CONNECTIONS_MAX,
        ttl_dns_cache=10,
    )
    return ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=SEND_SECONDS_MAX),
        cookie_jar=DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"User-Agent": "Fallow-Webhooks/1"},
    )


def check_url(url: str, reach: Reach, ports: tuple[int, ...]) -> None:
    """Refuse an address that could never be sent to; raises Rejection, which says what could.

    Names are resolved and checked when something is sent, not here: their answers change.
    """
    if len(url) > URL_CHARACTERS_MAX or _URL.fullmatch(url) is None or not _NOT_IN_URL.isdisjoint(url):
        raise _invalid(_EXPECTED)
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        raise _invalid(_EXPECTED) from None
    if not host or not port or parsed.user is not None or parsed.password is not None or "#" in url:
        raise _invalid(_EXPECTED)
    literal = _literal(host)
    if literal is None and _LOOKS_NUMERIC.fullmatch(host):
        raise _invalid("expected an IPv4 address as four decimal numbers, or a name")
    is_local_name = host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost")
    is_loopback = is_local_name or (literal is not None and not is_forbidden(literal, "loopback"))
    is_refused = literal is not None and is_forbidden(literal, reach)
    if is_refused or (is_local_name and reach == "public"):
        raise Rejection("webhook_address_forbidden", _accepted(reach), pointer="/url")
    is_inside = is_local_name or (literal is not None and is_forbidden(literal))
    is_free = reach == "private" or (is_inside and is_loopback)
    if parsed.scheme != "https" and not is_free:
        raise _invalid("expected https: plain http is for receivers on the server's own networks only")
    if not is_free and port not in ports:
        raise _invalid(f"expected one of the ports {', '.join(map(str, ports))}")


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _invalid(detail: str) -> Rejection:
    return Rejection("webhook_url_invalid", detail, pointer="/url")


def _accepted(reach: Reach) -> str:
    also = {"public": "", "loopback": " or of this machine", "private": " or of a private network"}[reach]
    return f"expected an address that is reachable from everywhere{also}"
