"""Who is asking: from an Authorization header to an account and the scopes of its key.

A header carries a key (keys.py), or the signature of a request by an ed25519 key (signing.py). A key is
looked up, and its secret checked, at most once in `key_cache_seconds`, so a revoked one stops working within
that time even when another process revoked it; a revocation through this process takes effect at once. Absent
and wrong keys take the same path and get the same answer. Invariant: the cache is bounded.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct
from msgspec.structs import replace

from api.browser import Sessions, hash_token
from api.keys import PUBLIC_ID_PLACE, is_current, matches, parse_key, public_key_of
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


class Principal(Struct, frozen=True):
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


class _Known:
    """A key as it was last read, until when that is believed, and which text was found to be it meanwhile."""

    __slots__ = ("key", "principal", "text_sha256", "until_us")

    def __init__(self, key: ApiKey | None, public_id: str, until_us: int) -> None:
        self.key = key
        self.until_us = until_us
        self.text_sha256 = b""
        self.principal: Principal | None = None
        if key is not None:
            self.principal = Principal(key.account, key.id, frozenset(key.scopes), public_id)


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
        self._cache: OrderedDict[str, _Known] = OrderedDict()
        self._nonces = Nonces(clock.now_us())

    async def authenticate(
        self, authorization: str | None, parts: Callable[[], Parts], address: str
    ) -> Principal:
        """Return who holds the key of this header; `parts` tells what a signature has to cover.

        Raises Rejection: `unauthenticated` for every wrong key, `address_not_allowed` for one that is bound
        to other networks, and what Nonces raises for a signature that is not new.
        """
        if authorization is None or len(authorization) > AUTHORIZATION_CHARACTERS_MAX:
            raise _refusal()
        if authorization[: len(_BEARER)].lower() == _BEARER:
            return await self.check(authorization[len(_BEARER) :].strip(), address)
        signed = parse_signed(authorization)
        if signed is None:
            raise _refusal()
        return await self._check_signed(signed, parts(), address)

    async def check(self, text: str, address: str) -> Principal:
        """Return who holds this key; raise `unauthenticated` otherwise, or `address_not_allowed`."""
        text_sha256 = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known = self._remembered(text[PUBLIC_ID_PLACE])
        if known is None or not hmac.compare_digest(known.text_sha256, text_sha256):
            presented = parse_key(text)
            if presented is None or presented.is_live is not self._is_live:
                raise _refusal()
            known = await self._find(presented.public_id)
            if not matches(known.key, presented):
                raise _refusal()
            known.text_sha256 = text_sha256
        return self._principal(known, address)

    async def check_socket(self, public_id: str, signature: bytes, session: str, address: str) -> Principal:
        """Return who has signed the session of a socket; raises what `check` raises."""
        known = await self._find(public_id)
        public_key = None if known.key is None else public_key_of(known.key, public_id)
        if not is_signed_by(public_key, signature, socket_text(public_id, session)):
            raise _refusal()
        return self._principal(known, address)

    async def check_session(self, token: str, address: str) -> Principal:
        """Return for whom a browser's session speaks; raises what `check` raises."""
        token_sha256 = hash_token(token)
        session = await self._sessions.find(token_sha256, self._clock.now_us())
        if session is None:
            raise _refusal()
        known = await self._find(session.public_id)
        return replace(self._principal(known, address), session_sha256=token_sha256)

    async def check_link(self, token: str, address: str) -> Principal:
        """Use a sign-in link up; return whose it was. Raises what `check` raises."""
        link = await self._sessions.store.take_link(hash_token(token), self._clock.now_us())
        if link is None:
            raise _refusal()
        return self._principal(await self._find(link.public_id), address)

    async def recheck(self, principal: Principal, address: str) -> Principal:
        """Return what somebody who was let in may do now; raises what `check` raises once it may not."""
        session_sha256 = principal.session_sha256
        if session_sha256 is not None and (
            await self._sessions.find(session_sha256, self._clock.now_us()) is None
        ):
            raise _refusal()
        holder = self._principal(await self._find(principal.public_id), address)
        return holder if session_sha256 is None else replace(holder, session_sha256=session_sha256)

    def forget(self, public_id: str) -> None:
        """Drop what is remembered of a key: it was just revoked."""
        self._cache.pop(public_id, None)

    async def _check_signed(self, signed: Signed, parts: Parts, address: str) -> Principal:
        self._nonces.refuse_untimely(signed, self._clock.now_us())
        known = await self._find(signed.public_id)
        public_key = None if known.key is None else public_key_of(known.key, signed.public_id)
        text = request_text(parts, signed.public_id, signed.created_us, signed.nonce)
        if not is_signed_by(public_key, signed.signature, text):
            raise _refusal()
        principal = replace(self._principal(known, address), is_signed=True)
        self._nonces.use(principal.account, signed, self._clock.now_us())
        return principal

    def _principal(self, known: _Known, address: str) -> Principal:
        key, principal = known.key, known.principal
        if key is None or principal is None:
            raise _refusal()
        if not is_current(key, principal.public_id, self._clock.now_us()):
            raise _refusal()
        if key.allowed_networks and not _is_inside(address, key.allowed_networks):
            raise Rejection("address_not_allowed", f"this key may not be used from {address}")
        return principal

    def _remembered(self, public_id: str) -> _Known | None:
        known = self._cache.get(public_id)
        return known if known is not None and known.until_us > self._clock.now_us() else None

    async def _find(self, public_id: str) -> _Known:
        known = self._remembered(public_id)
        if known is None:
            now_us = self._clock.now_us()
            key = await self._reader.key_by_public_id(public_id)
            known = self._cache[public_id] = _Known(key, public_id, now_us + self._cache_us)
            self._cache.move_to_end(public_id)
            while len(self._cache) > CACHED_KEYS_MAX:
                self._cache.popitem(last=False)
        return known


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
