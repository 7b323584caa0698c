"""The store port in memory: the twin of PostgreSQL for simulations and for what needs no durability.

It keeps the same promises and refuses the same bad states (fence, gaps, overdrafts, a GPU or a second
sold twice), so one conformance suite runs over both.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import msgspec

from auction.commands import JournalEntry
from auction.errors import Fenced
from auction.ledger import CUSTOMER_CODES, OPERATOR_CODES, Transfer, TransferCode, is_floored, ledger_account
from auction.market import MarketBook
from auction.model import (
    BID_FINAL,
    LEASE_BILLED,
    LEASE_ON_NODE,
    NOTICE_LIVE,
    Account,
    ApiKey,
    Bid,
    Curve,
    Event,
    Lease,
    LeaseState,
    Limits,
    Market,
    Node,
    NodeState,
    Notice,
    Offer,
    OfferStatus,
    Tick,
)
from auction.money import Payout, PayoutState, Usage
from auction.ports import Changes, KeyedRequest, LiveState, StoredAnswer
from auction.units import MICROSECONDS_PER_SECOND, Price


class MemoryShard:
    """What outlives an engine: the rows. Several `MemoryStore`s may be opened on one shard."""

    def __init__(self) -> None:
        self.epoch = 0
        self.next_seq = 1
        self.rows: dict[type[Any], dict[str, Any]] = {
            kind: {} for kind in (Account, ApiKey, Market, Node, Offer, Bid, Lease, Notice, Payout, Limits)
        }
        self.journal: list[JournalEntry] = []
        self.transfers: list[Transfer] = []
        self.balances: dict[int, int] = {ledger_account(0, code): 0 for code in OPERATOR_CODES}
        self.workloads: dict[tuple[str, str], bytes] = {}
        self.charged: set[tuple[str, int, TransferCode]] = set()
        self.slots: dict[tuple[str, int], str] = {}  # the lease on each GPU of a node
        self.usage: dict[str, list[Usage]] = {}
        self.ticks: dict[str, list[Tick]] = {}
        self.curves: list[Curve] = []
        self.events: list[Event] = []
        self.answers: dict[tuple[str, str], StoredAnswer] = {}
        self.snapshots: dict[int, tuple[str, bytes]] = {}


class MemoryStore:
    """One engine's connection to a shard."""

    def __init__(self, shard: MemoryShard | None = None) -> None:
        self.shard = shard or MemoryShard()
        self._epoch = 0

    async def acquire(self) -> None:
        self.shard.epoch += 1
        self._epoch = self.shard.epoch

    async def close(self) -> None:
        self._epoch = -1

    def commit(self, changes: Changes) -> Awaitable[None]:
        rows = [(kind, {key: _copy(one) for key, one in some.items()}) for kind, some in _entities(changes)]
        return self._commit(changes, rows)

    async def _commit(self, changes: Changes, rows: list[tuple[type[Any], dict[str, Any]]]) -> None:
        shard = self.shard
        if shard.epoch != self._epoch:
            raise Fenced(f"epoch {shard.epoch} has taken the shard from epoch {self._epoch}")
        if changes.journal:
            assert changes.journal[0].seq == shard.next_seq, "no gap in the journal"
        balances = self._checked_balances(changes)
        charged = self._checked_charges(changes.transfers)
        self._check_usage(changes.usage)
        slots = self._checked_slots(dict(rows)[Lease])  # as they were encoded: the structs may be ahead

        for entry in changes.journal:
            shard.journal.append(entry)
            shard.next_seq = entry.seq + 1
        for kind, entities in rows:
            shard.rows[kind].update(entities)
        shard.slots = slots
        shard.workloads |= changes.workloads
        shard.balances = balances
        shard.charged |= charged
        shard.transfers += changes.transfers
        for row in changes.usage:
            shard.usage.setdefault(row.lease, []).append(row)
        for tick in changes.ticks:
            shard.ticks.setdefault(tick.market, []).append(tick)
        shard.curves += changes.curves
        shard.events += changes.events
        for answer in changes.answers:
            shard.answers[answer.request.account, answer.request.key] = answer

    def _checked_balances(self, changes: Changes) -> dict[int, int]:
        balances = dict(self.shard.balances)
        for account in changes.accounts.values():
            for code in CUSTOMER_CODES:
                balances.setdefault(ledger_account(account.number, code), 0)
        for transfer in changes.transfers:
            assert transfer.amount > 0 and transfer.debit != transfer.credit
            balances[transfer.debit] -= transfer.amount
            balances[transfer.credit] += transfer.amount
        for number, balance in balances.items():
            assert balance >= 0 or not is_floored(number), f"no_overdraft: {number} would be {balance}"
        return balances

    def _checked_charges(self, transfers: Sequence[Transfer]) -> set[tuple[str, int, TransferCode]]:
        charged: set[tuple[str, int, TransferCode]] = set()
        for transfer in transfers:
            if transfer.code in (TransferCode.CHARGE, TransferCode.FEE):
                key = (transfer.reference, transfer.interval_end_s, transfer.code)
                assert key not in self.shard.charged and key not in charged, f"charged_once: {key}"
                charged.add(key)
        return charged

    def _check_usage(self, rows: Sequence[Usage]) -> None:
        last: dict[str, Usage] = {}
        for row in rows:
            kept = self.shard.usage.get(row.lease)
            before = last.get(row.lease) or (kept[-1] if kept else None)
            assert row.is_first == (before is None), f"usage_one_start: {row}"
            assert before is None or (before.to_s, before.carry_out) == (row.from_s, row.carry_in), row
            last[row.lease] = row

    def _checked_slots(self, leases: Mapping[str, Lease]) -> dict[tuple[str, int], str]:
        """Return who has which GPU of which node after these changes."""
        slots = dict(self.shard.slots)
        for lease_id in leases:
            before = self.shard.rows[Lease].get(lease_id)
            if before is not None and before.state in LEASE_ON_NODE:
                for gpu in before.gpus:
                    del slots[before.node, gpu]
        for lease in leases.values():
            if lease.state in LEASE_ON_NODE:
                for gpu in lease.gpus:
                    assert slots.setdefault((lease.node, gpu), lease.id) == lease.id, "gpu_in_one_lease"
        return slots

    async def load(self) -> LiveState:
        rows = self.shard.rows
        leases = [x for x in rows[Lease].values() if x.state is not LeaseState.ENDED]
        with_lease = {lease.bid for lease in leases}
        bids = [x for x in rows[Bid].values() if x.status not in BID_FINAL or x.id in with_lease]
        offers = [x for x in rows[Offer].values() if x.status is not OfferStatus.WITHDRAWN]
        nodes = [x for x in rows[Node].values() if x.state is not NodeState.RETIRED]
        notices = [x for x in rows[Notice].values() if x.state in NOTICE_LIVE]
        return LiveState(
            seq=self.shard.next_seq - 1,
            accounts=_copies(rows[Account].values()),
            markets=_copies(rows[Market].values()),
            nodes=_copies(nodes),
            offers=_copies(offers),
            bids=_copies(bids),
            leases=_copies(leases),
            notices=_copies(notices),
            balances=sorted(self.shard.balances.items()),
            prices={market.id: self._prices(market, leases) for market in rows[Market].values()},
            next_bid_seq=max((bid.seq for bid in rows[Bid].values()), default=0) + 1,
            payouts=_copies(x for x in rows[Payout].values() if x.state is PayoutState.CREATED),
            limits=_copies(rows[Limits].values()),
            now_us=self.shard.journal[-1].at_us if self.shard.journal else 0,
            next_offer_seq=max((offer.seq for offer in rows[Offer].values()), default=0) + 1,
        )

    def _prices(self, market: Market, leases: Sequence[Lease]) -> list[tuple[int, Price]]:
        book = MarketBook(market)
        for tick in self.shard.ticks.get(market.id, []):
            if tick.price is not None:
                book.set_price(tick.cleared_at_us // MICROSECONDS_PER_SECOND, tick.price)
        metered = [
            lease.metered_to_s
            for lease in leases
            if lease.market == market.id and lease.state in LEASE_BILLED and lease.metered_to_s is not None
        ]
        if book.prices:
            book.forget_prices_before(min(metered, default=book.prices[-1][0]))
        return book.prices

    async def find_answers(self, requests: Sequence[KeyedRequest]) -> Mapping[tuple[str, str], StoredAnswer]:
        keys = [(request.account, request.key) for request in requests]
        return {key: self.shard.answers[key] for key in keys if key in self.shard.answers}

    async def find_client_bids(self, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Bid]:
        wanted = set(pairs)
        return {
            (bid.account, bid.client_bid_id): _copy(bid)
            for bid in self.shard.rows[Bid].values()
            if (bid.account, bid.client_bid_id) in wanted
        }

    async def read_journal(self, after_seq: int, limit: int) -> list[JournalEntry]:
        return [entry for entry in self.shard.journal if entry.seq > after_seq][:limit]

    async def save_snapshot(self, seq: int, state_hash: str, payload: bytes) -> None:
        self.shard.snapshots.setdefault(seq, (state_hash, payload))

    async def load_snapshot(self) -> tuple[int, str, bytes] | None:
        if not self.shard.snapshots:
            return None
        seq = max(self.shard.snapshots)
        return seq, *self.shard.snapshots[seq]


def _entities(changes: Changes) -> list[tuple[type[Any], Mapping[str, Any]]]:
    return [
        (Account, changes.accounts),
        (ApiKey, changes.keys),
        (Market, changes.markets),
        (Node, changes.nodes),
        (Offer, changes.offers),
        (Bid, changes.bids),
        (Lease, changes.leases),
        (Notice, changes.notices),
        (Payout, changes.payouts),
        (Limits, changes.limits),
    ]


def _copy(entity: Any) -> Any:
    """A row does not change with the struct that it was written from."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(entity), type=type(entity))


def _copies(entities: Any) -> list[Any]:
    return [_copy(entity) for entity in sorted(entities, key=lambda entity: entity.id)]
