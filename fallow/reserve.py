"""`fallow reserve`: the owner's calculator on the command line, alone or against a market's history.

Without a server it computes here; with one it asks POST /v1/owner/reserve-calculator, and shows the same
view. Exit codes: 0 ok, 2 usage, 3 refused, 4 auth, 5 unavailable.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
import msgspec

from api.wire import ProblemView
from api.wire_owner import HISTORY_DAYS_MAX, CostView, HistoryView, ReserveView, reserve_view
from auction.economics import INPUTS, OwnerCosts, check_costs
from auction.errors import Rejection
from auction.units import SECONDS_PER_HOUR, Price, format_microusd, parse_microusd

EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_AUTH = 4
EXIT_UNAVAILABLE = 5

REQUEST_SECONDS_MAX = 30
ANSWER_BYTES_MAX = 1 << 20

_FLOOR_FORMULA = "(extra_energy + operations + wear + switching + recall) / (1 - {fee})"
_FULL_FORMULA = "(capital + depreciation + idle + operations + extra_energy) / (1 - {fee})"
_VERDICTS = {
    "below_floor": "the market pays less than the short-run floor: an hour costs more than it earns",
    "covers_floor": "lend what is idle, but the market does not pay for the machine: buy no more of them",
    "covers_full_cost": "the market pays for the machine too",
}


class _Money(click.ParamType[int]):
    """Dollars as a decimal string, read as microusd."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_microusd(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_DEFAULTS = {
    field.name: field.default
    for field in msgspec.structs.fields(OwnerCosts)
    if field.default is not msgspec.NODEFAULT
}


def _cost_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option per input, with its unit, its bounds and its default."""
    for one in reversed(INPUTS):
        default = _DEFAULTS.get(one.name)
        shown = ""
        if default is not None:
            shown = f"; default {format_microusd(default) if one.is_money else default}"
        command = click.option(
            "--" + one.name.replace("_", "-"),
            type=_Money() if one.is_money else int,
            required=default is None,
            metavar="USD" if one.is_money else "INTEGER",
            help=f"{one.help[0].upper()}{one.help[1:]} ({one.unit}{shown}).",
        )(command)
    return command


@click.command()
@_cost_options
@click.option("--price-per-gpu-hour", type=_Money(), metavar="USD", help="A market price to judge by.")
@click.option("--market", metavar="MARKET", help="Hold it against this market's history; needs --server.")
@click.option("--server", metavar="URL", help="The API, such as http://127.0.0.1:8080; needs --market.")
@click.option("--days", type=click.IntRange(1, HISTORY_DAYS_MAX), default=30, show_default=True,
              help="How much history.")  # fmt: skip
@click.option("--key", envvar="FALLOW_KEY", metavar="KEY", help="An owner's key; or set FALLOW_KEY.")
@click.option("--explain", is_flag=True, help="Show each formula with the numbers put in.")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def reserve(
    price_per_gpu_hour: int | None,
    market: str | None,
    server: str | None,
    days: int,
    key: str | None,
    explain: bool,
    output: str,
    **given: int | None,
) -> None:
    """Say which reserve to ask for an idle GPU, and what it has to earn to pay for itself.

    The short-run floor is what lending an hour costs you: extra energy, operations, wear, switching,
    recalls. Any price above it beats an idle hour, so it is the reserve to ask for. The full cost is
    what the machine must earn in the long run; it decides on buying and keeping machines. Net is what you
    get and what an offer asks for; gross is the market's price, the operator's fee on top.

    \b
    fallow reserve --purchase-price-per-gpu 30000 --age-months 12 --energy-price-per-kwh 0.12 \\
        --operations-per-gpu-hour 0.05 --price-per-gpu-hour 1.90 --explain
    fallow reserve --purchase-price-per-gpu 30000 --market h100-sxm.us \\
        --server http://127.0.0.1:8080 --key fal_...
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if (market is None) != (server is None):
        _stop("--market and --server go together", EXIT_USAGE)
    if market is not None and server is not None:
        asked = {"market": market, "days": days}
        if price_per_gpu_hour is not None:
            asked["price_per_gpu_hour"] = format_microusd(price_per_gpu_hour)
        for one in INPUTS:
            if one.name in chosen:
                value = chosen[one.name]
                asked[one.name] = format_microusd(value) if one.is_money else value
        view = asyncio.run(_ask(server, key, asked))
    else:
        costs = OwnerCosts(**chosen)  # type: ignore[arg-type]  # microusd are plain integers here
        try:
            check_costs(costs)
        except Rejection as refusal:
            _stop(f"{refusal.detail} ({refusal.code})", EXIT_USAGE)
        view = reserve_view(costs, price=None if price_per_gpu_hour is None else Price(price_per_gpu_hour))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(view)).decode())
    else:
        click.echo("\n".join(_table(view, explain=explain)))


async def _ask(server: str, key: str | None, asked: dict[str, Any]) -> ReserveView:
    import aiohttp

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    url = f"{server.rstrip('/')}/v1/owner/reserve-calculator"
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=msgspec.json.encode(asked), headers=headers, allow_redirects=False
            ) as response,
        ):
            status, raw = response.status, await response.content.read(ANSWER_BYTES_MAX)
            while not response.content.at_eof() and len(raw) < ANSWER_BYTES_MAX:
                raw += await response.content.read(ANSWER_BYTES_MAX)
    except aiohttp.InvalidURL as error:
        _stop(f"--server {server}: not an address ({error})", EXIT_USAGE)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _stop(f"{server} does not answer: {error or type(error).__name__}", EXIT_UNAVAILABLE)
    kind: type[ReserveView] | type[ProblemView] = ReserveView if status == 200 else ProblemView
    try:
        found = msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError:
        _stop(f"{server} answered {status}, and not as this API does", EXIT_UNAVAILABLE)
    if isinstance(found, ProblemView):
        code = EXIT_AUTH if status in (401, 403) else EXIT_UNAVAILABLE if status >= 500 else EXIT_REFUSED
        _stop(f"{found.detail} ({found.code})", code)
    return found


def _stop(line: str, code: int) -> NoReturn:
    click.echo(f"fallow: {line}", err=True)
    sys.exit(code)


def _table(view: ReserveView, *, explain: bool) -> list[str]:
    value, full, ages = view.value, view.full_cost, view.shut_down_age_months
    fee_bps = int(view.inputs["fee_bps"])
    fee = f"{fee_bps // 100}.{fee_bps % 100:02d} %"
    of_floor, of_full = _FLOOR_FORMULA.format(fee=fee), _FULL_FORMULA.format(fee=fee)
    lines = [
        f"{'USD per leased GPU-hour':34}{'net':>14}{'gross':>14}",
        *_cost_lines("short-run floor", view.short_run_floor, of_floor, explain),
        *_cost_lines("full cost, straight-line", full.straight_line, of_full, explain),
        *_cost_lines("full cost, market decay", full.market_decay, of_full, explain),
        "",
        f"{'book value':34}{value.book_value:>14}",
        f"{'market value':34}{value.market_value:>14}" + (f"   {value.working}" if explain else ""),
        "",
        f"{'reserve to ask for':34}{view.recommended.reserve_price_per_gpu_hour:>14}"
        f"{view.recommended.gross_reserve_price_per_gpu_hour:>14}",
    ]
    if view.market_price is not None and view.verdict is not None:
        lines += [f"{'market price':48}{view.market_price:>14}", f"  {_VERDICTS[view.verdict]}"]
    if ages is not None:
        lines += [
            "age in months at which that price no longer covers",
            f"  {'the short-run floor':32}{_age(ages.floor):>14}",
            f"  {'the full cost, straight-line':32}{_age(ages.full_cost_straight_line):>14}",
            f"  {'the full cost, market decay':32}{_age(ages.full_cost_market_decay):>14}",
        ]
    if view.history is not None:
        lines += ["", *_history_lines(view.history)]
    return lines


def _cost_lines(name: str, cost: CostView, formula: str, explain: bool) -> list[str]:
    lines = [f"{name:34}{cost.net_per_gpu_hour:>14}{cost.gross_per_gpu_hour:>14}"]
    if explain:
        lines.append(f"  = {formula}")
    for term in cost.terms:
        working = f"   {term.working}" if explain else ""
        lines.append(f"  {term.name:32}{term.per_gpu_hour:>14}{working}")
    return lines


def _history_lines(history: HistoryView) -> list[str]:
    offered_hours = history.offered_seconds // SECONDS_PER_HOUR
    lines = [
        f"{history.market}, {history.from_} to {history.to}: {history.ticks} ticks, {offered_hours} hours",
        f"{'reserve (net)':>14}{'hours sold':>12}{'share':>9}"
        f"{'revenue/h':>14}{'net/h':>14}{'over floor/h':>14}",
    ]
    for rung in history.ladder:
        hours, share = rung.sold_seconds // SECONDS_PER_HOUR, f"{rung.sold_bps / 100:.2f} %"
        lines.append(
            f"{rung.reserve_price_per_gpu_hour:>14}{hours:>12}{share:>9}"
            f"{rung.revenue_per_offered_gpu_hour:>14}{rung.net_per_offered_gpu_hour:>14}"
            f"{rung.margin_per_offered_gpu_hour:>14}  {', '.join(rung.names)}".rstrip()
        )
    return [*lines, "per GPU-hour offered", history.note]


def _age(months: int | None) -> str:
    return "over 240" if months is None else str(months)
