"""How often one may ask: token buckets, one pair for each key, one for each address without a key.

Cancels, releases and acknowledgements have a bucket of their own, so a bot that is throttled can always get
out. A refused request costs nothing: who waits as told is let in. Wrong keys have a bucket for each address.
Headers: draft-ietf-httpapi-ratelimit-headers (RateLimit-Policy, RateLimit).
Invariant: bounded memory; the bucket that was not used for longest is forgotten first, and is full then.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

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

    def __post_init__(self) -> None:
        if self.rate_per_second <= 0 or self.burst < 1:
            raise ValueError(f"{self.name}: rate and burst must be above zero")

    @property
    def header(self) -> str:
        """Return the policy as RateLimit-Policy tells it: quota and window in seconds."""
        return f'"{self.name}";q={self.burst};w={ceil(self.burst / self.rate_per_second)}'


@dataclass(frozen=True, slots=True)
class Policies:
    """What a server allows."""

    requests: Policy = Policy("requests", 500, 2_000)  # of a key
    exits: Policy = Policy("exits", 500, 4_000)  # of a key: cancel, release, acknowledge
    agents: Policy = Policy("agents", 1_000, 5_000)  # of a key: its nodes' agents
    public: Policy = Policy("public", 100, 500)  # of an address without a key
    refusals: Policy = Policy("refusals", 10, 200)  # of an address: wrong keys


@dataclass(frozen=True, slots=True)
class Standing:
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
        tokens = self._tokens(policy, who)
        # What costs more than a whole bucket is let in from a full one.
        needed = min(cost, policy.burst)
        if tokens < needed:
            raise RateLimited(policy, max(1, ceil((needed - tokens) / policy.rate_per_second)))
        self._set(policy, who, tokens - needed)
        return Standing(policy, int(tokens - needed))

    def _tokens(self, policy: Policy, who: str) -> float:
        tokens, at_s = self._buckets.get((policy.name, who), (float(policy.burst), 0.0))
        return min(policy.burst, tokens + (self._monotonic() - at_s) * policy.rate_per_second)

    def _set(self, policy: Policy, who: str, tokens: float) -> None:
        name = (policy.name, who)
        self._buckets[name] = (tokens, self._monotonic())
        self._buckets.move_to_end(name)
        while len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
