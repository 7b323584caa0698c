"""A client of the market: `Client` blocks, `AsyncClient` is awaited; both do the same.

from decimal import Decimal
from fallow import Client

with Client("http://127.0.0.1:8080", key="fal_…") as market:
    bid = market.place_bid("h100-sxm.us", gpus=2, limit_price_per_gpu_hour=Decimal("2.40"))
    for notice in market.notices(wait_seconds=20):
        print(notice.reclaim_at, notice.keep_price)
"""

from fallow.client.asynchronous import AsyncClient
from fallow.client.blocking import Client
from fallow.client.errors import (
    AuthError,
    FallowError,
    NotFoundError,
    Problem,
    ProblemError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from fallow.client.webhooks import SignatureError, WebhookMessage, verify_webhook

__all__ = [
    "AsyncClient",
    "AuthError",
    "Client",
    "FallowError",
    "NotFoundError",
    "Problem",
    "ProblemError",
    "RateLimitedError",
    "RefusedError",
    "SignatureError",
    "UnavailableError",
    "WebhookMessage",
    "verify_webhook",
]
