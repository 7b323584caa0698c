"""Who is asking: from an Authorization header to an account and the scopes of its key.

A header carries a key (keys.py), or the signature of a request by an ed25519 key (signing.py). A key is
looked up at most once in `key_cache_seconds`, so a revoked one stops working within that time even when
another process revoked it; a revocation through this process takes effect at once. Absent and wrong keys take
the same path and get the same answer. Invariant: the cache is bounded.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from api.browser import Sessions, hash_token
from api.keys import is_current, matches, parse_key, public_key_of
from api.nonces import Nonces
from api.signing import Parts, Signed, is_signed_by, parse_signed, request_text, socket_text
from auction.clock import Clock
from auction.errors import Rejection
from auction.model import ApiKey
from auction.units import MICROSECONDS_PER_SECOND
from sql.reads import Reader

CACHED_KEYS_MAX = 10_000
AUTHORIZATION_CHARACTERS_MAX = 512

_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated key: for whom it speaks and what it may do."""

    account: str
    key: str
    scopes: frozenset[str]
    public_id: str  # that it was presented by: rotation ends it
    is_signed: bool = False  # the body must be the one whose digest was signed
    session_sha256: bytes | None = None  # of the browser's session, where it was one

    def require(self, scope: str) -> None:
        """Refuse what this key may not do; of "a or b" either scope will do."""
        if self.scopes.isdisjoint(scope.split(" or ")):
            raise Rejection("scope_missing", f"this key lacks the scope {scope}", scope=scope)


class Authenticator:
    """Checks keys against the stored ones, with a short memory."""

    def __init__(
        self, reader: Reader, sessions: Sessions, clock: Clock, *, is_demo: bool, cache_seconds: float
    ) -> None:
        self._reader = reader
        self._sessions = sessions
        self._clock = clock
        self._is_live = not is_demo
        self._cache_us = int(cache_seconds * MICROSECONDS_PER_SECOND)
        self._cache: OrderedDict[str, tuple[int, ApiKey | None]] = OrderedDict()
        self._nonces = Nonces(clock.now_us())

    async def authenticate(self, authorization: str | None, parts: Parts, address: str) -> Principal:
        """Return who holds the key of this header; `parts` is what a signature has to cover.

        Raises Rejection: `unauthenticated` for every wrong key, `address_not_allowed` for one that is bound
        to other networks, and what Nonces raises for a signature that is not new.
        """
        if authorization is None or len(authorization) > AUTHORIZATION_CHARACTERS_MAX:
            raise _refusal()
        signed = parse_signed(authorization)
        if signed is not None:
            return await self._check_signed(signed, parts, address)
        if not authorization.lower().startswith(_BEARER):
            raise _refusal()
        return await self.check(authorization[len(_BEARER) :].strip(), address)

    async def check(self, text: str, address: str) -> Principal:
        """Return who holds this key; raise `unauthenticated` otherwise, or `address_not_allowed`."""
        presented = parse_key(text)
        if presented is None or presented.is_live is not self._is_live:
            raise _refusal()
        key = await self._find(presented.public_id)
        if not matches(key, presented):
            raise _refusal()
        return self._principal(key, presented.public_id, address)

    async def check_socket(self, public_id: str, signature: bytes, session: str, address: str) -> Principal:
        """Return who has signed the session of a socket; raises what `check` raises."""
        key = await self._find(public_id)
        public_key = None if key is None else public_key_of(key, public_id)
        if not is_signed_by(public_key, signature, socket_text(public_id, session)):
            raise _refusal()
        return self._principal(key, public_id, address)

    async def check_session(self, token: str, address: str) -> Principal:
        """Return for whom a browser's session speaks; raises what `check` raises."""
        token_sha256 = hash_token(token)
        session = await self._sessions.find(token_sha256, self._clock.now_us())
        if session is None:
            raise _refusal()
        key = await self._find(session.public_id)
        return replace(self._principal(key, session.public_id, address), session_sha256=token_sha256)

    async def check_link(self, token: str, address: str) -> Principal:
        """Use a sign-in link up; return whose it was. Raises what `check` raises."""
        link = await self._sessions.store.take_link(hash_token(token), self._clock.now_us())
        if link is None:
            raise _refusal()
        return self._principal(await self._find(link.public_id), link.public_id, address)

    async def recheck(self, principal: Principal, address: str) -> Principal:
        """Return what somebody who was let in may do now; raises what `check` raises once it may not."""
        session_sha256 = principal.session_sha256
        if session_sha256 is not None:
            session = await self._sessions.find(session_sha256, self._clock.now_us())
            if session is None:
                raise _refusal()
        key = await self._find(principal.public_id)
        return replace(self._principal(key, principal.public_id, address), session_sha256=session_sha256)

    def forget(self, public_id: str) -> None:
        """Drop what is remembered of a key: it was just revoked."""
        self._cache.pop(public_id, None)

    async def _check_signed(self, signed: Signed, parts: Parts, address: str) -> Principal:
        self._nonces.refuse_untimely(signed, self._clock.now_us())
        key = await self._find(signed.public_id)
        public_key = None if key is None else public_key_of(key, signed.public_id)
        text = request_text(parts, signed.public_id, signed.created_us, signed.nonce)
        if not is_signed_by(public_key, signed.signature, text):
            raise _refusal()
        principal = self._principal(key, signed.public_id, address, is_signed=True)
        self._nonces.use(principal.account, signed, self._clock.now_us())
        return principal

    def _principal(
        self, key: ApiKey | None, public_id: str, address: str, *, is_signed: bool = False
    ) -> Principal:
        if key is None or not is_current(key, public_id, self._clock.now_us()):
            raise _refusal()
        if key.allowed_networks and not _is_inside(address, key.allowed_networks):
            raise Rejection("address_not_allowed", f"this key may not be used from {address}")
        return Principal(key.account, key.id, frozenset(key.scopes), public_id, is_signed)

    async def _find(self, public_id: str) -> ApiKey | None:
        now_us = self._clock.now_us()
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


def _refusal() -> Rejection:
    return Rejection("unauthenticated", "no valid key was presented")
