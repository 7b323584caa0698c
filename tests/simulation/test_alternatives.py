"""Bids over several markets in virtual time: where they go, what they keep, and every invariant (X3)."""

import asyncio

import pytest
from msgspec import structs

from auction.commands import (
    AmendBid,
    Choice,
    CreateMarket,
    PlaceBid,
    RouteBids,
    SetMarketStatus,
    decode_command,
    encode_command,
)
from auction.core import Core
from auction.memory import MemoryStore
from matching import reference
from tests.simulation.driver import SECOND, make_market
from tests.simulation.invariants import Witness
from tests.simulation.travellers import Travellers, Venues


def test_a_bid_goes_where_it_gains_most():
    """It would win in both; the dearer limit leaves more above the price there."""
    venues = Venues()
    venues.buyer("acct_a")
    venues.lend("a100.us", 8, 1_000_000)
    venues.lend("h100.us", 8, 2_000_000)
    bid = venues.bid("acct_a", 4, {"a100.us": 1_500_000, "h100.us": 3_000_000})
    assert bid.market == "a100.us"
    venues.beat()
    assert venues.where(bid) == ("h100.us", 4)
    assert bid.limit == 3_000_000


def test_two_bids_share_out_two_markets():
    """Each market has room for one: who can take only the one leaves the other to who can take both."""
    venues = Venues()
    venues.buyer("acct_a")
    venues.buyer("acct_b")
    venues.lend("a100.us", 4)
    venues.lend("h100.us", 4)
    both = venues.bid("acct_a", 4, {"h100.us": 3_000_000, "a100.us": 2_500_000}, min_gpus=4)
    only = venues.bid("acct_b", 4, {"h100.us": 2_900_000}, min_gpus=4)
    venues.beat()
    assert (venues.where(both), venues.where(only)) == (("a100.us", 4), ("h100.us", 4))


def test_a_bid_that_runs_stays_and_one_that_was_outbid_goes_on():
    """What has become cheaper elsewhere interrupts nobody; what is lost is bid for elsewhere."""
    venues = Venues()
    venues.buyer("acct_a")
    venues.buyer("acct_b")
    venues.lend("h100.us", 4, 2_000_000)
    bid = venues.bid("acct_a", 4, {"h100.us": 3_000_000, "h100.eu": 3_000_000})
    venues.beat()
    venues.lend("h100.eu", 4, 1_000_000)
    venues.beat()
    assert venues.where(bid) == ("h100.us", 4)

    venues.bid("acct_b", 4, {"h100.us": 9_000_000})
    venues.beat()
    assert bid.status == "preempting"
    assert bid.market == "h100.us"
    venues.beat()  # the notice of 30 s runs: it keeps its GPUs, and pays for them
    assert venues.where(bid) == ("h100.us", 4)
    for _ in range(3):
        venues.beat()
    assert venues.where(bid) == ("h100.eu", 4)


def test_a_gang_that_does_not_fit_in_its_best_market_tries_the_next():
    venues = Venues()
    venues.buyer("acct_a")
    venues.lend("h100.us", 3)
    venues.lend("a100.us", 8)
    gang = venues.bid("acct_a", 4, {"h100.us": 5_000_000, "a100.us": 2_000_000}, min_gpus=4)
    venues.beat()
    assert venues.where(gang) == ("a100.us", 4)


def test_its_hold_pays_for_the_dearest_of_its_markets():
    venues = Venues()
    venues.buyer("acct_a")
    plain = venues.bid("acct_a", 2, {"h100.us": 4_000_000})
    bid = venues.bid("acct_a", 2, {"a100.us": 1_000_000, "h100.us": 4_000_000, "h100.eu": 2_000_000})
    assert plain.held == bid.held


def test_a_market_that_beats_alone_takes_who_wins_in_it():
    venues = Venues(names=("h100.us",))
    venues.do(CreateMarket(make_market("h100.eu", tick_seconds=5)))
    venues.buyer("acct_a")
    venues.lend("h100.eu", 4, 1_900_000)
    venues.lend("h100.us", 4, 1_000_000)
    bid = venues.bid("acct_a", 4, {"h100.us": 3_000_000, "h100.eu": 2_000_000})
    assert bid.market == "h100.us"
    venues.beat(seconds=5)  # h100.eu clears; h100.us, where it would gain more, does not yet
    assert venues.where(bid) == ("h100.eu", 4)


def test_markets_of_one_beat_clear_at_the_same_instants_whenever_they_were_made():
    venues = Venues(names=("h100.us",))
    venues.at_us += 7 * SECOND
    venues.do(CreateMarket(make_market("h100.eu")))
    assert len({market.next_tick_at_us for market in venues.core.markets.values()}) == 1


def test_nobody_is_sent_to_a_halted_market():
    venues = Venues()
    venues.buyer("acct_a")
    venues.lend("h100.eu", 4)
    bid = venues.bid("acct_a", 4, {"h100.us": 3_000_000, "h100.eu": 3_000_000})
    venues.do(SetMarketStatus("h100.eu", "halted", "maintenance"))
    venues.beat()
    assert venues.where(bid) == ("h100.us", 0)
    venues.do(SetMarketStatus("h100.eu", "open"))
    venues.beat()
    assert venues.where(bid) == ("h100.eu", 4)


def test_a_limit_is_changed_in_the_market_that_is_named():
    venues = Venues()
    venues.buyer("acct_a")
    bid = venues.bid("acct_a", 1, {"a100.us": 1_000_000, "h100.us": 2_000_000})
    refused = venues.do(AmendBid(bid.id, "acct_a", 3_000_000))
    assert (refused.code, refused.pointer) == ("market_required", "/market")
    assert venues.do(AmendBid(bid.id, "acct_a", 3_000_000, market="h100.eu")).code == "market_not_found"
    venues.do(AmendBid(bid.id, "acct_a", 3_000_000, market="h100.us"))
    assert (bid.market, bid.limit) == ("a100.us", 1_000_000)
    assert [one.limit for one in bid.alternatives] == [1_000_000, 3_000_000]
    venues.do(AmendBid(bid.id, "acct_a", 500_000, market="a100.us"))
    assert bid.limit == 500_000


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"alternatives": [Choice("h100.us", 10_000)] * 2}, "alternatives_invalid"),
        ({"alternatives": [Choice(f"m{i}", 10_000) for i in range(9)]}, "alternatives_invalid"),
        ({"alternatives": [Choice("h100.us", 10_000), Choice("nowhere", 10_000)]}, "market_not_found"),
        ({"alternatives": [Choice("h100.us", 10_000), Choice("fine.us", 10_000)]}, "alternatives_invalid"),
        ({"alternatives": [Choice("h100.us", 10_000), Choice("a100.us", 10_001)]}, "price_not_on_increment"),
        ({"valid_until_tick": 9}, "alternatives_invalid"),
    ],
)
def test_what_cannot_be_weighed_is_refused(change, code):
    venues = Venues()
    venues.do(CreateMarket(make_market("fine.us", price_increment=100, price_cap=1_000_000)))
    venues.buyer("acct_a")
    both = [Choice("h100.us", 10_000), Choice("a100.us", 10_000)]
    command = PlaceBid(venues.new_id("bid"), "acct_a", "h100.us", 1, 10_000, alternatives=both)
    before = venues.core.state_hash()
    assert venues.do(structs.replace(command, **change)).code == code
    assert venues.core.state_hash() == before


def run(seed, steps, *, make_book=None, restart_every=None):
    crowd = Travellers(seed, make_book)
    witness = Witness(crowd.core)
    store = MemoryStore()
    asyncio.run(store.acquire())
    moved, homes = 0, {}
    for number in range(steps):
        crowd.step()
        changes = crowd.core.take_changes()
        crowd.journal += changes.journal
        witness.see(changes)
        witness.check_now()
        for bid in changes.bids.values():
            moved += homes.get(bid.id, bid.market) != bid.market
            homes[bid.id] = bid.market
        if restart_every:
            asyncio.run(store.commit(changes))
            if number % restart_every == 0:
                before = crowd.core.state_hash()
                crowd.core = witness.core = Core.restore(asyncio.run(store.load()), make_book)
                assert before == crowd.core.state_hash()
    return crowd, witness, moved


@pytest.mark.parametrize("seed", range(8))
def test_invariants_hold_at_every_step(seed):
    crowd, witness, moved = run(seed, 160)
    witness.check_all()
    assert moved > 3, "bids went to other markets"
    assert sum(isinstance(entry.command, RouteBids) for entry in crowd.journal) > 20


@pytest.mark.parametrize("seed", range(3))
def test_kernel_and_reference_send_bids_to_the_same_markets(seed):
    digests = [
        [tick.digest for tick in run(seed, 100, make_book=book)[1].ticks] for book in (None, reference.Book)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_at_any_moment_changes_nothing_that_follows(seed):
    plain, _, _ = run(seed, 120)
    restarted, witness, _ = run(seed, 120, restart_every=5)
    assert plain.core.state_hash() == restarted.core.state_hash()
    witness.check_all()


def test_replaying_the_journal_sends_every_bid_again():
    crowd, _, moved = run(11, 150)
    replayed = Core()
    for entry in crowd.journal:
        replayed.apply(decode_command(encode_command(entry.command)), entry.at_us)
    assert moved > 3
    assert replayed.state_hash() == crowd.core.state_hash()
