"""What to do next, from what should be and what is: pure and level-triggered, so no message can be missed."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from fallow.agent.journal import Held, Phase


class Act(StrEnum):
    START = "start"
    ADOPT = "adopt"  # it runs, says the market; this agent does not remember it
    DRAIN = "drain"
    STOP = "stop"


class Wanted(Struct, frozen=True):
    """A lease as the market wants it on this node."""

    id: str
    state: str  # starting | running | noticed
    gpu_indices: list[int]
    reclaim_at_us: int | None = None
    reason: str | None = None


class Step(Struct, frozen=True):
    act: Act
    lease: str


def steps(held: Mapping[str, Held], wanted: Iterable[Wanted] | None, now_us: int) -> list[Step]:
    """Return what is to be done, in the order of lease ids; `wanted` None: the market is out of reach.

    Out of reach, payloads run on; only a notice that is known keeps its time.
    """
    found: list[Step] = []
    should = None if wanted is None else {lease.id: lease for lease in wanted}
    for lease_id in sorted({*held, *(should or {})}):
        own = held.get(lease_id)
        asked = None if should is None else should.get(lease_id)
        act = _act(own, asked, now_us, is_known=should is not None)
        if act is not None:
            found.append(Step(act, lease_id))
    return found


def _act(own: Held | None, asked: Wanted | None, now_us: int, *, is_known: bool) -> Act | None:
    if own is None:
        assert asked is not None
        return Act.START if asked.state == "starting" else Act.ADOPT
    if own.phase is Phase.STOPPING or (is_known and asked is None):
        return Act.STOP
    reclaim_at_us = own.reclaim_at_us if asked is None else asked.reclaim_at_us
    if reclaim_at_us is not None and now_us >= reclaim_at_us:
        return Act.STOP
    if own.phase is Phase.STARTING:
        return Act.START
    if own.phase is Phase.DRAINED:
        if reclaim_at_us is not None:
            return Act.STOP
        return Act.START if own.has_payload else None  # the notice was withdrawn: it runs again
    return Act.DRAIN if reclaim_at_us is not None else None
