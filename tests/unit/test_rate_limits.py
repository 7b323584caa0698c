"""Token buckets: never more than the burst and the rate allow, and who waits as told is let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.rate_limits import BUCKETS_MAX, Policies, Policy, RateLimited, RateLimiter


class Time:
    def __init__(self):
        self.now_s = 1_000.0

    def __call__(self):
        return self.now_s


def limiter():
    time = Time()
    return RateLimiter(Policies(), time), time


POLICY = Policy("requests", 2, 10)


def test_a_burst_then_the_rate_and_who_waits_as_told_is_let_in():
    buckets, time = limiter()
    assert [buckets.take(POLICY, "a").remaining for _ in range(10)] == list(range(9, -1, -1))
    with pytest.raises(RateLimited) as refused:
        buckets.take(POLICY, "a")
    assert refused.value.retry_after_s == 1
    assert buckets.take(POLICY, "b").remaining == 9, "another key has its own"
    assert buckets.take(Policy("exits", 2, 10), "a").remaining == 9, "and exits their own"
    with pytest.raises(RateLimited) as refused:
        buckets.take(POLICY, "a", 7)
    time.now_s += refused.value.retry_after_s
    assert buckets.take(POLICY, "a", 7).remaining == 1


def test_what_costs_more_than_a_bucket_is_let_in_from_a_full_one():
    buckets, time = limiter()
    assert buckets.take(POLICY, "a", 50).remaining == 0
    time.now_s += 4.9
    with pytest.raises(RateLimited):
        buckets.take(POLICY, "a", 50)
    time.now_s += 0.1
    buckets.take(POLICY, "a", 50)


def test_the_headers_tell_quota_window_and_what_is_left():
    buckets, _ = limiter()
    standing = buckets.take(POLICY, "a", 3)
    assert standing.headers == {"RateLimit-Policy": '"requests";q=10;w=5', "RateLimit": '"requests";r=7;t=2'}


def test_memory_is_bounded_by_forgetting_the_longest_unused():
    buckets, _ = limiter()
    for number in range(BUCKETS_MAX + 1):
        buckets.take(POLICY, str(number))
    assert buckets.take(POLICY, "0").remaining == 9, "forgotten"
    assert buckets.take(POLICY, str(BUCKETS_MAX)).remaining == 8, "remembered"


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 12))))
def test_no_window_lets_through_more_than_burst_and_rate(steps):
    buckets, time = limiter()
    start, let_in = time.now_s, 0
    for wait_s, cost in steps:
        time.now_s += wait_s
        try:
            buckets.take(POLICY, "a", cost)
        except RateLimited:
            continue
        let_in += min(cost, POLICY.burst)
        assert let_in <= POLICY.burst + (time.now_s - start) * POLICY.rate_per_second + 1e-6
