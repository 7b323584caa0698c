"""The market as one deterministic function: (state, command, time) to (state, changes, outcome).

Nothing here waits, reads a clock or draws a number. An accepted command gets the next sequence number
and is journalled exactly as it came; a rejected one changes nothing and leaves no trace. Replaying the
journal over the state of any earlier moment gives the same state, hash for hash (RULES.md R11).
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from auction import (
    accounts,
    admission,
    bidding,
    billing,
    clearing,
    delivery,
    lapses,
    leases,
    lifetime,
    listing,
    rehearsal,
    routing,
    safety,
    supply,
)
from auction.bidding import PlacedBid
from auction.commands import (
    AckNotice,
    Adjust,
    AmendAccount,
    AmendBid,
    AmendMarket,
    AmendNode,
    AmendOffer,
    CancelAfter,
    CancelBid,
    ClearMarket,
    ClosePayout,
    Command,
    CordonNode,
    CreateAccount,
    CreateKey,
    CreateMarket,
    CreateNode,
    CreateOffer,
    Deposit,
    EnrolNode,
    FenceGpus,
    JournalEntry,
    PlaceBid,
    RecallNode,
    RejectBid,
    ReleaseLease,
    ReportLease,
    ReportNode,
    RequestPayout,
    ResumeKey,
    RetireNode,
    RevokeKey,
    RotateKey,
    RouteBids,
    SetAccountState,
    SetAffiliation,
    SetLimits,
    SetMarketStatus,
    StopKey,
    Sweep,
    TestNotice,
    WithdrawOffer,
    encode_command,
)
from auction.curves import curve_of
from auction.errors import Rejection, TickFault
from auction.ledger import FEES_ACCOUNT
from auction.market import Book, Quote
from auction.model import (
    BID_FINAL,
    LEASE_BILLED,
    Account,
    Bid,
    Curve,
    Lease,
    Limits,
    Market,
    Node,
    Offer,
    OfferStatus,
    Tick,
)
from auction.ports import Changes, LiveState
from auction.preview import Preview, preview
from auction.state import Balance, LimitUse, State
from auction.supply import Recalled
from auction.units import Amount, Price

__all__ = ["Balance", "Core", "PlacedBid", "Preview", "Recalled"]


class Progress(Struct, frozen=True):
    """What a live bid has cost, what its live leases have delivered, and the GPUs that run now."""

    spent: Amount
    gpu_seconds: int
    running_gpus: int


class Explanation(Struct, frozen=True):
    """Why a bid lost at the last tick, and the lowest limit that would fill it if nothing else changed."""

    reason: clearing.WhyNot
    winning_limit: Price | None


_HANDLERS: dict[type[Struct], Callable[[State, Any], Any]] = {
    PlaceBid: bidding.place,
    AmendBid: bidding.amend,
    CancelBid: bidding.cancel,
    RejectBid: bidding.reject,
    CancelAfter: lifetime.cancel_after,
    ReleaseLease: bidding.release,
    AckNotice: bidding.acknowledge,
    TestNotice: bidding.test_notice,
    CreateNode: supply.create_node,
    AmendNode: supply.amend_node,
    RetireNode: supply.retire_node,
    EnrolNode: supply.enrol_node,
    CordonNode: supply.cordon_node,
    ReportNode: delivery.report_node,
    FenceGpus: delivery.fence,
    RecallNode: supply.recall,
    CreateOffer: supply.create_offer,
    AmendOffer: supply.amend_offer,
    WithdrawOffer: supply.withdraw_offer,
    ReportLease: delivery.report_lease,
    CreateAccount: accounts.create,
    AmendAccount: accounts.amend,
    SetAccountState: safety.set_account_state,
    SetLimits: safety.set_limits,
    StopKey: safety.stop_key,
    ResumeKey: safety.resume_key,
    SetAffiliation: safety.set_affiliation,
    CreateKey: accounts.create_key,
    RevokeKey: accounts.revoke_key,
    RotateKey: accounts.rotate_key,
    Deposit: accounts.deposit,
    Adjust: accounts.adjust,
    RequestPayout: accounts.request_payout,
    ClosePayout: accounts.close_payout,
    CreateMarket: accounts.create_market,
    SetMarketStatus: accounts.set_market_status,
    RouteBids: routing.route,
    AmendMarket: accounts.amend_market,
}


class Core:
    """The state of one shard and the one way to change it."""

    def __init__(self, make_book: type[Book] | None = None) -> None:
        self._state = State(make_book)

    @classmethod
    def restore(cls, live: LiveState, make_book: type[Book] | None = None) -> "Core":
        """Rebuild the core from a store's or a snapshot's state."""
        core = cls(make_book)
        state = core._state
        state.seq, state.now_us = live.seq, live.now_us
        state.next_bid_seq, state.next_offer_seq = live.next_bid_seq, live.next_offer_seq
        for account in live.accounts:
            state.add_account(account)
        state.balances.update(live.balances)
        for market in live.markets:
            state.add_market(market)
            state.books[market.id].prices = [
                (start, price) for start, price in live.prices.get(market.id, [])
            ]
        for node in live.nodes:
            state.add_node(node)
        for offer in live.offers:
            state.add_offer(offer)
        for bid in live.bids:
            state.add_bid(bid)
        for lease in live.leases:
            state.add_lease(lease)
        for notice in live.notices:
            state.add_notice(notice)
        state.payouts.update({payout.id: payout for payout in live.payouts})
        for limits in live.limits:
            state.add_limits(limits)
        for offer in live.offers:
            if offer.status is not OfferStatus.WITHDRAWING:
                listing.restore_offer(state, offer)
        for lease in live.leases:
            if billing.is_behind(lease):
                state.books[lease.market].behind.add(lease.id)
        for bid in live.bids:
            leases.sync_bid(state, bid)
            required = billing.needed_hold(state, bid, bid.limit, bid.gpus)
            if bid.status not in BID_FINAL and bid.held < required:
                state.books[bid.market].underfunded.add(bid.id)
            if bid.is_newcomer or bid.reclaimed_gpus:
                state.books[bid.market].ranked_once.add(bid.id)
        return core

    # -- changing ---------------------------------------------------------------------------------

    def apply(self, command: Command, at_us: int) -> Any:
        """Decide one command at `at_us`; return its outcome, or the Rejection that it met."""
        state = self._state
        assert at_us >= state.now_us or not state.changes.journal, "time only grows"
        state.now_us = max(at_us, state.now_us)
        state.seq += 1
        state.object_number = 0
        try:
            venues = self._markets_of(command)
            match command:
                case ClearMarket():
                    outcome: Any = clearing.run_tick(state, state.markets[command.market])
                case Sweep():
                    outcome = None
                    lifetime.sweep(state)
                case _:
                    outcome = _HANDLERS[type(command)](state, command)
            lapses.give_up_losses(state)
            leases.start_freed(state)
        except Rejection as rejection:
            state.seq -= 1
            return rejection
        state.changes.journal.append(JournalEntry(state.seq, state.now_us, command))
        if venues and not isinstance(command, ClearMarket):
            written = encode_command(command)
            for venue in venues:
                payload = f"{venue.input_hash}:{state.seq}:{state.now_us}:".encode() + written
                venue.input_hash = hashlib.sha256(payload).hexdigest()
                state.touch(venue)
        return outcome

    def rehearsal(self, account: str, commands: Sequence[Command]) -> "Core":
        """Return a copy of what these commands of an account can touch; it decides as this core does."""
        core = Core.restore(rehearsal.excerpt(self._state, account, commands))
        rehearsal.count_as(core._state, self._state)
        return core

    def next_due_us(self) -> int | None:
        """Return when the next tick or the next deadline is due."""
        dues = [market.next_tick_at_us for market in self._state.markets.values()]
        deadline_us = self._state.deadlines.next_at_us()
        return min(dues if deadline_us is None else [*dues, deadline_us], default=None)

    def run_due(self, at_us: int) -> list[Tick]:
        """Carry out everything that is due at `at_us`: deadlines first, then each market's tick.

        Raises TickFault when a rule of ours fails; the state is then to be dropped.
        """
        state = self._state
        deadline_us = state.deadlines.next_at_us()
        if deadline_us is not None and deadline_us <= at_us:
            self.apply(Sweep(), at_us)
        ticks = []
        due = [state.markets[name] for name in sorted(state.markets)]
        due = [market for market in due if market.next_tick_at_us <= at_us]
        for group in routing.groups(state, due, at_us):
            self._apply_for(group, RouteBids(group), at_us)
        for market in due:
            tick = self._apply_for([market.id], ClearMarket(market.id, market.tick + 1), at_us)
            if tick is not None:
                ticks.append(tick)
        return ticks

    def _apply_for(self, markets: list[str], command: Command, at_us: int) -> Any:
        try:
            return self.apply(command, at_us)
        except Exception as error:
            raise TickFault(markets) from error

    def _markets_of(self, command: Command) -> list[Market]:
        """Return the markets whose tick chains commit to this command."""
        state = self._state
        match command:
            case RouteBids(markets=names):
                return [state.markets[name] for name in names]
            case PlaceBid(alternatives=[_, *_] as choices):
                return [state.markets[c.market] for c in choices if c.market in state.markets]
            case AmendBid(bid=name) | CancelBid(bid=name) | RejectBid(bid=name):
                bid = state.bids.get(name)
                return [] if bid is None else [state.markets[market] for market in bid.markets]
            case _:
                market = self._market_of(command)
                return [] if market is None else [market]

    def _market_of(self, command: Command) -> Market | None:
        state = self._state
        things: tuple[tuple[str, dict[str, Any]], ...] = (
            ("bid", state.bids),
            ("lease", state.leases),
            ("notice", state.notices),
            ("offer", state.offers),
            ("node", state.nodes),
        )
        named = getattr(command, "market", None)
        if isinstance(named, str):
            return state.markets.get(named)
        for field, entities in things:
            entity = entities.get(getattr(command, field, ""))
            if entity is not None:
                return state.markets[entity.market]
        return None

    def take_changes(self) -> Changes:
        """Return everything since the last take: one transaction's worth."""
        return self._state.take_changes()

    # -- reading ----------------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        return self._state.seq

    @property
    def now_us(self) -> int:
        return self._state.now_us

    @property
    def accounts(self) -> dict[str, Account]:
        return self._state.accounts

    @property
    def markets(self) -> dict[str, Market]:
        return self._state.markets

    @property
    def nodes(self) -> dict[str, Node]:
        return self._state.nodes

    @property
    def offers(self) -> dict[str, Offer]:
        return self._state.offers

    @property
    def bids(self) -> dict[str, Bid]:
        return self._state.bids

    @property
    def leases(self) -> dict[str, Lease]:
        return self._state.leases

    @property
    def limits(self) -> dict[str, Limits]:
        return self._state.limits

    def limit_use(self, scope: str) -> LimitUse:
        return self._state.limit_uses[scope]

    def leases_of(self, bid_id: str) -> list[str]:
        """Return the ids of a bid's live leases."""
        return list(self._state.bid_leases.get(bid_id, ()))

    def progress(self, bid_id: str) -> Progress:
        """Return what a live bid has bought by now, settled or not; its ended leases' seconds excepted."""
        state = self._state
        bid, leases_ = state.bids[bid_id], state.bid_leases[bid_id].values()
        seconds, running = 0, 0
        for lease in leases_:
            seconds += lease.gpu_seconds
            if lease.state in LEASE_BILLED and lease.metered_to_s is not None:
                unmetered_s = billing.second_of(state.now_us) - lease.metered_to_s
                seconds += lease.gpu_count * max(0, unmetered_s)
                running += lease.gpu_count
        owed = sum(billing.owed_of(state, lease) for lease in leases_)
        return Progress(Amount(bid.spent + owed), seconds, running)

    def client_bid(self, account: str, client_bid_id: str) -> Bid | None:
        """Return the live bid under this client_bid_id."""
        bid_id = self._state.client_bids.get((account, client_bid_id))
        return None if bid_id is None else self._state.bids[bid_id]

    def balance(self, account_id: str) -> Balance:
        return self._state.balance(self._state.accounts[account_id])

    def fees(self) -> Amount:
        """Return what the operator has earned so far."""
        return Amount(self._state.balances[FEES_ACCOUNT])

    def live(self) -> LiveState:
        return self._state.live()

    def state_hash(self) -> str:
        return self._state.hash()

    def curve(self, market_id: str) -> Curve:
        """Return the market's demand and supply now, cumulative."""
        return curve_of(self._state, admission.market(self._state, market_id))

    def preview_recall(self, command: RecallNode) -> Recalled:
        """List the leases that a recall would hit. Raises the Rejection that it would meet."""
        node, _ = supply.check_recall(self._state, command)
        return Recalled(node, supply.leases_of_node(self._state, node), [])

    def why_not(self, bid_id: str) -> Explanation | None:
        """Say why the last tick did not give a bid (more of) its GPUs, and what would win them now.

        None for a bid that is not in the book or has all it asks for.
        """
        state = self._state
        bid = state.bids.get(bid_id)
        if bid is None or bid.awaits_outcome:
            return None
        book = state.books[bid.market]
        if not (book.is_cleared and book.has_bid(bid_id)):
            return None
        reason = clearing.reason_of(state, bid, book.explain(bid_id), book.clearing_price)
        return None if reason.code is None else Explanation(reason, book.winning_limit(bid_id))

    def quote(self, market_id: str, gpus: int, min_gpus: int) -> Quote:
        """Return what `gpus` GPUs would cost at the next tick if nothing else changed."""
        market = admission.market(self._state, market_id)
        admission.quantities(gpus, min_gpus)
        return self._state.books[market.id].quote(gpus, min_gpus, self.offered_gpus(market.id))

    def offered_gpus(self, market_id: str) -> int:
        """Return the GPUs on offer in a market, leased or not: every tick lets them anew."""
        book = self._state.books[market_id]
        offers = self._state.market_offers[market_id].values()
        return sum(offer.gpus for offer in offers if book.has_offer(offer.id))

    def preview(self, command: PlaceBid) -> Preview:
        """Say what a bid would get and tie up. Raises the Rejection that it would meet."""
        return preview(self._state, command)
