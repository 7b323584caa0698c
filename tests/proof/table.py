"""The table of what was seen: rows, how they are written into `tests/PROOF.md` and read back from it.

A row carries its own date, seed, size and commit, so one promise can be run again without the others: the
new row replaces the old one of its name and every other row stays as it was. Reading back what was written
gives the same rows; a line that is no row is an error: none must get lost by a slip in a text editor.
"""

import re
from dataclasses import dataclass, fields

VERDICTS = {True: "kept", False: "**missed**", None: "not run"}
COLUMNS = (
    "name", "promise", "method", "figure", "target", "verdict", "seed", "size", "duration", "date", "commit",
)  # fmt: skip

INTRODUCTION = """\
# Proof

What this system promises, how each promise is tested, and what the last run saw. `python -m tests.proof`
runs everything and writes this page, `--only NAME` runs one row and leaves the others as they are; a short
form of every row is part of `pytest`. A missed target stands here as missed, what could not run as not run.
"""


@dataclass(frozen=True)
class Row:
    """One line of the table, as text."""

    name: str
    promise: str
    method: str
    figure: str
    target: str
    verdict: str
    seed: str
    size: str
    duration: str
    date: str
    commit: str


def merge(old: list[Row], new: list[Row], order: list[str]) -> list[Row]:
    """Put new rows in the place of old ones with their name; rows of promises that are gone go too."""
    latest = {row.name: row for row in [*old, *new]}
    return [latest[name] for name in order if name in latest]


def render(rows: list[Row], machine: list[str]) -> str:
    """Write the page."""
    lines = [INTRODUCTION, "The machine of the newest row: " + "; ".join(machine) + ".", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        lines.append("| " + " | ".join(_escape(getattr(row, column)) for column in COLUMNS) + " |")
    counts = [f"{sum(row.verdict == verdict for row in rows)} {verdict}" for verdict in VERDICTS.values()]
    lines += ["", f"{len(rows)} promises: {', '.join(counts)}."]
    return "\n".join(lines) + "\n"


def parse(page: str) -> list[Row]:
    """Read the rows of a page back."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    if not lines:
        return []
    assert _cells(lines[0]) == list(COLUMNS), f"the table's columns: {lines[0]}"
    rows = []
    for line in lines[2:]:
        cells = _cells(line)
        assert len(cells) == len(fields(Row)), (
            f"expected {len(fields(Row))} cells, found {len(cells)}: {line}"
        )
        rows.append(Row(*cells))
    return rows


def _cells(line: str) -> list[str]:
    return [
        cell.strip().replace("\\|", "|")
        for cell in re.split(r"(?<!\\)\|", line.removesuffix("|").lstrip("|"))
    ]


def _escape(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
