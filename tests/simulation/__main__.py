"""Live one seed again, or many: `python -m tests.simulation server --seed 7 --days 0.5`."""

import argparse
import sys

from tests.simulation.lives import FULL_CALM_SECONDS, live_all


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("layer", choices=["core", "server"])
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--days", type=float, default=1, help="of each seed, in virtual time")
    parser.add_argument("--calm-seconds", type=float, default=FULL_CALM_SECONDS, help="between big faults")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    lives = live_all(
        range(options.seed, options.seed + options.seeds),
        layer=options.layer,
        days=options.days,
        calm_seconds=options.calm_seconds,
        workers=options.workers,
    )
    print(lives)
    sys.exit(bool(lives.violations))


if __name__ == "__main__":
    main()
