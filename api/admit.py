"""Who may ask now: the key of a request is checked, and its bucket, or its address's, is charged.

An address is the peer's; behind a proxy that was declared (`--behind-proxy`) it is the last one that the
proxy has added to X-Forwarded-For, because anybody can write the ones before it.
"""

from functools import partial

from aiohttp import web

from api.auth import Principal
from api.browser import refuse_other_origin, token_of
from api.rate_limits import Bucket, Standing
from api.services import Services
from api.signing import Parts
from auction.errors import Rejection

WRONG_WHO = frozenset({"unauthenticated", "signature_untimely", "signature_replayed"})

STANDING: web.RequestKey[Standing] = web.RequestKey("standing", Standing)


async def admit(
    request: web.Request, services: Services, bucket: Bucket | None, cost: int = 1
) -> Principal | None:
    """Charge a request to its bucket and return who asks; None for the public (`bucket` None).

    Raises RateLimited, and for a wrong key what Authenticator.authenticate raises.
    """
    limiter = services.limiter
    if bucket is None:
        address = address_of(request, behind_proxy=services.config.behind_proxy)
        request[STANDING] = limiter.take(limiter.policies.public, address, cost)
        return None
    principal = await authenticate(request, services)
    request[STANDING] = limiter.take(getattr(limiter.policies, bucket), principal.key, cost)
    return principal


async def authenticate(request: web.Request, services: Services, *, link: str | None = None) -> Principal:
    """Return who asks: by a sign-in link's token, else the Authorization header, else a session's cookie.

    Raises RateLimited, what Authenticator's checks raise, and `origin_refused`.
    """
    authenticator, limiter = services.authenticator, services.limiter
    address = address_of(request, behind_proxy=services.config.behind_proxy)
    authorization = request.headers.get("Authorization")
    cookie = None if authorization is not None else token_of(request, services.config)
    try:
        if link is not None:
            return await authenticator.check_link(link, address)
        if cookie is not None:
            if request.method not in ("GET", "HEAD"):
                refuse_other_origin(request, services.config)
            return await authenticator.check_session(cookie, address)
        return await authenticator.authenticate(authorization, partial(_parts_of, request), address)
    except Rejection as refusal:
        if refusal.code not in WRONG_WHO:
            raise
        # Only who is wrong is slowed down: others may share the address.
        limiter.take(limiter.policies.refusals, address)
        raise


def address_of(request: web.Request, *, behind_proxy: bool) -> str:
    """Return the address that a request came from."""
    if behind_proxy:
        last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if last:
            return last[:64]
    return request.remote or ""


def _parts_of(request: web.Request) -> Parts:
    """Return what a signature of this request has to cover."""
    headers = request.headers
    return Parts(
        request.method,
        request.raw_path,
        content_type=headers.get("Content-Type", ""),
        content_digest=headers.get("Content-Digest", ""),
        idempotency_key=headers.get("Idempotency-Key", ""),
        if_match=headers.get("If-Match", ""),
    )
