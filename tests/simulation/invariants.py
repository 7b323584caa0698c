"""The invariants of RULES.md and FAULTS.md over a core and over all that it ever wrote."""

import itertools
from collections import defaultdict

from auction import billing
from auction.ledger import AVAILABLE, CASH_ACCOUNT, HELD, TransferCode, ledger_account
from auction.model import BID_FINAL, LEASE_BILLED, LEASE_ON_NODE, LeaseState, NodeHealth


class Witness:
    """Collects every transaction and checks that they tell one consistent story."""

    def __init__(self, core):
        self.core = core
        self.transfers = []
        self.usage = defaultdict(list)
        self.leases = {}
        self.bids = {}
        self.notices = {}
        self.offers = {}
        self.lapsed_gpus = {}
        self.metered_at = {}
        self.ticks = []
        self.event_seq = defaultdict(int)
        self.starts = {}
        self.ceilings = {}

    def see(self, changes):
        self.transfers += changes.transfers
        for row in changes.usage:
            self.usage[row.lease].append(row)
        self.leases.update(changes.leases)
        self.bids.update(changes.bids)
        for bid in changes.bids.values():
            if bid.has_lapsed:
                assert bid.gpus <= self.lapsed_gpus.setdefault(bid.id, bid.gpus), "it wins nothing more"
                self.lapsed_gpus[bid.id] = bid.gpus
            elif bid.time_in_force == "ioc":
                tick = self.core.markets[bid.market].tick
                assert bid.status in BID_FINAL or tick < bid.arrival_tick, "one tick only"
        self.notices.update(changes.notices)
        self.offers.update(changes.offers)
        self.ticks += changes.ticks
        for limits in changes.limits.values():
            cap = limits.spend_cap_per_day
            if (limits.version, cap) != self.ceilings.get(limits.id, (None, None, None))[:2]:
                used = limits.spent_today + self.core._state.limit_uses[limits.id].held
                ceiling = None if cap is None else max(cap, used)
                self.ceilings[limits.id] = limits.version, cap, ceiling
        for event in changes.events:
            if event.account is not None:
                assert event.account_seq == self.event_seq[event.account] + 1, "P11"
                self.event_seq[event.account] += 1

    def check_now(self):
        """What must hold at every instant."""
        state = self.core._state
        assert sum(state.balances.values()) == 0, "I18: books sum to zero"
        assert all(value >= 0 for key, value in state.balances.items() if key != CASH_ACCOUNT), "I18"
        held = defaultdict(int)
        for bid in state.bids.values():
            held[bid.account] += bid.held
            on_node = [x for x in state.bid_leases[bid.id].values() if x.state in LEASE_ON_NODE]
            assert bid.filled_gpus == sum(lease.gpu_count for lease in on_node)
            assert bid.filled_gpus <= bid.gpus, "a bid never occupies more than it asked for"
            if bid.status in BID_FINAL:
                assert on_node, "a final bid without leases has left"
            live = state.bid_leases[bid.id].values()
            assert {lease.market for lease in live} <= {bid.market}, "X3: it has GPUs in one market only"
            if bid.alternatives:
                assert (bid.market, bid.limit) in [(one.market, one.limit) for one in bid.alternatives]
            else:
                assert bid.expires_at_us is None or bid.expires_at_us > state.now_us, "it should have expired"
            if bid.max_spend is not None:
                assert bid.spent + bid.held <= bid.max_spend
            owed = sum(lease.metered - lease.settled for lease in on_node)
            assert bid.held >= owed
            market = state.markets[bid.market]
            if bid.status not in BID_FINAL and bid.id not in state.books[market.id].underfunded:
                assert bid.held >= billing.required_hold(market, bid.limit, bid.gpus), "R2: funded"
        for account in state.accounts.values():
            assert state.balances[ledger_account(account.number, HELD)] == held[account.id]
            assert state.balances[ledger_account(account.number, AVAILABLE)] >= 0
        self.check_limits(state)
        for node in state.nodes.values():
            used = [
                gpu
                for lease in state.node_leases[node.id].values()
                if lease.state in LEASE_ON_NODE
                for gpu in lease.gpus
            ]
            assert len(used) == len(set(used)), "I25"
            assert all(0 <= gpu < node.gpus for gpu in used)
            assert not set(used) & set(node.fenced), "nobody runs on a fenced GPU"
            if node.health is NodeHealth.OFFLINE:
                assert not used, "a lost node has no leases"
            if node.alive_until_us is not None:
                for lease in state.node_leases[node.id].values():
                    self.check_bill_stops(lease, node.alive_until_us)
        for offer in state.offers.values():
            lent = [x for x in state.offer_leases[offer.id].values() if x.state in LEASE_ON_NODE]
            assert sum(lease.gpu_count for lease in lent) <= offer.gpus, "STYLE 26: GPUs leased <= offered"
        for lease in state.leases.values():
            assert lease.ends_at_us is None or lease.ends_at_us > state.now_us
            assert lease.state is not LeaseState.ENDED
            assert (lease.state is LeaseState.NOTICED) == (lease.notice is not None)
            if lease.notice is not None:
                assert state.notices[lease.notice].lease == lease.id

    def check_limits(self, state):
        """What limits count is what there is, and nobody passes a cap of the day, even by a last bill."""
        for limits in state.limits.values():
            bound = [bid for bid in state.bids.values() if limits.id in (bid.account, bid.key)]
            use = state.limit_uses[limits.id]
            assert use.held == sum(bid.held for bid in bound)
            assert use.notional == sum(bid.top_limit * bid.asked_gpus for bid in bound)
            if limits.id in self.ceilings and self.ceilings[limits.id][2] is not None:
                spent = limits.spent_today if limits.day == state.now_us // 86_400_000_000 else 0
                assert spent + use.held <= self.ceilings[limits.id][2]
            if limits.is_stopped and limits.id != limits.account:
                assert all(bid.on_preempt == "cancel" or bid.status in BID_FINAL for bid in bound)

    def check_bill_stops(self, lease, alive_until_us):
        """Nothing more is charged after the last good heartbeat of a node that is late."""
        if lease.metered_to_s is not None and lease.metered_to_s >= billing.second_of(alive_until_us):
            key = (lease.id, alive_until_us)
            assert self.metered_at.setdefault(key, lease.metered) == lease.metered

    def check_all(self):
        """What must hold over the whole history."""
        charged, refunded = defaultdict(int), defaultdict(int)
        balances = defaultdict(int)
        for transfer in self.transfers:
            balances[transfer.debit] -= transfer.amount
            balances[transfer.credit] += transfer.amount
            if transfer.code in (TransferCode.CHARGE, TransferCode.FEE):
                charged[transfer.reference] += transfer.amount
            elif transfer.code is TransferCode.REFUND:
                refunded[transfer.reference] += transfer.amount
        state = self.core._state
        assert {k: v for k, v in balances.items() if v} == {k: v for k, v in state.balances.items() if v}
        for lease in self.leases.values():
            rows = self.usage[lease.id]
            assert charged[lease.id] == lease.settled
            assert refunded[lease.id] == lease.refunded <= lease.settled
            if lease.refunded:
                assert lease.end_reason in ("node_lost", "offer_withdrawn")
            assert sum(row.amount for row in rows) == lease.metered
            for before, after in itertools.pairwise(rows):
                assert before.to_s == after.from_s and before.carry_out == after.carry_in, "I26"
            if lease.started_at_us is None:
                assert not rows
                continue
            started_s = billing.second_of(lease.started_at_us)
            if rows:
                assert rows[0].from_s == started_s and rows[0].is_first
            if lease.state is LeaseState.ENDED:
                assert lease.metered == lease.settled
                end_s = billing.second_of(lease.ended_at_us)
                covered = rows[-1].to_s if rows else started_s
                assert covered == max(end_s, started_s), "I26: billed to the second"
                assert lease.ends_at_us is None or lease.ended_at_us <= lease.ends_at_us
                total = sum(row.price * row.gpu_count * (row.to_s - row.from_s) for row in rows)
                assert total == 3600 * lease.metered + lease.carry, "the remainder is carried exactly"
                self._check_end(lease)
            else:
                assert lease.state in LEASE_BILLED
        self._check_ticks()

    def _check_end(self, lease):
        """I20: no preemption without a notice of at least the promised length."""
        assert lease.end_reason is not None
        preempted = {"outbid", "moved", "funds_exhausted", "max_spend", "spend_cap", "offer_withdrawn"}
        if lease.end_reason in preempted:
            notice = self.notices[lease.notice]
            promised_us = self.core.markets[lease.market].notice_seconds * 1_000_000
            if lease.end_reason in ("outbid", "moved", "offer_withdrawn"):
                promised_us = max(promised_us, self.offers[lease.offer].notice_seconds * 1_000_000)
            assert notice.reclaim_at_us - notice.issued_at_us >= promised_us
            assert lease.ended_at_us <= notice.reclaim_at_us
            assert notice.reason is lease.end_reason

    def _check_ticks(self):
        last = {}
        for tick in self.ticks:
            assert tick.tick == last.get(tick.market, (0, None))[0] + 1, "P12"
            if tick.market in last:
                assert tick.previous_digest == last[tick.market][1]
            last[tick.market] = (tick.tick, tick.digest)
            if tick.price is not None:
                assert tick.low <= tick.price <= tick.high, "I3"
