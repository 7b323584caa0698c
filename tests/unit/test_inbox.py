"""The inbox: bounded, in order for each account, fair between them."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.errors import Unavailable
from auction.inbox import ACCOUNT_COMMANDS_MAX, COMMANDS_MAX, Inbox


@dataclass
class Asked:
    account: str | None
    number: int = 0
    commands: list = field(default_factory=lambda: [None])


def test_a_flood_of_one_account_delays_nobody_else():
    inbox = Inbox()
    for number in range(ACCOUNT_COMMANDS_MAX):
        inbox.add(Asked("flood", number))
    inbox.add(Asked("calm", 1))
    inbox.add(Asked(None, 2))
    batch = inbox.take(10)
    assert [one.account for one in batch[:3]] == [None, "flood", "calm"]
    assert len(batch) == 10
    inbox.add(Asked("late"))
    assert "late" in [one.account for one in inbox.take(3)]


def test_there_is_room_for_so_many_of_an_account_and_so_many_in_all():
    inbox = Inbox()
    inbox.add(Asked("a", commands=[None] * ACCOUNT_COMMANDS_MAX))
    with pytest.raises(Unavailable, match="of this account"):
        inbox.add(Asked("a"))
    for number in range(COMMANDS_MAX // ACCOUNT_COMMANDS_MAX - 1):
        inbox.add(Asked(f"b{number}", commands=[None] * ACCOUNT_COMMANDS_MAX))
    with pytest.raises(Unavailable, match=str(COMMANDS_MAX)):
        inbox.add(Asked("c"))
    inbox.take(1)
    inbox.add(Asked("a"))
    inbox.clear()
    assert not inbox
    inbox.add(Asked("a", commands=[None] * ACCOUNT_COMMANDS_MAX))


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 5))),
    st.lists(st.integers(1, 12), min_size=1),
)
def test_nothing_is_lost_doubled_or_overtaken_by_its_own_account(sent, sizes):
    inbox, left = Inbox(), []
    for number, (account, count) in enumerate(sent):
        inbox.add(Asked(account, number, [None] * count))
    turn = 0
    while inbox:
        batch = inbox.take(sizes[turn % len(sizes)])
        assert batch
        waited = {one.account for one in inbox}
        shares = {account: sum(one.account == account for one in batch) for account in "abc"}
        assert all(
            shares[mine] <= shares[other] + 1 for mine in "abc" for other in waited if other is not None
        ), "who still waits had as many turns as anybody, but for one"
        left += batch
        turn += 1
    assert sorted(one.number for one in left) == list(range(len(sent)))
    for account in (None, "a", "b", "c"):
        own = [one.number for one in left if one.account == account]
        assert own == sorted(own)
