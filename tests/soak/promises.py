"""What a soak promises: half a load for half an hour leaves nothing behind and keeps the beat."""

import os

from tests.proof.promise import Outcome, Promise, Size
from tests.soak.soak import TICK_S, Health, run_soak

SECONDS_SHORT = 20.0
SECONDS_FULL = 1_800.0
SECONDS = float(os.environ.get("FALLOW_SOAK_SECONDS", SECONDS_FULL))
SLOPE_MIB_PER_HOUR_MAX = 1.0
# A few seconds say nothing about a slope; what leaks with every request is seen by then.
GROWTH_MIB_SHORT_MAX = 4.0
# Connections of readers and of the load come and go by a few.
FLAT_DESCRIPTORS, FLAT_TASKS = 4, 8
JITTER_MS_MAX = TICK_S * 100.0
# A machine that does something else beside a short run says little about percentiles.
JITTER_MS_SHORT_MAX = TICK_S * 1_000.0


def complaints(health: Health, size: Size) -> list[str]:
    """Return what is not as promised."""
    found = []
    is_full = size is Size.FULL
    if is_full and health.slope_mib_per_hour >= SLOPE_MIB_PER_HOUR_MAX:
        found.append("memory grows")
    if not is_full and health.growth_mib >= GROWTH_MIB_SHORT_MAX:
        found.append("memory grows")
    if health.descriptors[1] - health.descriptors[0] > FLAT_DESCRIPTORS:
        found.append("descriptors grow")
    if health.tasks[1] - health.tasks[0] > FLAT_TASKS:
        found.append("tasks grow")
    if health.jitter_p99_ms >= (JITTER_MS_MAX if is_full else JITTER_MS_SHORT_MAX):
        found.append("ticks are late")
    if health.failed:
        found.append(f"{health.failed} requests failed")
    return found


def keep_still(size: Size, seed: int) -> Outcome:
    """Run; there is no chance in it, the seed is not used."""
    health = run_soak(SECONDS_SHORT if size is Size.SHORT else SECONDS)
    found = complaints(health, size)
    figure = (
        f"{health.seconds:,.0f} s at {health.rate:,.0f} requests/s ({health.requests:,}): "
        f"{health.slope_mib_per_hour:+.1f} MiB/h after warm-up, "
        f"{health.rss_mib:.0f} MiB ({health.growth_mib:+.2f}), "
        f"descriptors {health.descriptors[0]} to {health.descriptors[1]}, "
        f"tasks {health.tasks[0]} to {health.tasks[1]}, "
        f"tick jitter p99 {health.jitter_p99_ms:.1f} ms over {health.ticks} ticks"
    )
    if size is Size.FULL and SECONDS < SECONDS_FULL:
        found.append(f"shorter than {SECONDS_FULL:,.0f} s")
    return Outcome(not found, f"{figure}; {', '.join(found) or 'nothing grew'}")


PROMISES: list[Promise] = [
    Promise(
        "soak",
        "memory, file descriptors and tasks stay flat under load, and the ticks keep their beat",
        "a server in a process of its own at half of the rate that it can carry; audit and replay afterwards",
        "30 minutes: under 1 MiB/h after warm-up, descriptors and tasks flat, jitter p99 under a tenth tick",
        keep_still,
    ),
]
