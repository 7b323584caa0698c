"""What mutation promises: a small wrong in the money's and the leases' rules does not go unnoticed."""

import subprocess
import sys

from tests.mutation.killing import ROOT
from tests.proof.promise import Outcome, Promise, Size

SAMPLE_SHORT = 8
KILLED_MIN = 0.9
# Eight mutants say little about a rate; a suite that misses more than two of them has lost its teeth.
KILLED_SHORT_MIN = 0.75
SECONDS_MAX = {Size.SHORT: 570, Size.FULL: 4 * 3_600}


def kill_mutants(size: Size, seed: int) -> Outcome:
    """Run the fast tests on a sample of the mutants, or on all."""
    sample = SAMPLE_SHORT if size is Size.SHORT else 0
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation.killing", "--seed", str(seed), "--sample", str(sample)],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX[size],
    )  # fmt: skip
    if done.returncode != 0:
        return Outcome(False, done.stderr.strip().splitlines()[-1][:300])
    *told, last = done.stdout.strip().splitlines()
    killed, count, _ = map(int, last.split())
    survivors = [line.partition("survives: ")[2] for line in told if "survives: " in line]
    rate = killed / count
    figure = (
        f"{killed} of {count} mutants killed ({rate:.0%}); survivors: {'; '.join(survivors[:8]) or 'none'}"
    )
    return Outcome(rate >= (KILLED_MIN if size is Size.FULL else KILLED_SHORT_MIN), figure)


PROMISES: list[Promise] = [
    Promise(
        "mutation",
        "a small wrong in units, ledger, admission, alternatives, leases or billing fails a fast test",
        "comparison, arithmetic, boolean, constant, condition, return, left-out-call mutants, one at a time",
        f"at least {KILLED_MIN:.0%} of all mutants killed",
        kill_mutants,
    ),
]
