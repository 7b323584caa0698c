"""Runs the fast tests on mutants of the pure modules, and says which of them nobody noticed.

`python -m tests.mutation.killing --seed 1 --sample 20`, or all of them. Each mutant lives in a forked
process whose import of the one module gives the wrong source; nothing is written into the tree. A mutant is
killed when a test fails, or when it runs on for long. The unchanged modules must pass first.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.mutation.equivalent import is_equivalent
from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
MODULES = ("units", "ledger", "admission", "alternatives", "leases", "billing")
# Those that look at one rule at a time; the others, which live whole days, are not even read for a mutant
# that fails here.
TESTS = (
    "tests/unit/test_units.py",
    "tests/unit/test_ledger.py",
    "tests/unit/test_admission.py",
    "tests/unit/test_bid_admission.py",
    "tests/unit/test_billing.py",
    "tests/unit/test_settlement.py",
    "tests/unit/test_leases.py",
    "tests/unit/test_lease_ends.py",
    "tests/unit/test_preemption.py",
)
# The fastest first: a mutant is done with at its first failure.
LATER_TESTS = (
    "tests/unit/test_transitions.py",
    "tests/unit/test_delivery.py",
    "tests/unit/test_promises.py",
    "tests/unit/test_lifetime.py",
    "tests/unit/test_recall.py",
    "tests/unit/test_limits.py",
    "tests/unit/test_targets.py",
    "tests/unit/test_funds.py",
    "tests/simulation/test_races.py",
    "tests/simulation/test_core.py",
)
LEFT_OUT = "not reaches_every_corner"  # half a minute, for what the seeds beside it find too
# Finding and loading every plugin that is installed takes as long as the tests; and pytest-timeout would take
# the process's one alarm for its own.
PLUGINS = ("--disable-plugin-autoload", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider")
SECONDS_MAX = 60  # then it runs on for ever: killed
EXIT_TESTS_FAILED = 1
# Loaded once, before the forks; nothing of the system under test among them.
SHARED = ("hypothesis", "msgspec", "numpy", "pytest", "pytest_asyncio", "matching.book", "matching.reference")


class Swap(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.source, f"mutant of {self._mutant.module}", "exec"), vars(module))


def all_mutants(modules: Sequence[str] = MODULES, *, equivalent: bool = False) -> list[Mutant]:
    """Return the mutants of the pure modules that are wrong, or those that are said to be equivalent."""
    found: list[Mutant] = []
    for name in modules:
        found += mutants_of(f"auction.{name}", (ROOT / "auction" / f"{name}.py").read_text())
    return [mutant for mutant in found if is_equivalent(mutant) is equivalent]


def passes(mutant: Mutant | None) -> bool:
    """Say whether every test passes with this mutant in; None is the unchanged source."""
    for name in SHARED:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.startswith("auction")], "the fork would inherit it"
    child = os.fork()
    if child == 0:
        _run_tests(mutant)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    # Whatever else pytest says, a mutant that cannot even be imported was noticed.
    return code == 0


def _run_tests(mutant: Mutant | None) -> None:
    """Never returns: the process ends with pytest's exit status."""
    import pytest

    signal.alarm(SECONDS_MAX)
    quiet = os.open(os.devnull, os.O_WRONLY)
    if not os.environ.get("MUTATION_TELLS"):
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
    os.chdir(ROOT)
    if mutant is not None:
        sys.meta_path.insert(0, Swap(mutant))
    for tests in (TESTS, LATER_TESTS):
        code = pytest.main(["-x", "-q", *PLUGINS, "-k", LEFT_OUT, *tests])
        if code != pytest.ExitCode.OK:
            break
    os._exit(int(code))


def hunt(mutants: Sequence[Mutant], *, tell: bool = False) -> list[Mutant]:
    """Return the mutants that survive."""
    if not passes(None):
        raise RuntimeError("the unchanged modules fail their tests: nothing can be said of mutants")
    survivors = []
    for number, mutant in enumerate(mutants, 1):
        if passes(mutant):
            survivors.append(mutant)
            if tell:
                print(f"{number}/{len(mutants)} survives: {mutant.name}", flush=True)
        elif tell and number % 10 == 0:
            print(f"{number}/{len(mutants)}, {len(survivors)} survive", flush=True)
    return survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many of them, by the seed; 0 is all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modules", nargs="+", default=list(MODULES))
    parser.add_argument("--equivalent", action="store_true", help="those of equivalent.py: all must survive")
    options = parser.parse_args()
    mutants = all_mutants(options.modules, equivalent=options.equivalent)
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    began_s = time.monotonic()
    survivors = hunt(mutants, tell=True)
    killed = len(mutants) - len(survivors)
    print(f"{killed} {len(mutants)} {time.monotonic() - began_s:.0f}")


if __name__ == "__main__":
    main()
