"""What the switching handicap does to a crowded market: 48 simulated hours, interruptions against value.

One market on the kernel alone, no database. Jobs arrive by a Poisson process at 1.6 times the mean supply
in GPU-hours; 70 % are gangs (all their GPUs or nothing), the others take what there is; GPUs may lie
anywhere. A job wants productive GPU-hours and leaves when it has them. The first `restart_ticks` of every
GPU that is given to a job produce nothing; a gang that loses any GPU starts anew as a whole. An interrupted
job keeps its arrival and its work done. Limits stay as they were placed unless a variant says otherwise;
then a bid that is lowered ranks as a newcomer until a clearing leaves it all it holds. Owners recall a node
after 12 hours on average and give it back after 2.

Notices: who loses GPUs keeps them for two more ticks and works on; the award of the one who gets them waits
as long. If it wins again inside the notice, the notice is void. A recalled node leaves the book at once and
its tenants two ticks later; who still wins is put elsewhere (and restarts). The cheapest GPUs are the ones
sold, so a tenant may also have to move from a node that has become too dear: counted as `moved`.

The same jobs and recalls are used with every handicap of a seed. `lost` is occupied time that produced
nothing, `value` is limit x productive GPU-hours, `price` is the mean over GPUs sold. An interruption is a
job at work that loses one or more GPUs at a tick, under the first cause that struck it there; a gang that
waits for its missing GPUs is not interrupted again. Twelve hours run before anything is counted.
"""

import argparse
import hashlib
import sys
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from typing import Any

from bench import report
from bench.stability_market import CAUSES, Simulation
from bench.stability_world import World, draw
from matching import book as compiled

Figures = dict[str, Any]

HANDICAPS_BPS = (0, 200, 500, 1_000, 2_000, 5_000)
DEFAULT_HANDICAP_BPS = 1_000
FULL_SEEDS, VARIANT_SEEDS, QUICK_SEEDS = 20, 5, 2
FULL = World()
# Two hours are crowded only if jobs are short and many.
QUICK = World(
    hours=2, warm_up_hours=1, node_count=32, run_hours_median=0.25, run_hours_sigma=0.5, lent_hours_mean=3
)
# What the shape depends on: the same world but for one thing, at h = 0 and at the default handicap.
VARIANTS: dict[str, dict[str, float]] = {
    "runs of 30 minutes (median)": {"run_hours_median": 0.5},
    "runs of 8 hours (median)": {"run_hours_median": 8},
    "limits closer together (sigma 0.10)": {"limit_sigma": 0.10},
    "limits change hourly by 5 %": {"limit_changes_per_hour": 1},
    "limits change every 10 minutes by 5 %": {"limit_changes_per_hour": 6},
    "limits change hourly, lowering keeps the rank": {
        "limit_changes_per_hour": 1,
        "is_rank_lost_by_lowering": False,
    },
    "limits change every 10 minutes, lowering keeps the rank": {
        "limit_changes_per_hour": 6,
        "is_rank_lost_by_lowering": False,
    },
    "load 3": {"load": 3},
    "every bid divisible": {"gang_share": 0},
    "nobody recalls": {"lent_hours_mean": 1e6},
    "one reserve for all": {"reserve_sigma": 0},
    "512 nodes": {"node_count": 512},
}
QUICK_VARIANTS = ("limits change every 10 minutes by 5 %", "nobody recalls")
PICTURE = Path(__file__).parents[1] / "matching" / "pictures" / "stability.svg"


def run(*, quick: bool, kernel: ModuleType = compiled, seed_count: int | None = None) -> Figures:
    """Run every handicap over all seeds, then the variants; print both tables; draw the full run."""
    world = QUICK if quick else FULL
    main_seeds = range(1, 1 + (seed_count or (QUICK_SEEDS if quick else FULL_SEEDS)))
    variant_seeds = range(1, 1 + (seed_count or (QUICK_SEEDS if quick else VARIANT_SEEDS)))
    rows = simulate(kernel, world, main_seeds, HANDICAPS_BPS)
    variants = {
        name: simulate(kernel, replace(world, **changed), variant_seeds, (0, DEFAULT_HANDICAP_BPS))
        for name, changed in VARIANTS.items()
        if not quick or name in QUICK_VARIANTS
    }
    figures: Figures = {
        "world": asdict(world),
        "variant_worlds": {name: VARIANTS[name] for name in variants},
        "rows": rows,
        "variants": variants,
        "summary": summary(rows),
        "variant_summaries": {name: summary(of)[-1] for name, of in variants.items()},
    }
    hashes = [row["hash"] for of in (rows, *variants.values()) for row in of]
    figures["hash"] = hashlib.sha256("".join(hashes).encode()).hexdigest()
    _show(figures)
    if not quick:
        draw_picture(figures, PICTURE)
    return figures


def simulate(kernel: ModuleType, world: World, seeds: range, handicaps_bps: tuple[int, ...]) -> list[Figures]:
    """Return one row per seed and handicap; the handicaps of a seed share its jobs and recalls."""
    rows = []
    for seed in seeds:
        script = draw(world, seed)
        for handicap_bps in handicaps_bps:
            figures = Simulation(kernel, world, script, handicap_bps).run()
            rows.append({"seed": seed, "handicap_bps": handicap_bps, **figures})
    return rows


def summary(rows: list[Figures]) -> list[Figures]:
    """Return, per handicap, means over seeds and the paired change against no handicap with its error.

    A change is a share (0.01 = 1 %); its error is the standard error of the mean over seeds.
    """
    none = {row["seed"]: row for row in rows if row["handicap_bps"] == 0}
    result = []
    for handicap_bps in sorted({row["handicap_bps"] for row in rows}):
        of = [row for row in rows if row["handicap_bps"] == handicap_bps]
        line: Figures = {"handicap_bps": handicap_bps, "seeds": len(of)}
        for key, value in of[0].items():
            if not isinstance(value, float):
                continue
            line[key] = mean(row[key] for row in of)
            was = [none[row["seed"]][key] for row in of]
            changes = [row[key] / before - 1 for row, before in zip(of, was, strict=True) if before]
            line[f"{key}_change"] = mean(changes) if changes else 0.0
            line[f"{key}_change_error"] = stdev(changes) / sqrt(len(changes)) if len(changes) > 1 else 0.0
        result.append(line)
    return result


# -- what is shown --------------------------------------------------------------------------------------


def _show(figures: Figures) -> None:
    headers = ["handicap", "interruptions", "change", "outbid", "change", "recalled", "moved"]
    headers += ["lost, GPU-h", "value, $", "change", "price, $", "occupied", "produced"]
    rows = [
        [
            f"{line['handicap_bps'] / 100:g} %",
            f"{line['interruptions']:.1f}",
            _change(line, "interruptions"),
            f"{line['outbid']:.1f}",
            _change(line, "outbid"),
            f"{line['recalled']:.1f}",
            f"{line['moved']:.1f}",
            f"{line['lost_gpu_hours']:,.0f}",
            f"{line['value_usd']:,.0f}",
            _change(line, "value_usd", digits=2),
            f"{line['price_usd']:.3f}",
            f"{line['occupied_of_offered']:.1%}",
            f"{line['produced_of_offered']:.1%}",
        ]
        for line in figures["summary"]
    ]
    world, seeds = figures["world"], figures["summary"][0]["seeds"]
    print(
        f"\n{world['hours']:g} hours of {world['node_count']} nodes at load {world['load']:g}, {seeds} seeds;"
        " interruptions and their causes per 1,000 occupied GPU-hours, changes against no handicap\n"
    )
    print(report.table(headers, rows))
    default = next(line for line in figures["summary"] if line["handicap_bps"] == DEFAULT_HANDICAP_BPS)
    lines = {"as above": default, **figures["variant_summaries"]}
    keys = ("interruptions", "outbid", "lost_gpu_hours", "value_usd", "price_usd")
    digits = (1, 1, 1, 2, 2)
    table = [
        [
            name,
            *(_change(line, key, digits=n) for key, n in zip(keys, digits, strict=True)),
            f"{line['seeds']}",
        ]
        for name, line in lines.items()
    ]
    print(f"\nWhat a handicap of {DEFAULT_HANDICAP_BPS / 100:g} % changes, in other worlds\n")
    print(report.table(["world", "interruptions", "outbid", "lost GPU-h", "value", "price", "seeds"], table))
    print(f"\nhash {figures['hash']}")


def _change(line: Figures, key: str, *, digits: int = 1) -> str:
    """A change with its standard error, in percent."""
    change, error = 100 * line[f"{key}_change"], 100 * line[f"{key}_change_error"]
    return f"{change:+.{digits}f} ± {error:.{digits}f} %"


def draw_picture(figures: Figures, path: Path) -> bool:
    """Draw interruptions by cause and the change in value against the handicap; False without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (it is in the extra `bench`)")
        return False
    lines = figures["summary"]
    places = range(len(lines))
    labels = [f"{line['handicap_bps'] / 100:g} %" for line in lines]
    with rc_context({"svg.hashsalt": "stability", "font.size": 10, "svg.fonttype": "path"}):
        picture = Figure(figsize=(9, 3.8), layout="constrained", facecolor="white")
        causes, value = picture.subplots(1, 2)
        bottom = [0.0] * len(lines)
        for cause, colour in zip(CAUSES, ("#b5473c", "#c9a24b", "#7d8ca3"), strict=True):
            heights = [line[cause] for line in lines]
            causes.bar(places, heights, 0.62, bottom=bottom, color=colour, label=cause)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        for place, line, top in zip(places, lines, bottom, strict=True):
            text = f"{top:.1f}" if place == 0 else f"{100 * line['interruptions_change']:+.0f} %"
            causes.annotate(text, (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        causes.set_ylabel("interruptions per 1,000 GPU-hours")
        causes.set_ylim(0, 1.3 * max(bottom))
        causes.legend(frameon=False, ncols=len(CAUSES), loc="upper center")
        changes = [100 * line["value_usd_change"] for line in lines]
        errors = [100 * line["value_usd_change_error"] for line in lines]
        value.axhline(0, color="#999999", linewidth=0.8)
        value.errorbar(places, changes, yerr=errors, color="#2f6f4f", marker="o", capsize=3)
        value.set_ylabel("productive value, % against no handicap")
        value.set_title("limit x productive GPU-hours; bars: standard error", fontsize=9)
        causes.set_title("by cause", fontsize=9)
        for panel in (causes, value):
            panel.set_xticks(list(places), labels)
            panel.set_xlabel("switching handicap")
            panel.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, format="svg", metadata={"Date": None})
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, for a smoke test; writes nothing")
    parser.add_argument("--kernel", choices=("book", "reference"), default="book")
    parser.add_argument("--seeds", type=int, help="how many seeds, of the handicaps and of the variants")
    arguments = parser.parse_args()
    kernel = compiled
    if arguments.kernel == "reference":
        from matching import reference as kernel
    figures = run(quick=arguments.quick, kernel=kernel, seed_count=arguments.seeds)
    if not arguments.quick:
        print(report.write("stability", " ".join(["python -m bench.stability", *sys.argv[1:]]), figures))


if __name__ == "__main__":
    main()
