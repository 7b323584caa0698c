"""Rules of the market that fail on bids with a label, as a defect of ours would: after half of their work."""

from contextlib import ExitStack, contextmanager

from auction import clearing, core
from auction.commands import PlaceBid
from auction.model import MarketStatus
from tests.simulation.planted import exchanged

AT_ONCE, AT_THE_TICK = "at once", "at the tick"


def failing_tick(where):
    """The tick of a market that is open fails where `where(state)` says so."""
    honest = clearing.run_tick

    def run_tick(state, market):
        fails = market.status is not MarketStatus.HALTED and where(state)
        tick = honest(state, market)
        assert not fails, "planted"
        return tick

    return exchanged(clearing, "run_tick", run_tick)


@contextmanager
def failing_place():
    """Placing fails where the label says at once."""
    honest = core._HANDLERS[PlaceBid]

    def place(state, command):
        placed = honest(state, command)
        assert command.labels.get("poison") != AT_ONCE, "planted"
        return placed

    core._HANDLERS[PlaceBid] = place
    try:
        yield
    finally:
        core._HANDLERS[PlaceBid] = honest


@contextmanager
def poisonous():
    """Both."""
    with ExitStack() as planted:
        planted.enter_context(failing_place())
        planted.enter_context(
            failing_tick(
                lambda state: any(bid.labels.get("poison") == AT_THE_TICK for bid in state.bids.values())
            )
        )
        yield
