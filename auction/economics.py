"""What an owner's GPU-hour costs, and from which price on lending it pays. Pure, exact, no market state.

Money is microusd, rates and shares are basis points, ages are months of 730 hours. Inside, numbers are
fractions; a term of a cost is rounded once, up to the next microusd, so the terms shown add up to the
cost shown and a cost is never understated. Costs are *net*, what the owner must get; the price at which
the owner gets it, with the operator's fee f on top, is *gross* = ceil(net / (1 - f)), as in RULES.md R1.

Sources. Short-run floor: the shut-down rule (a price that covers the avoidable cost of the hour is worth
taking; Varian, Intermediate Microeconomics, "Firm supply"). Full cost: the user cost of capital, value
x interest + depreciation (Jorgenson 1963; Hulten and Wykoff 1981). Values that fall by a constant rate
towards a scrap value: Hulten and Wykoff's geometric pattern with a floor under it.
"""

from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction
from math import ceil

from msgspec import Struct

from auction.errors import Rejection
from auction.units import (
    BASIS_POINTS,
    SECONDS_PER_HOUR,
    Amount,
    Price,
    format_microusd,
    gross_reserve,
)

HOURS_PER_MONTH = 730
HOURS_PER_YEAR = 8_760
MONTHS_MAX = 240
WATTS_PER_KILOWATT = 1_000

# Forty digits: exp and ln of `decimal` are correctly rounded, so every machine gets the same microusd.
_DECIMAL = Context(prec=40)


class OwnerCosts(Struct, frozen=True, kw_only=True):
    """What one GPU costs its owner. Money in microusd; `check_costs` says whether the values may be used."""

    purchase_price_per_gpu: Amount  # with its share of the server and the network
    age_months: int = 0
    # Published lives: Nebius 4 years, Amazon 5 (2025, part of its servers), Microsoft, Alphabet and
    # CoreWeave 6 (their annual reports and S-1).
    useful_life_months: int = 60
    # 25-35 % of the price after 36 months: resale of H100s (GPU Lease Rate Index, January 2026).
    residual_bps: int = 3_000
    residual_after_months: int = 36
    scrap_bps: int = 500  # the value that is left for ever, as a share of the price: our assumption
    # 8.4 kW for 8 GPUs in training, with the whole server (Latif et al., IEEE Access 13, 2025).
    load_watts: int = 1_050
    idle_watts: int = 250  # our assumption: about a quarter of the load; measure your own
    pue_bps: int = 15_800  # Uptime Institute's industry average of 2023: 1.58
    energy_price_per_kwh: Amount = Amount(80_000)  # US industry, 2023: 8.06 cents (EIA)
    operations_per_gpu_hour: Amount = Amount(0)
    wear_per_gpu_hour: Amount = Amount(0)
    switch_cost_per_lease: Amount = Amount(0)  # per GPU: cleaning, images, the check after it
    expected_hold_seconds: int = 14_400  # E[hold], the expected length of a lease: our assumption
    recall_odds_bps: int = 0  # the chance per leased hour that you take the GPU back
    recall_cost_per_gpu: Amount = Amount(0)  # what a recall costs you: the wait, the credit to the tenant
    fixed_cost_per_gpu_hour: Amount = Amount(0)  # rack, network, insurance: leased or not
    utilisation_bps: int = 7_000  # the share of the hours in which it is leased: our assumption
    cost_of_capital_bps: int = 1_000  # a year: our assumption
    fee_bps: int = 500  # the operator's; a market's own when one is named
    alternative_per_gpu_hour: Amount = Amount(0)  # what the hour would bring you otherwise


class Input(Struct, frozen=True):
    """One input: what it may be, and how it is asked for."""

    name: str
    least: int
    most: int
    unit: str
    help: str

    @property
    def is_money(self) -> bool:
        return self.unit.startswith("USD")


_PER_HOUR_MAX = 1_000_000_000  # $1,000, as for every price
_EVENT_MAX = 100_000_000_000  # $100,000

INPUTS: tuple[Input, ...] = (
    Input("purchase_price_per_gpu", 1, 1_000_000_000_000, "USD", "price paid, with its share of the server"),
    Input("age_months", 0, MONTHS_MAX, "months", "age now"),
    Input("useful_life_months", 1, MONTHS_MAX, "months", "life of the straight-line depreciation"),
    Input("residual_bps", 1, 9_999, "bps", "resale value at residual-after-months, of the price paid"),
    Input("residual_after_months", 1, MONTHS_MAX, "months", "age at which it has the residual value"),
    Input("scrap_bps", 0, 9_998, "bps", "value that is left for ever, of the price paid"),
    Input("load_watts", 0, 100_000, "W per GPU", "power while leased, with its share of the server"),
    Input("idle_watts", 0, 100_000, "W per GPU", "power while idle"),
    Input("pue_bps", 10_000, 50_000, "bps", "power usage effectiveness; 15800 is 1.58"),
    Input("energy_price_per_kwh", 0, 100_000_000, "USD per kWh", "price of energy"),
    Input("operations_per_gpu_hour", 0, _PER_HOUR_MAX, "USD per GPU-hour", "operations and support"),
    Input("wear_per_gpu_hour", 0, _PER_HOUR_MAX, "USD per GPU-hour", "wear by a leased hour"),
    Input("switch_cost_per_lease", 0, _EVENT_MAX, "USD per GPU", "cost of handing a GPU to a new tenant"),
    Input("expected_hold_seconds", 1, 31_536_000, "seconds", "expected length of a lease"),
    Input("recall_odds_bps", 0, BASIS_POINTS, "bps per hour", "chance per leased hour that you recall it"),
    Input("recall_cost_per_gpu", 0, _EVENT_MAX, "USD per GPU", "what a recall costs you"),
    Input("fixed_cost_per_gpu_hour", 0, _PER_HOUR_MAX, "USD per GPU-hour", "rack, network, insurance"),
    Input("utilisation_bps", 1, BASIS_POINTS, "bps", "share of the hours in which it is leased"),
    Input("cost_of_capital_bps", 0, 100_000, "bps per year", "what the money costs you"),
    Input("fee_bps", 0, BASIS_POINTS // 2, "bps", "the operator's fee"),
    Input("alternative_per_gpu_hour", 0, _PER_HOUR_MAX, "USD per GPU-hour", "what the hour brings otherwise"),
)
assert tuple(one.name for one in INPUTS) == OwnerCosts.__struct_fields__, "every input has its bounds"


class Term(Struct, frozen=True):
    """One part of a cost in microusd per leased GPU-hour, and the working that gave it."""

    name: str
    amount: Amount
    working: str


class Cost(Struct, frozen=True):
    """A cost in microusd per leased GPU-hour. `net` is the sum of its terms, `gross` has the fee on top."""

    terms: tuple[Term, ...]
    net: Amount
    gross: Amount


def check_costs(costs: OwnerCosts) -> None:
    """Refuse inputs that mean nothing.

    Raises Rejection: `cost_out_of_range` with the input's name and bounds, `residual_invalid`,
    `power_invalid`.
    """
    for one in INPUTS:
        value = getattr(costs, one.name)
        if not one.least <= value <= one.most:
            write = format_microusd if one.is_money else str
            raise Rejection(
                "cost_out_of_range",
                f"{one.name} {write(value)} is outside {write(one.least)}..{write(one.most)} ({one.unit})",
                pointer=f"/{one.name}",
            )
    if not costs.scrap_bps < costs.residual_bps:
        raise Rejection(
            "residual_invalid",
            f"residual_bps {costs.residual_bps} is not above scrap_bps {costs.scrap_bps}",
            pointer="/residual_bps",
        )
    if costs.idle_watts > costs.load_watts:
        raise Rejection(
            "power_invalid",
            f"idle_watts {costs.idle_watts} exceeds load_watts {costs.load_watts}",
            pointer="/idle_watts",
        )


# -- what the machine is worth -----------------------------------------------------------------------


def scrap_value(costs: OwnerCosts) -> Fraction:
    """F: what is left for ever, in microusd."""
    return Fraction(costs.purchase_price_per_gpu * costs.scrap_bps, BASIS_POINTS)


def decay_rate_per_month(costs: OwnerCosts) -> Fraction:
    """Return lambda = ln((P0 - F) / (R - F)) / m: the rate that leads to the residual R after m months."""
    above_at_first = BASIS_POINTS - costs.scrap_bps
    above_at_residual = costs.residual_bps - costs.scrap_bps
    ratio = _DECIMAL.divide(Decimal(above_at_first), Decimal(above_at_residual))
    return Fraction(_DECIMAL.ln(ratio)) / costs.residual_after_months


def remaining_share(costs: OwnerCosts, months: int) -> Fraction:
    """Return e^(-lambda * months), in 0..1."""
    return _exp(-decay_rate_per_month(costs) * months)


def _exp(exponent: Fraction) -> Fraction:
    power = _DECIMAL.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    return Fraction(_DECIMAL.exp(power))


def market_value(costs: OwnerCosts, age_months: int) -> Fraction:
    """V(t) = F + (P0 - F) * e^(-lambda * t), in microusd."""
    scrap = scrap_value(costs)
    return scrap + (costs.purchase_price_per_gpu - scrap) * remaining_share(costs, age_months)


def market_depreciation_per_hour(costs: OwnerCosts, age_months: int) -> Fraction:
    """delta(t) = lambda * (V(t) - F) / 730: what an hour takes off the market value, in microusd."""
    above = market_value(costs, age_months) - scrap_value(costs)
    return decay_rate_per_month(costs) * above / HOURS_PER_MONTH


def book_value(costs: OwnerCosts, age_months: int) -> Fraction:
    """Return P0 - (P0 - F) * t / L, and F after the useful life L, in microusd."""
    wear = costs.purchase_price_per_gpu - scrap_value(costs)
    share = Fraction(min(age_months, costs.useful_life_months), costs.useful_life_months)
    return costs.purchase_price_per_gpu - wear * share


def straight_line_depreciation_per_hour(costs: OwnerCosts, age_months: int) -> Fraction:
    """Return (P0 - F) / (L * 730) within the useful life, then 0, in microusd."""
    if age_months >= costs.useful_life_months:
        return Fraction(0)
    return (costs.purchase_price_per_gpu - scrap_value(costs)) / (costs.useful_life_months * HOURS_PER_MONTH)


# -- what an hour costs ------------------------------------------------------------------------------


def energy_per_hour(costs: OwnerCosts, watts: int) -> Fraction:
    """Return kW * PUE * price per kWh, in microusd an hour."""
    return Fraction(watts * costs.pue_bps * costs.energy_price_per_kwh, WATTS_PER_KILOWATT * BASIS_POINTS)


def idle_cost_per_hour(costs: OwnerCosts) -> Fraction:
    """c_idle: energy at idle and what is fixed, in microusd an hour, leased or not."""
    return energy_per_hour(costs, costs.idle_watts) + costs.fixed_cost_per_gpu_hour


def short_run_floor(costs: OwnerCosts) -> Cost:
    """What an idle hour must at least earn to be worth lending.

    r_min = (delta c_e + ops + wear + c_switch / E[hold] + c_recall) / (1 - f), with
    delta c_e = (kW_load - kW_idle) * PUE * price per kWh: only what the lease itself causes. What is
    paid anyway (capital, age, rack) is not in it: the shut-down rule.
    """
    hold = Fraction(costs.expected_hold_seconds, SECONDS_PER_HOUR)
    odds = Fraction(costs.recall_odds_bps, BASIS_POINTS)
    switch, recall = costs.switch_cost_per_lease, costs.recall_cost_per_gpu
    return _cost(
        costs,
        (
            _extra_energy(costs),
            _term("operations", Fraction(costs.operations_per_gpu_hour), "operations per GPU-hour"),
            _term("wear", Fraction(costs.wear_per_gpu_hour), "wear per leased GPU-hour"),
            _term("switching", switch / hold, f"{_usd(switch)} / {_number(hold)} h expected hold"),
            _term("recall", odds * recall, f"{_share(costs.recall_odds_bps)} an hour × {_usd(recall)}"),
        ),
    )


def full_cost_straight_line(costs: OwnerCosts) -> Cost:
    """The rent that pays for everything, with the accountant's depreciation. See `full_cost`."""
    age = costs.age_months
    return full_cost(costs, book_value(costs, age), straight_line_depreciation_per_hour(costs, age))


def full_cost_market_decay(costs: OwnerCosts) -> Cost:
    """The rent that pays for everything, with what the machine loses on the market. See `full_cost`."""
    age = costs.age_months
    return full_cost(costs, market_value(costs, age), market_depreciation_per_hour(costs, age))


def full_cost(costs: OwnerCosts, value: Fraction, depreciation_per_hour: Fraction) -> Cost:
    """The long-run rent per leased hour.

    r_full = {[V * rho / 8760 + delta + c_idle + ops] / u + delta c_e} / (1 - f): every hour costs
    capital, age and operation, and only the share u of the hours is leased and earns it back. Wear is
    in the depreciation; switching and recalls are the floor's, so the floor can be the higher of the two.
    """
    used = Fraction(costs.utilisation_bps, BASIS_POINTS)
    capital, idle = _capital_per_hour(costs, value), idle_cost_per_hour(costs)
    operations = Fraction(costs.operations_per_gpu_hour)
    over = f" / {_share(costs.utilisation_bps)} leased"
    interest = f"{_usd(value)} × {_share(costs.cost_of_capital_bps)} a year / {HOURS_PER_YEAR} h"
    lost = f"{_usd(depreciation_per_hour)} an hour"
    energy = f"{_kilowatts(costs.idle_watts)} × {_pue(costs)} × {_usd(costs.energy_price_per_kwh)}/kWh"
    return _cost(
        costs,
        (
            _term("capital", capital / used, interest + over),
            _term("depreciation", depreciation_per_hour / used, lost + over),
            _term("idle", idle / used, f"({energy} + {_usd(costs.fixed_cost_per_gpu_hour)} fixed){over}"),
            _term("operations", operations / used, f"{_usd(operations)}{over}"),
            _extra_energy(costs),
        ),
    )


def cost_of_hours(costs: OwnerCosts, *, value: Fraction, depreciation_per_hour: Fraction,
                  held_seconds: int, leased_seconds: int) -> Amount:  # fmt: skip
    """Return what so many GPU-seconds held, and of them leased, cost in full, in microusd, rounded up.

    The full cost before its division by u: with held and leased hours known, nothing is assumed.
    """
    per_held_hour = _held_hour(costs, value, depreciation_per_hour)
    total = per_held_hour * held_seconds + _extra_energy_per_hour(costs) * leased_seconds
    return Amount(ceil(total / SECONDS_PER_HOUR))


def recommended_reserve(costs: OwnerCosts, *, increment: int = 1) -> tuple[Price, Price]:
    """Return the reserve to ask for, net, and the gross one that the auction sees, on the increment.

    It is the short-run floor, or what the hour would bring otherwise if that is more. With one price for
    all, a higher reserve never raises what an owner too small to move the price is paid; it only loses the
    hours whose price lies between (Vickrey 1961; the ladder of price_history.py shows them). Whether the
    market also pays the full cost decides on buying and keeping machines, not on an idle hour.
    """
    net = max(short_run_floor(costs).net, costs.alternative_per_gpu_hour)
    on_grid = Price(-(-net // increment) * increment)
    return on_grid, gross_reserve(on_grid, fee_bps=costs.fee_bps, increment=increment)


# -- until when it pays ------------------------------------------------------------------------------


class ShutDown(Struct, frozen=True):
    """The ages in months at which a price first fails to cover a cost; None: not within MONTHS_MAX."""

    floor: int | None
    full_cost_straight_line: int | None
    full_cost_market_decay: int | None


def shut_down_ages(costs: OwnerCosts, price: Price) -> ShutDown:
    """Return until when this gross price per GPU-hour, paid at today's age, goes on covering the costs.

    The price is taken to fall as the machine's value above scrap does, by e^(-lambda t): with a constant
    rate, rents and values fall alike (Hulten and Wykoff 1981). Energy and operations stay as they are.
    """
    net_price = Fraction(price * (BASIS_POINTS - costs.fee_bps), BASIS_POINTS)
    used, energy = Fraction(costs.utilisation_bps, BASIS_POINTS), _extra_energy_per_hour(costs)
    floor = Fraction(short_run_floor(costs).net)
    decay, scrap = decay_rate_per_month(costs), scrap_value(costs)
    found: list[int | None] = [None, None, None]
    for age in range(costs.age_months, MONTHS_MAX + 1):
        above_scrap = (costs.purchase_price_per_gpu - scrap) * _exp(-decay * age)
        line = straight_line_depreciation_per_hour(costs, age)
        costs_then = (
            floor,
            _held_hour(costs, book_value(costs, age), line) / used + energy,
            _held_hour(costs, scrap + above_scrap, decay * above_scrap / HOURS_PER_MONTH) / used + energy,
        )
        price_then = net_price * _exp(-decay * (age - costs.age_months))
        for i, cost in enumerate(costs_then):
            if found[i] is None and price_then < cost:
                found[i] = age
        if None not in found:
            break
    return ShutDown(*found)


def _held_hour(costs: OwnerCosts, value: Fraction, depreciation_per_hour: Fraction) -> Fraction:
    """What every hour costs, leased or not: capital, depreciation, idle cost, operations."""
    capital = _capital_per_hour(costs, value)
    return capital + depreciation_per_hour + idle_cost_per_hour(costs) + costs.operations_per_gpu_hour


def _capital_per_hour(costs: OwnerCosts, value: Fraction) -> Fraction:
    return value * costs.cost_of_capital_bps / (BASIS_POINTS * HOURS_PER_YEAR)


def _extra_energy_per_hour(costs: OwnerCosts) -> Fraction:
    return energy_per_hour(costs, costs.load_watts - costs.idle_watts)


def _extra_energy(costs: OwnerCosts) -> Term:
    working = (
        f"({_kilowatts(costs.load_watts)} - {_kilowatts(costs.idle_watts)}) × {_pue(costs)}"
        f" × {_usd(costs.energy_price_per_kwh)}/kWh"
    )
    return _term("extra_energy", _extra_energy_per_hour(costs), working)


def _term(name: str, amount: Fraction, working: str) -> Term:
    return Term(name, Amount(ceil(amount)), working)


def _cost(costs: OwnerCosts, terms: Sequence[Term]) -> Cost:
    net = Amount(sum(term.amount for term in terms))
    gross = gross_reserve(Price(net), fee_bps=costs.fee_bps, increment=1)
    return Cost(tuple(terms), net, Amount(gross))


def _usd(amount: int | Fraction) -> str:
    return f"${format_microusd(ceil(amount))}"


def _share(bps: int) -> str:
    return f"{bps // 100}.{bps % 100:02d} %"


def _number(value: Fraction) -> str:
    thousandths = round(value * 1_000)
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def _kilowatts(watts: int) -> str:
    return f"{_number(Fraction(watts, WATTS_PER_KILOWATT))} kW"


def _pue(costs: OwnerCosts) -> str:
    return f"PUE {_number(Fraction(costs.pue_bps, BASIS_POINTS))}"
