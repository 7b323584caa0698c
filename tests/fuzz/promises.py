"""What fuzzing promises: the kernel decides as the reference, the surface neither falls over nor tells."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.kernel_sanitized import build_for_atheris, fuzz
from tests.fuzz.surface import run_attack
from tests.kernel_builds import ROOT
from tests.proof.promise import Outcome, Promise, Size
from tests.proof.tools import NoTools

KERNEL_LIVES_SHORT = 5_000
KERNEL_LIVES_FULL = 10_000_000
SURFACE_REQUESTS_SHORT = 2_000
SURFACE_REQUESTS_FULL = 1_000_000
# One core compares some 1,300 lives a second under the sanitizers.
SECONDS_MAX = int(os.environ.get("FALLOW_FUZZ_SECONDS", 4 * 3_600))


def fuzz_kernel(size: Size, seed: int) -> Outcome:
    """Play lives on both sides, in the full form under the sanitizers with bytes found by coverage."""
    if size is Size.SHORT:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.kernel_driver", "--runs", str(KERNEL_LIVES_SHORT),
             "--seed", str(seed)],
            cwd=ROOT, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        if done.returncode != 0:
            return Outcome(False, f"differs or fell over: {done.stderr[-400:]}")
        lives, clearings, rate = map(int, done.stdout.split()[-3:])
        figure = f"{lives:,} lives, {clearings:,} clearings, 0 differences ({rate:,} a second)"
        return Outcome(
            lives == KERNEL_LIVES_SHORT, f"{figure}; bytes from the seed, neither atheris nor sanitizers"
        )
    with tempfile.TemporaryDirectory() as name:
        try:
            where = build_for_atheris(Path(name) / "build")
            lives, clearings, rate, wrong = fuzz(
                where, Path(name) / "corpus", runs=KERNEL_LIVES_FULL, seed=seed, seconds=SECONDS_MAX
            )
        except NoTools as absent:
            return Outcome(None, str(absent))
    if wrong:
        return Outcome(False, f"after some {lives:,} lives: {wrong[-400:]}")
    figure = f"{lives:,} lives, {clearings:,} clearings, 0 differences, 0 reports ({rate:,} a second)"
    return Outcome(lives >= KERNEL_LIVES_FULL, figure)


def fuzz_surface(size: Size, seed: int) -> Outcome:
    """Attack a real server with structured and raw requests and socket messages."""
    count = SURFACE_REQUESTS_SHORT if size is Size.SHORT else SURFACE_REQUESTS_FULL
    seen = run_attack(count, seed, seconds_max=SECONDS_MAX)
    unavailable = seen.statuses[503]
    figure = (
        f"{seen.requests:,} requests in {seen.seconds:,.0f} s, {len(seen.faults)} faults, "
        f"{len(seen.leaks)} leaks, {unavailable} times 503; audit and replay clean; "
        f"afterwards a newcomer {'may not bid: ' + seen.not_well if seen.not_well else 'bids'}"
    )
    if seen.faults or seen.leaks or seen.not_well:
        return Outcome(False, f"{figure}; {seen.leaks[:1]} {seen.faults[:1]}"[:1_500])
    return Outcome(seen.requests >= count, figure)


PROMISES: list[Promise] = [
    Promise(
        "fuzz-kernel",
        "the compiled kernel decides as the reference on any input, and refuses what it refuses",
        "differential fuzzing with atheris under ASan and UBSan (-fno-wrapv), the kernel's own checks on",
        f"{KERNEL_LIVES_FULL:,} lives, no difference, no report",
        fuzz_kernel,
    ),
    Promise(
        "fuzz-surface",
        "no request and no message makes the server fail, and no reply shows another tenant's text or object",
        "requests from /openapi.json, raw bytes and socket messages against a real server; canary texts",
        f"{SURFACE_REQUESTS_FULL:,} requests, no 5xx but 503, no leak, audit and replay clean afterwards",
        fuzz_surface,
    ),
]
