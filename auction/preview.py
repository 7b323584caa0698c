"""What a bid would get at the next tick if nothing else changed. Asks the books; changes nothing."""

from msgspec import Struct

from auction import admission
from auction.commands import Choice, PlaceBid
from auction.model import Colocate, Market
from auction.state import State
from auction.units import SECONDS_PER_HOUR, Amount, Price, exposure


class Preview(Struct, frozen=True):
    """What a bid would get, in the market where it gains most, and what it would tie up."""

    market: str
    fill: int
    price: Price | None
    hold: Amount
    worst_cost_per_hour: Amount
    effective_tick: int
    cutoff_at_us: int


def preview(state: State, command: PlaceBid) -> Preview:
    """Try a bid. Raises the Rejection that it would meet."""
    _, hold = admission.place_bid(state, command)
    choices = command.alternatives or [Choice(command.market, command.limit)]
    probed = [_probe(state, command, choice) for choice in choices]
    market, fill, price = max(probed, key=lambda one: one[0])[1:]
    return Preview(
        market=market.id,
        fill=fill,
        price=price,
        hold=hold,
        worst_cost_per_hour=exposure(max(choice.limit for choice in choices), command.gpus, SECONDS_PER_HOUR),
        effective_tick=market.tick + 1,
        cutoff_at_us=market.next_tick_at_us,
    )


def _probe(state: State, command: PlaceBid, choice: Choice) -> tuple[int, Market, int, Price | None]:
    """Try one market: (what the bid would gain an hour there, market, GPUs, price)."""
    fill, price = state.books[choice.market].probe(
        choice.limit, command.gpus, command.min_gpus, command.colocate is not Colocate.NONE
    )
    gain = 0 if price is None else fill * (choice.limit - price)
    return gain, state.markets[choice.market], fill, price
