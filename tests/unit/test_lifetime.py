"""How bids and leases end by the clock, on a core in virtual time."""

import pytest

from auction.commands import AmendBid, CancelAfter, CreateOffer, PlaceBid, RecallNode
from auction.errors import Rejection
from auction.model import BidStatus, EndReason, LeaseState, OnPreempt, TimeInForce
from tests.simulation.driver import SECOND, START_US
from tests.small_market import Market

DOLLAR = 1_000_000


class Venue(Market):
    """One node of two GPUs at $0.50, and everything that was ever written of leases, bids and notices."""

    def __init__(self):
        super().__init__()
        self.leases, self.bids, self.notices = {}, {}, {}
        self.do(CreateOffer("off", "acct_owner", "node", 2, 500_000))
        self.bid("first", 3 * DOLLAR)  # takes one GPU for good

    def place(self, name, gpus=1, limit=DOLLAR, **ends):
        self.fund(name)
        return self.do(PlaceBid(f"bid_{name}", f"acct_{name}", "h100.us", gpus, limit, **ends))

    def refused(self, name, **ends):
        self.fund(name)
        outcome = self.core.apply(
            PlaceBid(f"bid_{name}", f"acct_{name}", "h100.us", 1, DOLLAR, **ends), self.at_us
        )
        assert isinstance(outcome, Rejection)
        return outcome.code

    def until(self, second):
        while self.at_us < START_US + second * SECOND:
            super().until((self.at_us - START_US) // SECOND + 1)
            changes = self.core.take_changes()
            self.leases.update(changes.leases)
            self.bids.update(changes.bids)
            self.notices.update(changes.notices)

    def lease_of(self, name):
        (lease,) = [lease for lease in self.leases.values() if lease.bid == f"bid_{name}"]
        return lease

    def status(self, name):
        return self.bids[f"bid_{name}"].status


def test_an_expired_bid_ends_with_its_lease_at_that_instant():
    venue = Venue()
    expires_at_us = START_US + 37 * SECOND + 250_000
    venue.place("b", time_in_force=TimeInForce.GTT, expires_at_us=expires_at_us)
    venue.until(60)
    lease = venue.lease_of("b")
    assert venue.status("b") is BidStatus.EXPIRED
    assert (lease.end_reason, lease.ended_at_us) == (EndReason.EXPIRED, expires_at_us)
    assert lease.gpu_seconds == (START_US // SECOND + 37) - lease.started_at_us // SECOND
    assert venue.core.balance("acct_b").held == 0


def test_a_bid_may_be_given_more_time():
    venue = Venue()
    venue.place("b", time_in_force=TimeInForce.GTT, expires_at_us=START_US + 30 * SECOND)
    venue.do(AmendBid("bid_b", "acct_b", expires_at_us=START_US + 50 * SECOND))
    venue.until(49)
    assert venue.status("b") is BidStatus.FILLED
    venue.until(51)
    assert venue.status("b") is BidStatus.EXPIRED


def test_an_ioc_bid_keeps_what_its_one_tick_gives_it_and_asks_for_no_more():
    venue = Venue()
    venue.place("b", gpus=4, time_in_force=TimeInForce.IOC, on_preempt=OnPreempt.CANCEL)
    venue.place("never", limit=600_000, time_in_force=TimeInForce.IOC, on_preempt=OnPreempt.CANCEL)
    venue.until(11)
    assert (venue.bids["bid_b"].gpus, venue.status("b")) == (1, BidStatus.FILLED)
    assert venue.status("never") is BidStatus.EXPIRED
    assert venue.core.balance("acct_never").held == 0
    venue.do(AmendBid("bid_first", "acct_first", paused=True))
    venue.until(40)
    assert venue.bids["bid_b"].gpus == 1


def test_a_bid_wins_nothing_more_after_its_last_tick():
    venue = Venue()
    venue.place("late", limit=600_000, valid_until_tick=2)
    venue.place("b", limit=2 * DOLLAR)
    venue.until(15)
    assert venue.status("late") is BidStatus.OPEN
    venue.until(21)
    assert venue.status("late") is BidStatus.EXPIRED


def test_a_lease_ends_when_it_has_run_its_time_and_is_billed_for_just_that():
    venue = Venue()
    venue.place("b", max_run_seconds=25)
    venue.until(60)
    lease = venue.lease_of("b")
    assert lease.ended_at_us - lease.started_at_us == 25 * SECOND
    assert (lease.end_reason, lease.gpu_seconds) == (EndReason.EXPIRED, 25)
    assert venue.status("b") is BidStatus.CANCELLED, "it wanted one GPU for that time"


def test_a_spending_cap_ends_the_bid_with_a_notice_that_the_rest_pays_for():
    venue = Venue()
    cap = 60_000
    venue.place("b", max_spend=cap)
    venue.until(400)
    bid, lease = venue.bids["bid_b"], venue.lease_of("b")
    assert (bid.status, lease.end_reason) == (BidStatus.EXHAUSTED, EndReason.MAX_SPEND)
    notice = venue.notices[lease.notice]
    assert lease.ended_at_us == notice.reclaim_at_us == notice.issued_at_us + 30 * SECOND
    assert 0 < bid.spent == lease.settled <= cap
    assert venue.core.balance("acct_b").available == 10_000_000 - bid.spent


def test_a_cap_is_kept_through_an_outage_to_the_microdollar():
    venue = Venue()
    venue.place("b", limit=2 * DOLLAR, max_spend=80_000)
    venue.until(20)
    venue.at_us += 3_600 * SECOND
    venue.core.run_due(venue.at_us)
    venue.until(3_700)
    assert venue.bids["bid_b"].spent <= 80_000
    assert venue.lease_of("b").state is LeaseState.ENDED


@pytest.mark.parametrize("on_preempt", list(OnPreempt))
def test_what_an_owner_takes_back_is_bid_for_again_or_given_up(on_preempt):
    venue = Venue()
    venue.place("b", on_preempt=on_preempt)
    venue.until(11)
    venue.do(RecallNode("node", "acct_owner"))
    venue.until(45)
    assert venue.lease_of("b").end_reason is EndReason.OFFER_WITHDRAWN
    status = BidStatus.OPEN if on_preempt is OnPreempt.REQUEUE else BidStatus.CANCELLED
    assert venue.status("b") is status


def test_an_elastic_gang_shrinks_to_its_minimum_before_it_loses_all():
    """R3: the base lot of a running gang may be served in part, down to its minimum."""
    market = Market()
    market.do(CreateOffer("off", "acct_owner", "node", 2, 500_000))
    market.bid("e", DOLLAR)
    market.do(AmendBid("bid_e", "acct_e", gpus=2, min_gpus=1))
    market.until(11)
    assert market.core.bids["bid_e"].filled_gpus == 2
    market.bid("rival", 3 * DOLLAR)
    market.until(52)
    assert market.core.bids["bid_e"].filled_gpus == 1, "it gave one GPU and runs on"
    market.bid("rival2", 3 * DOLLAR)
    market.until(95)
    assert market.core.bids["bid_e"].filled_gpus == 0


@pytest.mark.parametrize("release", [False, True])
def test_the_dead_mans_switch_cancels_unless_it_is_set_again(release):
    venue = Venue()
    venue.place("b")
    venue.place("waiting", limit=600_000)
    for second in range(10, 60, 10):
        venue.do(CancelAfter("acct_b", 20, release))
        venue.until(second)
        assert "bid_b" in venue.core.bids
    venue.until(72)
    if release:
        assert venue.status("b") is BidStatus.CANCELLED
        assert venue.lease_of("b").end_reason is EndReason.RELEASED
    else:
        assert venue.status("b") is BidStatus.FILLED, "what runs goes on"
    assert venue.status("waiting") is (BidStatus.FILLED if release else BidStatus.OPEN)
    venue.do(CancelAfter("acct_waiting", 20))
    venue.do(CancelAfter("acct_waiting", 0))
    venue.until(100)
    assert "bid_waiting" in venue.core.bids, "switched off"


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({"time_in_force": TimeInForce.GTT}, "time_in_force_invalid"),
        ({"expires_at_us": START_US + SECOND}, "time_in_force_invalid"),
        ({"time_in_force": TimeInForce.IOC}, "time_in_force_invalid"),
        ({"time_in_force": TimeInForce.GTT, "expires_at_us": START_US}, "expires_at_passed"),
        ({"valid_until_tick": 0}, "valid_until_tick_passed"),
        ({"max_spend": 1}, "max_spend_too_small"),
    ],
)
def test_ends_that_cannot_be_are_refused(ends, code):
    venue = Venue()
    venue.fund("b")
    before = venue.core.state_hash()
    assert venue.refused("b", **ends) == code
    assert venue.core.state_hash() == before
