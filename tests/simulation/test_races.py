"""The tenant's word and the market's at the same instant, a thousand times: one end, one bill."""

import random
from collections import Counter

import msgspec

from auction.commands import AckNotice, CancelBid, CreateOffer, PlaceBid, ReleaseLease, ReportLease
from auction.errors import Rejection
from auction.model import Lease, LeaseState
from tests.simulation.invariants import Witness
from tests.small_market import Market

ROUNDS = 1_000
CENT = 10_000


class Race(Market):
    """Two GPUs, a tenant and a rival; every end of a lease is counted."""

    def __init__(self):
        super().__init__()
        self.witness = Witness(self.core)
        self.ends = Counter()
        self.do(CreateOffer("off", "acct_owner", "node", 2, 50 * CENT))
        self.fund("tenant")
        self.fund("rival")

    def place(self, account, number, limit):
        bid_id = f"bid_{account}_{number}"
        self.do(PlaceBid(bid_id, f"acct_{account}", "h100.us", 2, limit, 2))
        return bid_id

    def due(self):
        """Let the market act at this instant."""
        self.core.run_due(self.at_us)

    def tell(self, command):
        """The tenant says something that may come too late; return whether it did not."""
        outcome = self.core.apply(command, self.at_us)
        if isinstance(outcome, Rejection):
            assert outcome.code in ("not_found", "bid_final")
        return not isinstance(outcome, Rejection)

    def look(self):
        for lease in list(self.core.leases.values()):
            if lease.state is LeaseState.STARTING:
                self.do(ReportLease(lease.id, "acct_owner", "started"))
        changes = self.core.take_changes()
        for event in changes.events:
            if event.kind == "lease.ended":
                self.ends[msgspec.msgpack.decode(event.body, type=Lease).id] += 1
        self.witness.see(changes)
        self.witness.check_now()

    def to_next_tick(self):
        self.at_us = self.core.markets["h100.us"].next_tick_at_us


def test_leaving_and_being_preempted_at_the_same_instant_is_one_end_and_one_bill():
    race, dice = Race(), random.Random(5)
    words = Counter()
    for number in range(ROUNDS):
        tenant = race.place("tenant", number, 100 * CENT)
        race.to_next_tick()
        race.due()
        race.look()
        (lease,) = [lease for lease in race.core.leases.values() if lease.bid == tenant]
        rival = race.place("rival", number, 200 * CENT)
        race.to_next_tick()
        if dice.random() < 0.5:  # the tick that preempts it, otherwise the instant of the hand-over
            race.due()
            notice = race.core._state.notices[lease.notice]
            race.at_us = notice.reclaim_at_us
        leave = [ReleaseLease(lease.id, "acct_tenant"), CancelBid(tenant, "acct_tenant", True)]
        if lease.notice is not None:
            leave.append(AckNotice(lease.notice, "acct_tenant", True))
        said = dice.sample(leave, dice.randint(1, len(leave)))
        market_at = dice.randint(0, len(said))
        for place, command in enumerate([*said[:market_at], None, *said[market_at:]]):
            if command is None:
                race.due()
            else:
                words[type(command).__name__, place < market_at, race.tell(command)] += 1
        race.look()
        while lease.id in race.core.leases:  # it was preempted first, and nobody asked again
            race.to_next_tick()
            race.due()
            race.look()
        for bid_id in (tenant, rival):
            if bid_id in race.core.bids:
                race.tell(CancelBid(bid_id, race.core.bids[bid_id].account, True))
        race.look()
        assert race.ends[lease.id] == 1
        assert not race.core.leases and not race.core.bids
    race.witness.check_all()
    assert set(race.ends.values()) == {1} and len(race.ends) >= ROUNDS
    # Every word came before and after the market's own, and was heard or too late.
    assert {key[0] for key in words} == {"ReleaseLease", "CancelBid", "AckNotice"}
    assert (
        min(words[name, first, True] for name in ("ReleaseLease", "CancelBid") for first in (True, False))
        > 50
    )
    for account in ("tenant", "rival"):
        assert race.core.balance(f"acct_{account}").held == 0
