"""Webhooks without a network: the signature, the schedules, the slots."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.webhook_messages import (
    DAYS_3_US,
    WEBHOOK_TYPES,
    delivery_of,
    event_id,
    new_secret,
    signed_headers,
    write_secret,
)
from api.webhook_schedule import (
    ACCOUNT_SENDS_MAX,
    ATTEMPTS_MAX,
    ENDPOINT_ORDINARY_SENDS_MAX,
    ENDPOINT_SENDS_MAX,
    ORDINARY_SENDS_MAX,
    SENDS_MAX,
    Slots,
    next_notice_us,
    next_ordinary_us,
)
from auction.events import EventKind
from sql.webhook_store import StoredEvent

SECOND = 1_000_000


def test_the_signature_is_that_of_the_standards_own_vector():
    """The reference vector of Standard Webhooks."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert headers == {
        "Content-Type": "application/json",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_secret_is_shown_in_the_standards_form():
    secret = new_secret()
    assert 24 <= len(secret) <= 64
    assert base64.b64decode(write_secret(secret).removeprefix("whsec_"), validate=True) == secret
    assert new_secret() != secret


def test_event_ids_are_the_accounts_own_and_repeatable():
    assert event_id("acct_1", 7) == event_id("acct_1", 7)
    assert len({event_id("acct_1", 7), event_id("acct_2", 7), event_id("acct_1", 8), event_id(None, 7)}) == 4
    assert event_id("acct_1", 7).startswith("evt_")


def test_every_kind_that_webhooks_name_and_the_market_tells_is_spelled_alike():
    told = {str(kind) for kind in EventKind}
    # Told to the public on the socket, steps inside a life, and what nobody acts on, are left out.
    left_out = {kind for kind in told if kind not in WEBHOOK_TYPES}
    assert left_out <= {
        "bid.amended", "lease.awarded", "lease.starting", "notice.acknowledged", "offer.listed",
        "balance.adjusted", "balance.deposited", "market.created", "tick.cleared",
    }  # fmt: skip
    assert len(set(WEBHOOK_TYPES)) == len(WEBHOOK_TYPES)


def test_a_notice_is_tried_at_0_1_2_5_10_20_seconds_until_its_deadline():
    at_us, deadline_us = 1_000 * SECOND, 1_030 * SECOND
    times, now_us = [0], at_us
    while (next_us := next_notice_us(at_us, now_us, deadline_us)) is not None:
        times.append((next_us - at_us) // SECOND)
        now_us = next_us
    assert times == [0, 1, 2, 5, 10, 20]
    # After a slow attempt the schedule goes on from the record, not from the attempt.
    assert next_notice_us(at_us, at_us + 11 * SECOND, deadline_us) == at_us + 20 * SECOND
    assert next_notice_us(at_us, at_us + 25 * SECOND, deadline_us) is None
    assert next_notice_us(at_us, at_us + 10**12, 10**15) is None


@given(st.integers(1, ATTEMPTS_MAX + 5), st.integers(0, 10**15))
def test_everything_else_backs_off_below_a_doubling_bound(attempts, now_us):
    deadline_us = now_us + DAYS_3_US
    bounds = []
    next_us = next_ordinary_us(attempts, now_us, deadline_us, lambda bound: bounds.append(bound) or bound - 1)
    if attempts >= ATTEMPTS_MAX:
        assert next_us is None
        return
    assert bounds == [min(12 * 3_600 * SECOND, 5 * SECOND * 2 ** (attempts - 1))]
    assert next_us == now_us + SECOND + bounds[0] - 1
    assert next_ordinary_us(attempts, now_us, now_us + SECOND, lambda bound: 0) is None


def test_three_days_of_full_jitter_stay_below_the_attempts_maximum():
    """Goal: the deadline ends a message, not the bound. Method: the mean draw, and a quarter of it."""
    for share in (2, 8):
        now_us, attempts = 0, 1
        while (
            next_us := next_ordinary_us(attempts, now_us, DAYS_3_US, lambda b, s=share: b // s)
        ) is not None:
            now_us, attempts = next_us, attempts + 1
        assert 15 < attempts < ATTEMPTS_MAX


def test_a_notice_lives_until_its_gpus_are_reclaimed_and_all_else_three_days():
    stored = StoredEvent(9, "acct_1", 3, "bid.filled", 5 * SECOND, "wh_1")
    planned = delivery_of(stored)
    assert (planned.deadline_us, planned.is_urgent) == (5 * SECOND + DAYS_3_US, False)
    assert planned.message == event_id("acct_1", 3)
    assert delivery_of(StoredEvent(9, None, 0, "market.halted", 5, "wh_1")).message == event_id(None, 9)


def test_nobody_takes_more_than_its_share_of_the_slots():
    slots = Slots()
    taken = [slots.take("a", "wh_1", is_urgent=False) for _ in range(ENDPOINT_ORDINARY_SENDS_MAX + 1)]
    assert taken == [True] * ENDPOINT_ORDINARY_SENDS_MAX + [False]
    assert slots.full_for_ordinary() == ["wh_1"]
    # Its notices have room beside its ordinary messages.
    while slots.take("a", "wh_1", is_urgent=True):
        pass
    assert slots.full_endpoints() == ["wh_1"]
    assert SENDS_MAX - slots.free == ENDPOINT_SENDS_MAX
    for number in range(20):
        slots.take("a", f"wh_{number}", is_urgent=True)
        slots.take("a", f"wh_{number}", is_urgent=False)
    while any(slots.take("a", f"wh_{number}", is_urgent=True) for number in range(20)):
        pass
    assert SENDS_MAX - slots.free == ACCOUNT_SENDS_MAX
    assert slots.full_accounts() == ["a"]
    assert slots.take("b", "wh_b", is_urgent=False)


def test_ordinary_messages_leave_room_for_notices():
    slots = Slots()
    ordinary = sum(slots.take(f"a{n}", f"wh_{n}", is_urgent=False) for n in range(SENDS_MAX))
    assert ordinary == ORDINARY_SENDS_MAX
    assert slots.only_urgent
    urgent = sum(slots.take(f"b{n}", f"wh_b{n}", is_urgent=True) for n in range(SENDS_MAX))
    assert ordinary + urgent == SENDS_MAX
    assert slots.free == 0
    for n in range(urgent):
        slots.give_back(f"b{n}", f"wh_b{n}", is_urgent=True)
    for n in range(ordinary):
        slots.give_back(f"a{n}", f"wh_{n}", is_urgent=False)
    assert slots.free == SENDS_MAX
    assert slots.take("a", "wh_1", is_urgent=False)


def test_a_slot_that_nobody_took_cannot_come_back():
    with pytest.raises(AssertionError):
        Slots().give_back("a", "wh_1", is_urgent=True)
