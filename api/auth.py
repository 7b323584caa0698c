"""Who is asking: from an Authorization header to an account and the scopes of its key.

A key is looked up at most once in `key_cache_seconds`, so a revoked one stops working within that time
even when another process revoked it; a revocation through this process takes effect at once. Absent and
wrong keys take the same path and get the same answer. Invariant: the cache is bounded.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from api.keys import matches, parse_key
from auction.clock import Clock
from auction.errors import Rejection
from auction.model import ApiKey
from auction.units import MICROSECONDS_PER_SECOND
from sql.reads import Reader

CACHED_KEYS_MAX = 10_000
AUTHORIZATION_CHARACTERS_MAX = 512

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated key: for whom it speaks and what it may do."""

    account: str
    key: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Refuse what this key may not do; of "a or b" either scope will do."""
        if self.scopes.isdisjoint(scope.split(" or ")):
            raise Rejection("scope_missing", f"this key lacks the scope {scope}", scope=scope)


class Authenticator:
    """Checks keys against the stored ones, with a short memory."""

    def __init__(self, reader: Reader, clock: Clock, *, is_demo: bool, cache_seconds: float) -> None:
        self._reader = reader
        self._clock = clock
        self._is_live = not is_demo
        self._cache_us = int(cache_seconds * MICROSECONDS_PER_SECOND)
        self._cache: OrderedDict[str, tuple[int, ApiKey | None]] = OrderedDict()

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """Return who holds the key of this header; raise `unauthenticated` for every other one.

        A key that is bound to networks is refused from other addresses: `address_not_allowed`.
        """
        if authorization is None or len(authorization) > AUTHORIZATION_CHARACTERS_MAX:
            raise _refusal()
        if not authorization.lower().startswith(_SCHEME):
            raise _refusal()
        return await self.check(authorization[len(_SCHEME) :].strip(), address)

    async def check(self, text: str, address: str) -> Principal:
        """Return who holds this key; raise `unauthenticated` otherwise, or `address_not_allowed`."""
        presented = parse_key(text)
        if presented is None or presented.is_live is not self._is_live:
            raise _refusal()
        now_us = self._clock.now_us()
        key = await self._find(presented.public_id, now_us)
        if not matches(key, presented, now_us) or key is None or not _is_valid(key, now_us):
            raise _refusal()
        if key.allowed_networks and not _is_inside(address, key.allowed_networks):
            raise Rejection("address_not_allowed", f"this key may not be used from {address}")
        return Principal(key.account, key.id, frozenset(key.scopes))

    def forget(self, public_id: str) -> None:
        """Drop what is remembered of a key: it was just revoked."""
        self._cache.pop(public_id, None)

    async def _find(self, public_id: str, now_us: int) -> ApiKey | None:
        cached = self._cache.get(public_id)
        if cached is not None and cached[0] > now_us:
            return cached[1]
        key = await self._reader.key_by_public_id(public_id)
        self._cache[public_id] = (now_us + self._cache_us, key)
        self._cache.move_to_end(public_id)
        while len(self._cache) > CACHED_KEYS_MAX:
            self._cache.popitem(last=False)
        return key


def is_within(network: str, outer: str) -> bool:
    """Say whether a network lies within another one."""
    inner, whole = ip_network(network), ip_network(outer)
    if isinstance(inner, IPv4Network) and isinstance(whole, IPv4Network):
        return inner.subnet_of(whole)
    return isinstance(inner, IPv6Network) and isinstance(whole, IPv6Network) and inner.subnet_of(whole)


def _is_inside(address: str, networks: list[str]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return any((mapped or parsed) in ip_network(network) for network in networks)


def _is_valid(key: ApiKey, now_us: int) -> bool:
    is_expired = key.expires_at_us is not None and key.expires_at_us <= now_us
    return key.revoked_at_us is None and not is_expired


def _refusal() -> Rejection:
    return Rejection("unauthenticated", "no valid key was presented")
