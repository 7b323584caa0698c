"""What a buyer is told of its money running out, on a core in virtual time."""

from auction.commands import Adjust, CreateOffer, Deposit, PlaceBid
from auction.funds import LOW_HOLDS
from auction.model import EndReason
from tests.simulation.driver import SECOND, START_US
from tests.small_market import Market

DOLLAR = 1_000_000


class Venue(Market):
    """A buyer of two GPUs at $0.50, and all it was told."""

    def __init__(self):
        super().__init__()
        self.told, self.reasons = [], []
        self.do(CreateOffer("off", "acct_owner", "node", 2, 480_000))
        self.fund("a")
        self.do(PlaceBid("bid_a", "acct_a", "h100.us", 2, 2 * DOLLAR))

    def until(self, second):
        while self.at_us < START_US + second * SECOND:
            super().until((self.at_us - START_US) // SECOND + 1)
            changes = self.core.take_changes()
            for event in changes.events:
                if event.account == "acct_a" and event.kind.startswith(
                    ("balance.l", "balance.e", "notice.i")
                ):
                    self.told.append((event.kind, self.core.balance("acct_a")))
            self.reasons += [lease.end_reason for lease in changes.leases.values() if lease.end_reason]

    def kinds(self):
        return [kind for kind, _ in self.told]


def test_low_is_told_once_while_there_is_time_and_exhausted_before_the_notice():
    venue = Venue()
    venue.until(600)
    assert venue.told == []
    venue.until(12 * 3_600)
    assert venue.kinds() == ["balance.low", "balance.exhausted", "notice.issued"]
    low = venue.told[0][1]
    assert low.held * (LOW_HOLDS - 1) < low.available < low.held * LOW_HOLDS
    assert EndReason.FUNDS_EXHAUSTED in venue.reasons


def test_who_pays_in_enough_is_told_again_and_who_pays_in_little_is_not():
    venue = Venue()
    venue.until(8 * 3_600)
    assert venue.kinds() == ["balance.low"]
    venue.do(Deposit("dep_little", "acct_a", 1_000))
    venue.until(8 * 3_600 + 600)
    assert venue.kinds() == ["balance.low"]
    venue.do(Deposit("dep_much", "acct_a", 2 * DOLLAR))
    venue.until(24 * 3_600)
    assert venue.kinds() == ["balance.low", "balance.low", "balance.exhausted", "notice.issued"]


def test_an_adjustment_that_takes_the_money_is_told():
    venue = Venue()
    venue.until(600)
    available = venue.core.balance("acct_a").available
    venue.do(Adjust("adj", "acct_a", "available", -(available - DOLLAR), "paid in error"))
    venue.until(601)
    assert venue.kinds() == ["balance.low"]


def test_what_was_told_survives_a_restart():
    venue = Venue()
    venue.until(8 * 3_600)
    restored = type(venue.core).restore(venue.core.live())
    assert restored.accounts["acct_a"].funds_told == venue.core.accounts["acct_a"].funds_told == "low"
