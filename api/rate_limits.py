"""How often one may ask: token buckets, one pair for each key, one for each address without a key.

Cancels, releases and acknowledgements have a bucket of their own, so a bot that is throttled can always get
out. A refused request costs nothing: who waits as told is let in. Wrong keys have a bucket for each address.
Headers: draft-ietf-httpapi-ratelimit-headers (RateLimit-Policy, RateLimit).
Invariant: bounded memory; the bucket that was not used for longest is forgotten first, and is full then.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from msgspec import Struct

BUCKETS_MAX = 50_000
BATCH_COST = 10

Bucket = Literal["requests", "exits", "agents"]


class RateLimited(Exception):
    """Too many requests: the next one is let in after `retry_after_s`."""

    def __init__(self, policy: "Policy", retry_after_s: int) -> None:
        super().__init__(f"{policy.rate_per_second:g} a second, {policy.burst} at once ({policy.name})")
        self.policy = policy
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Policy:
    """One kind of bucket: it holds `burst` tokens and gets `rate_per_second` back."""

    name: str
    rate_per_second: float
    burst: int
    header: str = field(init=False)  # as RateLimit-Policy tells it: quota and window in seconds

    def __post_init__(self) -> None:
        if self.rate_per_second <= 0 or self.burst < 1:
            raise ValueError(f"{self.name}: rate and burst must be above zero")
        header = f'"{self.name}";q={self.burst};w={ceil(self.burst / self.rate_per_second)}'
        object.__setattr__(self, "header", header)


@dataclass(frozen=True, slots=True)
class Policies:
    """What a server allows."""

    requests: Policy = Policy("requests", 500, 2_000)  # of a key
    exits: Policy = Policy("exits", 500, 4_000)  # of a key: cancel, release, acknowledge
    agents: Policy = Policy("agents", 1_000, 5_000)  # of a key: its nodes' agents
    public: Policy = Policy("public", 100, 500)  # of an address without a key
    refusals: Policy = Policy("refusals", 10, 200)  # of an address: wrong keys


class Standing(Struct, frozen=True):
    """Where a bucket stands after a request."""

    policy: Policy
    remaining: int

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that tell it."""
        full_in_s = ceil((self.policy.burst - self.remaining) / self.policy.rate_per_second)
        return {
            "RateLimit-Policy": self.policy.header,
            "RateLimit": f'"{self.policy.name}";r={self.remaining};t={full_in_s}',
        }


class RateLimiter:
    """All buckets of one server."""

    def __init__(self, policies: Policies, monotonic: Callable[[], float]) -> None:
        self.policies = policies
        self._monotonic = monotonic
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, policy: Policy, who: str, cost: int = 1) -> Standing:
        """Take `cost` tokens from the bucket of `who`; raises RateLimited when they are not there."""
        buckets, name, now_s = self._buckets, (policy.name, who), self._monotonic()
        bucket = buckets.get(name)
        tokens: float = policy.burst
        if bucket is not None:
            left, at_s = bucket
            tokens = min(policy.burst, left + (now_s - at_s) * policy.rate_per_second)
        # What costs more than a whole bucket is let in from a full one.
        needed = min(cost, policy.burst)
        if tokens < needed:
            raise RateLimited(policy, max(1, ceil((needed - tokens) / policy.rate_per_second)))
        buckets[name] = (tokens - needed, now_s)
        buckets.move_to_end(name)
        if len(buckets) > BUCKETS_MAX:
            buckets.popitem(last=False)
        return Standing(policy, int(tokens - needed))
