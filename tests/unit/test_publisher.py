"""Who is told what after a commit."""

import pytest

from auction import publisher
from auction.model import Event
from auction.publisher import Publisher


def event(account, seq=1):
    return Event(account, seq, "bid.accepted", 0, None, None, b"")


async def test_each_listener_hears_of_its_account_and_the_servers_parts_of_all():
    made = Publisher()
    one, two = made.subscribe("a"), made.subscribe("b")
    every = made.subscribe(None, all_accounts=True)
    made.publish([event("a"), event("b"), event(None)], [])
    assert [e.account for e in (await one.next())[0]] == ["a"]
    assert [e.account for e in (await two.next())[0]] == ["b"]
    assert [e.account for e in (await every.next())[0]] == ["a", "b", None]


async def test_a_listener_that_follows_another_account_hears_of_the_first_no_more():
    made = Publisher()
    listener = made.subscribe(None)
    made.publish([event("a")], [])
    made.follow(listener, "a")
    made.publish([event("a", 2)], [])
    made.follow(listener, "b")
    made.publish([event("a", 3), event("b", 1)], [])
    assert [(e.account, e.account_seq) for e in (await listener.next())[0]] == [("a", 2), ("b", 1)]
    made.unsubscribe(listener)
    made.unsubscribe(listener)
    made.publish([event("b", 2)], [])
    assert not listener._events and not made._of_account


def test_a_reader_that_falls_behind_is_marked_and_listeners_are_bounded(monkeypatch):
    monkeypatch.setattr(publisher, "SUBSCRIPTIONS_MAX", 1)
    made = Publisher()
    slow = made.subscribe("a")
    made.publish([event("a", n) for n in range(publisher.SUBSCRIPTION_EVENTS_MAX)], [])
    assert not slow.overflowed
    made.publish([event("a", 999)], [])
    assert slow.overflowed and not slow._events
    with pytest.raises(OverflowError):
        made.subscribe("b")
