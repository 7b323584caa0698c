"""Limits of accounts and keys, the kill switch and affiliations, on a core in virtual time."""

import msgspec
import pytest

from auction.commands import (
    AmendBid,
    CreateAccount,
    CreateOffer,
    Deposit,
    PlaceBid,
    ResumeKey,
    SetAccountState,
    SetAffiliation,
    SetLimits,
    StopKey,
)
from auction.core import Core
from auction.errors import Rejection
from auction.limits import DAY_US, LimitWarning
from auction.model import BidStatus, EndReason
from tests.simulation.driver import SECOND, START_US
from tests.small_market import Market

DOLLAR = 1_000_000


class Venue(Market):
    """Two GPUs at $0.50 with the fee, a buyer with two keys, and everything that was ever told."""

    def __init__(self):
        super().__init__()
        self.leases, self.bids, self.events = {}, {}, []
        self.do(CreateOffer("off", "acct_owner", "node", 2, 480_000))
        self.fund("a")

    def place(self, name, *, key="key_1", gpus=1, limit=DOLLAR, **rest):
        command = PlaceBid(f"bid_{name}", "acct_a", "h100.us", gpus, limit, key=key, **rest)
        return self.core.apply(command, self.at_us)

    def limit(self, scope, **limits):
        return self.do(SetLimits(scope, "acct_a", **limits))

    def until(self, second):
        while self.at_us < START_US + second * SECOND:
            super().until((self.at_us - START_US) // SECOND + 1)
            self.look()

    def look(self):
        changes = self.core.take_changes()
        self.leases.update(changes.leases)
        self.bids.update(changes.bids)
        self.events += changes.events

    def warnings(self):
        self.look()
        decode = msgspec.msgpack.Decoder(LimitWarning).decode
        told = [decode(event.body) for event in self.events if event.kind == "limit.warning"]
        return [(warning.id, warning.limit, warning.percent) for warning in told]


def code(outcome):
    assert isinstance(outcome, Rejection), outcome
    return outcome.code


def test_a_key_bids_no_higher_than_it_may_and_the_other_key_is_free():
    venue = Venue()
    venue.limit("key_1", max_price=DOLLAR)
    assert code(venue.place("high", limit=DOLLAR + 10_000)) == "max_price_exceeded"
    assert "high" not in venue.core.bids
    assert not isinstance(venue.place("ok"), Rejection)
    assert not isinstance(venue.place("other", key="key_2", limit=2 * DOLLAR), Rejection)
    raised = AmendBid("bid_ok", "acct_a", limit=2 * DOLLAR, key="key_2")
    assert code(venue.core.apply(raised, venue.at_us)) == "max_price_exceeded", "the bid is still key_1's"
    by_limited = AmendBid("bid_other", "acct_a", limit=3 * DOLLAR, key="key_1")
    assert code(venue.core.apply(by_limited, venue.at_us)) == "max_price_exceeded"


def test_an_account_limit_binds_all_its_keys():
    venue = Venue()
    venue.limit("acct_a", max_open_notional=3 * DOLLAR)
    assert not isinstance(venue.place("one", gpus=2), Rejection)
    refused = venue.place("two", key="key_2", gpus=2)
    assert (code(refused), refused.extras["available"]) == ("open_notional_exceeded", DOLLAR)
    assert not isinstance(venue.place("two", key=None, gpus=1), Rejection)
    assert code(venue.core.apply(AmendBid("bid_two", "acct_a", gpus=2), venue.at_us)) == (
        "open_notional_exceeded"
    )
    venue.do(AmendBid("bid_one", "acct_a", gpus=1))
    venue.do(AmendBid("bid_two", "acct_a", gpus=2))
    assert venue.core.limit_use("acct_a").notional == 3 * DOLLAR


def test_a_paused_bid_counts_again_when_it_is_resumed():
    venue = Venue()
    venue.limit("key_1", max_open_notional=2 * DOLLAR)
    venue.place("one", gpus=2)
    venue.do(AmendBid("bid_one", "acct_a", paused=True))
    assert venue.core.limit_use("key_1").notional == 0
    venue.place("two", gpus=1)
    resumed = venue.core.apply(AmendBid("bid_one", "acct_a", paused=False), venue.at_us)
    assert code(resumed) == "open_notional_exceeded"


def test_open_notional_warns_once_at_each_step_and_again_after_it_fell():
    venue = Venue()
    venue.limit("key_1", max_open_notional=10 * DOLLAR)
    steps = []
    for number in range(10):
        venue.place(f"b{number}")
        steps.append(len(venue.warnings()))
    assert steps == [0, 0, 0, 0, 1, 1, 1, 2, 3, 3], "50 % at the 5th, 75 % at the 8th, 90 % at the 9th"
    assert {warning[:2] for warning in venue.warnings()} == {("key_1", "max_open_notional_per_hour")}
    assert [warning[2] for warning in venue.warnings()] == [50, 75, 90]


def test_the_cap_of_a_day_is_never_passed_by_charges_and_the_last_notice_is_paid():
    venue = Venue()
    cap = 60_000
    venue.limit("key_1", spend_cap_per_day=cap)
    # A hold is 120 s of the limit. Both leases run until one more refill would pass the cap.
    assert not isinstance(venue.place("run", limit=500_000), Rejection)
    assert not isinstance(venue.place("too", limit=520_000), Rejection)
    refused = venue.place("more", limit=DOLLAR)
    assert code(refused) == "spend_cap_reached"
    for second in range(5, 700, 5):
        venue.until(second)
        limits = venue.core.limits["key_1"]
        assert limits.spent_today + venue.core.limit_use("key_1").held <= cap
    ended = [lease for lease in venue.leases.values() if lease.end_reason is EndReason.SPEND_CAP]
    assert len(ended) == 2
    for lease in ended:
        assert lease.gpu_seconds == (lease.ended_at_us - lease.started_at_us) // SECOND
        assert lease.settled == lease.metered > 0
        assert lease.ended_at_us - lease.started_at_us > 90 * SECOND
    assert venue.core.limits["key_1"].spent_today == sum(lease.settled for lease in ended)
    assert venue.bids["bid_run"].status is BidStatus.EXHAUSTED
    percents = [warning[2] for warning in venue.warnings()]
    assert percents == sorted(set(percents)) and percents[0] == 50


def test_a_new_day_begins_at_zero():
    venue = Venue()
    venue.limit("key_1", spend_cap_per_day=40_000)
    venue.place("run", limit=500_000)
    venue.until(600)
    assert venue.bids["bid_run"].status is BidStatus.EXHAUSTED
    assert code(venue.place("again", limit=700_000)) == "spend_cap_reached"
    venue.at_us = (venue.at_us // DAY_US + 1) * DAY_US - SECOND
    assert code(venue.place("again", limit=700_000)) == "spend_cap_reached"
    venue.at_us += SECOND
    assert not isinstance(venue.place("again", limit=700_000), Rejection)


def test_lowering_a_cap_ends_what_runs_with_its_notice():
    venue = Venue()
    venue.place("run", limit=500_000)
    venue.until(100)
    venue.limit("key_1", spend_cap_per_day=1)
    venue.until(400)
    (lease,) = venue.leases.values()
    assert lease.end_reason is EndReason.SPEND_CAP and lease.notice is not None


@pytest.mark.parametrize("release", [False, True])
def test_a_stopped_key_loses_its_bids_and_places_nothing_until_it_is_resumed(release):
    venue = Venue()
    venue.place("run")
    venue.place("other", key="key_2")
    venue.until(30)
    venue.place("waits", gpus=2)
    venue.do(StopKey("key_1", "acct_a", release))
    venue.look()
    assert venue.bids["bid_waits"].status is BidStatus.CANCELLED
    assert code(venue.place("new")) == "key_stopped"
    assert code(venue.core.apply(AmendBid("bid_other", "acct_a", gpus=2, key="key_1"), venue.at_us)) == (
        "key_stopped"
    )
    assert not isinstance(venue.place("new", key="key_2", limit=600_000), Rejection)
    assert ("bid_run" in venue.on_node()) is not release
    assert "bid_other" in venue.on_node()
    venue.do(ResumeKey("key_1", "acct_a"))
    assert not isinstance(venue.place("again"), Rejection)
    kinds = [event.kind for event in venue.events]
    assert kinds.count("key.stopped") == 1


def test_what_a_stopped_key_loses_it_does_not_bid_for_again():
    venue = Venue()
    venue.place("run", gpus=2)
    venue.until(30)
    venue.do(StopKey("key_1", "acct_a"))
    assert venue.on_node() == ["bid_run"]
    venue.fund("rich")
    venue.do(PlaceBid("bid_rich", "acct_rich", "h100.us", 2, 5 * DOLLAR))
    venue.until(120)
    assert venue.on_node() == ["bid_rich"]
    assert venue.bids["bid_run"].status is BidStatus.CANCELLED


def test_a_frozen_account_can_be_cleared_in_the_same_breath():
    venue = Venue()
    venue.place("run")
    venue.until(30)
    venue.do(SetAccountState("acct_a", "frozen", cancel_bids=True, release=True))
    assert venue.on_node() == []
    assert code(venue.place("new")) == "account_frozen"
    assert venue.core.balance("acct_a").held == 0


def test_affiliated_accounts_are_one_party():
    venue = Venue()
    venue.do(CreateAccount("acct_sister", "sister", ["buyer"]))
    venue.do(Deposit("dep_sister", "acct_sister", 10 * DOLLAR))
    bid = PlaceBid("bid_sister", "acct_sister", "h100.us", 1, DOLLAR)
    venue.do(SetAffiliation("acct_owner", "house"))
    venue.do(SetAffiliation("acct_sister", "house"))
    assert code(venue.core.apply(bid, venue.at_us)) == "self_trade"
    venue.do(SetAffiliation("acct_sister", None))
    venue.do(bid)
    joined = venue.core.apply(SetAffiliation("acct_sister", "house"), venue.at_us)
    assert code(joined) == "self_trade"
    assert venue.core.accounts["acct_sister"].affiliation is None
    restored = Core.restore(venue.core.live())
    assert restored.state_hash() == venue.core.state_hash()


def test_limits_survive_a_restart_and_stay_with_their_account():
    venue = Venue()
    venue.limit("key_1", max_open_notional=2 * DOLLAR, spend_cap_per_day=DOLLAR)
    venue.place("run", gpus=2)
    venue.until(150)
    restored = Core.restore(venue.core.live())
    assert restored.state_hash() == venue.core.state_hash()
    assert restored.limit_use("key_1") == venue.core.limit_use("key_1")
    venue.fund("b")
    for command in (SetLimits("key_1", "acct_b"), StopKey("key_1", "acct_b"), ResumeKey("key_1", "acct_b")):
        assert code(venue.core.apply(command, venue.at_us)) == "not_found"
    assert code(venue.core.apply(SetLimits("key_1", "acct_a", -1), venue.at_us)) == "amount_out_of_range"


def test_a_limit_far_above_the_median_is_asked_twice():
    venue = Venue()
    asked = venue.place("high", limit=5 * DOLLAR, unconfirmed_max=5 * DOLLAR - 10_000)
    assert (code(asked), asked.pointer) == ("confirmation_required", "/confirm_limit")
    venue.place("high", limit=5 * DOLLAR)
    lowered = AmendBid("bid_high", "acct_a", limit=4 * DOLLAR, unconfirmed_max=DOLLAR)
    assert not isinstance(venue.core.apply(lowered, venue.at_us), Rejection), "lowering needs no second look"
    raised = AmendBid("bid_high", "acct_a", limit=5 * DOLLAR, unconfirmed_max=DOLLAR)
    assert code(venue.core.apply(raised, venue.at_us)) == "confirmation_required"
