"""Who loses GPUs and how: notices in order of rank, hand-overs in waves, what is kept, what is given up."""

import pytest

from auction import billing, clearing, lapses, leases
from auction.commands import CreateOffer
from auction.model import BidStatus, EndReason, LeaseState, NoticeState, OfferStatus
from tests.bare_market import A_SECOND, HOLD, MONEY, PRICE, US, Bare
from tests.simulation.driver import SECOND, START_US

CHEAP = PRICE // 2
RUNNING, STARTING, PENDING, NOTICED = "running", "starting", "pending", "noticed"


def lease_in(bare, bid, state, gpus=1):
    if state == PENDING:
        return bare.award(bid, gpus)
    if state == STARTING:
        return bare.starting(bid, gpus)
    lease = bare.running(bid, gpus)
    if state == NOTICED:
        bare.notice(lease, old_price=CHEAP)
    return lease


def notice_s(bare, lease):
    """The seconds that a lease's notice leaves it."""
    found = bare.state.notices[lease.notice]
    return (found.reclaim_at_us - found.issued_at_us) // SECOND


def test_a_bid_without_money_leaves_the_book_and_what_runs_gets_its_notice():
    bare = Bare()
    bid = bare.bid(gpus=4, money=4 * HOLD)
    running, starting, noticed = (lease_in(bare, bid, state) for state in (RUNNING, STARTING, NOTICED))
    waiting, first = lease_in(bare, bid, PENDING), noticed.notice
    bare.price(5, CHEAP)
    bare.market.price = CHEAP
    bare.at(10)
    bid.held -= 5
    bare.state.take_changes()
    clearing.exhaust(bare.state, bid)
    assert (BidStatus.EXHAUSTED, 2, START_US + 10 * SECOND) == (bid.status, bid.version, bid.updated_at_us)
    assert not bare.state.books[US].has_bid(bid.id)
    assert {EndReason.FUNDS_EXHAUSTED} == {starting.end_reason, waiting.end_reason}
    found = bare.state.notices[running.notice]
    assert (EndReason.FUNDS_EXHAUSTED, 30, CHEAP, None) == (
        found.reason, notice_s(bare, running), found.price, found.keep_price,
    )  # fmt: skip
    assert (CHEAP, first) == (running.notice_price, noticed.notice), "and the other keeps its own"
    assert ["bid.exhausted", "balance.exhausted"] == bare.kinds()[:2]
    assert bid.id in bare.state.changes.bids


def test_a_bid_at_its_cap_says_nothing_of_the_money():
    bare = Bare()
    bid = bare.bid()
    bid.max_spend = HOLD - 1
    clearing.exhaust(bare.state, bid)
    assert ["bid.exhausted"] == bare.kinds()
    assert ({}, MONEY) == (bare.state.bids, bare.state.available(bid.account)), "it had no lease to pay for"


def test_an_offer_that_its_owner_takes_back_gives_each_tenant_its_notice():
    bare = Bare()
    bid = bare.bid(gpus=4)
    running, starting, noticed = (lease_in(bare, bid, state) for state in (RUNNING, STARTING, NOTICED))
    bare.price(5, CHEAP)
    bare.market.price = CHEAP
    bare.at(10)
    bare.state.take_changes()
    made = clearing.withdraw_offer(bare.state, bare.offer, 45)
    assert [bare.state.notices[running.notice]] == made
    assert (EndReason.OFFER_WITHDRAWN, 45, CHEAP) == (
        made[0].reason, notice_s(bare, running), running.notice_price,
    )  # fmt: skip
    assert EndReason.OFFER_WITHDRAWN is starting.end_reason
    assert EndReason.OUTBID is bare.state.notices[noticed.notice].reason
    assert (OfferStatus.WITHDRAWING, 2) == (bare.offer.status, bare.offer.version)
    assert not bare.state.books[US].has_offer(bare.offer.id)
    assert {bare.offer.id: bare.offer} == bare.state.changes.offers


def test_an_offer_without_tenants_is_gone_at_once():
    bare = Bare()
    bare.state.books[US].windowed[bare.offer.id] = bare.offer
    assert [] == clearing.withdraw_offer(bare.state, bare.offer, 45)
    assert OfferStatus.WITHDRAWN is bare.offer.status
    assert {} == bare.state.offers == bare.state.books[US].windowed
    assert [("offer.withdrawn", "acct_owner")] == bare.told()


def test_what_one_offer_gives_up_the_other_of_a_fenced_node_may_lend():
    bare = Bare(gpus=4, offered=2)
    other = bare.do(CreateOffer("other", "acct_owner", "node", 2, 0))
    bare.node.fenced = [3]
    clearing.list_offer(bare.state, other)
    bare.state.index_restricted(bare.node)
    assert 1 == bare.state.books[US].offered_gpus("other"), "the newest lacks what is fenced"
    clearing.withdraw_offer(bare.state, bare.offer, 30)
    assert 2 == bare.state.books[US].offered_gpus("other")


@pytest.mark.parametrize(
    ("begins", "ends", "is_listed", "is_there"),
    [
        (None, 40, True, True),  # a tick and a notice are just left
        (None, 39.999999, False, False),
        (20, 100, False, True), (10, 100, True, True), (10.000001, 100, False, True),
    ],
)  # fmt: skip
def test_an_offer_takes_part_from_its_start_until_a_tick_and_a_notice_before_its_end(
    begins, ends, is_listed, is_there
):
    bare = Bare(gpus=8, offered=6)
    from_us = None if begins is None else START_US + int(begins * SECOND)
    until_us = START_US + round((10 + ends) * SECOND)
    bare.do(
        CreateOffer("new", "acct_owner", "node", 1, 0, available_from_us=from_us, available_until_us=until_us)
    )
    bare.at(10)
    clearing._refresh_windows(bare.state, bare.market)
    assert is_listed is bare.state.books[US].has_offer("new")
    assert is_there is ("new" in bare.state.offers)


def losses_of(bare):
    return clearing._Losses(bare.state, bare.market, PRICE, CHEAP)


def test_what_runs_is_told_what_starts_goes_at_once_and_what_is_noticed_is_left_alone():
    bare = Bare()
    bid = bare.bid(gpus=3)
    running, starting, noticed = (lease_in(bare, bid, state) for state in (RUNNING, STARTING, NOTICED))
    first = noticed.notice
    bare.state.books[US].entry_price = 2 * PRICE
    losses = losses_of(bare)
    for lease in (running, starting, noticed):
        losses.add(lease)
    assert (LeaseState.ENDED, EndReason.OUTBID) == (starting.state, starting.end_reason)
    assert LeaseState.RUNNING is running.state, "it is told with the others"
    assert 1 == losses.issue_notices(8)
    found = bare.state.notices[running.notice]
    assert (EndReason.OUTBID, PRICE, 2 * PRICE, CHEAP) == (
        found.reason, found.price, found.keep_price, running.notice_price,
    )  # fmt: skip
    assert first == noticed.notice


def test_a_notice_taken_over_keeps_its_price():
    bare = Bare()
    lease = bare.running(bare.bid())
    losses = losses_of(bare)
    losses.add(lease, PRICE // 4)
    losses.issue_notices(8)
    assert PRICE // 4 == lease.notice_price


@pytest.mark.parametrize(
    ("awarded", "reason"), [(1, EndReason.OUTBID), (2, EndReason.MOVED), (3, EndReason.MOVED)]
)
def test_who_is_awarded_as_much_as_it_has_is_moved_and_for_all_of_its_leases(awarded, reason):
    bare = Bare()
    bid = bare.bid(gpus=4)
    running, starting = lease_in(bare, bid, RUNNING), lease_in(bare, bid, STARTING)
    bid.awarded_gpus = awarded
    losses = losses_of(bare)
    losses.add(running)
    losses.add(starting)
    bid.awarded_gpus, bid.filled_gpus = 0, 2  # whatever this tick takes meanwhile
    losses.issue_notices(8)
    assert reason is starting.end_reason is bare.state.notices[running.notice].reason


@pytest.mark.parametrize(
    ("share_bps", "offered", "seconds"),
    [
        (None, 8, [30] * 5), (10_000, 8, [30] * 5), (2_500, 8, [30, 30, 60, 60, 90]),
        (2_500, 4, [30, 60, 90, 120, 150]), (1, 8, [30, 60, 90, 120, 150]),
    ],
)  # fmt: skip
def test_a_staggered_market_hands_over_so_many_gpus_in_one_notice_length(share_bps, offered, seconds):
    bare = Bare(stagger_share_bps=share_bps)
    running = [bare.running(bare.bid(f"b{number}", limit=PRICE + 10_000 * number)) for number in range(5)]
    losses = losses_of(bare)
    for lease in reversed(running):
        losses.add(lease)
    assert 5 == losses.issue_notices(offered)
    assert seconds == [notice_s(bare, lease) for lease in running], "the lowest limit goes first"


def test_waves_end_after_ten_lengths_and_an_offers_longer_notice_is_kept():
    bare = Bare(gpus=16, stagger_share_bps=1)
    bare.offer.notice_seconds = 100
    bid = bare.bid(gpus=14)
    running = [bare.running(bid) for _ in range(14)]
    losses = losses_of(bare)
    for lease in running:
        losses.add(lease)
    losses.issue_notices(14)
    waves = [max(100, 30 * wave) for wave in range(1, 11)] + [300] * 4
    assert waves == sorted(notice_s(bare, lease) for lease in running)


def test_of_equal_limits_the_later_arrival_goes_first():
    bare = Bare(stagger_share_bps=1)
    early, late = bare.running(bare.bid("early")), bare.running(bare.bid("late"))
    losses = losses_of(bare)
    losses.add(early)
    losses.add(late)
    losses.issue_notices(8)
    assert (60, 30) == (notice_s(bare, early), notice_s(bare, late))


@pytest.mark.parametrize(
    ("present", "target", "left"),
    [
        ([(RUNNING, 4)], 4, {RUNNING: 4}),
        ([(RUNNING, 4)], 2, {RUNNING: 2, NOTICED: 2}),
        ([(RUNNING, 4)], 1, {RUNNING: 1, NOTICED: 3}),
        ([(RUNNING, 4)], 0, {NOTICED: 4}),
        ([(NOTICED, 4)], 4, {RUNNING: 4}),
        ([(NOTICED, 4)], 1, {RUNNING: 1, NOTICED: 3}),
        ([(NOTICED, 4)], 0, {NOTICED: 4}),
        ([(STARTING, 2), (RUNNING, 2)], 2, {RUNNING: 2}),
        ([(NOTICED, 2), (STARTING, 2)], 2, {STARTING: 2, NOTICED: 2}),
        ([(NOTICED, 1), (RUNNING, 3)], 4, {RUNNING: 4}),
        ([(RUNNING, 2), (RUNNING, 3)], 4, {RUNNING: 4, NOTICED: 1}),
        ([(RUNNING, 1), (PENDING, 3)], 3, {RUNNING: 1, PENDING: 2}),
        ([(RUNNING, 1), (PENDING, 3)], 4, {RUNNING: 1, PENDING: 3}),
        ([(RUNNING, 1), (PENDING, 3)], 1, {RUNNING: 1}),
        ([(PENDING, 2), (PENDING, 2)], 3, {PENDING: 3}),
        ([(PENDING, 1), (PENDING, 1)], 1, {PENDING: 1}),
    ],
)  # fmt: skip
def test_of_what_a_bid_has_at_one_offer_the_firmest_is_kept(present, target, left):
    bare = Bare()
    bid = bare.bid(gpus=8)
    there = [lease_in(bare, bid, state, gpus) for state, gpus in present]
    losses = losses_of(bare)
    clearing._settle_place(bare.state, there, target, losses)
    losses.issue_notices(8)
    found = {}
    for lease in bare.state.leases.values():
        found[lease.state.value] = found.get(lease.state.value, 0) + lease.gpu_count
    assert left == found


def test_the_older_of_two_leases_is_kept():
    bare = Bare()
    bid = bare.bid(gpus=2)
    bare.at(5)
    late = bare.running(bid)
    bare.at(1)
    early = bare.running(bid)
    bare.at(6)
    losses = losses_of(bare)
    clearing._settle_place(bare.state, [late, early], 1, losses)
    losses.issue_notices(8)
    assert (LeaseState.RUNNING, LeaseState.NOTICED) == (early.state, late.state)


def test_what_still_goes_of_a_noticed_lease_gets_a_full_notice_at_the_old_price():
    bare = Bare()
    lease = lease_in(bare, bare.bid(gpus=2), NOTICED, 2)
    old = bare.state.notices[lease.notice]
    lease.notice_price = PRICE // 4
    bare.at(20)
    losses = losses_of(bare)
    clearing._settle_place(bare.state, [lease], 1, losses)
    losses.issue_notices(8)
    (part,) = (other for other in bare.state.leases.values() if other is not lease)
    assert NoticeState.WITHDRAWN is old.state
    assert (30, PRICE // 4) == (notice_s(bare, part), part.notice_price)
    assert bare.state.notices[part.notice].issued_at_us == START_US + 20 * SECOND


@pytest.mark.parametrize(
    ("lost", "min_gpus", "has_lapsed", "status", "gpus"),
    [
        (1, 1, False, BidStatus.PARTIAL, 3), (0, 1, True, BidStatus.FILLED, 2),
        (2, 1, False, BidStatus.FILLED, 2),
        (3, 1, False, BidStatus.FILLED, 2),  # what it has won elsewhere meanwhile it has not lost
        (1, 4, False, BidStatus.CANCELLED, 4), (1, 3, False, BidStatus.PARTIAL, 3),
        (0, 3, True, BidStatus.CANCELLED, 4),
    ],
)  # fmt: skip
def test_a_bid_that_gives_up_wants_that_much_less_and_below_its_minimum_nothing(
    lost, min_gpus, has_lapsed, status, gpus
):
    bare = Bare()
    bid = bare.bid(gpus=4, min_gpus=min_gpus)
    bare.running(bid, 2)
    bid.has_lapsed = has_lapsed
    book = bare.state.books[US]
    book.is_dirty = False
    bare.state.losses = [(bid.id, lost), ("bid_gone", 1)]
    lapses.give_up_losses(bare.state)
    assert (status, gpus, 2) == (bid.status, bid.gpus, bid.version)
    assert [] == bare.state.losses and book.is_dirty
    asked = 0 if status is BidStatus.CANCELLED else gpus
    assert asked * HOLD == bid.held
    assert ({PRICE: asked} if asked else {}) == book.demand_by_limit()


def test_a_bid_that_keeps_all_or_is_over_is_left_as_it_is():
    bare = Bare()
    bid, over = bare.bid(gpus=2), bare.bid("over", gpus=2)
    bare.running(bid, 2)
    over.status = BidStatus.CANCELLED
    bare.state.losses = [(bid.id, 0), (over.id, 2)]
    lapses.give_up_losses(bare.state)
    assert (1, 1, 2) == (bid.version, over.version, over.gpus)


@pytest.mark.parametrize(("has_lease", "status"), [(False, BidStatus.EXPIRED), (True, BidStatus.FILLED)])
def test_after_its_last_tick_a_bid_keeps_what_it_has(has_lease, status):
    bare = Bare()
    bid = bare.bid(gpus=2, valid_until_tick=3)
    if has_lease:
        bare.running(bid)
    for tick, has_lapsed in ((2, False), (3, True)):
        bare.market.tick = tick
        bare.state.take_changes()
        lapses.lapse_bids(bare.state, bare.market)
        assert has_lapsed is bid.has_lapsed is (bid.id in bare.state.changes.bids)
    lapses.give_up_losses(bare.state)
    assert status is bid.status
    assert (1 if has_lease else 2) == bid.gpus


def test_a_bid_that_ended_before_its_last_tick_does_not_lapse():
    bare = Bare()
    bid, gone = bare.bid(valid_until_tick=3), bare.bid("gone", valid_until_tick=2)
    leases.finish(bare.state, gone, BidStatus.CANCELLED)
    bid.status = BidStatus.EXHAUSTED
    bare.market.tick = 3
    lapses.lapse_bids(bare.state, bare.market)
    assert not bid.has_lapsed and not gone.has_lapsed


def test_a_waiting_bid_that_gives_up_before_its_last_tick_was_cancelled():
    bare = Bare()
    bid = bare.bid(gpus=2, min_gpus=2)
    lapses.want(bare.state, bid, 1)
    assert (BidStatus.CANCELLED, 0) == (bid.status, bid.held)


def test_a_lease_under_notice_pays_the_price_of_its_notice_to_the_end():
    bare = Bare()
    lease = bare.running(bare.bid())
    losses = losses_of(bare)
    losses.add(lease)
    losses.issue_notices(8)
    bare.price(5, 2 * PRICE)
    bare.at(90)
    leases.end(bare.state, lease, EndReason.OUTBID)
    assert 15 * A_SECOND == lease.settled == billing.exposure(CHEAP, 1, 30)
