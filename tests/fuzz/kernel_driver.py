"""Plays many lives on the kernel and the reference: `python -m tests.fuzz.kernel_driver --runs N --seed S`.

Without a fuzzing engine the bytes come from a seed. `--atheris` lets atheris find them by coverage: that
needs its package, a kernel built by clang for it and its sanitizer preloaded, which `kernel_sanitized.fuzz`
sees to. The last line says how many lives and clearings were compared; a difference ends with a traceback
and the bytes that show it.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from matching import book, reference
from tests.fuzz.kernel_play import INPUT_BYTES_MAX, play

MODULES = (book, reference)


class Tally:
    """What was compared so far."""

    def __init__(self) -> None:
        self.runs = self.clearings = 0
        self.began_s = time.monotonic()

    def one(self, data: bytes) -> None:
        try:
            self.clearings += play(data, MODULES)
        except BaseException:
            print(f"the bytes that show it: {data.hex()}", file=sys.stderr, flush=True)
            raise
        self.runs += 1

    def say(self) -> None:
        rate = self.runs / max(1e-9, time.monotonic() - self.began_s)
        print(f"{self.runs} {self.clearings} {rate:.0f}", flush=True)


def seeded(runs: int, seed: int, tally: Tally) -> None:
    source = random.Random(seed)
    for _ in range(runs):
        tally.one(source.randbytes(source.randrange(4, INPUT_BYTES_MAX + 1)))


def guided(runs: int, seed: int, corpus: Path, tally: Tally, seconds_max: int) -> None:
    import atheris  # of the proof's own environment

    def target(data: bytes) -> None:
        tally.one(data)
        # libFuzzer leaves the process without coming back here.
        if tally.runs % 20_000 == 0 or tally.runs >= runs:
            tally.say()

    limits = [
        f"-runs={runs}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-seed={seed}",
        f"-max_total_time={seconds_max}",
    ]
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={corpus}/", str(corpus)], target
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", type=Path, metavar="CORPUS", help="let atheris choose the bytes")
    parser.add_argument("--seconds", type=int, default=0, help="end earlier; 0 is never")
    parser.add_argument("--bytes", metavar="HEX", help="play this one life")
    options = parser.parse_args()
    tally = Tally()
    if options.bytes:
        tally.one(bytes.fromhex(options.bytes))
    elif options.atheris:
        guided(options.runs, options.seed, options.atheris, tally, options.seconds)
    else:
        seeded(options.runs, options.seed, tally)
    tally.say()


if __name__ == "__main__":
    main()
