"""What targets plan, run against the real core in virtual time: budgets to the microdollar, work, pace."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from auction.commands import (
    AmendOffer,
    CancelBid,
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    ReportLease,
)
from auction.core import Core
from auction.errors import Rejection
from auction.limits import DAY_US
from auction.model import BID_FINAL, LeaseState
from auction.targets import (
    Situation,
    Supply,
    Target,
    TargetKind,
    TargetState,
    Wanted,
    amendment,
    begin_day,
    bid_of,
    check_reachable,
    next_bid,
    plan,
)
from tests.simulation.driver import SECOND, make_market

DOLLAR = 1_000_000
HOUR_US = 3_600 * SECOND
MIDNIGHT_US = 20_000 * DAY_US


class World:
    """A core with 16 GPUs whose price a test sets, and the client of one target."""

    def __init__(self, target, *, price, tick_seconds=60, funds=100_000 * DOLLAR):
        self.core, self.at_us = Core(), target.created_at_us
        self.market = make_market(fee_bps=0, tick_seconds=tick_seconds)
        self.do(CreateMarket(self.market))
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        self.do(CreateAccount("acct_b", "buyer", ["buyer"]))
        self.do(Deposit("dep", "acct_b", funds))
        for name in ("n1", "n2"):
            self.do(CreateNode(name, "acct_owner", self.market.id, name, 8, True))
            self.do(CreateOffer(f"off_{name}", "acct_owner", name, 8, price))
        self.price, self.target, self.state = price, target, TargetState.ACTIVE
        self.bids, self.leases, self.usage = {}, {}, []
        self.amended = 0

    def do(self, command):
        outcome = self.core.apply(command, self.at_us)
        assert not isinstance(outcome, Rejection), (command, outcome)
        return outcome

    def set_price(self, price):
        if price != self.price:
            self.price = price
            for name in ("off_n1", "off_n2"):
                offer = self.core.offers[name]
                self.do(AmendOffer(name, "acct_owner", offer.version, reserve=price))

    def look(self):
        changes = self.core.take_changes()
        self.bids |= {bid.id: replace(bid) for bid in changes.bids.values()}
        self.leases |= {lease.id: replace(lease) for lease in changes.leases.values()}
        self.usage += changes.usage

    @property
    def spent(self):
        return sum(bid.spent for bid in self.bids.values())

    @property
    def work_s(self):
        return sum(lease.gpu_seconds for lease in self.leases.values())

    def check_budget(self, cap):
        """What was spent, and what live bids may yet spend, is within the cap."""
        live = [bid for bid in self.bids.values() if bid.status not in BID_FINAL]
        assert len(live) <= 1
        assert self.spent + sum(bid.max_spend - bid.spent for bid in live) <= cap

    def attend(self):
        """Do what the runner does, without its database."""
        self.look()
        target = self.target
        if target.kind is TargetKind.PACE and target.day != self.at_us // DAY_US:
            midnight_s = self.at_us // DAY_US * 86_400
            before = sum(row.amount for row in self.usage if row.to_s <= midnight_s)
            day, day_cap = begin_day(target, self.at_us, before)
            self.target = target = replace(target, day=day, day_cap=day_cap)
        bid = self.core.bids.get(bid_of(target.id, target.bids))
        if bid is not None and bid.status in BID_FINAL:
            return
        earlier = sum(one.spent for one in self.bids.values() if bid is None or one.id != bid.id)
        spent, running = earlier, 0
        seconds = sum(x.gpu_seconds for x in self.leases.values() if x.state is LeaseState.ENDED)
        if bid is not None:
            progress = self.core.progress(bid.id)
            spent, running = earlier + progress.spent, progress.running_gpus
            seconds += progress.gpu_seconds
        market = self.core.markets[self.market.id]
        price = market.price if bid else self.core.quote(market.id, 1, 1).price_to_fill
        wanted = plan(
            target, Situation(self.at_us, market, price, None, bid, spent, earlier, seconds, running)
        )
        if isinstance(wanted, TargetState) or wanted is None:
            self.state = wanted or self.state
            if bid is not None:
                self.do(CancelBid(bid.id, "acct_b"))
        elif bid is None:
            self.do(next_bid(target, wanted))
            self.target = replace(target, bids=target.bids + 1)
        elif (change := amendment(target, bid, wanted)) is not None:
            self.amended += 1
            self.do(change)

    def run(self, until_us, *, price_at=None, start_s=1, check=None):
        self.attend()
        step_us = self.market.tick_seconds * SECOND // 2
        while self.at_us < until_us and self.state is TargetState.ACTIVE:
            self.at_us += step_us
            if price_at is not None:
                self.set_price(price_at(self.at_us))
            ticks = self.core.run_due(self.at_us)
            self.at_us += start_s * SECOND
            for lease in list(self.core.leases.values()):
                if lease.state is LeaseState.STARTING:
                    self.do(ReportLease(lease.id, "acct_owner", "started"))
            self.at_us -= start_s * SECOND if not ticks else 0
            if ticks:
                self.attend()
            self.look()
            if check is not None:
                check()
        self.core.run_due(self.at_us + HOUR_US)
        self.look()


def hold(**fields):
    return target(kind=TargetKind.HOLD, gpus=4, limit=2 * DOLLAR, **fields)


def deadline(**fields):
    terms = {"gpus": 16, "limit": 10 * DOLLAR, "gpu_seconds": 40 * 3_600, "max_spend": 60 * DOLLAR}
    return target(kind=TargetKind.DEADLINE, ends_at_us=MIDNIGHT_US + 10 * HOUR_US, **(terms | fields))


def pace(**fields):
    terms = {"gpus": 16, "limit": 4 * DOLLAR, "spend_per_day": 240 * DOLLAR}
    return target(kind=TargetKind.PACE, **(terms | fields))


def target(**fields):
    names = {"id": "tgt_1", "account": "acct_b", "key": "key_1", "market": "h100.us"}
    terms = dict.fromkeys(("gpu_seconds", "ends_at_us", "max_spend", "spend_per_day"))
    times = {"created_at_us": MIDNIGHT_US, "updated_at_us": MIDNIGHT_US}
    return Target(**(names | terms | times | {"min_gpus": 1} | fields))


def test_a_hold_comes_back_when_the_price_does_and_ends_in_time():
    world = World(hold(ends_at_us=MIDNIGHT_US + 3 * HOUR_US), price=DOLLAR)
    dear = range(MIDNIGHT_US + HOUR_US, MIDNIGHT_US + 2 * HOUR_US)
    world.run(MIDNIGHT_US + 4 * HOUR_US, price_at=lambda at_us: (3 if at_us in dear else 1) * DOLLAR)
    assert world.state is TargetState.ENDED
    assert 2 * 4 * 3_600 * 0.97 <= world.work_s <= 2 * 4 * 3_600 * 1.03
    assert world.target.bids == 1, "one bid queues again by itself"


def test_a_hold_spends_its_budget_and_not_a_microdollar_more():
    budget = 10 * DOLLAR
    world = World(hold(max_spend=budget), price=DOLLAR)
    world.run(MIDNIGHT_US + 10 * HOUR_US, check=lambda: world.check_budget(budget))
    assert world.state is TargetState.EXHAUSTED
    assert 0.98 * budget <= world.spent <= budget


@pytest.mark.parametrize("price", [300_000, DOLLAR, 1_400_000, 1_470_000])
def test_a_deadline_is_met_wherever_its_budget_suffices_at_a_constant_price(price):
    """$60 for 40 GPU-hours is $1.50 on average; the last hold takes a cent of it."""
    world = World(deadline(), price=price)
    world.run(MIDNIGHT_US + 10 * HOUR_US, check=lambda: world.check_budget(60 * DOLLAR))
    assert world.state is TargetState.MET
    assert 0 <= world.work_s - 40 * 3_600 <= 16, "all GPUs end together, by the second"
    assert world.spent <= 60 * DOLLAR


def test_a_deadline_that_the_market_makes_impossible_is_missed_within_its_budget():
    world = World(deadline(), price=1_600_000)
    world.run(MIDNIGHT_US + 11 * HOUR_US, check=lambda: world.check_budget(60 * DOLLAR))
    assert (world.state, world.spent) == (TargetState.MISSED, 0)


def test_a_deadline_waits_for_cheap_hours_while_it_has_time():
    """A day that is dear first and cheap later: patience is cheaper than haste, and still in time."""

    def price_at(at_us):
        return 1_300_000 if at_us < MIDNIGHT_US + 4 * HOUR_US else 500_000

    def paid(**fields):
        world = World(deadline(**fields), price=1_300_000)
        world.run(MIDNIGHT_US + 10 * HOUR_US, price_at=price_at)
        assert world.state is TargetState.MET
        return world.spent

    assert paid() == pytest.approx(52 * DOLLAR, rel=0.02), "with nothing known of prices it buys at once"
    market = make_market(fee_bps=0, tick_seconds=60)
    at_first = Situation(MIDNIGHT_US, market, None, 500_000, None, 0, 0, 0, 0)
    wanted = plan(deadline(), at_first)
    assert isinstance(wanted, Wanted) and 500_000 < wanted.limit < 1_300_000, "it waits"
    late = replace(at_first, now_us=MIDNIGHT_US + 5 * HOUR_US + 1)
    assert plan(deadline(), late).limit == pytest.approx(1_490_000, abs=10_000), "and then it does not"


def test_a_pace_follows_its_line_through_days_and_prices():
    dice = random.Random(7)
    prices = {}

    def price_at(at_us):
        hour = at_us // HOUR_US
        return prices.setdefault(hour, dice.randrange(80, 160) * 10_000)

    world = World(pace(ends_at_us=MIDNIGHT_US + 3 * DAY_US), price=DOLLAR)
    line_errors = []

    def check():
        days = (world.at_us - MIDNIGHT_US) / DAY_US
        line_errors.append(abs(world.spent - 240 * DOLLAR * days))
        world.check_budget(world.target.day_cap)

    world.run(MIDNIGHT_US + 3 * DAY_US + HOUR_US, price_at=price_at, check=check)
    assert world.state is TargetState.ENDED
    assert world.spent == pytest.approx(720 * DOLLAR, rel=0.015), "less what is held at midnight"
    assert max(line_errors) < 10 * DOLLAR, "never an hour's spending off the line"
    for day in range(3):
        from_s, to_s = ((MIDNIGHT_US + number * DAY_US) // SECOND for number in (day, day + 1))
        charged = sum(row.amount for row in world.usage if from_s <= row.from_s < to_s)
        assert charged <= 240 * DOLLAR
    assert world.amended < 3 * 24 * 8, "it does not fidget"


def test_a_pace_that_was_made_at_six_in_the_evening_gets_a_quarter_of_the_day():
    made = MIDNIGHT_US + 18 * HOUR_US
    world = World(pace(created_at_us=made, ends_at_us=MIDNIGHT_US + DAY_US), price=DOLLAR)
    world.run(MIDNIGHT_US + DAY_US + HOUR_US)
    assert 57 * DOLLAR <= world.spent <= 60 * DOLLAR


def test_a_pace_of_half_a_gpu_runs_one_half_of_the_time():
    world = World(pace(spend_per_day=12 * DOLLAR, ends_at_us=MIDNIGHT_US + DAY_US), price=DOLLAR)
    world.run(MIDNIGHT_US + DAY_US + HOUR_US)
    assert world.spent == pytest.approx(12 * DOLLAR, rel=0.1) and world.spent <= 12 * DOLLAR
    assert world.target.bids < 10


def test_a_pace_catches_up_slowly_after_a_dear_morning():
    """Nothing can be had below the limit until six; then at most twice the even rate makes up for it."""

    def price_at(at_us):
        return (5 if at_us < MIDNIGHT_US + 6 * HOUR_US else 1) * DOLLAR

    world = World(pace(ends_at_us=MIDNIGHT_US + DAY_US, spend_per_day=120 * DOLLAR), price=5 * DOLLAR)
    running = []
    world.run(
        MIDNIGHT_US + DAY_US + HOUR_US,
        price_at=price_at,
        check=lambda: running.append(sum(bid.filled_gpus for bid in world.core.bids.values())),
    )
    assert max(running) == 10, "twice the five that $5 an hour buys"
    assert 117 * DOLLAR <= world.spent <= 120 * DOLLAR


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([hold, deadline, pace]),
    budget=st.integers(DOLLAR, 30 * DOLLAR),
    seed=st.integers(0, 2**32),
)
def test_no_path_of_prices_takes_a_target_past_its_budget(kind, budget, seed):
    dice = random.Random(seed)
    world = World(kind(max_spend=budget), price=DOLLAR)
    price = [DOLLAR]

    def price_at(at_us):
        price[0] = min(9 * DOLLAR, max(10_000, price[0] + dice.randrange(-20, 21) * 10_000))
        return price[0]

    world.run(MIDNIGHT_US + 12 * HOUR_US, price_at=price_at, check=lambda: world.check_budget(budget))
    assert world.spent <= budget


def refusal(target, supply):
    with pytest.raises(Rejection) as refused:
        check_reachable(target, make_market(fee_bps=0), supply)
    assert refused.value.code == "target_unreachable"
    return refused.value.extras["accepted"]


SUPPLY = Supply(16, DOLLAR)


@pytest.mark.parametrize(
    "unreachable",
    [
        hold(),
        deadline(gpu_seconds=200 * 3_600, max_spend=10_000 * DOLLAR),
        deadline(max_spend=39 * DOLLAR),
        deadline(limit=990_000),
        pace(spend_per_day=10_000),
        pace(spend_per_day=2_000 * DOLLAR),
        hold(max_spend=100),
    ],
)
def test_each_accepted_value_alone_makes_an_unreachable_target_one(unreachable):
    supply = Supply(3, DOLLAR) if unreachable == hold() else SUPPLY
    accepted = refusal(unreachable, supply)
    names = {"limit_price_per_gpu_hour": "limit", "ends_at": "ends_at_us"}
    assert accepted
    for field, value in accepted.items():
        better = replace(unreachable, **{names.get(field, field): value})
        check_reachable(better, make_market(fee_bps=0), supply)
        if field in ("gpus", "gpu_seconds", "spend_per_day") and field != "max_spend" and value > 1:
            worse = value + 1 if value < getattr(unreachable, field) else value - 1
            with pytest.raises(Rejection):
                check_reachable(replace(unreachable, **{field: worse}), make_market(fee_bps=0), supply)
