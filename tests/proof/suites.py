"""Which suites keep promises. A module with a list `PROMISES` that is not named here fails a test."""

import importlib
from collections.abc import Iterable

from tests.proof.promise import Promise

SUITES: tuple[str, ...] = (
    "tests.simulation.promises",
    "tests.crash.kills",
    "tests.crash.cut_points",
    "tests.crash.lost_replies",
    "tests.crash.outages",
    "tests.crash.rivals",
    "tests.crash.balances",
    "tests.fuzz.promises",
    "tests.soak.promises",
    "tests.mutation.promises",
    "tests.upgrade.promises",
    "tests.supply.promises",
)


def collect(modules: Iterable[str] = SUITES) -> list[Promise]:
    """Return every suite's promises in the table's order; a name that is used twice is an error."""
    promises: list[Promise] = []
    for module in modules:
        found = importlib.import_module(module).PROMISES
        assert found, f"{module} promises nothing"
        promises.extend(found)
    names = [promise.name for promise in promises]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert twice == [], f"two promises have one name: {twice}"
    return promises
