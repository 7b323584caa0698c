"""The markets of RULES.md as linear and mixed-integer programs, and HiGHS as their solver.

Every program maximises limit x GPUs served minus reserve x GPUs used, in levels, by columns and rows
as small as they can be while staying exact. Four facts make them small:

- Of gangs that differ in nothing but their limit an optimum takes the dearest, so the *number* taken
  is the integer and the gangs themselves are continuous: one integer column a size, not one a gang.
- Sizes divide each other (X1), so items of up to 8 GPUs fill blocks of 8 one after the other without
  a gap: on whole blocks only the total counts, and the cheapest blocks serve it.
- A larger gang takes whole blocks of one domain. What a domain's blocks are used for does not change
  what they cost, so it is enough that the blocks used in a domain cover its larger gangs.
- Only GPUs that do not make up a block (the last 3 of 11) need an integer a machine and size.

Must not know about the kernel. `highspy` is imported by `solve` alone: the rest runs without it.
"""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

BLOCK_GPUS = 8
SIZES_ON_NODE = (2, 4, 8)
SIZES_ABOVE_NODE = (16, 32, 64)
INFINITY = float("inf")

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bids:
    """One bid a row: limit in levels, GPUs, the least it takes (1 or all), and if it is co-located."""

    limits: Integers
    gpus: Integers
    min_gpus: Integers
    colocated: NDArray[np.bool_]

    def __post_init__(self) -> None:
        assert bool(((self.min_gpus == 1) | (self.min_gpus == self.gpus)).all()), "1 or all"

    @property
    def is_gang(self) -> NDArray[np.bool_]:
        """Bids that take all or nothing; one GPU is always both."""
        return self.min_gpus > 1


@dataclass(frozen=True, slots=True)
class Offers:
    """One machine a row: reserve in levels per GPU, GPUs, and its interconnect domain (-1: none)."""

    reserves: Integers
    gpus: Integers
    domains: Integers


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Bids over several markets: alternative a is bid `bids[a]` in market `markets[a]` at `limits[a]`."""

    gpus: Integers  # of each bid
    min_gpus: Integers  # of each bid: 1 or all
    bids: Integers
    markets: Integers
    limits: Integers


@dataclass(frozen=True, slots=True)
class Program:
    """Maximise objective @ x subject to lower <= x <= upper and the rows, some x whole."""

    objective: Integers
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    is_integral: NDArray[np.bool_]
    row_lower: list[float]
    row_upper: list[float]
    starts: list[int]
    columns: NDArray[np.int32]
    coefficients: NDArray[np.float64]
    bid_columns: Integers  # of bid i: GPUs if divisible, share of the gang otherwise


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver says. `bound` is proven: no solution is better. `seconds` is its run alone."""

    status: str
    value: float
    bound: float
    seconds: float
    x: NDArray[np.float64]

    @property
    def is_optimal(self) -> bool:
        return self.status == "Optimal"

    def exact_value(self, program: Program) -> int:
        """The objective of the solution rounded to whole numbers, in exact arithmetic."""
        whole = np.rint(self.x)
        assert float(np.abs(whole - self.x).max(initial=0.0)) < 1e-5, "a fractional vertex"
        return int(whole.astype(np.int64) @ program.objective)


class _Builder:
    """Collects columns and rows."""

    def __init__(self) -> None:
        self._columns: list[tuple[Integers, NDArray[np.float64], NDArray[np.float64], bool]] = []
        self._rows: list[tuple[NDArray[np.int32], NDArray[np.float64], float, float]] = []
        self._count = 0

    def add(self, objective: Integers, upper: Integers | float, *, whole: bool = False) -> Integers:
        """Add columns from 0 to `upper`; return their numbers."""
        objective = np.atleast_1d(np.asarray(objective, dtype=np.int64))
        upper_each = np.broadcast_to(np.asarray(upper, dtype=np.float64), objective.shape)
        self._columns.append((objective, np.zeros(len(objective)), upper_each, whole))
        first, self._count = self._count, self._count + len(objective)
        return np.arange(first, self._count)

    def add_row(self, *terms: tuple[Integers, float | Integers], low: float = 0.0, high: float = 0.0) -> None:
        """Add low <= sum of coefficient x column <= high; a term is (columns, coefficients)."""
        columns = np.concatenate([np.asarray(columns, dtype=np.int32) for columns, _ in terms])
        values = [np.broadcast_to(np.asarray(value, dtype=np.float64), len(c)) for c, value in terms]
        self._rows.append((columns, np.concatenate(values), low, high))

    def build(self, bid_columns: Integers) -> Program:
        parts, rows = self._columns, self._rows
        return Program(
            objective=np.concatenate([part[0] for part in parts]),
            lower=np.concatenate([part[1] for part in parts]),
            upper=np.concatenate([part[2] for part in parts]),
            is_integral=np.concatenate([np.full(len(part[0]), part[3]) for part in parts]),
            row_lower=[row[2] for row in rows],
            row_upper=[row[3] for row in rows],
            starts=[0, *np.cumsum([len(row[0]) for row in rows]).tolist()],
            columns=np.concatenate([row[0] for row in rows]),
            coefficients=np.concatenate([row[1] for row in rows]),
            bid_columns=bid_columns,
        )


def divisible(bids: Bids, offers: Offers) -> Program:
    """The LP relaxation: every bid divisible, GPUs fungible. One row: GPUs served = GPUs used."""
    builder = _Builder()
    served = builder.add(bids.limits, bids.gpus)
    used = builder.add(-offers.reserves, offers.gpus)
    builder.add_row((served, 1), (used, -1))
    return builder.build(served)


def gangs_by_bid(bids: Bids, offers: Offers) -> Program:
    """The MILP as one writes it first: a binary for each gang. GPUs are fungible, one row."""
    builder = _Builder()
    bid_columns = np.zeros(len(bids.limits), dtype=np.int64)
    gang = bids.is_gang
    bid_columns[gang] = builder.add((bids.limits * bids.gpus)[gang], 1, whole=True)
    bid_columns[~gang] = builder.add(bids.limits[~gang], bids.gpus[~gang])
    used = builder.add(-offers.reserves, offers.gpus)
    builder.add_row((bid_columns, np.where(gang, bids.gpus, 1)), (used, -1))
    return builder.build(bid_columns)


def gangs(bids: Bids, offers: Offers) -> Program:
    """The same MILP with one integer a size: how many gangs of that size are served."""
    builder = _Builder()
    bid_columns, counts, spread = _demand(builder, bids, by_colocation=False)
    used = builder.add(-offers.reserves, offers.gpus)
    sizes = [(column, size) for (size, _), column in counts.items()]
    builder.add_row((spread, 1), *sizes, (used, -1))
    return builder.build(bid_columns)


def packed(bids: Bids, offers: Offers) -> Program:
    """The MILP of X1: co-located gangs on one node, above 8 GPUs on whole blocks of one domain.

    It chooses nodes: how many GPUs of each machine are used, and how many larger gangs each domain
    carries. The counters of the chain lemma are not in it; that the chosen nodes suffice is the second
    and third fact of this module's docstring.
    """
    builder = _Builder()
    bid_columns, counts, spread = _demand(builder, bids, by_colocation=True)
    items = {size: column for (size, is_colocated), column in counts.items() if is_colocated}
    anywhere = [(column, size) for (size, is_colocated), column in counts.items() if not is_colocated]
    blocks = offers.gpus // BLOCK_GPUS
    used = builder.add(-offers.reserves, blocks * BLOCK_GPUS)
    rest = _rests(builder, offers)
    on_blocks: list[tuple[Integers, float | Integers]] = []
    for size in SIZES_ON_NODE:
        if size in items:
            carried = builder.add(np.zeros(1, np.int64), INFINITY)
            builder.add_row((carried, 1), (rest.get(size, _NO_COLUMNS), 1), (items[size], -1))
            on_blocks.append((carried, -size))
    singles = builder.add(np.zeros(1, np.int64), INFINITY)
    wanted = [(columns, -np.asarray(size)) for columns, size in [(spread, 1), *anywhere]]
    builder.add_row((singles, 1), (rest.get(1, _NO_COLUMNS), 1), *wanted)
    on_blocks.append((singles, -1))
    larger = {size: column for size, column in items.items() if size in SIZES_ABOVE_NODE}
    assert len(items) == len(larger) + sum(size in items for size in SIZES_ON_NODE), "not a size of the chain"
    _domains(builder, offers, blocks, used, larger)
    on_blocks += [(column, -size) for size, column in larger.items()]
    builder.add_row((used, 1), *on_blocks)
    return builder.build(bid_columns)


def substitutes(wishes: Alternatives, offers: Offers, offer_markets: Integers, *, whole: bool) -> Program:
    """X3: a bid is served over its alternatives, up to its GPUs in all; machines are fungible.

    With `whole` a gang is served entirely in one market or not at all, by a binary an alternative;
    without, everything is divisible (the LP). `bid_columns` are those of the alternatives, in GPUs for
    a divisible bid and as a share for a gang.
    """
    builder = _Builder()
    gang = (wishes.min_gpus > 1)[wishes.bids] & whole
    size = wishes.gpus[wishes.bids]
    columns = np.zeros(len(wishes.bids), dtype=np.int64)
    columns[gang] = builder.add((wishes.limits * size)[gang], 1, whole=True)
    columns[~gang] = builder.add(wishes.limits[~gang], size[~gang])
    per_unit = np.where(gang, size, 1)
    used = builder.add(-offers.reserves, offers.gpus)
    for market in np.unique(np.concatenate([wishes.markets, offer_markets])).tolist():
        here, there = wishes.markets == market, offer_markets == market
        builder.add_row((columns[here], per_unit[here]), (used[there], -1))
    order = np.argsort(wishes.bids, kind="stable")
    numbers, starts = np.unique(wishes.bids[order], return_index=True)
    for number, own in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        if len(own) > 1:
            high = 1 if gang[own[0]] else int(wishes.gpus[number])
            builder.add_row((columns[own], 1), low=-INFINITY, high=high)
    return builder.build(columns)


def with_fills(program: Program, bids: Bids, fills: Integers) -> Program:
    """The same program with every bid's fill given: what is left to choose is where it is placed."""
    given = np.where(bids.is_gang, fills // bids.gpus, fills).astype(np.float64)
    lower, upper = program.lower.copy(), program.upper.copy()
    lower[program.bid_columns] = upper[program.bid_columns] = given
    return Program(
        program.objective, lower, upper, program.is_integral, program.row_lower, program.row_upper,
        program.starts, program.columns, program.coefficients, program.bid_columns,
    )  # fmt: skip


def solve(
    program: Program, *, time_limit_s: float, relative_gap: float = 0.0, has_presolve: bool = True
) -> Solution:
    """Solve with HiGHS as it comes, but for what the arguments say; only its run is timed.

    When the limit strikes, `value` is the best solution found (0 is always one) and `bound` what HiGHS
    has proven, so a ratio to `bound` can only be too low.
    """
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", time_limit_s)
    solver.setOptionValue("mip_rel_gap", relative_gap)
    solver.setOptionValue("mip_abs_gap", 0.5)  # the optimum of whole levels is a whole number
    if not has_presolve:
        solver.setOptionValue("presolve", "off")
    solver.passModel(_model(program))
    start = perf_counter()
    solver.run()
    seconds = perf_counter() - start
    info = solver.getInfo()
    status = solver.modelStatusToString(solver.getModelStatus())
    value = float(info.objective_function_value)
    if program.is_integral.any():
        bound = float(info.mip_dual_bound)
    else:
        bound = value if status == "Optimal" else INFINITY
    return Solution(status, value, bound, seconds, np.asarray(solver.getSolution().col_value))


_NO_COLUMNS = np.zeros(0, dtype=np.int64)


def _demand(
    builder: _Builder, bids: Bids, *, by_colocation: bool
) -> tuple[Integers, dict[tuple[int, bool], Integers], Integers]:
    """Add the bids; return their columns, {(size, co-located): column of the count}, divisible columns."""
    columns = np.zeros(len(bids.limits), dtype=np.int64)
    gang = bids.is_gang
    colocated = bids.colocated & gang if by_colocation else np.zeros_like(gang)
    spread = columns[~gang] = builder.add(bids.limits[~gang], bids.gpus[~gang])
    counts: dict[tuple[int, bool], Integers] = {}
    for size, is_colocated in sorted(
        set(zip(bids.gpus[gang].tolist(), colocated[gang].tolist(), strict=True))
    ):
        alike = gang & (bids.gpus == size) & (colocated == is_colocated)
        columns[alike] = builder.add(bids.limits[alike] * size, 1)
        count = builder.add(np.zeros(1, np.int64), int(alike.sum()), whole=True)
        builder.add_row((columns[alike], 1), (count, -1))
        counts[size, is_colocated] = count
    return columns, counts, spread


def _rests(builder: _Builder, offers: Offers) -> dict[int, Integers]:
    """Add the GPUs beyond each machine's blocks; return {size: columns of the items they carry}."""
    found: dict[int, list[Integers]] = {}
    for reserve, gpus in zip(offers.reserves.tolist(), (offers.gpus % BLOCK_GPUS).tolist(), strict=True):
        sizes = [size for size in (1, *SIZES_ON_NODE) if size <= gpus]
        items = [builder.add(np.array([-reserve * size]), gpus // size, whole=size > 1) for size in sizes]
        for size, column in zip(sizes, items, strict=True):
            found.setdefault(size, []).append(column)
        if len(sizes) > 1:
            builder.add_row(*zip(items, sizes, strict=True), low=-INFINITY, high=gpus)
    return {size: np.concatenate(columns) for size, columns in found.items()}


def _domains(
    builder: _Builder, offers: Offers, blocks: Integers, used: Integers, larger: dict[int, Integers]
) -> None:
    """Spread the gangs above a node's size over domains whose used blocks cover them."""
    carried: dict[int, list[Integers]] = {size: [] for size in larger}
    for domain in np.unique(offers.domains[offers.domains >= 0]).tolist():
        own = (offers.domains == domain) & (blocks > 0)
        gpus = int(blocks[own].sum()) * BLOCK_GPUS
        here = [(builder.add(np.zeros(1, np.int64), gpus // size, whole=True), -size) for size in larger]
        for column, size in here:
            carried[-size].append(column)
        if here:
            builder.add_row((used[own], 1), *here, high=INFINITY)
    for size, column in larger.items():
        builder.add_row(*[(part, 1) for part in carried[size]], (column, -1))


def _model(program: Program) -> object:
    import highspy

    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.objective), len(program.row_lower)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = program.objective.astype(np.float64)
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_ = np.array(program.row_lower, dtype=np.float64)
    model.row_upper_ = np.array(program.row_upper, dtype=np.float64)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(program.starts, dtype=np.int32)
    model.a_matrix_.index_ = program.columns
    model.a_matrix_.value_ = program.coefficients
    if program.is_integral.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[whole] for whole in program.is_integral.tolist()]
    return model
