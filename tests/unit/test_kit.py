"""The bot kit in virtual time: determinism, replay in a real core, each strategy's promise, the report."""

import io
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from auction.limits import DAY_US
from fallow.client import RefusedError
from fallow.client.model import Curve
from fallow.kit import crowd, runner
from fallow.kit.levels import steps, without_bids
from fallow.kit.local import micros
from fallow.kit.record import FORMAT, Recording, Writer, WrongFileError, read_recording, read_run
from fallow.kit.report import best_cost, prices_with, report
from fallow.kit.strategies import BudgetPace, Deadline, FixedLimit, FollowPercentile, HoldTarget
from fallow.kit.tally import dollars, microusd
from tests.kit_bots import Idle, Raising, Witness

MARKET = "h100-sxm.us"
SLOW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(1, 10_000)


def sim(bot, *, seed=1, ticks=240, **options):
    rows = []
    desk = runner.simulate(bot, MARKET, run="t", log=rows.append, seed=seed, ticks=ticks, **options)
    return desk, rows[0], rows[1:]


def again(bot, head, frames, **options):
    rows = []
    desk = runner.replay(bot, head.market, frames, run="t", log=rows.append, **options)
    return desk, rows[0], rows[1:]


@pytest.fixture
def plain_crowd(monkeypatch):
    """A crowd of which a curve tells everything: no minimum sizes, no handicap."""
    begin = crowd.Crowd.__init__

    def init(self, market, seed):
        begin(self, market, seed)
        self.rules = structs.replace(self.rules, handicap_bps=0)

    monkeypatch.setattr(crowd.Crowd, "__init__", init)
    monkeypatch.setattr(crowd, "WHOLE_PERCENT", 0)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    runs = [sim(FollowPercentile(gpus=2, max_limit=Decimal(4)), seed=seed)[2] for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert [row.tick.price for row in runs[0]] != [row.tick.price for row in runs[2]]


@pytest.mark.usefixtures("plain_crowd")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_a_bid_of_its_own_a_replay_gives_the_recorded_prices(seed):
    _, head, frames = sim(Idle(), seed=seed, ticks=400)
    _, _, rows = again(Idle(), head, frames)
    assert len({row.recorded_price for row in rows}) > 10
    assert [row.tick.price for row in rows] == [row.recorded_price for row in rows]
    assert [row.tick.tick for row in rows] == [frame.tick.tick for frame in frames]
    assert [row.tick.cleared_at for row in rows] == [frame.tick.cleared_at for frame in frames]


@pytest.mark.usefixtures("plain_crowd")
@SLOW
@given(SEEDS, st.integers(1, 16))
def test_a_bots_bids_never_lower_the_price(seed, gpus):
    _, head, frames = sim(Idle(), seed=seed, ticks=60)
    _, head, rows = again(FixedLimit(gpus=gpus, limit=Decimal(9)), head, frames)
    assert all((row.tick.price or 0) >= (row.price_alone or 0) for row in rows)
    found = report(head, rows)
    assert found.agreeing_share == 1 and found.price_impact_per_gpu_hour >= 0


def test_what_was_not_recorded_is_cleared_with_the_levels_before_it():
    _, head, frames = sim(Idle(), ticks=60)
    kept = [frame for frame in frames if frame.tick.tick % 3 != 2]
    _, _, rows = again(Witness(limit=Decimal(9)), head, kept)
    assert [row.tick.tick for row in rows] == list(range(1, kept[-1].tick.tick + 1))
    assert [row.tick.tick for row in rows if not row.is_recorded] == list(range(2, len(rows) + 1, 3))
    with pytest.raises(ValueError, match="follows"):
        again(Idle(), head, [*frames, frames[0]])
    assert again(Idle(), head, frames, ticks_max=7)[2][-1].tick.tick == 7
    rows = []
    assert runner.replay(Idle(), head.market, [], run="t", log=rows.append) is None and rows == []


def test_the_same_bot_hears_the_same_kinds_in_simulation_and_replay():
    first, second = Witness(limit=Decimal("2.60")), Witness(limit=Decimal("2.60"))
    _, head, _ = sim(first, ticks=400)
    frames = sim(Idle(), ticks=400)[2]
    again(second, head, frames)
    for bot in (first, second):
        assert set(bot.heard) == {"tick", "bid", "lease", "notice"}
        assert bot.heard.count("tick") == 400


def test_a_bot_that_raises_ends_the_run_with_its_last_bill():
    rows = []
    head, frames = cheap_market()
    with pytest.raises(RuntimeError, match="a bug of mine"):
        runner.replay(Raising(), head.market, frames, run="t", log=rows.append)
    assert len(rows) == 3, "its head and the two ticks that were begun"


def cheap_market():
    """A recording in which a dollar wins."""
    _, head, frames = sim(Idle(), ticks=20)
    curve = frames[0].curve
    supply = [(Decimal("1.00"), 8)]
    return head, [
        structs.replace(row, curve=structs.replace(curve, demand=[], supply=supply)) for row in frames
    ]


def test_what_a_desk_refuses_it_refuses_as_the_server_does():
    class Poor(Idle):
        codes = ()

        def on_tick(self, tick):
            for terms in ({"limit": "900"}, {"limit": "2.00005"}, {"limit": "9", "gpus": 1_000}):
                with pytest.raises(RefusedError) as refused:
                    self.desk.place(**({"gpus": 1} | terms))
                self.codes += (refused.value.code,)
            with pytest.raises(TypeError):
                self.desk.place(gpus=1, limit=2.0)
            self.desk.stop("seen")

    bot = Poor()
    desk, _, _ = sim(bot, money="10")
    assert bot.codes == ("price_out_of_range", "price_not_on_increment", "insufficient_funds")
    assert desk.balance().available == Decimal(10) and desk.balance().held == 0


def test_a_bot_acts_on_all_it_has():
    class Busy(Idle):
        def on_tick(self, tick):
            desk = self.desk
            if not desk.bids():
                self.bid = desk.place(gpus=2, limit="1.20")
                assert self.bid.client_bid_id == f"t-{desk.placed}"
            elif len(desk.ticks) == 3:
                (lease,) = desk.leases()
                assert (lease.state, lease.gpus) == ("running", 2) and desk.tally.running_gpus == 2
                assert desk.amend(self.bid.id, limit="1.30", gpus=1).limit_price_per_gpu_hour == Decimal(
                    "1.30"
                )
            elif len(desk.ticks) == 5:
                assert desk.release(desk.leases()[0].id).end_reason == "released"
            elif len(desk.ticks) == 6:
                assert desk.bids() == [] or desk.cancel(self.bid.id).status == "cancelled"

    desk, head, rows = again(Busy(), *cheap_market())
    assert report(head, rows).interruptions == 0 and desk.tally.total.gpu_seconds > 0


@SLOW
@given(SEEDS)
def test_the_tally_follows_the_bills_while_leases_grow_shrink_and_split(seed):
    class Breathing(Idle):
        def on_tick(self, tick):
            desk, core = self.desk, self.desk._local.core
            bids = desk.bids()
            if not bids:
                desk.place(gpus=6, limit="4.00")
                return
            now = core.progress(bids[0].id)
            running = sum(lease.gpus for lease in desk.leases() if lease.state in ("running", "noticed"))
            assert (desk.tally.running_gpus, now.running_gpus) == (running, running)
            refunds = sum(lease.refunded for lease in desk.leases())
            assert refunds == 0 and abs(desk.tally.spent - now.spent) <= 12 + self.refunded
            desk.amend(bids[0].id, gpus=1 + len(desk.ticks) * 7 % 8)

        refunded = 0

        def on_lease(self, lease):
            self.refunded += microusd(lease.refunded)

    sim(Breathing(), seed=seed, ticks=300)


# -- the strategies ---------------------------------------------------------------------------------


@SLOW
@given(SEEDS, st.integers(120, 400), st.integers(1, 8))
def test_a_fixed_limit_never_pays_more_than_its_limit(seed, cents, gpus):
    limit = Decimal(cents) / 100
    _, _, rows = sim(FixedLimit(gpus=gpus, limit=limit), seed=seed)
    for row in rows:
        assert microusd(row.cost) * 3_600 <= microusd(limit) * row.gpu_seconds + 3_600
        assert row.gpus <= gpus


@SLOW
@given(SEEDS, st.integers(100, 2_000))
def test_a_hold_never_spends_more_than_it_may(seed, cents):
    most = Decimal(cents) / 100
    desk, _, rows = sim(HoldTarget(gpus=4, limit=Decimal(4), max_spend=most), seed=seed, ticks=600)
    assert sum(row.cost for row in rows) <= most
    assert sum(row.cost for row in rows) == Decimal(100_000) - desk.balance().available


@settings(SLOW, max_examples=3)
@given(SEEDS, st.integers(10, 300), st.integers(250, 400))
def test_a_pace_never_spends_more_than_its_budget_in_a_day(seed, budget, cents):
    bot = BudgetPace(spend_per_day=Decimal(budget), limit=Decimal(cents) / 100, gpus=8)
    _, _, rows = sim(bot, seed=seed, ticks=1_440 + 300)
    days = {}
    for row in rows:
        day = micros(row.tick.cleared_at) // DAY_US
        days[day] = days.get(day, 0) + row.cost
    assert len(days) == 2 and all(spent <= budget for spent in days.values())


@SLOW
@given(SEEDS, st.integers(2, 40))
def test_a_deadline_meets_its_work_within_its_budget_or_says_why_not(seed, hours):
    most = Decimal(hours * 4)
    desk, _, rows = sim(
        Deadline(gpu_hours=hours, max_spend=most, within_hours=8, gpus=8), seed=seed, ticks=600
    )
    assert sum(row.cost for row in rows) <= most
    worked = sum(row.gpu_seconds for row in rows)
    assert desk.stopped in ("met", "missed", "exhausted")
    assert (desk.stopped == "met") is (worked >= hours * 3_600)
    assert worked <= hours * 3_600 + 8 * crowd.TICK_SECONDS, "not more than a tick's worth too much"


@SLOW
@given(SEEDS, st.integers(0, 100))
def test_following_a_percentile_stays_below_its_limit(seed, percentile):
    most = Decimal("2.50")
    seen = []

    class Bot(FollowPercentile):
        def on_bid(self, bid):
            seen.append(bid.limit_price_per_gpu_hour)

    sim(Bot(gpus=2, max_limit=most, percentile=percentile), seed=seed)
    assert seen and max(seen) <= most


def test_a_higher_percentile_runs_more():
    ran = [
        sum(row.gpu_seconds for row in sim(FollowPercentile(gpus=2, max_limit=Decimal(9), percentile=p))[2])
        for p in (10, 100)
    ]
    assert ran[0] < ran[1]


# -- the report -------------------------------------------------------------------------------------


@SLOW
@given(SEEDS, st.sampled_from([2, 5]), st.integers(200, 400))
def test_the_best_in_hindsight_never_costs_more_than_was_paid(seed, gpus, cents):
    bot = FixedLimit(gpus=gpus, limit=Decimal(cents) / 100)
    _, head, rows = sim(bot, seed=seed)
    found = report(head, rows)
    assert best_cost(head.market, rows) <= found.cost
    assert found.share_of_best is None or 0 < found.share_of_best <= 1


def test_the_best_in_hindsight_is_the_cheapest_choice_of_ticks_and_widths():
    """Two GPUs in one dear tick; hindsight had two cheap ones. Checked against every choice there is."""
    _, head, frames = sim(Idle(), ticks=3)
    supplies = [[(Decimal("3.00"), 4)], [(Decimal("1.00"), 1), (Decimal("2.00"), 4)], [(Decimal("1.50"), 4)]]
    curves = [Curve(head.market.id, n, [], supply) for n, supply in enumerate(supplies)]
    bought = [(120, Decimal("0.10")), (0, Decimal(0)), (0, Decimal(0))]
    rows = [
        structs.replace(
            frame, curve=curve, seconds=60, gpu_seconds=seconds, cost=cost, gpus=2 if seconds else 0
        )
        for frame, curve, (seconds, cost) in zip(frames, curves, bought, strict=True)
    ]
    prices = [dict(prices_with(head.market, row.curve, 2)) for row in rows]
    assert prices[1] == {1: 1_000_000, 2: 2_000_000}, "the second GPU is dear, and so is the first then"
    assert prices[0][2] == 3_000_000
    whole = min(
        sum(gpus * 60 * price.get(gpus, 0) for gpus, price in zip(choice, prices, strict=True))
        for choice in product(range(3), repeat=3)
        if sum(choice) == 2
    )
    assert best_cost(head.market, rows) == dollars(whole // 3_600) == Decimal("0.041666")
    found = report(head, rows)
    assert (found.cost, found.gpu_hours) == (Decimal("0.10"), Decimal("0.0333"))
    assert found.average_price_per_gpu_hour == Decimal("3.000000")
    assert found.share_of_best == Decimal("0.4167")


def test_of_nothing_the_best_is_nothing():
    _, head, rows = sim(Idle(), ticks=5)
    found = report(head, rows)
    assert (found.cost, found.best_cost, found.share_of_best) == (0, 0, None)


def test_a_curve_less_ones_own_bids():
    curve = Curve("m", 1, [(Decimal(3), 2), (Decimal(2), 6)], [])
    left = without_bids(curve, [(Decimal(3), 2), (Decimal(2), 1), (Decimal(1), 9)])
    assert left.demand == [(Decimal(2), 3)] and steps(left.demand) == {2_000_000: 3}


# -- files ------------------------------------------------------------------------------------------


def test_files_are_read_back_up_to_where_they_were_cut_off(tmp_path: Path):
    _, head, frames = sim(FixedLimit(gpus=1, limit=Decimal(3)), ticks=20)
    path = tmp_path / "run"
    with path.open("wb") as file:
        writer = Writer(file, head)
        for frame in frames:
            writer.write(frame)
    found, rows = read_run(path)
    assert (found, list(rows)) == (head, frames)
    path.write_bytes(path.read_bytes()[:-30])
    assert list(read_run(path)[1]) == frames[:-1]
    with pytest.raises(WrongFileError, match="Recording"):
        read_recording(path)
    path.write_bytes(path.read_bytes().replace(b'"gpu_seconds":', b'"gpu_secnds":', 1))
    with pytest.raises(WrongFileError, match="line 2"):
        list(read_run(path)[1])


def test_a_file_has_a_maximum():
    _, head, frames = sim(Idle(), ticks=5)
    file = io.BytesIO()
    writer = Writer(file, Recording(FORMAT, head.market), bytes_max=6_000)
    for frame in frames:
        writer.write(frame)
    assert writer.is_full and len(file.getvalue()) <= 6_000
    assert file.getvalue().endswith(b"\n")
