"""What a bid is refused for, in the order in which its sender should learn of it, new or amended.

A ladder starts with a command that is wrong in every way at once; each rung mends what was named last.
"""

import pytest
from msgspec import structs

from auction import admission, alternatives
from auction.commands import AmendBid, AmendNode, Choice, CreateNode, CreateOffer, PlaceBid
from auction.errors import Rejection
from auction.model import BidStatus, Colocate, MarketStatus, OfferStatus, OnPreempt, TimeInForce
from auction.units import GPU_COUNT_MAX
from matching.types import MARKETS_MAX
from tests.bare_market import EU, HOLD, PRICE, US, Bare
from tests.simulation.driver import SECOND, START_US

STEP = 10_000  # the price increment
SOON_US = START_US + SECOND


def refusal(call, *arguments):
    """Return the code and pointer of a refusal, None if there is none."""
    try:
        call(*arguments)
    except Rejection as rejection:
        return rejection.code, rejection.pointer
    return None


def code(call, *arguments):
    refused = refusal(call, *arguments)
    return refused and refused[0]


def climb(check, state, command, rungs):
    """Check a command at each rung, mend it, and return the codes; and the command when nothing is wrong."""
    codes = []
    for mend, changes in rungs:
        codes.append(code(check, state, command))
        if mend is not None:
            mend()
        command = structs.replace(command, **changes)
    return codes, command


def setting(thing, **values):
    """Return a rung's mend: set these attributes."""
    return lambda: [setattr(thing, name, value) for name, value in values.items()]


def test_a_new_bid_learns_who_then_where_then_what_then_with_which_money():
    bare = Bare()
    bare.bid("b", money=HOLD)
    state, market = bare.state, bare.market
    account, owner = state.accounts["acct_b"], state.accounts["acct_owner"]
    account.state, account.roles, market.status = "frozen", ["owner"], MarketStatus.HALTED
    state.affiliate(account, "family")
    state.affiliate(owner, "family")
    count, hold = ("acct_b", US), 3 * HOLD
    state.live_bid_counts[count] = 10_000
    limits = bare.limited(
        state.bids["bid_b"], max_price=PRICE - 1, max_open_notional=4 * PRICE - 1,
        spend_cap_per_day=HOLD + hold - 1,
    )  # fmt: skip
    money = 8 * account.number
    state.balances[money] = hold - 1
    wrong = PlaceBid(
        "bid_new", "acct_nobody", "nowhere", 0, market.price_cap + STEP, min_gpus=4, colocate=Colocate.NODE,
        time_in_force=TimeInForce.GTT, valid_until_tick=0, max_spend=hold - 1, unconfirmed_max=PRICE - 1,
    )  # fmt: skip
    rungs = {
        "not_found": (None, {"account": "acct_b"}),
        "account_frozen": (setting(account, state="open"), {}),
        "not_a_buyer": (setting(account, roles=["owner", "buyer"]), {}),
        "market_not_found": (None, {"market": US}),
        "market_halted": (setting(market, status=MarketStatus.CANCEL_ONLY), {}),
        "market_cancel_only": (setting(market, status=MarketStatus.OPEN), {}),
        "price_out_of_range": (None, {"limit": PRICE + 1}),
        "price_not_on_increment": (None, {"limit": PRICE}),
        "confirmation_required": (None, {"unconfirmed_max": PRICE}),
        "gpus_out_of_range": (None, {"gpus": 3}),
        "min_gpus_out_of_range": (None, {"min_gpus": 3}),
        "colocate_invalid": (None, {"colocate": Colocate.NONE}),
        "time_in_force_invalid": (None, {"expires_at_us": START_US}),
        "valid_until_tick_passed": (None, {"valid_until_tick": 1}),
        "expires_at_passed": (None, {"expires_at_us": SOON_US}),
        "self_trade": (lambda: state.affiliate(owner, None), {}),
        "bid_limit_reached": (lambda: state.live_bid_counts.update({count: 9_999}), {}),
        "max_spend_too_small": (None, {"max_spend": hold}),
        "max_price_exceeded": (setting(limits, max_price=PRICE), {}),
        "open_notional_exceeded": (setting(limits, max_open_notional=4 * PRICE), {}),
        "spend_cap_reached": (setting(limits, spend_cap_per_day=HOLD + hold), {}),
        "insufficient_funds": (lambda: state.balances.update({money: hold}), {}),
    }
    codes, command = climb(admission.place_bid, state, wrong, rungs.values())
    assert list(rungs) == codes
    assert (market, hold) == admission.place_bid(state, command)


def test_an_account_with_an_offer_of_its_own_in_the_market_bids_elsewhere_only():
    bare = Bare()
    bare.open_market(EU)
    bare.bid("b")
    bare.state.live_offer_counts["acct_b", US] = 1
    command = PlaceBid("new", "acct_b", EU, 1, PRICE)
    assert None is code(admission.place_bid, bare.state, command)
    assert "self_trade" == code(admission.place_bid, bare.state, structs.replace(command, market=US))


def test_each_alternative_is_checked_where_it_stands():
    bare = Bare()
    bare.bid("b")
    eu = bare.open_market(EU, notice_seconds=90, price_increment=2 * STEP)
    eu.status = MarketStatus.HALTED
    bare.state.live_offer_counts["acct_b", EU] = 1

    def found(*choices, **terms):
        command = PlaceBid("new", "acct_b", US, 2, PRICE, alternatives=list(choices), **terms)
        return refusal(admission.place_bid, bare.state, command)

    us, limit = Choice(US, PRICE), "/alternatives/1/limit_price_per_gpu_hour"
    assert ("alternatives_invalid", "/alternatives") == found(us, us)
    assert ("market_not_found", "/alternatives/1/market") == found(us, Choice("nowhere", PRICE))
    assert "market_halted" == found(us, Choice(EU, PRICE))[0]
    eu.status = MarketStatus.OPEN
    assert ("price_out_of_range", limit) == found(us, Choice(EU, STEP))
    assert ("price_not_on_increment", limit) == found(us, Choice(EU, PRICE + STEP))
    assert "confirmation_required" == found(us, Choice(EU, PRICE, PRICE - 1))[0]
    assert ("alternatives_invalid", "/alternatives") == found(us, Choice(EU, PRICE))
    eu.price_increment = STEP
    assert "self_trade" == found(us, Choice(EU, PRICE))[0]
    del bare.state.live_offer_counts["acct_b", EU]
    assert "gpus_out_of_range" == code(
        admission.place_bid, bare.state, PlaceBid("new", "acct_b", US, 0, PRICE, alternatives=[us])
    )
    assert None is found(us, Choice(EU, PRICE))


def test_a_bid_over_two_markets_holds_for_the_dearer_and_begins_in_the_first():
    bare = Bare()
    bare.open_market(EU, notice_seconds=90)
    bid = bare.bid("b")
    command = PlaceBid("new", "acct_b", US, 2, PRICE, alternatives=[Choice(US, PRICE), Choice(EU, 2 * PRICE)])
    assert (bare.market, 2 * 180 * 2_000) == admission.place_bid(bare.state, command)
    bare.limited(bid, max_open_notional=PRICE + 4 * PRICE - 1)
    assert "open_notional_exceeded" == code(admission.place_bid, bare.state, command)


def test_an_amendment_learns_which_bid_then_who_then_where_then_what():
    bare = Bare()
    bare.bid("other")
    bid = bare.bid("b", gpus=2)
    account, market = bare.state.accounts["acct_b"], bare.market
    bid.status, bid.has_lapsed, bid.colocate = BidStatus.CANCELLED, True, Colocate.NODE
    account.state, market.status = "frozen", MarketStatus.HALTED
    wrong = AmendBid(
        "bid_nothing", "acct_b", market.price_cap + STEP, GPU_COUNT_MAX + 1, expected_version=9,
        expires_at_us=START_US, unconfirmed_max=PRICE, market="nowhere",
    )  # fmt: skip
    rungs = [
        ("not_found", None, {"bid": "bid_other"}),
        ("not_found", None, {"bid": "bid_b"}),
        ("bid_final", setting(bid, status=BidStatus.OPEN), {}),
        ("version_mismatch", None, {"expected_version": 1}),
        ("account_frozen", setting(account, state="open"), {}),
        ("market_not_found", None, {"market": US}),
        ("market_halted", setting(market, status=MarketStatus.OPEN), {}),
        ("price_out_of_range", None, {"limit": PRICE + 1}),
        ("price_not_on_increment", None, {"limit": PRICE + STEP}),
        ("confirmation_required", None, {"unconfirmed_max": PRICE + STEP}),
        ("time_in_force_invalid", setting(bid, time_in_force=TimeInForce.GTT), {}),
        ("bid_lapsed", setting(bid, has_lapsed=False), {}),
        ("expires_at_passed", None, {"expires_at_us": SOON_US}),
        ("gpus_out_of_range", None, {"gpus": 3}),
        ("colocate_invalid", None, {"gpus": 4}),
    ]
    codes, command = climb(admission.amend_bid, bare.state, wrong, [rung[1:] for rung in rungs])
    assert [rung[0] for rung in rungs] == codes
    assert (bid, market) == admission.amend_bid(bare.state, command)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"limit": PRICE + STEP}, True), ({"limit": PRICE}, False), ({"limit": PRICE - STEP}, False),
        ({"gpus": 4}, True), ({"gpus": 3}, False), ({"gpus": 2}, False),
        ({"paused": False}, True), ({"paused": True}, False), ({}, False),
        ({"limit": PRICE - STEP, "gpus": 4}, True), ({"limit": PRICE + STEP, "gpus": 2}, True),
    ],
)  # fmt: skip
def test_a_halted_market_takes_only_what_asks_for_less(changes, refused):
    bare = Bare()
    bare.bid("b", gpus=3)
    bare.market.status = MarketStatus.HALTED
    found = code(admission.amend_bid, bare.state, AmendBid("bid_b", "acct_b", **changes))
    assert ("market_halted" if refused else None) == found


@pytest.mark.parametrize(
    ("limit", "refused"), [(PRICE + STEP, True), (PRICE, False), (PRICE - STEP, False), (None, False)]
)
def test_only_a_limit_that_is_raised_is_asked_twice(limit, refused):
    bare = Bare()
    bare.bid("b")
    found = code(admission.amend_bid, bare.state, AmendBid("bid_b", "acct_b", limit, unconfirmed_max=STEP))
    assert ("confirmation_required" if refused else None) == found


@pytest.mark.parametrize(
    ("terms", "changes", "refused"),
    [
        ({"gpus": 3, "min_gpus": 3}, {"gpus": 1}, None),  # the minimum follows
        ({"gpus": 3, "min_gpus": 3}, {"min_gpus": 4}, "min_gpus_out_of_range"),
        ({"gpus": 3}, {"gpus": 1, "min_gpus": 2}, "min_gpus_out_of_range"),
        ({"gpus": 3}, {"gpus": 2, "min_gpus": 2}, None),
        ({"gpus": 2, "min_gpus": 2, "colocate": Colocate.NODE}, {"gpus": 4}, None),  # all or nothing still
        ({"gpus": 4, "min_gpus": 4, "colocate": Colocate.NODE}, {"gpus": 2}, None),
        ({"gpus": 4, "min_gpus": 4, "colocate": Colocate.NODE}, {"min_gpus": 1}, "colocate_invalid"),
        ({"gpus": 4, "min_gpus": 4, "colocate": Colocate.NODE}, {"gpus": 3}, "colocate_invalid"),
        ({"gpus": 3}, {"gpus": 0}, "gpus_out_of_range"),
    ],
)
def test_what_an_amendment_leaves_must_be_a_bid_that_could_be_placed(terms, changes, refused):
    bare = Bare()
    bare.bid("b", **terms)
    assert refused == code(admission.amend_bid, bare.state, AmendBid("bid_b", "acct_b", **changes))


@pytest.mark.parametrize(
    ("has_lapsed", "gpus", "refused"),
    [(True, 4, "bid_lapsed"), (True, 3, None), (True, 2, None), (True, None, None), (False, 4, None)],
)
def test_a_bid_after_its_last_tick_wants_no_more(has_lapsed, gpus, refused):
    bare = Bare()
    bare.bid("b", gpus=3).has_lapsed = has_lapsed
    assert refused == code(admission.amend_bid, bare.state, AmendBid("bid_b", "acct_b", gpus=gpus))


@pytest.mark.parametrize(
    ("is_gtt", "expires_at_us", "refused"),
    [
        (True, SOON_US, None), (True, START_US, "expires_at_passed"), (True, None, None),
        (False, SOON_US, "time_in_force_invalid"), (False, None, None),
    ],
)  # fmt: skip
def test_only_a_bid_with_an_expiry_gets_another_one(is_gtt, expires_at_us, refused):
    bare = Bare()
    ends = {"time_in_force": TimeInForce.GTT, "expires_at_us": SOON_US} if is_gtt else {}
    bare.bid("b", **ends)
    command = AmendBid("bid_b", "acct_b", expires_at_us=expires_at_us)
    assert refused == code(admission.amend_bid, bare.state, command)


def over_two_markets():
    bare = Bare()
    eu = bare.open_market(EU)
    bid = bare.bid("b", alternatives=[Choice(US, PRICE), Choice(EU, 2 * PRICE)])
    return bare, eu, bid


@pytest.mark.parametrize(
    ("market", "limit", "refused"),
    [
        (EU, 2 * PRICE + STEP, "market_halted"),
        (EU, PRICE + STEP, None),  # below its limit there
        (US, 2 * PRICE, None),
        (None, None, None),
        (None, PRICE, "market_required"),
        ("h100.asia", PRICE, "market_not_found"),
    ],
)
def test_an_amendment_is_about_the_limit_in_the_market_that_it_names(market, limit, refused):
    bare, eu, _ = over_two_markets()
    eu.status = MarketStatus.HALTED
    command = AmendBid("bid_b", "acct_b", limit, market=market)
    assert refused == code(admission.amend_bid, bare.state, command)


@pytest.mark.parametrize(
    ("market", "limit", "old", "now", "left"),
    [
        (US, STEP, PRICE, STEP, {US: STEP, EU: 2 * PRICE}),
        (EU, STEP, 2 * PRICE, PRICE, {US: PRICE, EU: STEP}),
        (EU, None, 2 * PRICE, PRICE, {US: PRICE, EU: 2 * PRICE}),
        (None, None, PRICE, PRICE, {US: PRICE, EU: 2 * PRICE}),
    ],
)
def test_one_of_several_limits_changes_and_the_others_stay(market, limit, old, now, left):
    _, _, bid = over_two_markets()
    command = AmendBid("bid_b", "acct_b", limit, market=market)
    assert old == alternatives.amended_limit(bid, command)
    found, choices = alternatives.amended(bid, command)
    assert (now, left) == (found, {one.market: one.limit for one in choices})
    assert bid.alternatives[0].arrival_hash == choices[0].arrival_hash, "its place in line"


@pytest.mark.parametrize("market", [None, US])
def test_a_bid_in_one_market_has_the_limit_there(market):
    bare = Bare()
    bid = bare.bid("b")
    command = AmendBid("bid_b", "acct_b", STEP, market=market)
    assert PRICE == alternatives.amended_limit(bid, command)
    assert (STEP, []) == alternatives.amended(bid, command)


@pytest.mark.parametrize(
    ("count", "terms", "refused"),
    [
        (MARKETS_MAX, {}, None), (MARKETS_MAX + 1, {}, "alternatives_invalid"), (1, {}, None),
        (2, {"time_in_force": TimeInForce.IOC, "on_preempt": OnPreempt.CANCEL}, "alternatives_invalid"),
        (2, {"valid_until_tick": 5}, "alternatives_invalid"),
        (2, {"time_in_force": TimeInForce.GTT, "expires_at_us": SOON_US}, None),
    ],
)  # fmt: skip
def test_alternatives_are_few_and_count_no_markets_ticks(count, terms, refused):
    choices = [Choice(f"market.{number}", PRICE) for number in range(count)]
    command = PlaceBid("b", "acct", choices[0].market, 1, PRICE, alternatives=choices, **terms)
    assert refused == code(alternatives.check, command)


def test_a_market_is_named_once():
    choices = [Choice(US, PRICE), Choice(EU, PRICE), Choice(US, 2 * PRICE)]
    command = PlaceBid("b", "acct", US, 1, PRICE, alternatives=choices)
    assert "alternatives_invalid" == code(alternatives.check, command)


@pytest.mark.parametrize("kind", ["bid", "lease", "node", "offer"])
def test_what_is_not_yours_is_not_there_and_what_is_has_its_version(kind):
    bare = Bare()
    bid = bare.bid("b")
    mine, account = {
        "bid": (bid, "acct_b"), "lease": (bare.award(bid), "acct_b"), "node": (bare.node, "acct_owner"),
        "offer": (bare.offer, "acct_owner"),
    }[kind]  # fmt: skip
    own = getattr(admission, f"own_{kind}")
    versions = () if kind == "lease" else (None,)
    assert "not_found" == code(own, bare.state, "absent", account, *versions)
    assert "not_found" == code(own, bare.state, mine.id, "acct_somebody", *versions)
    assert mine is own(bare.state, mine.id, account, *versions)
    if versions:
        assert "version_mismatch" == code(own, bare.state, mine.id, account, mine.version + 1)
        assert mine is own(bare.state, mine.id, account, mine.version)


@pytest.mark.parametrize("status", [OfferStatus.WITHDRAWING, OfferStatus.WITHDRAWN])
def test_an_offer_that_goes_is_changed_no_more(status):
    bare = Bare()
    bare.offer.status = status
    assert "offer_final" == code(admission.own_offer, bare.state, bare.offer.id, "acct_owner", None)


def test_a_new_node_learns_who_then_where_then_what():
    bare = Bare()
    owner = bare.state.accounts["acct_owner"]
    owner.roles, bare.market.is_demo = ["buyer"], False
    rungs = {
        "not_an_owner": (setting(owner, roles=["owner"]), {}),
        "market_not_found": (None, {"market": US}),
        "gpus_out_of_range": (None, {"gpus": 1}),
        "node_name_taken": (None, {"name": "new"}),
        "simulation_not_allowed": (None, {"simulated": False}),
    }
    wrong = CreateNode("new", "acct_owner", "nowhere", "node", 0, True)
    codes, command = climb(admission.create_node, bare.state, wrong, rungs.values())
    assert list(rungs) == codes
    assert bare.market is admission.create_node(bare.state, command)
    bare.market.is_demo = True
    for simulated in (True, False):
        command = structs.replace(command, simulated=simulated)
        assert bare.market is admission.create_node(bare.state, command)


def test_a_new_offer_learns_who_then_where_then_what():
    bare = Bare(gpus=8, offered=6)
    owner = bare.state.accounts["acct_owner"]
    owner.roles, bare.market.status = ["buyer"], MarketStatus.HALTED
    bare.state.live_bid_counts["acct_owner", US] = 1
    rungs = {
        "not_an_owner": (setting(owner, roles=["owner"]), {}),
        "not_found": (None, {"node": "node"}),
        "market_halted": (setting(bare.market, status=MarketStatus.OPEN), {}),
        "price_not_on_increment": (None, {"reserve": bare.market.price_cap}),
        "price_out_of_range": (None, {"reserve": PRICE}),
        "node_gpus_exceeded": (None, {"gpus": 2}),
        "notice_seconds_out_of_range": (None, {"notice_seconds": None}),
        "window_invalid": (None, {"available_until_us": SOON_US}),
        "self_trade": (lambda: bare.state.live_bid_counts.clear(), {}),
    }
    wrong = CreateOffer(
        "new", "acct_owner", "nothing", 3, STEP + 1, notice_seconds=29, available_until_us=START_US
    )
    codes, command = climb(admission.create_offer, bare.state, wrong, rungs.values())
    assert list(rungs) == codes
    gross = -(-PRICE * 10_000 // 9_700 // STEP) * STEP
    assert (bare.node, bare.market, gross, 30) == admission.create_offer(bare.state, command)


@pytest.mark.parametrize(
    ("begins_us", "ends_us", "refused"),
    [
        (START_US - 5, START_US, True),
        (START_US - 5, SOON_US, False),
        (SOON_US, SOON_US, True),
        (None, None, False),
    ],
)  # fmt: skip
def test_an_offer_ends_after_it_begins_and_after_now(begins_us, ends_us, refused):
    bare = Bare(gpus=8, offered=6)
    command = CreateOffer(
        "new", "acct_owner", "node", 1, PRICE, available_from_us=begins_us, available_until_us=ends_us
    )
    assert ("window_invalid" if refused else None) == code(admission.create_offer, bare.state, command)


def test_a_node_that_nothing_is_offered_or_leased_on_is_described_anew_as_a_whole():
    bare = Bare()
    bare.lend("free", 4, 1)
    spare = bare.do(CreateNode("spare", "acct_owner", US, "spare", 4, True))
    command = AmendNode("spare", "acct_owner", "renamed", 5, "fabric", 1)
    assert spare is admission.amend_node(bare.state, command)
    for changes, refused in (
        ({"node": "free"}, "node_in_use"), ({"gpus": 3}, "gpus_out_of_range"),
        ({"gpus": 2_000}, "gpus_out_of_range"),
        ({"name": "node"}, "node_name_taken"), ({"expected_version": 2}, "version_mismatch"),
    ):  # fmt: skip
        assert refused == code(admission.amend_node, bare.state, structs.replace(command, **changes))
    bare.state.node_leases["spare"]["lease"] = bare.award(bare.bid("b"))
    assert "node_in_use" == code(admission.amend_node, bare.state, command)


def test_a_node_in_use_may_be_named_anew_and_be_told_the_shape_that_it_has():
    bare = Bare()
    bare.node.fabric = "fabric"
    for command in (
        AmendNode("node", "acct_owner", name="renamed"),
        AmendNode("node", "acct_owner", gpus=8, fabric="fabric"),
    ):
        assert bare.node is admission.amend_node(bare.state, command)
