"""Whether a history of concurrent calls could have happened one after the other, each at some instant of it.

Wing and Gong's search with a memo of (calls done, state) pairs. A call without an answer may have happened
at any time after it began, or never. Knows nothing of markets: a call brings its own function from a state
to the next, or to None where its answer is impossible in that state.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

NEVER = math.inf

State = Any  # hashable


@dataclass(frozen=True)
class Call:
    """One call: `apply(state)` is the state behind it, None where its answer does not fit."""

    began: float
    ended: float  # NEVER: no answer came
    apply: Callable[[State], State | None]
    text: str = ""


def is_linearizable(calls: Sequence[Call], initial: State) -> bool:
    """Search for an order in which every answered call fits."""
    calls = sorted(calls, key=lambda call: call.began)
    answered = sum(1 << i for i, call in enumerate(calls) if call.ended != NEVER)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return True
        for i, call in _next_calls(calls, done):
            after = call.apply(state)
            step = (done | 1 << i, after)
            if after is not None and step not in seen:
                seen.add(step)
                stack.append(step)
    return False


def _next_calls(calls: Sequence[Call], done: int) -> list[tuple[int, Call]]:
    """Return the calls that may come next: none that is still to come had ended before they began."""
    first_end, found = NEVER, []
    first_open = (~done & done + 1).bit_length() - 1
    for i in range(first_open, len(calls)):  # in the order in which they began
        call = calls[i]
        if call.began > first_end:
            break
        if not done >> i & 1:
            found.append((i, call))
            first_end = min(first_end, call.ended)
    return found
