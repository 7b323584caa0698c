"""Admission: whether a command may enter, and the reason when it may not. Pure; changes nothing.

Checks run in the order of precedence in which a client should learn of them: who may act, where, on
what, with which numbers, and last with which money. Each raises one `Rejection` with a stable code.
"""

from auction import alternatives, billing, limits
from auction.commands import AmendBid, AmendNode, CreateNode, CreateOffer, PlaceBid
from auction.errors import NotFound, Rejection
from auction.model import (
    BID_FINAL,
    Account,
    Bid,
    Colocate,
    Lease,
    Market,
    MarketStatus,
    Node,
    Offer,
    OnPreempt,
    TimeInForce,
)
from auction.state import State
from auction.units import (
    AMOUNT_MAX,
    BASIS_POINTS,
    GPU_COUNT_MAX,
    LEVEL_COUNT_MAX,
    PRICE_MAX,
    Amount,
    Price,
    format_microusd,
    gross_reserve,
)
from matching.types import CHAIN, NODE_GPUS

AFFILIATES_MAX = 100
LIVE_BIDS_PER_MARKET_MAX = 10_000  # of one account
NODE_GPUS_MAX = 1_024
NOTICE_SECONDS_MAX = 1_800


def open_account(state: State, account_id: str, role: str) -> Account:
    """Return the account if it may act in this role."""
    account = state.accounts.get(account_id)
    if account is None:
        raise NotFound("account")
    if account.state != "open":
        raise Rejection("account_frozen", "this account is frozen; its operator can reopen it")
    if role not in account.roles:
        raise Rejection(
            f"not_an_{role}" if role == "owner" else f"not_a_{role}", f"this account is no {role}"
        )
    return account


def market(state: State, market_id: str, pointer: str = "/market") -> Market:
    found = state.markets.get(market_id)
    if found is None:
        raise Rejection("market_not_found", f"no market {market_id!r}", pointer=pointer)
    return found


def accepting_market(state: State, market_id: str, pointer: str = "/market") -> Market:
    found = market(state, market_id, pointer)
    if found.status is MarketStatus.HALTED:
        raise Rejection("market_halted", f"market {market_id} is halted: {found.status_reason}")
    if found.status is MarketStatus.CANCEL_ONLY:
        raise Rejection(
            "market_cancel_only", f"market {market_id} accepts cancels only: {found.status_reason}"
        )
    return found


def price_on_grid(venue: Market, price: Price, pointer: str, *, minimum: int) -> None:
    """Refuse a price off the increment (naming the two nearest legal ones) or outside its bounds."""
    if not minimum <= price <= venue.price_cap:
        raise Rejection(
            "price_out_of_range",
            f"{price} microusd is outside {minimum}..{venue.price_cap} (the market's cap)",
            pointer=pointer,
            minimum=Price(minimum),
            maximum=venue.price_cap,
        )
    below = price - price % venue.price_increment
    if below != price:
        step, above = venue.price_increment, below + venue.price_increment
        raise Rejection(
            "price_not_on_increment",
            f"expected a multiple of {format_microusd(step)}, found {format_microusd(price)}; "
            f"the nearest are {format_microusd(below)} and {format_microusd(above)}",
            pointer=pointer,
            below=Price(below),
            above=Price(above),
        )


def confirmed(limit: Price, unconfirmed_max: Price | None) -> None:
    """Ask twice about a limit far above what the market has cost lately."""
    if unconfirmed_max is not None and limit > unconfirmed_max:
        raise Rejection(
            "confirmation_required",
            f"{limit} microusd is above {unconfirmed_max}, ten times the median price of the last 24 hours",
            pointer="/confirm_limit",
            maximum=unconfirmed_max,
        )


def quantities(gpus: int, min_gpus: int) -> None:
    if not 1 <= gpus <= GPU_COUNT_MAX:
        raise Rejection("gpus_out_of_range", f"gpus {gpus} is outside 1..{GPU_COUNT_MAX}", pointer="/gpus")
    if not 1 <= min_gpus <= gpus:
        raise Rejection(
            "min_gpus_out_of_range", f"min_gpus {min_gpus} is outside 1..gpus ({gpus})", pointer="/min_gpus"
        )


def colocation(colocate: Colocate, gpus: int, min_gpus: int) -> None:
    """Refuse a co-located bid that is not all or nothing, or has no size of the chain (X1)."""
    if colocate is Colocate.NONE:
        return
    sizes = [size for size in CHAIN if size <= NODE_GPUS or colocate is Colocate.FABRIC]
    if gpus not in sizes or min_gpus != gpus:
        raise Rejection(
            "colocate_invalid",
            f"a bid co-located by {colocate.value} is all or nothing (min_gpus = gpus) and has one of "
            f"{', '.join(map(str, sizes))} GPUs",
            pointer="/colocate",
        )


def lifetime(state: State, venue: Market, command: PlaceBid) -> None:
    """Refuse ends that contradict each other, or lie in the past."""
    tif, tick = command.time_in_force, command.valid_until_tick
    if (tif is TimeInForce.GTT) != (command.expires_at_us is not None):
        raise Rejection(
            "time_in_force_invalid", "expires_at belongs to time_in_force gtt, and gtt needs it",
            pointer="/expires_at",
        )  # fmt: skip
    if tif is TimeInForce.IOC and (tick is not None or command.on_preempt is not OnPreempt.CANCEL):
        raise Rejection(
            "time_in_force_invalid",
            "an ioc bid takes part in the next tick only: it has no valid_until_tick and does not requeue",
            pointer="/time_in_force",
        )
    if tick is not None and tick <= venue.tick:
        raise Rejection(
            "valid_until_tick_passed",
            f"tick {venue.tick} has been cleared; the next one is {venue.tick + 1}",
            pointer="/valid_until_tick",
        )
    future(state, command.expires_at_us)


def future(state: State, expires_at_us: int | None) -> None:
    if expires_at_us is not None and expires_at_us <= state.now_us:
        raise Rejection("expires_at_passed", "expires_at is not in the future", pointer="/expires_at")


def spending_cap(max_spend: Amount | None, needed: int) -> None:
    """Refuse a cap that cannot even pay for what is spent and held."""
    if max_spend is not None and max_spend < needed:
        raise Rejection(
            "max_spend_too_small",
            f"max_spend {max_spend} microusd is below {needed}: what is spent, and the hold",
            pointer="/max_spend",
            minimum=Amount(needed),
        )


def place_bid(state: State, command: PlaceBid) -> tuple[Market, Amount]:
    """Check a new bid; return its market and the hold it needs."""
    open_account(state, command.account, "buyer")
    venues = _venues(state, command)
    quantities(command.gpus, command.min_gpus)
    colocation(command.colocate, command.gpus, command.min_gpus)
    lifetime(state, venues[0][0], command)
    for venue, _ in venues:
        if offers_in(state, command.account, venue.id):
            raise Rejection(
                "self_trade", "this account, or one it belongs with, offers GPUs in the same market"
            )
        if state.live_bid_counts.get((command.account, venue.id), 0) >= LIVE_BIDS_PER_MARKET_MAX:
            raise Rejection(
                "bid_limit_reached", f"{LIVE_BIDS_PER_MARKET_MAX} live bids in one market at most"
            )
    hold = max(billing.required_hold(venue, limit, command.gpus) for venue, limit in venues)
    spending_cap(command.max_spend, hold)
    bound = limits.binding(state, command.account, command.key)
    top = max(limit for _, limit in venues)
    limits.admit(state, bound, limit=top, more_notional=top * command.gpus, more_held=hold)
    funds(state, command.account, hold)
    return venues[0][0], hold


def _venues(state: State, command: PlaceBid) -> list[tuple[Market, Price]]:
    """Check the market and limit of a bid, or each of its alternatives; return them."""
    if not command.alternatives:
        venue = accepting_market(state, command.market)
        price_on_grid(venue, command.limit, "/limit_price_per_gpu_hour", minimum=venue.price_increment)
        confirmed(command.limit, command.unconfirmed_max)
        return [(venue, command.limit)]
    alternatives.check(command)
    venues = []
    for i, choice in enumerate(command.alternatives):
        pointer = f"/alternatives/{i}"
        venue = accepting_market(state, choice.market, f"{pointer}/market")
        price = f"{pointer}/limit_price_per_gpu_hour"
        price_on_grid(venue, choice.limit, price, minimum=venue.price_increment)
        confirmed(choice.limit, choice.unconfirmed_max)
        venues.append((venue, choice.limit))
    increments = sorted({venue.price_increment for venue, _ in venues})
    if len(increments) > 1:
        raise Rejection(
            "alternatives_invalid",
            f"the markets have different price increments ({', '.join(map(str, increments))} microusd): "
            "their prices cannot be weighed against each other",
            pointer="/alternatives",
        )
    return venues


def bids_in(state: State, account: str, market_id: str) -> bool:
    """Say whether the account, or one declared to belong with it, bids in the market."""
    return any(state.live_bid_counts.get((party, market_id)) for party in state.parties(account))


def offers_in(state: State, account: str, market_id: str) -> bool:
    return any(state.live_offer_counts.get((party, market_id)) for party in state.parties(account))


def funds(state: State, account: str, required: Amount) -> None:
    available = state.available(account)
    if available < required:
        raise Rejection(
            "insufficient_funds",
            f"the hold needs {required} microusd, {available} are available",
            required=required,
            available=available,
        )


def own_bid(state: State, bid_id: str, account: str, expected_version: int | None) -> Bid:
    bid = state.bids.get(bid_id)
    if bid is None or bid.account != account:
        raise NotFound("bid")
    if bid.status in BID_FINAL:
        raise Rejection("bid_final", f"bid is {bid.status.value}")
    version(bid.version, expected_version)
    return bid


def amend_bid(state: State, command: AmendBid) -> tuple[Bid, Market]:
    """Check an amendment; return the bid and the market that it is in."""
    bid = own_bid(state, command.bid, command.account, command.expected_version)
    open_account(state, command.account, "buyer")
    old_limit = alternatives.amended_limit(bid, command)
    venue = state.markets[bid.market if command.market is None else command.market]
    raises_risk = (command.limit or 0) > old_limit or (command.gpus or 0) > bid.gpus
    if raises_risk or command.paused is False:
        accepting_market(state, venue.id)
    if command.limit is not None:
        price_on_grid(venue, command.limit, "/limit_price_per_gpu_hour", minimum=venue.price_increment)
        if command.limit > old_limit:
            confirmed(command.limit, command.unconfirmed_max)
    gpus = bid.gpus if command.gpus is None else command.gpus
    if command.expires_at_us is not None and bid.time_in_force is not TimeInForce.GTT:
        raise Rejection(
            "time_in_force_invalid",
            f"a {bid.time_in_force.value} bid has no expires_at",
            pointer="/expires_at",
        )
    if bid.has_lapsed and gpus > bid.gpus:
        raise Rejection("bid_lapsed", "its last tick is over: it wins nothing more", pointer="/gpus")
    future(state, command.expires_at_us)
    minimum = min(bid.min_gpus, gpus) if command.min_gpus is None else command.min_gpus
    if bid.colocate is not Colocate.NONE and command.min_gpus is None:
        minimum = gpus  # it stays all or nothing
    quantities(gpus, minimum)
    colocation(bid.colocate, gpus, minimum)
    return bid, state.markets[bid.market]


def own_lease(state: State, lease_id: str, account: str) -> Lease:
    lease = state.leases.get(lease_id)
    if lease is None or lease.account != account:
        raise NotFound("lease")
    return lease


def own_node(state: State, node_id: str, account: str, expected_version: int | None = None) -> Node:
    node = state.nodes.get(node_id)
    if node is None or node.account != account:
        raise NotFound("node")
    version(node.version, expected_version)
    return node


def own_offer(state: State, offer_id: str, account: str, expected_version: int | None) -> Offer:
    offer = state.offers.get(offer_id)
    if offer is None or offer.account != account:
        raise NotFound("offer")
    if offer.status in ("withdrawing", "withdrawn"):
        raise Rejection("offer_final", f"offer is {offer.status.value}")
    version(offer.version, expected_version)
    return offer


def create_node(state: State, command: CreateNode) -> Market:
    open_account(state, command.account, "owner")
    venue = market(state, command.market)
    _node_gpus(command.gpus)
    _node_name(state, command.account, command.name)
    if command.simulated and not venue.is_demo:
        raise Rejection("simulation_not_allowed", "simulated nodes exist on demo markets only")
    return venue


def amend_node(state: State, command: AmendNode) -> Node:
    """Check a node's new description; return the node. What is lent keeps the shape it was offered with."""
    node = own_node(state, command.node, command.account, command.expected_version)
    if command.name is not None and command.name != node.name:
        _node_name(state, node.account, command.name)
    if command.gpus is not None:
        _node_gpus(command.gpus)
        if command.gpus < node.gpus:
            # Its ended leases name GPUs by their index.
            raise Rejection(
                "gpus_out_of_range",
                f"gpus {command.gpus} is below {node.gpus}: fence what is gone, or retire the node",
                pointer="/gpus",
            )
    if (command.gpus or node.gpus, command.fabric or node.fabric) != (node.gpus, node.fabric):
        idle_node(state, node)
    return node


def idle_node(state: State, node: Node) -> None:
    """Refuse while something is offered or leased on a node."""
    offers = sum(offer.node == node.id for offer in state.market_offers[node.market].values())
    leases = len(state.node_leases[node.id])
    if offers or leases:
        raise Rejection("node_in_use", f"{offers} offers and {leases} leases are on the node")


def _node_gpus(gpus: int) -> None:
    if not 1 <= gpus <= NODE_GPUS_MAX:
        raise Rejection("gpus_out_of_range", f"gpus {gpus} is outside 1..{NODE_GPUS_MAX}", pointer="/gpus")


def _node_name(state: State, account: str, name: str) -> None:
    if (account, name) in state.node_names:
        raise Rejection("node_name_taken", f"a node named {name!r} exists", pointer="/name")


def create_offer(state: State, command: CreateOffer) -> tuple[Node, Market, Price, int]:
    """Check a new offer; return its node, market, gross reserve and notice length."""
    open_account(state, command.account, "owner")
    node = own_node(state, command.node, command.account)
    venue = accepting_market(state, node.market)
    price_on_grid(venue, command.reserve, "/reserve_price_per_gpu_hour", minimum=0)
    gross = gross_reserve(command.reserve, fee_bps=venue.fee_bps, increment=venue.price_increment)
    if gross > venue.price_cap:
        raise Rejection(
            "price_out_of_range",
            f"with the fee the reserve is {gross} microusd, above the market's cap {venue.price_cap}",
            pointer="/reserve_price_per_gpu_hour",
        )
    offered = sum(offer.gpus for offer in state.market_offers[venue.id].values() if offer.node == node.id)
    if not 1 <= command.gpus <= node.gpus - offered:
        raise Rejection(
            "node_gpus_exceeded",
            f"gpus {command.gpus} is outside 1..{node.gpus - offered}: "
            f"the node has {node.gpus}, {offered} are offered",
            pointer="/gpus",
        )
    notice = venue.notice_seconds if command.notice_seconds is None else command.notice_seconds
    if not venue.notice_seconds <= notice <= NOTICE_SECONDS_MAX:
        raise Rejection(
            "notice_seconds_out_of_range",
            f"notice_seconds {notice} is outside {venue.notice_seconds}..{NOTICE_SECONDS_MAX}",
            pointer="/notice_seconds",
        )
    begin, finish = command.available_from_us or state.now_us, command.available_until_us
    if finish is not None and finish <= max(begin, state.now_us):
        raise Rejection("window_invalid", "the offer would end before it begins", pointer="/available_until")
    if bids_in(state, command.account, venue.id):
        raise Rejection("self_trade", "this account, or one it belongs with, bids in the same market")
    return node, venue, gross, notice


def amount(value: Amount) -> None:
    if not 1 <= value <= AMOUNT_MAX:
        raise Rejection("amount_out_of_range", f"amount {value} is outside 1..{AMOUNT_MAX} microusd")


def new_market(state: State, venue: Market) -> None:
    """Check a market's settings; they are the bounds of all arithmetic that follows."""
    if venue.id in state.markets:
        raise Rejection("market_exists", f"market {venue.id!r} exists", pointer="/id")
    levels, rest = divmod(venue.price_cap, max(1, venue.price_increment))
    if venue.price_increment < 1 or rest or not 1 <= levels <= LEVEL_COUNT_MAX or venue.price_cap > PRICE_MAX:
        raise Rejection(
            "price_out_of_range",
            f"the cap must be 1..{LEVEL_COUNT_MAX} increments and at most {PRICE_MAX} microusd",
            pointer="/price_cap",
        )
    if not (0 <= venue.handicap_bps <= 100_000 and 0 <= venue.fee_bps <= BASIS_POINTS // 2):
        raise Rejection("market_invalid", "handicap_bps is 0..100000 and fee_bps 0..5000")
    if not (0 <= venue.refine_below_bids <= LIVE_BIDS_PER_MARKET_MAX) or not (
        venue.price_position_bps is None or 0 <= venue.price_position_bps <= BASIS_POINTS
    ):
        raise Rejection(
            "market_invalid",
            f"refine_below_bids is 0..{LIVE_BIDS_PER_MARKET_MAX} and price_position_bps 0..{BASIS_POINTS}",
        )
    market_terms(venue)


def market_terms(venue: Market) -> None:
    """Check what of a market's settings may change while it runs."""
    if not (venue.stagger_share_bps is None or 1 <= venue.stagger_share_bps <= BASIS_POINTS):
        raise Rejection("market_invalid", f"stagger_share_bps is 1..{BASIS_POINTS}")
    if not (
        1 <= venue.tick_seconds <= 3_600
        and 0 <= venue.notice_seconds <= NOTICE_SECONDS_MAX
        and 1 <= venue.settlement_seconds <= 1_800
    ):
        raise Rejection(
            "timing_invalid", "tick_seconds is 1..3600, notice_seconds 0..1800, settlement_seconds 1..1800"
        )


def version(actual: int, expected: int | None) -> None:
    if expected is not None and expected != actual:
        raise Rejection("version_mismatch", f"version is {actual}, not {expected}", current=actual)
