"""The public shapes of a market, and what its operator may set. See wire.py for the rules."""

from typing import Annotated

from msgspec import Meta, Struct

from api.fields import (
    CURRENCY,
    NameField,
    NoticeSeconds,
    PriceField,
    format_instant,
    format_price_or_none,
)
from auction.model import Market, Tick
from auction.units import Price, format_microusd

# RULES.md R1: $0.0001; with it a cap of $10 is 100,000 levels.
DEFAULT_INCREMENT = 100
DEFAULT_CAP = Price(10_000_000)

MarketSlug = Annotated[str, Meta(pattern=r"^[a-z0-9]+([.\-][a-z0-9]+)*$", min_length=3, max_length=64)]


class MarketView(Struct, frozen=True):
    id: str
    kind: str
    gpu_model: str
    gpu_memory_gib: int
    gpus_per_node: int
    interconnect: str
    region: str
    tick_seconds: int
    price_increment: str
    price_cap: str
    notice_seconds: int
    settlement_seconds: int
    handicap_bps: int
    fee_bps: int
    provisioning_seconds: int
    stagger_share_bps: int | None
    refine_below_bids: int
    price_position_bps: int | None
    currency: str
    is_demo: bool
    status: str
    status_reason: str | None
    tick: int
    next_tick: str
    price: str | None
    digest: str
    version: int


class CreateMarketBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A market's fields; the defaults are RULES.md's."""

    id: MarketSlug
    gpu_model: NameField
    gpu_memory_gib: Annotated[int, Meta(ge=1, le=4096)]
    gpus_per_node: Annotated[int, Meta(ge=1, le=1024)]
    interconnect: NameField
    region: NameField
    kind: Annotated[str, Meta(pattern="^(gpu|model)$")] = "gpu"
    tick_seconds: Annotated[int, Meta(ge=1, le=3600)] = 10
    price_increment: PriceField | None = None
    price_cap: PriceField | None = None
    notice_seconds: NoticeSeconds = 120
    settlement_seconds: Annotated[int, Meta(ge=1, le=1800)] = 60
    handicap_bps: Annotated[int, Meta(ge=0, le=100_000)] = 1_000
    fee_bps: Annotated[int, Meta(ge=0, le=5_000)] = 500
    provisioning_seconds: Annotated[int, Meta(ge=1, le=7_200)] = 600
    stagger_share_bps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    refine_below_bids: Annotated[int, Meta(ge=0, le=10_000)] = 200
    price_position_bps: Annotated[int, Meta(ge=0, le=10_000)] | None = None


class AmendMarketBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is; prices, handicap and fee stay as they were agreed.

    A new `notice_seconds` holds for offers posted later. `stagger_share_bps`: 0 spreads nothing.
    """

    tick_seconds: Annotated[int, Meta(ge=1, le=3600)] | None = None
    notice_seconds: NoticeSeconds | None = None
    settlement_seconds: Annotated[int, Meta(ge=1, le=1800)] | None = None
    provisioning_seconds: Annotated[int, Meta(ge=1, le=7_200)] | None = None
    stagger_share_bps: Annotated[int, Meta(ge=0, le=10_000)] | None = None


class MarketStatusBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a market stops; `cancel_only` still lets everybody out."""

    reason: NameField
    status: Annotated[str, Meta(pattern="^(halted|cancel_only)$")] = "halted"


class IdleView(Struct, frozen=True):
    """GPUs on offer that found no bid, by cause."""

    reserve: int
    unfit: int
    fragmented: int


class TickView(Struct, frozen=True):
    market: str
    tick: int
    cleared_at: str
    price: str | None
    low: str | None
    high: str | None
    entry_price: str | None
    cleared_gpus: int
    offered_gpus: int
    demanded_gpus: int
    idle_gpus: IdleView
    bids: int
    offers: int
    started_gpus: int
    preempted_gpus: int
    not_fitted: int
    welfare_per_hour: str
    welfare_bound_per_hour: str
    digest: str
    previous_digest: str
    input_hash: str
    output_hash: str
    status: str


class CurveView(Struct, frozen=True):
    """Cumulative GPUs by price, best first, at most 50 levels a side."""

    market: str
    tick: int
    demand: list[tuple[str, int]]
    supply: list[tuple[str, int]]


class SuggestionView(Struct, frozen=True):
    """`samples`: how many stretches of an hour, out of the market's record, the probability is judged by."""

    label: str
    limit: str
    interruption_probability: str
    samples: int


class QuoteView(Struct, frozen=True):
    """What it takes to win now. `suggested_limits` is empty while there is no history to judge by."""

    market: str
    tick: int
    gpus: int
    min_gpus: int
    price_to_fill: str | None
    available_gpus: int
    entry_price: str | None
    clearing_price: str | None
    currency: str
    suggested_limits: list[SuggestionView]


class TimeView(Struct, frozen=True):
    time: str


def market_view(market: Market) -> MarketView:
    return MarketView(
        id=market.id,
        kind=market.kind,
        gpu_model=market.gpu_model,
        gpu_memory_gib=market.gpu_memory_gib,
        gpus_per_node=market.gpus_per_node,
        interconnect=market.interconnect,
        region=market.region,
        tick_seconds=market.tick_seconds,
        price_increment=format_microusd(market.price_increment),
        price_cap=format_microusd(market.price_cap),
        notice_seconds=market.notice_seconds,
        settlement_seconds=market.settlement_seconds,
        handicap_bps=market.handicap_bps,
        fee_bps=market.fee_bps,
        provisioning_seconds=market.provisioning_seconds,
        stagger_share_bps=market.stagger_share_bps,
        refine_below_bids=market.refine_below_bids,
        price_position_bps=market.price_position_bps,
        currency=CURRENCY,
        is_demo=market.is_demo,
        status=market.status,
        status_reason=market.status_reason,
        tick=market.tick,
        next_tick=format_instant(market.next_tick_at_us),
        price=format_price_or_none(market.price),
        digest=market.digest,
        version=market.version,
    )


def tick_view(tick: Tick) -> TickView:
    return TickView(
        market=tick.market,
        tick=tick.tick,
        cleared_at=format_instant(tick.cleared_at_us),
        price=format_price_or_none(tick.price),
        low=format_price_or_none(tick.low),
        high=format_price_or_none(tick.high),
        entry_price=format_price_or_none(tick.entry_price),
        cleared_gpus=tick.cleared_gpus,
        offered_gpus=tick.offered_gpus,
        demanded_gpus=tick.demanded_gpus,
        idle_gpus=IdleView(tick.idle_reserve_gpus, tick.idle_unfit_gpus, tick.idle_fragmented_gpus),
        bids=tick.bids,
        offers=tick.offers,
        started_gpus=tick.started_gpus,
        preempted_gpus=tick.preempted_gpus,
        not_fitted=tick.not_fitted,
        welfare_per_hour=format_microusd(tick.welfare),
        welfare_bound_per_hour=format_microusd(tick.welfare_bound),
        digest=tick.digest,
        previous_digest=tick.previous_digest,
        input_hash=tick.input_hash,
        output_hash=tick.output_hash,
        status="cleared",
    )


def make_market(body: CreateMarketBody, *, is_demo: bool, now_us: int) -> Market:
    """Build the market that an operator described; its first tick falls one tick length from now."""
    return Market(
        id=body.id,
        kind=body.kind,
        gpu_model=body.gpu_model,
        gpu_memory_gib=body.gpu_memory_gib,
        gpus_per_node=body.gpus_per_node,
        interconnect=body.interconnect,
        region=body.region,
        tick_seconds=body.tick_seconds,
        price_increment=DEFAULT_INCREMENT if body.price_increment is None else body.price_increment,
        price_cap=DEFAULT_CAP if body.price_cap is None else Price(body.price_cap),
        notice_seconds=body.notice_seconds,
        settlement_seconds=body.settlement_seconds,
        handicap_bps=body.handicap_bps,
        fee_bps=body.fee_bps,
        is_demo=is_demo,
        created_at_us=now_us,
        provisioning_seconds=body.provisioning_seconds,
        stagger_share_bps=body.stagger_share_bps,
        refine_below_bids=body.refine_below_bids,
        price_position_bps=body.price_position_bps,
    )
