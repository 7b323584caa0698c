"""The recorded cluster as market inputs: nodes to lend, the owner's own work, bids with limits.

Reads `alibaba-openb-*.csv` (the cluster) and `vast-offers.csv` (what such GPUs are offered at), draws
reserves and limits from the latter with a seeded generator and decides nothing else. Times are whole
seconds of the trace, prices microusd per GPU-hour. The same parameters give the same scenario.

The trace publishes no prices and masks two of its models, so every model borrows the prices of a card
that the marketplace file has (`PRICED_LIKE`): a stated assumption, not a measurement.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from auction.units import MICROUSD_PER_USD, Price

PRICE_INCREMENT = 100
PRICE_CAP = Price(10_000_000)

# model of the trace: ((GPU model, memory in MiB from, to) of the marketplace file, why that one).
PRICED_LIKE: dict[str, tuple[tuple[str, int, int], str]] = {
    "V100M16": (("Tesla V100", 0, 20_000), "the same card"),
    "V100M32": (("Tesla V100", 20_000, 40_000), "the same card"),
    "P100": (("Tesla V100", 0, 20_000), "one generation older than the oldest card on offer"),
    "T4": (("Tesla V100", 0, 20_000), "16 GB like it; slower, so this is an upper guess"),
    "A10": (("RTX 4090", 0, 30_000), "24 GB like it"),
    "G2": (("RTX 4090", 0, 30_000), "masked by the publisher; taken for a 24 GB card"),
    "G3": (("L40S", 0, 60_000), "masked by the publisher; taken for the next class up"),
}
BID_CLASSES = frozenset({"BE", "Burstable"})  # best effort: bids. LS and Guaranteed: the owner's own
COPY_SHIFT_S = 12 * 3_600  # a copied pod arrives within half a day of its original
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run may be asked to vary; all of it goes into the result."""

    seed: int = 1
    from_day: float = 109.0  # the first bid of the trace arrives on day 109.2
    days: float = 1_000.0  # at most; the trace ends on day 149.3
    pressure: float | None = None  # GPU-hours wanted per GPU-hour of the nodes kept; None keeps all
    copies: int = 1  # of every pod
    tick_seconds: int = 300
    notice_seconds: int = 120
    settlement_seconds: int = 1_800
    start_seconds: int = 60  # from the lease's GPUs being free to the node's report
    handicap_bps: int = 1_000
    fee_bps: int = 300
    limit_sigma: float = 0.4  # of the lognormal around the list price, which is its median
    buyers: int = 50
    commit_entries: int = 500


@dataclass(frozen=True, slots=True)
class NodeSpec:
    name: str
    model: str
    gpus: int
    reserve: Price


@dataclass(frozen=True, slots=True)
class Task:
    """One pod: the owner's own work where `limit` is None, otherwise a bid."""

    name: str
    model: str
    gpus: int
    gpu_milli: int
    arrives_s: int
    run_s: int
    limit: Price | None


@dataclass(slots=True)
class Scenario:
    parameters: Parameters
    nodes: list[NodeSpec]
    tasks: list[Task]
    list_prices: dict[str, Price]
    begin_s: int
    end_s: int
    counts: dict[str, int] = field(default_factory=dict)  # pods and why some were left out


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]
    is_bid: bool
    was_scheduled: bool
    created_s: int
    deleted_s: int


@dataclass(frozen=True, slots=True)
class _PriceSample:
    """Per GPU-hour, of the offers of one card."""

    minimum_bids: list[int]
    list_price: Price


def load_scenario(directory: Path, parameters: Parameters) -> Scenario:
    """Read the files in `directory`; raises FileNotFoundError naming the one that is missing."""
    samples = {model: _read_sample(directory, *source) for model, (source, _) in PRICED_LIKE.items()}
    pods = list(_read_pods(directory))
    begin_s = int(parameters.from_day * SECONDS_PER_DAY)
    end_s = min(max(pod.deleted_s for pod in pods), begin_s + int(parameters.days * SECONDS_PER_DAY))
    scenario = Scenario(
        parameters,
        _read_nodes(directory, parameters, samples),
        [],
        {model: samples[model].list_price for model in sorted(samples)},
        begin_s,
        end_s,
    )
    _add_tasks(scenario, pods)
    if parameters.pressure is not None:
        scenario.nodes = _keep_nodes(scenario, parameters.pressure)
    return scenario


def gpus_by_model(nodes: Sequence[NodeSpec]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for node in nodes:
        totals[node.model] = totals.get(node.model, 0) + node.gpus
    return dict(sorted(totals.items()))


def _generator(seed: int, stream: int) -> np.random.Generator:
    """A generator of its own for each purpose: drawing more of one thing moves no other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))


def _read_sample(directory: Path, gpu_model: str, memory_from: int, memory_to: int) -> _PriceSample:
    minimum_bids, on_demand = [], []
    with (directory / "vast-offers.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["gpu_model"] == gpu_model and memory_from <= int(row["gpu_memory_mib"]) < memory_to:
                gpus = int(row["gpu_count"])
                minimum_bids.append(_on_grid(float(row["min_bid_usd_per_hour"]) / gpus))
                on_demand.append(float(row["on_demand_usd_per_hour"]) / gpus)
    return _PriceSample(minimum_bids, Price(_on_grid(float(np.median(on_demand)))))


def _on_grid(usd_per_hour: float) -> int:
    """The one place where a price stops being a float."""
    level = round(usd_per_hour * MICROUSD_PER_USD / PRICE_INCREMENT)
    return min(max(level, 1) * PRICE_INCREMENT, PRICE_CAP)


def _read_nodes(directory: Path, parameters: Parameters, samples: dict[str, _PriceSample]) -> list[NodeSpec]:
    """Read every node and draw its reserve; largest first inside a model."""
    dice = _generator(parameters.seed, 0)
    by_model: dict[str, list[tuple[str, int]]] = {}
    with (directory / "alibaba-openb-gpu-nodes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_model.setdefault(row["model"], []).append((row["sn"], int(row["gpu"])))
    nodes = []
    for model in sorted(by_model):
        for name, gpus in sorted(by_model[model], key=lambda machine: (-machine[1], machine[0])):
            reserve = samples[model].minimum_bids[int(dice.integers(len(samples[model].minimum_bids)))]
            nodes.append(NodeSpec(name, model, gpus, Price(reserve)))
    return nodes


def _keep_nodes(scenario: Scenario, pressure: float) -> list[NodeSpec]:
    """Keep of each model an even sample, by size, of as many nodes as its pods need at this pressure.

    The first of them is one of the largest, so every gang still has a node that it fits.
    """
    wanted: dict[str, float] = {}
    for task in scenario.tasks:
        gpus = task.gpus * task.run_s / (scenario.end_s - scenario.begin_s)
        wanted[task.model] = wanted.get(task.model, 0.0) + gpus
    kept: list[NodeSpec] = []
    for model in sorted(wanted):
        machines = [node for node in scenario.nodes if node.model == model]
        for number in range(1, len(machines) + 1):
            sample = [machines[index * len(machines) // number] for index in range(number)]
            if sum(node.gpus for node in sample) >= wanted[model] / pressure:
                break
        kept += sample
    return kept


def _read_pods(directory: Path) -> Iterator[_Pod]:
    with (directory / "alibaba-openb-pods.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield _Pod(
                row["name"],
                int(row["num_gpu"]),
                int(row["gpu_milli"]),
                tuple(sorted(set(filter(None, row["gpu_spec"].split("|"))))),
                row["qos"] in BID_CLASSES,
                bool(row["scheduled_time"]),
                int(row["creation_time"]),
                int(row["deletion_time"]),
            )


def _add_tasks(scenario: Scenario, pods: Sequence[_Pod]) -> None:
    parameters, counts = scenario.parameters, scenario.counts
    model_dice, shift_dice, limit_dice = (_generator(parameters.seed, stream) for stream in (1, 2, 3))
    largest: dict[str, int] = {}
    for node in scenario.nodes:
        largest[node.model] = max(node.gpus, largest.get(node.model, 0))
    weights = gpus_by_model(scenario.nodes)
    for pod in pods:
        _count(counts, "pods_in_trace")
        if pod.gpus == 0:
            _count(counts, "dropped_without_gpu")
            continue
        for copy in range(parameters.copies):
            # Draws happen for every pod, used or not: the window chosen moves nobody else's numbers.
            shift_s = int(shift_dice.integers(-COPY_SHIFT_S, COPY_SHIFT_S)) if copy else 0
            point, deviation = float(model_dice.random()), float(limit_dice.standard_normal())
            fitting = {
                model: weights[model]
                for model in (pod.models or tuple(weights))
                if largest.get(model, 0) >= pod.gpus
            }
            if not fitting:
                _count(counts, "dropped_no_node_fits")
                continue
            model = _pick(fitting, point)
            limit = _on_grid(
                scenario.list_prices[model] / MICROUSD_PER_USD * np.exp(parameters.limit_sigma * deviation)
            )
            _add_task(scenario, pod, copy, shift_s, model, Price(limit) if pod.is_bid else None)
    scenario.tasks.sort(key=lambda task: (task.arrives_s, task.name))


def _add_task(
    scenario: Scenario, pod: _Pod, copy: int, shift_s: int, model: str, limit: Price | None
) -> None:
    counts = scenario.counts
    created_s, deleted_s = pod.created_s + shift_s, pod.deleted_s + shift_s
    arrives_s = max(created_s, scenario.begin_s)
    if deleted_s <= scenario.begin_s or created_s >= scenario.end_s:
        _count(counts, "dropped_outside_window")
        return
    if deleted_s <= arrives_s:
        _count(counts, "dropped_without_run_time")
        return
    _count(counts, "bids" if limit is not None else "owner_tasks")
    if pod.gpu_milli < 1000:
        _count(counts, "bids_of_part_of_a_gpu" if limit is not None else "owner_tasks_of_part_of_a_gpu")
    if not pod.was_scheduled:
        _count(counts, "never_scheduled_in_trace")
    # Work beyond the window's end cannot be done and is not counted as asked for.
    run_s = min(deleted_s, scenario.end_s) - arrives_s
    name = f"{pod.name}.{copy}"
    scenario.tasks.append(Task(name, model, pod.gpus, pod.gpu_milli, arrives_s, run_s, limit))


def _pick(weights: dict[str, int], point: float) -> str:
    """The model at `point` (0..1) of the weights laid end to end, in order of name."""
    models = sorted(weights)
    left = point * sum(weights.values())
    for model in models:
        left -= weights[model]
        if left < 0:
            return model
    return models[-1]


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
