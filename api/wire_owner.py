"""The shapes of an owner's economics: what a GPU costs, what a reserve brings, what a fleet earned.

See wire.py for the rules that all wire modules follow. Costs named net are what the owner must get;
gross is the price at which the market pays that, the operator's fee on top.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Annotated

from msgspec import Meta, Struct

from api.fields import CURRENCY, AmountField, CostField, IdField, PriceField, format_instant
from auction.economics import (
    INPUTS,
    Cost,
    OwnerCosts,
    ShutDown,
    book_value,
    decay_rate_per_month,
    full_cost_market_decay,
    full_cost_straight_line,
    market_depreciation_per_hour,
    market_value,
    recommended_reserve,
    scrap_value,
    short_run_floor,
    shut_down_ages,
    straight_line_depreciation_per_hour,
)
from auction.model import Market
from auction.price_history import PriceShare, Rung, even_reserves, mean_price, offered_us, sell
from auction.units import MICROSECONDS_PER_SECOND, MICROUSD_PER_USD, Amount, Price, format_microusd

RESERVES_MAX = 20
OWN_RESERVES_MAX = 20
STEPS_BELOW_PERCENT = (100, 95, 90, 80, 70, 60, 50)
HISTORY_DAYS_MAX = 90

HISTORY_NOTE = (
    "An offer of a reserve sells while the price is at least its gross reserve. What its GPUs would have"
    " done to the price, and whether a buyer's GPUs would have fitted, is left out."
)


class CostFields(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one GPU costs, apart from its price. Left out: a default, which the answer's `inputs` shows."""

    age_months: int | None = None
    useful_life_months: int | None = None
    residual_bps: int | None = None
    residual_after_months: int | None = None
    scrap_bps: int | None = None
    load_watts: int | None = None
    idle_watts: int | None = None
    pue_bps: int | None = None
    energy_price_per_kwh: CostField | None = None
    operations_per_gpu_hour: CostField | None = None
    wear_per_gpu_hour: CostField | None = None
    switch_cost_per_lease: CostField | None = None
    expected_hold_seconds: int | None = None
    recall_odds_bps: int | None = None
    recall_cost_per_gpu: CostField | None = None
    fixed_cost_per_gpu_hour: CostField | None = None
    utilisation_bps: int | None = None
    cost_of_capital_bps: int | None = None
    fee_bps: int | None = None
    alternative_per_gpu_hour: CostField | None = None


class ReserveBody(CostFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`market` brings its fee, its increment and its last `days` of prices; `price_per_gpu_hour` is a price
    to judge by when there is no market, or instead of its mean; `reserves` replace the ladder's even steps.
    """

    purchase_price_per_gpu: AmountField
    market: IdField | None = None
    days: Annotated[int, Meta(ge=1, le=HISTORY_DAYS_MAX)] = 30
    price_per_gpu_hour: PriceField | None = None
    reserves: Annotated[list[PriceField], Meta(max_length=RESERVES_MAX)] = []


class TermView(Struct, frozen=True):
    """One part of a cost per leased GPU-hour, with the numbers put into its formula."""

    name: str
    per_gpu_hour: str
    working: str


class CostView(Struct, frozen=True):
    """A cost per leased GPU-hour: its terms add up to net; net and fee to gross."""

    terms: list[TermView]
    net_per_gpu_hour: str
    fee_per_gpu_hour: str
    gross_per_gpu_hour: str


class FullCostView(Struct, frozen=True):
    straight_line: CostView
    market_decay: CostView


class ValueView(Struct, frozen=True):
    """What one GPU is worth at its age, and what an hour takes off that, rounded up."""

    book_value: str
    market_value: str
    scrap_value: str
    straight_line_depreciation_per_hour: str
    market_depreciation_per_hour: str
    working: str


class RecommendedView(Struct, frozen=True):
    """The reserve to post (net, on the market's increment), and the price from which it sells."""

    reserve_price_per_gpu_hour: str
    gross_reserve_price_per_gpu_hour: str
    basis: str  # short_run_floor | alternative


class ShutDownView(Struct, frozen=True):
    """Ages in months at which the price first fails to cover a cost; null: not within 240 months."""

    floor: int | None
    full_cost_straight_line: int | None
    full_cost_market_decay: int | None


class RungView(Struct, frozen=True):
    """What one reserve would have brought per GPU-hour offered. `margin` is net less the floor."""

    reserve_price_per_gpu_hour: str
    gross_reserve_price_per_gpu_hour: str
    names: list[str]  # which cost or recommendation this reserve is
    sold_seconds: int
    sold_bps: int
    revenue_per_offered_gpu_hour: str
    net_per_offered_gpu_hour: str
    margin_per_offered_gpu_hour: str


class HistoryView(Struct, frozen=True, rename={"from_": "from"}):
    """A market's record, and each reserve held against it."""

    market: str
    from_: str
    to: str
    ticks: int
    offered_seconds: int
    mean_price: str | None
    ladder: list[RungView]
    note: str


class ReserveView(Struct, frozen=True):
    """`verdict` at `market_price`: below_floor | covers_floor | covers_full_cost (market decay)."""

    currency: str
    inputs: dict[str, int | str]
    value: ValueView
    short_run_floor: CostView
    full_cost: FullCostView
    recommended: RecommendedView
    market_price: str | None
    verdict: str | None
    shut_down_age_months: ShutDownView | None
    history: HistoryView | None


class UnsoldRungView(Struct, frozen=True):
    """`is_own`: a live offer of yours asks for this reserve; the others are steps below it."""

    reserve_price_per_gpu_hour: str
    gross_reserve_price_per_gpu_hour: str
    is_own: bool
    sold_bps: int
    unsold_hours_per_gpu: str
    net_per_offered_gpu_hour: str


class UnsoldView(Struct, frozen=True):
    """Of `hours` of record, how many a GPU would have stayed unsold at each reserve; lowest first.

    At most 20 reserves of yours, the highest; `rungs` is empty without offers or without a record.
    """

    market: str
    hours: str
    rungs: list[UnsoldRungView]
    note: str


class PriceHistory(Struct, frozen=True):
    """A market's prices in a window, and the reserves to hold against them besides the even steps."""

    market: str
    from_us: int
    to_us: int
    ticks: int
    shares: list[PriceShare]
    reserves: list[Price]


def costs_of(fields: CostFields, purchase_price: int, *, fee_bps: int | None) -> OwnerCosts:
    """Turn a request's fields into costs; `fee_bps` is the market's, for when the request names none."""
    given = {name: getattr(fields, name) for name in CostFields.__struct_fields__}
    if given["fee_bps"] is None:
        given["fee_bps"] = fee_bps
    chosen = {name: value for name, value in given.items() if value is not None}
    return OwnerCosts(purchase_price_per_gpu=Amount(purchase_price), **chosen)


def reserve_view(
    costs: OwnerCosts, *, increment: int = 1, price: Price | None = None, history: PriceHistory | None = None
) -> ReserveView:
    """Show costs that were checked; `price` is one to judge by, else the history's mean."""
    floor = short_run_floor(costs)
    line, decay = full_cost_straight_line(costs), full_cost_market_decay(costs)
    reserve, gross = recommended_reserve(costs, increment=increment)
    if price is None and history is not None:
        price = mean_price(history.shares)
    return ReserveView(
        currency=CURRENCY,
        inputs=_inputs(costs),
        value=_value_view(costs),
        short_run_floor=cost_view(floor),
        full_cost=FullCostView(cost_view(line), cost_view(decay)),
        recommended=RecommendedView(
            format_microusd(reserve),
            format_microusd(gross),
            "short_run_floor" if floor.net >= costs.alternative_per_gpu_hour else "alternative",
        ),
        market_price=None if price is None else format_microusd(price),
        verdict=None if price is None else _verdict(price, floor, decay),
        shut_down_age_months=None if price is None else shut_down_view(shut_down_ages(costs, price)),
        history=None
        if history is None
        else _history_view(
            history,
            costs,
            increment,
            {
                "short_run_floor": floor.net,
                "recommended": reserve,
                "full_cost_straight_line": line.net,
                "full_cost_market_decay": decay.net,
            },
        ),
    )


def unsold_view(market: Market, shares: Sequence[PriceShare], reserves: Iterable[Price]) -> UnsoldView:
    """Hold an owner's reserves, and steps below each, against a market's record."""
    own = set(sorted(reserves)[-OWN_RESERVES_MAX:])
    increment = market.price_increment
    steps = {
        Price(reserve * percent // 100 // increment * increment)
        for reserve in own
        for percent in STEPS_BELOW_PERCENT
    }
    rungs = sell(shares, [*steps], fee_bps=market.fee_bps, increment=increment, floor_net=Amount(0))
    total_us = offered_us(shares)
    return UnsoldView(
        market.id,
        _hours(total_us),
        [
            UnsoldRungView(
                format_microusd(rung.reserve),
                format_microusd(rung.gross_reserve),
                rung.reserve in own,
                rung.sold_bps,
                _hours(total_us - rung.sold_us),
                format_microusd(rung.net_per_offered_hour),
            )
            for rung in rungs
        ],
        HISTORY_NOTE,
    )


def _hours(time_us: int) -> str:
    """Write microseconds as hours to a hundredth, rounded down."""
    hundredths = time_us // (36 * MICROSECONDS_PER_SECOND)
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def shut_down_view(ages: ShutDown) -> ShutDownView:
    return ShutDownView(ages.floor, ages.full_cost_straight_line, ages.full_cost_market_decay)


def _inputs(costs: OwnerCosts) -> dict[str, int | str]:
    values = {one: getattr(costs, one.name) for one in INPUTS}
    return {one.name: format_microusd(value) if one.is_money else value for one, value in values.items()}


def _value_view(costs: OwnerCosts) -> ValueView:
    age = costs.age_months
    line, lost = straight_line_depreciation_per_hour(costs, age), market_depreciation_per_hour(costs, age)
    decay = format_microusd(round(decay_rate_per_month(costs) * MICROUSD_PER_USD))
    return ValueView(
        book_value=format_microusd(ceil(book_value(costs, age))),
        market_value=format_microusd(ceil(market_value(costs, age))),
        scrap_value=format_microusd(ceil(scrap_value(costs))),
        straight_line_depreciation_per_hour=format_microusd(ceil(line)),
        market_depreciation_per_hour=format_microusd(ceil(lost)),
        working=f"V(t) = scrap + (price paid - scrap) × e^(-{decay} × {age} months)",
    )


def cost_view(cost: Cost) -> CostView:
    return CostView(
        [TermView(term.name, format_microusd(term.amount), term.working) for term in cost.terms],
        format_microusd(cost.net),
        format_microusd(cost.gross - cost.net),
        format_microusd(cost.gross),
    )


def _verdict(price: Price, floor: Cost, full: Cost) -> str:
    if price < floor.gross:
        return "below_floor"
    return "covers_full_cost" if price >= max(floor.gross, full.gross) else "covers_floor"


def _history_view(
    history: PriceHistory, costs: OwnerCosts, increment: int, named: dict[str, int]
) -> HistoryView:
    shares, fee_bps = history.shares, costs.fee_bps
    # A reserve can be posted on the increment only.
    on_grid = {name: Price(-(-net // increment) * increment) for name, net in named.items()}
    steps = history.reserves or even_reserves(shares, fee_bps=fee_bps, increment=increment)
    floor_net = short_run_floor(costs).net
    rungs = sell(
        shares, [*steps, *on_grid.values()], fee_bps=fee_bps, increment=increment, floor_net=floor_net
    )
    mean = mean_price(shares)
    return HistoryView(
        market=history.market,
        from_=format_instant(history.from_us),
        to=format_instant(history.to_us),
        ticks=history.ticks,
        offered_seconds=offered_us(shares) // MICROSECONDS_PER_SECOND,
        mean_price=None if mean is None else format_microusd(mean),
        ladder=[_rung_view(rung, [n for n, net in on_grid.items() if net == rung.reserve]) for rung in rungs],
        note=HISTORY_NOTE,
    )


def _rung_view(rung: Rung, names: Sequence[str]) -> RungView:
    return RungView(
        reserve_price_per_gpu_hour=format_microusd(rung.reserve),
        gross_reserve_price_per_gpu_hour=format_microusd(rung.gross_reserve),
        names=list(names),
        sold_seconds=rung.sold_us // MICROSECONDS_PER_SECOND,
        sold_bps=rung.sold_bps,
        revenue_per_offered_gpu_hour=format_microusd(rung.gross_per_offered_hour),
        net_per_offered_gpu_hour=format_microusd(rung.net_per_offered_hour),
        margin_per_offered_gpu_hour=format_microusd(rung.margin_per_offered_hour),
    )
