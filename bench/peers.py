"""Order by order beside published matching engines: the same orders, the same trades, from Python.

W(R, M) is in workload.py, the engines and what is timed in peer_adapters.py and fallow_adapter.py. Every
measurement is a process of its own; a round runs each side once, in turn forwards and backwards, and a ratio
is the median over rounds of the pairwise ratios. Fills, quantity, value and bids left are compared with the
book of reference after each run, as far as an engine tells them (limit-order-book returns no fills), so
every rate is of the same work. Rates are operations a second of one core.

CppTrader, called natively from C++, is not run here. Its recorded rate is scaled by a peer that was measured
beside it then and is measured now: scaled = recorded * (peer now / peer then). The highest of the three
scalings known is the one that the array interface is held to.

limit-order-book and nanobook come with `pip install '.[bench]'`. matching-engine needs CPython 3.12 or newer:
FALLOW_BENCH_PYTHON312 names an interpreter that has `matching-engine==0.1.1` (default: this one, then
python3.12).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench import report
from bench.workload import Trades, generate

Figures = dict[str, Any]

ROOT = Path(__file__).parent.parent
OURS, ARRAYS = "fallow", "fallow arrays"
FAST, EXACT, PLACES_ONLY = "limit-order-book", "matching-engine", "nanobook"
PLACE_TARGET, MIXED_TARGET, ARRAY_TARGET = 4, 6, 2
RUN_SECONDS_MAX = 300

# Recorded side by side on one machine: (peer, its mixed rate at W(1M, 1M), CppTrader's, where from).
CPPTRADER_RECORDED = (
    (FAST, 351_000, 1_080_000, "one paired run"),
    (FAST, 417_000, 1_350_000, "medians of separate runs"),
    (EXACT, 204_000, 1_350_000, "medians of separate runs"),
)
# Recorded bytes a resting order at 1 M; ours is measured by the part `ticks`.
BYTES_RECORDED = ((FAST, "87"), (EXACT, "172"), (PLACES_ONLY, "274"), ("CppTrader", "178 to 202"))


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run: sizes of book by the name of their row."""

    resting: dict[str, int]
    operations: int
    place_repeats: dict[str, int]  # within a process, each on a new book
    rounds: int


FULL = Size({"10k": 10_000, "1m": 1_000_000}, 1_000_000, {"10k": 20, "1m": 1}, rounds=5)
QUICK = Size({"10k": 1_000, "1m": 2_000}, 5_000, {"10k": 2, "1m": 1}, rounds=2)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the comparison: who runs what on which book."""

    name: str
    sides: tuple[str, ...]
    case: str
    size: str


def run(*, quick: bool) -> Figures:
    """Measure all rows; return the rates of every round, ratios and the answers to the targets."""
    size = QUICK if quick else FULL
    interpreters = find_interpreters()
    figures: Figures = {"rounds": size.rounds, "operations": size.operations, "cases": []}
    figures["versions"] = {name: version for name, (_, version) in interpreters.items()}
    for label, resting in size.resting.items():
        workload = generate(resting, size.operations)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "workload"
            workload.save(path)
            for case in cases_of(label, interpreters):
                row = measure(case, size, path, workload.trades, interpreters)
                figures["cases"].append({"resting": resting, "trades": _as_dict(workload.trades), **row})
    figures["answers"] = answers(figures["cases"])
    figures["bytes_recorded"] = dict(BYTES_RECORDED)
    if EXACT not in interpreters:
        print(f"\n{EXACT} was not measured: no interpreter has it, see FALLOW_BENCH_PYTHON312 in this module")
    print_tables(figures)
    return figures


def cases_of(label: str, interpreters: dict[str, tuple[str, str]]) -> list[Case]:
    """Return the rows at one size of book, without the peers that are not there."""
    mixed = (OURS, FAST, EXACT) if label == "10k" else (OURS, FAST, EXACT, ARRAYS)
    sides = {"place": (OURS, FAST, PLACES_ONLY, EXACT), "mixed": mixed}
    return [
        Case(f"{case}_{label}", tuple(side for side in some if side in interpreters), case, label)
        for case, some in sides.items()
    ]


def find_interpreters() -> dict[str, tuple[str, str]]:
    """Return (interpreter, version) by side; raise where a peer of this Python is missing."""
    found = {OURS: (sys.executable, ""), ARRAYS: (sys.executable, "")}
    for name in (FAST, PLACES_ONLY):
        version = _version(sys.executable, name)
        if version is None:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
        found[name] = (sys.executable, version)
    for interpreter in (os.environ.get("FALLOW_BENCH_PYTHON312"), sys.executable, shutil.which("python3.12")):
        version = _version(interpreter, EXACT) if interpreter else None
        if interpreter and version:
            found[EXACT] = (interpreter, version)
            break
    return found


def measure(
    case: Case, size: Size, path: Path, trades: Trades, interpreters: dict[str, tuple[str, str]]
) -> Figures:
    """Run the rounds of one row; return rates (operations a second) and the ratios of ours to each."""
    rates: dict[str, list[float]] = {side: [] for side in case.sides}
    repeats = size.place_repeats[case.size] if case.case == "place" else 1
    more: Figures = {}
    for number in range(size.rounds):
        for side in case.sides if number % 2 == 0 else reversed(case.sides):
            figures = run_side(side, case.case, path, repeats, interpreters[side][0])
            check(side, figures, trades)
            rates[side].append(figures["operations"] / median(figures["seconds"]))
            more |= {name: figures[name] for name in ("too_late",) if name in figures}
    ratios = {
        f"{ours} to {side}": report.median_ratio(rates[ours], rates[side])
        for ours in (OURS, ARRAYS)
        for side in case.sides
        if ours in case.sides and side not in (OURS, ARRAYS)
    }
    return {"name": case.name, "rates": rates, "ratios": ratios, **more}


def run_side(side: str, case: str, path: Path, repeats: int, interpreter: str) -> Figures:
    """Time one side in a new process; return what it printed."""
    if side in (OURS, ARRAYS):
        what = ["-m", "bench.fallow_adapter", "array" if side == ARRAYS else case]
    else:
        what = ["-I", str(ROOT / "bench" / "peer_adapters.py"), side, case]
    command = [interpreter, *what, str(path), str(repeats)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"{side} {case} failed:\n{done.stderr}"
    figures: Figures = json.loads(done.stdout)
    return figures


def check(side: str, figures: Figures, trades: Trades) -> None:
    """Compare what an engine did with the reference; arrays order bids otherwise and sell as much."""
    told = ("quantity",) if side == ARRAYS else ("fills", "quantity", "value", "live")
    for name in told:
        if name in figures:
            assert figures[name] == getattr(trades, name), f"{side}: {name} {figures[name]}, not {trades}"


def scaled_cpptrader(rates: dict[str, list[float]]) -> list[Figures]:
    """Return each scaling of CppTrader's recorded rate, round by round, with its arithmetic."""
    rows = []
    for peer, then, recorded, source in CPPTRADER_RECORDED:
        if peer not in rates:
            continue
        scaled = [recorded * (now / then) for now in rates[peer]]
        now = median(rates[peer])
        text = f"{recorded:,} * ({peer} now {now:,.0f} / then {then:,}) = {recorded * now / then:,.0f}"
        rows.append({"peer": peer, "source": source, "scaled": scaled, "arithmetic": text})
    return rows


def answers(cases: Sequence[Figures]) -> Figures:
    """Return the answers to the targets; one whose peer is missing is left out."""
    by_name = {case["name"]: case for case in cases}
    found: Figures = {}
    for label in ("10k", "1m"):
        ratios = by_name[f"place_{label}"]["ratios"]
        key, least = min(ratios.items(), key=lambda item: item[1])
        text = f"{least:.2f} x {key.split(' to ')[1]}"
        found[f"place_{label}"] = {"measured": text, "is_met": least >= PLACE_TARGET}
    name = f"{OURS} to {EXACT}"
    mixed = {label: by_name[f"mixed_{label}"]["ratios"].get(name) for label in ("10k", "1m")}
    if None not in mixed.values():
        text = ", ".join(f"{ratio:.2f} x (R = {label})" for label, ratio in mixed.items())
        found["mixed_1m"] = {"measured": text, "is_met": min(mixed.values()) >= MIXED_TARGET}
    rates = by_name["mixed_1m"]["rates"]
    strictest = max(scaled_cpptrader(rates), key=lambda row: median(row["scaled"]))
    ratio = report.median_ratio(rates[ARRAYS], strictest["scaled"])
    found["array_1m"] = {
        "measured": f"{ratio:.2f} x ({median(strictest['scaled']):,.0f}/s, scaled by {strictest['peer']})",
        "is_met": ratio >= ARRAY_TARGET,
    }
    return found


def print_tables(figures: Figures) -> None:
    """Print rates and ratios, how CppTrader was scaled, and the memory recorded."""
    rows = []
    for case in figures["cases"]:
        for side, rates in case["rates"].items():
            spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
            by = [case["ratios"].get(f"{ours} to {side}") for ours in (OURS, ARRAYS)]
            cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in by]
            name = f"{side} {figures['versions'].get(side, '')}".strip()
            rows.append([case["name"], name, f"{median(rates):,.0f}", spread, *cells])
    headers = ["case", "engine", "median op/s", "least to most", "ours per call / it", "our arrays / it"]
    print(report.table(headers, rows))
    last = figures["cases"][-1]
    rates = last["rates"]
    print("\nCppTrader, native, mixed, 1 M resting: scaled from what was recorded")
    scaled = [
        [row["arithmetic"], row["source"], *(_ratio(rates[ours], row["scaled"]) for ours in (OURS, ARRAYS))]
        for row in scaled_cpptrader(rates)
    ]
    print(
        report.table(
            ["scaled = recorded * (peer now / then), op/s", "recorded in", "ours", "our arrays"], scaled
        )
    )
    late, all_of_them = last["too_late"], figures["operations"]
    print(f"\nIn ticks, {late:,} of {all_of_them:,} operations were cancels of bids already served.")
    print("\nBytes a resting order at 1 M, recorded")
    print(report.table(["engine", "bytes"], [list(row) for row in BYTES_RECORDED]))


def _ratio(ours: Sequence[float], other: Sequence[float]) -> str:
    return f"{report.median_ratio(ours, other):.2f} x"


def _as_dict(trades: Trades) -> dict[str, int]:
    return {name: getattr(trades, name) for name in trades.__slots__}


def _version(interpreter: str, name: str) -> str | None:
    """The version of a package that an interpreter has, or None."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    done = subprocess.run([interpreter, "-I", "-c", code, name], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
