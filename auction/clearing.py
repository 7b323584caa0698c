"""One tick of one market: settle, clear, place, and turn the difference into lease transitions.

Each tick clears the whole truth again. Running and noticed leases rank as incumbents, pending and
starting ones as newcomers, so an unchanged book repeats its decision; a tenant under notice who wins
again keeps its GPUs, and the newcomer, who has paid nothing, is told. What comes out is chained: the
digest of a tick commits to its inputs, its outputs and the tick before (RULES.md R11).
"""

import hashlib

import msgspec
from msgspec import Struct

from auction import billing, funds, lapses, leases
from auction.curves import curve_of
from auction.events import EventKind
from auction.listing import list_offer, relist
from auction.market import domain_of
from auction.model import (
    BID_FINAL,
    Bid,
    BidStatus,
    EndReason,
    Lease,
    LeaseState,
    Market,
    MarketStatus,
    Notice,
    Offer,
    OfferStatus,
    Tick,
)
from auction.state import State
from auction.units import BASIS_POINTS, MICROSECONDS_PER_SECOND, Amount, Price, next_beat_us
from matching.packing import Fill, OfferUnits, place
from matching.types import Clearing, Outcome, Reason

_encode = msgspec.msgpack.Encoder(order="deterministic").encode

# Reasons that the auction itself gave, and can take back at a later tick.
REVOCABLE = frozenset({EndReason.OUTBID, EndReason.MOVED})
STAGGER_WAVES_MAX = 10
STAGGER_SECONDS_MAX = 1_800  # longest notice that staggering gives
_KEEP_ORDER = {LeaseState.RUNNING: 0, LeaseState.STARTING: 1, LeaseState.NOTICED: 2}


def genesis_digest(market_id: str) -> str:
    return hashlib.sha256(f"fallow:{market_id}".encode()).hexdigest()


def run_tick(state: State, market: Market) -> Tick | None:
    """Run the market's beat at `state.now_us`: charges always, an auction unless it is halted (R12)."""
    # The next beat after now: a late tick runs once, missed beats are not made up (F15, F16).
    market.next_tick_at_us = next_beat_us(state.now_us, market.tick_seconds)
    state.touch(market)
    for bid in billing.settle_due(state, market, billing.second_of(state.now_us)):
        exhaust(state, bid)
    return None if market.status is MarketStatus.HALTED else _clear(state, market)


def _clear(state: State, market: Market) -> Tick:
    marks = _Marks(state)
    book = state.books[market.id]
    now_s = billing.second_of(state.now_us)
    market.tick += 1
    _refresh_windows(state, market)

    # The price of the seconds up to now: what a noticed tenant goes on paying.
    old_price = book.prices[-1][1] if book.prices else None
    ranked_once, book.ranked_once = book.ranked_once, set()
    state.changes.curves.append(curve_of(state, market))
    clearing, news = book.clear()
    price = book.price_of(clearing.price)
    if price is not None:
        book.set_price(now_s, price)
        market.price = price
    book.forget_prices_before(billing.prices_needed_from_s(state, market))
    for bid_id, outcome in news:
        bid = state.bids[bid_id]
        if bid.has_lapsed and outcome.fill < bid.awarded_gpus:
            state.losses.append((bid.id, 0))
        _apply_outcome(state, bid, outcome, price)
    started, preempted = 0, 0
    if clearing.handles.size or book.is_dirty:
        book.is_dirty = False
        started, preempted = _apply_transitions(state, market, price, old_price)
    lapses.lapse_bids(state, market)
    lapses.give_up_losses(state)
    for bid_id in sorted(ranked_once):
        ranked = state.bids.get(bid_id)
        if ranked is not None:
            ranked.reclaimed_gpus = 0  # one tick only (R3)
            # Who lowered its limit and lost stays a newcomer until it wins all it holds: otherwise the
            # next tick inside its notice would give it back by the rank that it gave up.
            ranked.is_newcomer = ranked.is_newcomer and ranked.awarded_gpus < ranked.filled_gpus
            if ranked.is_newcomer:
                book.ranked_once.add(bid_id)
            state.touch(ranked)
            leases.sync_bid(state, ranked)
    return _record(state, market, clearing, marks, started=started, preempted=preempted)


def exhaust(state: State, bid: Bid) -> None:
    """A hold that cannot be refilled: the bid leaves the book, its leases get their notice (R8)."""
    market = state.markets[bid.market]
    reason = billing.why_exhausted(state, bid)
    bid.status = BidStatus.EXHAUSTED
    bid.version += 1
    bid.updated_at_us = state.now_us
    state.touch(bid)
    state.emit(EventKind.BID_EXHAUSTED, bid, account=bid.account, market=bid.market)
    if reason is EndReason.FUNDS_EXHAUSTED:
        funds.exhausted(state, state.accounts[bid.account])
    leases.sync_bid(state, bid)
    remaining = sorted(state.bid_leases[bid.id].values(), key=lambda lease: lease.id)
    for lease in remaining:
        if lease.state is LeaseState.RUNNING:
            leases.issue_notice(
                state,
                lease,
                reason,
                notice_seconds=market.notice_seconds,
                old_price=state.books[market.id].prices[-1][1],
                price=market.price,
                keep_price=None,
            )
        elif lease.state is not LeaseState.NOTICED:
            leases.end(state, lease, reason)
    if not remaining:
        billing.adjust_hold(state, bid, Amount(0))
        state.drop_bid(bid)


def _refresh_windows(state: State, market: Market) -> None:
    """R2: an offer takes part from its start until now + tick + notice reaches its end."""
    book = state.books[market.id]
    for offer in sorted(book.windowed.values(), key=lambda offer: offer.seq):
        lead_us = (market.tick_seconds + offer.notice_seconds) * MICROSECONDS_PER_SECOND
        if offer.available_until_us is not None and state.now_us + lead_us > offer.available_until_us:
            withdraw_offer(state, offer, offer.notice_seconds)
        elif offer.available_from_us <= state.now_us and not book.has_offer(offer.id):
            list_offer(state, offer)


def withdraw_offer(state: State, offer: Offer, notice_seconds: int) -> list[Notice]:
    """The owner takes an offer back: it leaves the book, its leases get the notice it promised."""
    book = state.books[offer.market]
    book.set_offer(offer.id, gross_reserve=offer.gross_reserve, gpus=0, node=state.nodes[offer.node])
    book.windowed.pop(offer.id, None)
    offer.status = OfferStatus.WITHDRAWING
    offer.version += 1
    offer.updated_at_us = state.now_us
    state.touch(offer)
    relist(state, offer.node)
    on_offer = sorted(state.offer_leases[offer.id].values(), key=lambda lease: lease.id)
    if not on_offer:
        offer.status = OfferStatus.WITHDRAWN
        state.drop_offer(offer)
        state.emit(EventKind.OFFER_WITHDRAWN, offer, account=offer.account, market=offer.market)
        return []
    notices = []
    for lease in on_offer:
        if lease.state is LeaseState.RUNNING:
            notices.append(
                leases.issue_notice(
                    state,
                    lease,
                    EndReason.OFFER_WITHDRAWN,
                    notice_seconds=notice_seconds,
                    old_price=book.prices[-1][1],
                    price=state.markets[offer.market].price,
                    keep_price=None,
                )
            )
        elif lease.state is not LeaseState.NOTICED:
            leases.end(state, lease, EndReason.OFFER_WITHDRAWN)
    return notices


def _apply_outcome(state: State, bid: Bid, outcome: Outcome, price: Price | None) -> None:
    """Write what the clearing said of one bid, and tell its owner if it is news: a new fill, or new terms."""
    if outcome.fill == bid.awarded_gpus and not bid.awaits_outcome:
        return
    bid.awaits_outcome = False
    bid.awarded_gpus = outcome.fill
    reason = reason_of(state, bid, outcome, price)
    bid.reason_code, bid.reason_price = reason.code, reason.price
    bid.reason_needed, bid.reason_usable = reason.needed, reason.usable
    state.touch(bid)
    kind = (
        EventKind.BID_FILLED
        if reason.code is None
        else EventKind.BID_PARTIAL
        if outcome.fill
        else EventKind.BID_OUTBID
    )
    state.emit(kind, bid, account=bid.account, market=bid.market)


class WhyNot(Struct, frozen=True):
    """Why a bid did not get (more of) its GPUs; `code` None: it got them all (RULES.md R7)."""

    code: str | None
    price: Price | None = None  # that it met: the clearing price, or the entry price if protected
    needed: int | None = None
    usable: int | None = None


def reason_of(state: State, bid: Bid, outcome: Outcome, price: Price | None) -> WhyNot:
    match outcome.reason:
        case Reason.FILLED:
            return WhyNot(None)
        case Reason.PROTECTED:
            return WhyNot("protected", state.books[bid.market].entry_price)
        case Reason.NO_FIT:
            return WhyNot("no_fit", price, outcome.needed, outcome.usable)
        case Reason.OUTBID:
            return WhyNot("outbid", price)


def _apply_transitions(
    state: State, market: Market, price: Price | None, old_price: Price | None
) -> tuple[int, int]:
    """Place the fills and bring every lease of the market in line. Returns GPUs (started, preempted)."""
    bids = {bid.seq: bid for bid in state.market_bids[market.id].values() if bid.status not in BID_FINAL}
    book = state.books[market.id]
    offers = {
        offer.seq: offer for offer in state.market_offers[market.id].values() if book.has_offer(offer.id)
    }
    held: dict[tuple[int, int], int] = {}
    waiting: dict[tuple[int, int], int] = {}
    current: dict[tuple[int, int], list[Lease]] = {}
    unsettled: set[tuple[int, int]] = set()  # a lease there waits, or is under a notice
    for seq, bid in bids.items():
        for lease in state.bid_leases[bid.id].values():
            offer = state.offers[lease.offer]
            if lease.state is LeaseState.NOTICED and _reason_of(state, lease) not in REVOCABLE:
                continue  # it goes, whatever this tick decides
            key = (seq, offer.seq)
            side = waiting if lease.state is LeaseState.PENDING else held
            side[key] = side.get(key, 0) + lease.gpu_count
            current.setdefault(key, []).append(lease)
            if lease.state is LeaseState.PENDING or lease.state is LeaseState.NOTICED:
                unsettled.add(key)
    winners = sorted(
        (bid for bid in bids.values() if bid.awarded_gpus > 0), key=lambda bid: (-bid.limit, bid.seq)
    )
    units = [_units_of(state, offer) for offer in offers.values()]
    placed = place(
        [Fill(bid.seq, bid.awarded_gpus, bid.asks_colocated) for bid in winners],
        units,
        held,
        waiting,
    )
    book.placed_cost = Amount(sum(offers[seq].gross_reserve * gpus for (_, seq), gpus in placed.items()))
    sold: dict[int, int] = {}
    for (_, seq), gpus in placed.items():
        sold[seq] = sold.get(seq, 0) + gpus
    book.idle = [(Price(unit.reserve), unit.gpus - sold.get(unit.number, 0)) for unit in units]
    losses = _Losses(state, market, price, old_price)
    unsettled |= {key for key in {**current, **placed} if placed.get(key, 0) != held.get(key, 0)}
    for key in sorted(unsettled & current.keys()):
        _settle_place(state, current[key], placed.get(key, 0), losses)
    preempted = losses.issue_notices(sum(unit.gpus for unit in units))
    for key in sorted(unsettled & placed.keys()):
        live = sum(
            lease.gpu_count
            for lease in state.bid_leases[bids[key[0]].id].values()
            if lease.offer == offers[key[1]].id and lease.state is not LeaseState.NOTICED
        )
        if placed[key] > live:
            leases.award(state, bids[key[0]], offers[key[1]], placed[key] - live)
    return leases.start_pending(state, state.pending[market.id].values()), preempted


def _units_of(state: State, offer: Offer) -> OfferUnits:
    node = state.nodes[offer.node]
    gpus = state.books[offer.market].offered_gpus(offer.id)
    return OfferUnits(offer.gross_reserve, offer.seq, gpus, node.id, domain_of(node))


class _Losses:
    """The leases that one tick takes, and the notices that tell them."""

    def __init__(self, state: State, market: Market, price: Price | None, old_price: Price | None) -> None:
        self._state = state
        self._market = market
        self._price = price
        self._old_price = old_price
        self._reasons: dict[str, EndReason] = {}  # by bid, as it stood before this tick took anything
        self._running: list[tuple[Lease, Price]] = []  # with the price that each goes on paying

    def add(self, lease: Lease, frozen: Price | None = None) -> None:
        """Take the lease's GPUs: by a notice if it runs, at once if it has not started.

        `frozen` is the price of a notice that it was under until this moment: it goes on paying that.
        """
        if lease.state is LeaseState.NOTICED:
            return
        if lease.state is not LeaseState.RUNNING:
            leases.end(self._state, lease, self._reason(lease))
            return
        price = self._old_price if frozen is None else frozen
        assert price is not None, "a running lease has a price"
        self._reason(lease)
        self._running.append((lease, price))

    def issue_notices(self, offered_gpus: int) -> int:
        """Tell all who lose GPUs; return how many GPUs.

        Where a market staggers (R8), at most a share of its GPUs is handed over in one notice length: who
        ranks lowest goes first, the others get a notice that is so many lengths longer. An offer's longer
        notice is kept in any case; if the tenant's money ends inside it, the rest is its owner's gift.
        """
        market, state = self._market, self._state
        share_bps = market.stagger_share_bps
        cap = max(1, offered_gpus * (share_bps or BASIS_POINTS) // BASIS_POINTS)
        total = 0
        for lease, price in sorted(self._running, key=self._goes_first):
            wave = total // cap if share_bps is not None else 0
            staggered = market.notice_seconds * (1 + min(wave, STAGGER_WAVES_MAX - 1))
            staggered = min(staggered, STAGGER_SECONDS_MAX)
            leases.issue_notice(
                state,
                lease,
                self._reason(lease),
                notice_seconds=max(leases.promised_notice_s(state, lease), staggered),
                old_price=price,
                price=self._price,
                keep_price=state.books[market.id].entry_price,
            )
            total += lease.gpu_count
        return total

    def _goes_first(self, loss: tuple[Lease, Price]) -> tuple[int, int, str]:
        """The lowest rank: the lowest limit, then the latest arrival (R4)."""
        bid = self._state.bids[loss[0].bid]
        return bid.limit, -bid.seq, loss[0].id

    def _reason(self, lease: Lease) -> EndReason:
        """Still awarded as much as it had: the auction only wants it somewhere else."""
        bid = self._state.bids[lease.bid]
        reason = EndReason.MOVED if bid.awarded_gpus >= bid.filled_gpus else EndReason.OUTBID
        return self._reasons.setdefault(bid.id, reason)


def _settle_place(state: State, present: list[Lease], target: int, losses: _Losses) -> None:
    """Keep `target` GPUs of the leases that one bid has on one offer, lose the rest."""
    on_node = [lease for lease in present if lease.state is not LeaseState.PENDING]
    on_node.sort(key=lambda lease: (_KEEP_ORDER[lease.state], lease.awarded_at_us, lease.id))
    for lease in on_node:
        if lease.gpu_count > target > 0:
            frozen = lease.notice_price
            if lease.state is LeaseState.NOTICED:
                leases.withdraw_notice(state, lease)  # what still goes gets a full notice of its own
            part = leases.split(state, lease, lease.gpu_count - target)
            losses.add(part, frozen)
            target = 0
        elif lease.gpu_count <= target:
            if lease.state is LeaseState.NOTICED:
                leases.withdraw_notice(state, lease)
            target -= lease.gpu_count
        else:
            losses.add(lease)
    for lease in sorted(
        (lease for lease in present if lease.state is LeaseState.PENDING), key=lambda lease: lease.id
    ):
        if target == 0:
            losses.add(lease)
        else:
            if lease.gpu_count > target:
                leases.shrink_pending(state, lease, target)
            target -= lease.gpu_count


def _reason_of(state: State, lease: Lease) -> EndReason:
    assert lease.notice is not None
    return state.notices[lease.notice].reason


class _Marks:
    """Where the tick's outputs begin in the changes of the transaction."""

    def __init__(self, state: State) -> None:
        self.events = len(state.changes.events)
        self.transfers = len(state.changes.transfers)
        self.usage = len(state.changes.usage)


def _record(
    state: State, market: Market, clearing: Clearing, marks: _Marks, *, started: int, preempted: int
) -> Tick:
    """Publish the tick and extend its chain: digest = H(market, tick, previous, inputs, outputs)."""
    book = state.books[market.id]
    changes = state.changes
    welfare = book.amount_of(clearing.value) - book.placed_cost
    price = book.clearing_price
    idle_dear = sum(gpus for reserve, gpus in book.idle if price is None or reserve > price)
    idle_cheap = sum(gpus for reserve, gpus in book.idle if price is not None and reserve < price)
    outputs = [
        [*clearing[:-2], welfare],
        changes.events[marks.events :],
        changes.transfers[marks.transfers :],
        changes.usage[marks.usage :],
    ]
    output_hash = hashlib.sha256(_encode(outputs)).hexdigest()
    chained = f"{market.id}:{market.tick}:{market.digest}:{market.input_hash}:{output_hash}"
    digest = hashlib.sha256(chained.encode()).hexdigest()
    tick = Tick(
        market=market.id,
        tick=market.tick,
        cleared_at_us=state.now_us,
        price=book.price_of(clearing.price),
        low=book.price_of(clearing.low),
        high=book.price_of(clearing.high),
        entry_price=book.entry_price,
        cleared_gpus=clearing.sold,
        offered_gpus=clearing.offered,
        demanded_gpus=clearing.demanded,
        bids=clearing.bid_count,
        offers=clearing.offer_count,
        started_gpus=started,
        preempted_gpus=preempted,
        not_fitted=clearing.not_fitted,
        input_hash=market.input_hash,
        output_hash=output_hash,
        previous_digest=market.digest,
        digest=digest,
        journal_seq=state.seq,
        idle_reserve_gpus=idle_dear,
        idle_unfit_gpus=clearing.offered - clearing.sold - idle_dear - idle_cheap,
        idle_fragmented_gpus=idle_cheap,
        welfare=Amount(welfare),
        welfare_bound=book.amount_of(clearing.lp_bound),
    )
    market.digest = digest
    market.input_hash = ""
    state.touch(market)
    state.record_tick(tick)
    return tick
