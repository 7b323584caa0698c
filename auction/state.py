"""The state of one shard: everything that can still change, its indexes, and what changed since.

Every mutation of an entity is followed by `touch`, every movement of money goes through `transfer`,
everything worth telling through `emit`; so one `take_changes` is one transaction, and the state hash
says whether two engines are in the same state.
"""

import hashlib
from heapq import heappush
from typing import TypeVar

import msgspec

from auction.deadlines import Deadlines
from auction.ledger import (
    AVAILABLE,
    CUSTOMER_CODES,
    EARNING,
    HELD,
    OPERATOR_CODES,
    OPERATOR_NUMBER,
    PAYABLE,
    Transfer,
    is_floored,
    ledger_account,
)
from auction.market import Book, MarketBook
from auction.model import (
    BID_FINAL,
    Account,
    Alternative,
    ApiKey,
    Bid,
    Event,
    Lease,
    LeaseState,
    Limits,
    Market,
    Node,
    NodeHealth,
    NodeState,
    Notice,
    Offer,
    OfferStatus,
    Tick,
)
from auction.money import Payout, Usage
from auction.ports import Changes, LiveState
from auction.units import Amount

_encode = msgspec.msgpack.Encoder(order="deterministic").encode

_E = TypeVar("_E")

Entity = Account | ApiKey | Market | Node | Offer | Bid | Lease | Notice | Payout | Limits

# By exact type: `match` on structs asks their abstract metaclass, and this is the hottest call.
_CHANGES_OF: dict[type[msgspec.Struct], str] = {
    Account: "accounts",
    ApiKey: "keys",
    Market: "markets",
    Node: "nodes",
    Offer: "offers",
    Bid: "bids",
    Lease: "leases",
    Notice: "notices",
    Payout: "payouts",
    Limits: "limits",
}


class Balance(msgspec.Struct, frozen=True):
    """An account's money."""

    available: Amount
    held: Amount
    earning: Amount
    payable: Amount


class LimitUse(msgspec.Struct):
    """What an account or key with limits has in the market now; derived from its bids."""

    notional: int = 0  # limits x GPUs of its live bids, microusd per hour
    held: int = 0


class State:
    """Entities by id, live ones only; ended ones leave with the commit that ends them."""

    def __init__(self, make_book: type[Book] | None = None) -> None:
        self._make_book = make_book
        self.seq = 0
        self.now_us = 0
        self.object_number = 0  # of objects created by the entry being applied
        self.accounts: dict[str, Account] = {}
        self.markets: dict[str, Market] = {}
        self.nodes: dict[str, Node] = {}
        self.offers: dict[str, Offer] = {}
        self.bids: dict[str, Bid] = {}
        self.leases: dict[str, Lease] = {}
        self.notices: dict[str, Notice] = {}
        self.payouts: dict[str, Payout] = {}
        self.limits: dict[str, Limits] = {}  # of accounts and keys that have some
        self.balances: dict[int, int] = {ledger_account(OPERATOR_NUMBER, code): 0 for code in OPERATOR_CODES}
        self.next_bid_seq = 1
        self.next_offer_seq = 1
        self.changes = Changes()
        # Indexes and runtime, derived from the above.
        self.books: dict[str, MarketBook] = {}
        self.bid_leases: dict[str, dict[str, Lease]] = {}
        self.node_leases: dict[str, dict[str, Lease]] = {}
        self.offer_leases: dict[str, dict[str, Lease]] = {}
        self.market_offers: dict[str, dict[str, Offer]] = {}
        self.market_bids: dict[str, dict[str, Bid]] = {}
        self.pending: dict[str, dict[str, Lease]] = {}
        self.client_bids: dict[tuple[str, str], str] = {}
        self.choosers: dict[str, Bid] = {}  # bids with alternatives (X3)
        self.restricted_nodes: dict[str, Node] = {}  # they lend less than they offer
        self.node_names: dict[tuple[str, str], str] = {}
        self.deadlines = Deadlines(self.due_at_us)
        self.losses: list[
            tuple[str, int]
        ] = []  # (bid, GPUs) of the entry being applied, not to be bid for again
        self.freed_nodes: set[str] = set()  # where leases ended in the entry being applied
        self.freed_bids: set[str] = set()
        self.live_bid_counts: dict[tuple[str, str], int] = {}
        self.live_offer_counts: dict[tuple[str, str], int] = {}
        self.limit_uses: dict[str, LimitUse] = {}  # of those in `limits`
        self.notionals: dict[str, int] = {}  # of bids that some limits bind
        self.affiliates: dict[str, set[str]] = {}  # account ids by affiliation

    # -- adding and dropping ----------------------------------------------------------------------

    def add_account(self, account: Account) -> None:
        self.accounts[account.id] = account
        self.deadlines.set(account.id, account.cancel_at_us)
        self.affiliate(account, account.affiliation)
        for code in CUSTOMER_CODES:
            self.balances.setdefault(ledger_account(account.number, code), 0)

    def affiliate(self, account: Account, affiliation: str | None) -> None:
        if account.affiliation is not None:
            self.affiliates.setdefault(account.affiliation, set()).discard(account.id)
        account.affiliation = affiliation
        if affiliation is not None:
            self.affiliates.setdefault(affiliation, set()).add(account.id)

    def parties(self, account_id: str) -> set[str]:
        """Return the account and all that are declared to belong with it."""
        affiliation = self.accounts[account_id].affiliation
        return {account_id} if affiliation is None else self.affiliates[affiliation]

    def add_limits(self, limits: Limits) -> None:
        self.limits[limits.id] = limits
        use = self.limit_uses[limits.id] = LimitUse()
        for bid in self.bids.values():
            if limits.id in (bid.account, bid.key):
                use.held += bid.held
                use.notional += self.notionals.setdefault(bid.id, bid.asked_gpus * bid.top_limit)

    def count_notional(self, bid: Bid) -> None:
        """What a bid asks for has changed: count it where a limit binds it."""
        uses = self._uses_of(bid)
        if uses:
            notional = bid.asked_gpus * bid.top_limit
            for use in uses:
                use.notional += notional - self.notionals.get(bid.id, 0)
            self.notionals[bid.id] = notional

    def count_held(self, bid: Bid, change: int) -> None:
        for use in self._uses_of(bid):
            use.held += change

    def _uses_of(self, bid: Bid) -> list[LimitUse]:
        if not self.limits:
            return []
        scopes = (bid.account,) if bid.key is None else (bid.account, bid.key)
        return [self.limit_uses[scope] for scope in scopes if scope in self.limit_uses]

    def add_market(self, market: Market) -> None:
        self.markets[market.id] = market
        book = MarketBook(market, self._make_book) if self._make_book else MarketBook(market)
        self.books[market.id] = book
        self.market_offers[market.id] = {}
        self.market_bids[market.id] = {}
        self.pending[market.id] = {}

    def add_node(self, node: Node) -> None:
        self.nodes[node.id] = node
        self.node_leases[node.id] = {}
        self.index_restricted(node)
        self.node_names[node.account, node.name] = node.id

    def drop_node(self, node: Node) -> None:
        assert node.state is NodeState.RETIRED and not self.node_leases[node.id]
        del self.nodes[node.id], self.node_leases[node.id], self.node_names[node.account, node.name]
        self.restricted_nodes.pop(node.id, None)

    def index_restricted(self, node: Node) -> None:
        if node.fenced or node.state is NodeState.CORDONED or node.health is not NodeHealth.OK:
            self.restricted_nodes[node.id] = node
        else:
            self.restricted_nodes.pop(node.id, None)

    def add_offer(self, offer: Offer) -> None:
        self.offers[offer.id] = offer
        self.market_offers[offer.market][offer.id] = offer
        self.offer_leases[offer.id] = {}
        _count(self.live_offer_counts, (offer.account, offer.market), 1)

    def drop_offer(self, offer: Offer) -> None:
        assert offer.status is OfferStatus.WITHDRAWN and not self.offer_leases[offer.id]
        del self.offers[offer.id], self.market_offers[offer.market][offer.id]
        del self.offer_leases[offer.id]
        _count(self.live_offer_counts, (offer.account, offer.market), -1)

    def add_bid(self, bid: Bid) -> None:
        self.bids[bid.id] = bid
        self.market_bids[bid.market][bid.id] = bid
        self.bid_leases[bid.id] = {}
        if bid.client_bid_id is not None:
            self.client_bids[bid.account, bid.client_bid_id] = bid.id
        if bid.alternatives:
            self.choosers[bid.id] = bid
        for market in bid.markets:
            _count(self.live_bid_counts, (bid.account, market), 1)
        self.deadlines.set(bid.id, self.due_at_us(bid.id))
        if bid.valid_until_tick is not None and not bid.has_lapsed:
            heappush(self.books[bid.market].last_ticks, (bid.valid_until_tick, bid.id))

    def drop_bid(self, bid: Bid) -> None:
        assert bid.status in BID_FINAL and not self.bid_leases[bid.id] and bid.held == 0
        del self.bids[bid.id], self.market_bids[bid.market][bid.id], self.bid_leases[bid.id]
        if bid.client_bid_id is not None:
            del self.client_bids[bid.account, bid.client_bid_id]
        self.choosers.pop(bid.id, None)
        for market in bid.markets:
            _count(self.live_bid_counts, (bid.account, market), -1)
        self.notionals.pop(bid.id, None)

    def move_bid(self, bid: Bid, alternative: Alternative) -> None:
        """Let a bid take part in another of its markets from now on."""
        assert not self.bid_leases[bid.id], "what it has ties it to its market"
        del self.market_bids[bid.market][bid.id]
        bid.market, bid.limit = alternative.market, alternative.limit
        bid.arrival_tick, bid.arrival_hash = alternative.arrival_tick, alternative.arrival_hash
        self.market_bids[bid.market][bid.id] = bid
        self.touch(bid)

    def add_lease(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self.bid_leases[lease.bid][lease.id] = lease
        self.node_leases[lease.node][lease.id] = lease
        self.offer_leases[lease.offer][lease.id] = lease
        if lease.state is LeaseState.PENDING:
            self.pending[lease.market][lease.id] = lease
        if lease.settled_to_s is not None:
            due_s = lease.settled_to_s + self.markets[lease.market].settlement_seconds
            heappush(self.books[lease.market].settlements, (due_s, lease.id))
        self.deadlines.set(lease.id, self.due_at_us(lease.id))

    def drop_lease(self, lease: Lease) -> None:
        assert lease.state is LeaseState.ENDED
        del self.leases[lease.id], self.bid_leases[lease.bid][lease.id]
        del self.node_leases[lease.node][lease.id], self.offer_leases[lease.offer][lease.id]
        self.pending[lease.market].pop(lease.id, None)

    def add_notice(self, notice: Notice) -> None:
        self.notices[notice.id] = notice
        self.deadlines.set(notice.id, notice.reclaim_at_us)

    def due_at_us(self, entity_id: str) -> int | None:
        """Say when the clock next has to look at a notice, lease, bid or account."""
        notice = self.notices.get(entity_id)
        if notice is not None:
            return notice.reclaim_at_us
        lease = self.leases.get(entity_id)
        if lease is not None:
            return lease.start_by_us if lease.state is LeaseState.STARTING else lease.ends_at_us
        bid = self.bids.get(entity_id)
        if bid is not None:
            return bid.expires_at_us
        account = self.accounts.get(entity_id)
        return None if account is None else account.cancel_at_us

    # -- recording --------------------------------------------------------------------------------

    def touch(self, entity: Entity) -> None:
        """Mark an entity as changed; its row is written with the next commit."""
        getattr(self.changes, _CHANGES_OF[type(entity)])[entity.id] = entity

    def transfer(self, transfer: Transfer) -> None:
        """Move money; both legs at once, never below a floor."""
        assert transfer.amount > 0, "a transfer moves a positive amount"
        self.balances[transfer.debit] -= transfer.amount
        self.balances[transfer.credit] += transfer.amount
        assert self.balances[transfer.debit] >= 0 or not is_floored(transfer.debit), transfer
        self.changes.transfers.append(transfer)

    def record_usage(self, usage: Usage) -> None:
        self.changes.usage.append(usage)

    def record_tick(self, tick: Tick) -> None:
        self.changes.ticks.append(tick)

    def emit(
        self, kind: str, entity: msgspec.Struct, *, account: str | None, market: str | None = None
    ) -> None:
        """Tell something: to one account in its gapless sequence, or (None) to the public."""
        account_seq = 0
        if account is not None:
            reader = self.accounts[account]
            reader.event_seq += 1
            account_seq = reader.event_seq
            self.touch(reader)
        tick = self.markets[market].tick if market is not None else None
        self.changes.events.append(
            Event(account, account_seq, kind, self.now_us, market, tick, _encode(entity))
        )

    def take_changes(self) -> Changes:
        """Return everything since the last take."""
        changes, self.changes = self.changes, Changes()
        return changes

    # -- reading ----------------------------------------------------------------------------------

    def balance(self, account: Account) -> Balance:
        amounts = (
            Amount(self.balances[ledger_account(account.number, code)])
            for code in (AVAILABLE, HELD, EARNING, PAYABLE)
        )
        return Balance(*amounts)

    def available(self, account_id: str) -> Amount:
        number = self.accounts[account_id].number
        return Amount(self.balances[ledger_account(number, AVAILABLE)])

    def live(self) -> LiveState:
        """Return the whole state: what a snapshot keeps and what a store loads."""
        return LiveState(
            seq=self.seq,
            accounts=_by_id(self.accounts),
            markets=_by_id(self.markets),
            nodes=_by_id(self.nodes),
            offers=_by_id(self.offers),
            bids=_by_id(self.bids),
            leases=_by_id(self.leases),
            notices=_by_id(self.notices),
            balances=sorted(self.balances.items()),
            prices={market: self.books[market].prices for market in sorted(self.books)},
            next_bid_seq=self.next_bid_seq,
            next_offer_seq=self.next_offer_seq,
            payouts=_by_id(self.payouts),
            limits=_by_id(self.limits),
            now_us=self.now_us,
        )

    def hash(self) -> str:
        """Return the implementation-free digest of the state (recent prices are derived: left out)."""
        live = self.live()
        live.prices, live.now_us = {}, 0  # time may have passed without an entry
        return hashlib.sha256(_encode(live)).hexdigest()


def _by_id(entities: dict[str, _E]) -> list[_E]:
    return [entities[key] for key in sorted(entities)]


def _count(counts: dict[tuple[str, str], int], key: tuple[str, str], change: int) -> None:
    value = counts.get(key, 0) + change
    assert value >= 0
    if value:
        counts[key] = value
    else:
        counts.pop(key, None)
