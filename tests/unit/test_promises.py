"""What owners, nodes and the market promise a tenant: refunds, staggered hand-overs, drills, recalls."""

from auction.commands import (
    CreateAccount,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    PlaceBid,
    RecallNode,
    ReportLease,
    TestNotice,
)
from auction.core import Core
from auction.ledger import EARNING, FEES_ACCOUNT, TransferCode, ledger_account, plan_refund
from auction.model import EndReason, LeaseState
from tests.simulation.driver import SECOND, START_US, make_market
from tests.small_market import Market

DOLLAR = 1_000_000


def running(seconds):
    """A market whose one tenant has run for so long."""
    market = Market()
    market.do(CreateOffer("off", "acct_owner", "node", 2, 500_000))
    market.bid("b", DOLLAR)
    market.until(10 + seconds)
    (lease,) = market.core.leases.values()
    return market, lease


def money(market):
    balance = market.core.balance("acct_b")
    return balance.available + balance.held


def test_a_tenant_whom_the_node_loses_in_its_first_ten_minutes_pays_nothing():
    market, lease = running(400)
    assert lease.settled > 0
    market.do(ReportLease(lease.id, "acct_owner", "failed"))
    assert lease.refunded == lease.settled == lease.metered
    assert money(market) == 10_000_000
    balances = market.core._state.balances
    assert balances[ledger_account(market.core.accounts["acct_owner"].number, EARNING)] == 0
    assert balances[FEES_ACCOUNT] == 0


def test_after_ten_minutes_a_lost_node_forfeits_the_last_interval():
    market, lease = running(700)
    before = lease.settled
    market.do(ReportLease(lease.id, "acct_owner", "failed"))
    assert 0 < lease.refunded == lease.settled - before
    assert money(market) == 10_000_000 - before


def test_a_recall_is_free_for_the_tenant_in_its_first_ten_minutes_and_billed_after():
    for seconds, is_free in ((100, True), (700, False)):
        market, lease = running(seconds)
        market.do(RecallNode("node", "acct_owner"))
        market.until(10 + seconds + 40)
        assert lease.end_reason is EndReason.OFFER_WITHDRAWN
        assert lease.refunded == (lease.settled if is_free else 0)


def test_a_refund_is_paid_by_whoever_earned_it_and_by_cash_where_they_have_not_enough():
    def parts(earning, fees):
        transfers = plan_refund(
            1, 2, 1_000, fee_bps=300, earning=earning, fees=fees, lease="lease", interval_end_s=60
        )
        assert all(transfer.code is TransferCode.REFUND and transfer.credit == 8 for transfer in transfers)
        assert sum(transfer.amount for transfer in transfers) == 1_000
        return {transfer.debit: transfer.amount for transfer in transfers}

    assert parts(5_000, 5_000) == {18: 970, FEES_ACCOUNT: 30}
    assert parts(100, 5_000) == {18: 100, FEES_ACCOUNT: 30, 4: 870}
    assert parts(5_000, 0) == {18: 1_000}


def test_a_recall_preview_lists_what_it_would_hit_and_changes_nothing():
    market, lease = running(50)
    before = market.core.state_hash()
    preview = market.core.preview_recall(RecallNode("node", "acct_owner"))
    assert (preview.node.id, preview.leases, preview.notices) == ("node", [lease], [])
    assert market.core.state_hash() == before


def test_a_drill_is_a_real_interruption_and_the_bid_wins_again():
    market, lease = running(50)
    notice = market.do(TestNotice(lease.id, "acct_b"))
    assert (notice.reason, notice.reclaim_at_us) == (EndReason.TEST, market.at_us + 30 * SECOND)
    market.until(95)
    assert (lease.state, lease.end_reason) == (LeaseState.ENDED, EndReason.TEST)
    assert lease.ended_at_us == notice.reclaim_at_us
    assert lease.gpu_seconds == (lease.ended_at_us - lease.started_at_us) // SECOND, "it is billed to its end"
    market.until(110)
    (again,) = market.core.leases.values()
    assert (again.bid, again.state) == ("bid_b", LeaseState.RUNNING)


class Crowded(Market):
    """Eight tenants on eight GPUs, in a market that hands over a quarter of them at a time."""

    def __init__(self, stagger_share_bps):
        self.core, self.at_us = Core(), START_US
        self.do(CreateMarket(make_market(stagger_share_bps=stagger_share_bps, handicap_bps=0)))
        self.do(CreateAccount("acct_owner", "owner", ["owner"]))
        self.do(CreateNode("node", "acct_owner", "h100.us", "n", 8, True))
        self.do(CreateOffer("off", "acct_owner", "node", 8, 500_000))
        for number in range(8):
            self.bid(f"old{number}", DOLLAR + 10_000 * number)
        self.until(15)
        for number in range(8):
            self.bid(f"new{number}", 3 * DOLLAR)
        self.until(20)

    def notices(self):
        """(tenant, notice seconds), lowest limit first."""
        notices = sorted(self.core._state.notices.values(), key=lambda notice: notice.limit)
        return [
            (notice.bid.removeprefix("bid_"), (notice.reclaim_at_us - notice.issued_at_us) // SECOND)
            for notice in notices
        ]


def test_a_staggered_market_hands_over_a_share_at_a_time_lowest_rank_first():
    crowded, plain = Crowded(2_500), Crowded(None)
    assert plain.notices() == [(f"old{number}", 30) for number in range(8)]
    assert crowded.notices() == [(f"old{number}", 30 * (1 + number // 2)) for number in range(8)]
    markets = [market.core.markets["h100.us"] for market in (crowded, plain)]
    assert markets[0].price == markets[1].price, "the decision and the price are what they were"
    crowded.until(20 + 61)
    on_node = crowded.on_node()
    assert [bid for bid in on_node if "old" in bid] == [f"bid_old{number}" for number in range(4, 8)]
    crowded.until(20 + 125)
    assert crowded.on_node() == [f"bid_new{number}" for number in range(8)]


def outbid_on_a_longer_notice(deposit=10 * DOLLAR):
    """A tenant on an offer that promises 600 s is outbid after 60 s by somebody who pays more."""
    market = Market()
    market.do(CreateOffer("off", "acct_owner", "node", 2, 500_000, notice_seconds=600))
    market.do(CreateAccount("acct_b", "b", ["buyer"]))
    market.do(Deposit("dep_b", "acct_b", deposit))
    market.do(PlaceBid("bid_b", "acct_b", "h100.us", 2, DOLLAR))
    market.until(70)
    market.fund("rich")
    market.do(PlaceBid("bid_rich", "acct_rich", "h100.us", 2, 5 * DOLLAR))
    market.until(90)
    (notice,) = market.core._state.notices.values()
    return market, notice


def test_an_offer_may_promise_its_tenants_a_longer_notice_than_its_market():
    market, notice = outbid_on_a_longer_notice()
    assert notice.reason is EndReason.OUTBID
    assert notice.reclaim_at_us - notice.issued_at_us == 600 * SECOND
    market.until(600)
    assert market.on_node() == ["bid_b"]
    market.until(700)
    assert market.on_node() == ["bid_rich"]


def test_the_longer_notice_is_kept_though_the_tenants_money_ends_inside_it():
    """A hold covers the market's notice; what the offer gives beyond it is its owner's."""
    market, notice = outbid_on_a_longer_notice(deposit=150_000)
    market.until(650)
    assert market.on_node() == ["bid_b"]
    lease = market.core.leases[notice.lease]
    market.until(700)
    assert market.on_node() == ["bid_rich"]
    assert (lease.ended_at_us, lease.end_reason) == (notice.reclaim_at_us, EndReason.OUTBID)
    balance = market.core.balance("acct_b")
    assert balance.held == 0
    assert lease.settled == lease.metered == 150_000 - balance.available
    assert balance.available < 2 * lease.notice_price // 3600, "it paid for every second that it could"
