"""Many statements as one: a transaction in one round trip.

Each becomes a part of one WITH; their parameters are numbered on. PostgreSQL runs such parts in no defined
order on one snapshot, and checks foreign keys and runs statement triggers at the end: so they may name each
other's new rows, but none may read or replace what another one writes. A statement that must have happened
before the next one is a `barrier`: a new group begins behind it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

PARAMETER = re.compile(r"\$(\d+)")


class Statement(NamedTuple):
    """SQL without RETURNING, with its parameters."""

    text: str
    arguments: Sequence[Any]
    is_barrier: bool = False


def combined(statements: Sequence[Statement], lead: str, lead_arguments: Sequence[Any]) -> list[Statement]:
    """Return one statement for each group; the first also runs `lead`, and fails if that holds no row."""
    groups: list[list[Statement]] = [[]]
    for statement in statements:
        groups[-1].append(statement)
        if statement.is_barrier:
            groups.append([])
    made = []
    for i, group in enumerate(groups):
        if i and not group:
            continue
        arguments = list(lead_arguments) if i == 0 else []
        texts = []
        for statement in group:
            texts.append((statement.text, len(arguments)))
            arguments += statement.arguments
        made.append(Statement(_text(lead if i == 0 else None, tuple(texts)), arguments))
    return made


@lru_cache(maxsize=1_024)
def _text(lead: str | None, parts: tuple[tuple[str, int], ...]) -> str:
    named = [] if lead is None else [f"fence AS (\n{lead}\n)"]
    for i, (text, offset) in enumerate(parts):
        numbered = PARAMETER.sub(lambda found: f"${int(found[1]) + offset}", text)  # noqa: B023 - used at once
        named.append(f"part{i} AS (\n{numbered}\n)")
    asked = "SELECT 1" if lead is None else "SELECT require_fence((SELECT count(*) FROM fence))"
    return f"WITH {', '.join(named)} {asked}"
