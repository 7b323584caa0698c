"""A few bytes become the life of a book, played on the compiled kernel and on the reference at once.

Every byte string means something, valid or not: what one side refuses the other must refuse too, and what
both accept must give the same answers: clearings, explanations, probes, depths, expiries. Numbers lie mostly
inside the bounds and now and then one step or very far beyond them. Knows nothing of who makes the bytes.
"""

from types import ModuleType
from typing import Any

import numpy as np

from matching.types import CHAIN, GPU_COUNT_MAX, NONE

INPUT_BYTES_MAX = 64
LEVELS = 12
# What Cython makes of a number beyond 64 bits is an OverflowError, the reference's bounds say ValueError.
REFUSALS = (ValueError, KeyError, OverflowError)
HANDICAPS_BPS = (0, 0, 1, 100, 1_000, 2_500, 99_999, 100_000)
POSITIONS_BPS = (None, None, None, 0, 1, 5_000, 9_999, 10_000)
REFINEMENTS = (0, 0, 3, 200)
QUESTIONS = ("explain", "would_win", "probe", "depth", "expired")
# The highest count that is allowed is not among them: the reference counts GPUs one by one.
STRANGE = (-1, 0, LEVELS + 1, GPU_COUNT_MAX + 1, 2**31, 2**32, 2**63, -(2**63) - 1)


class Differs(AssertionError):
    """The two sides do not say the same."""


class Source:
    """Numbers out of bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data[:INPUT_BYTES_MAX]
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        at, self._at = self._at, self._at + 1
        return self._data[at] if at < len(self._data) else 0

    def number(self, low: int, high: int) -> int:
        """Return one of low..high; for one byte in 32 something that should be refused."""
        value = self.byte()
        if value >= 248:
            return STRANGE[self.byte() % len(STRANGE)]
        return low + value % (high - low + 1)

    def one_of(self, choices: Any) -> Any:
        return choices[self.byte() % len(choices)]


class Play:
    """Two books that live the same life."""

    def __init__(self, source: Source, modules: tuple[ModuleType, ...]) -> None:
        self.source = source
        settings: dict[str, Any] = dict(
            handicap_bps=source.one_of(HANDICAPS_BPS),
            level_count=LEVELS,
            refine_below_bids=source.one_of(REFINEMENTS),
            price_position_bps=source.one_of(POSITIONS_BPS),
        )
        self.is_refined = settings["refine_below_bids"] > 0
        self.sides = [module.Book(**settings) for module in modules]
        # Per object its handle on each side. The kernel gives a dead one's handle out again, so none stays.
        self.bids: list[tuple[int, ...]] = []
        self.offers: list[tuple[int, ...]] = []
        self.seq = 0
        self.clearings = 0
        self.is_cleared = False  # and nothing has changed since

    def both(self, name: str, *arguments: Any, handles: tuple[Any, ...] | None = None) -> Any:
        """Call both sides; return their answers, None if both refused."""
        answers: list[Any] = []
        for number, side in enumerate(self.sides):
            given = arguments if handles is None else (handles[number], *arguments)
            try:
                answers.append((getattr(side, name)(*given), None))
            except REFUSALS as refusal:
                answers.append((None, type(refusal).__name__))
        self.is_cleared = self.is_cleared and name in QUESTIONS
        refused = [refusal is not None for _, refusal in answers]
        if len(set(refused)) != 1:
            raise Differs(f"{name}{arguments}: one side refuses: {answers}")
        return None if refused[0] else [answer for answer, _ in answers]

    def same(self, name: str, *arguments: Any, handles: tuple[Any, ...] | None = None) -> Any:
        answers = self.both(name, *arguments, handles=handles)
        # A book that has changed since explains nothing that can be compared: it only must not fall over.
        # Bisection needs I9, which holds in every book but a refined one (RULES.md X7).
        is_comparable = self.is_cleared if name == "explain" else name != "would_win" or not self.is_refined
        if answers is not None and answers[0] != answers[1] and is_comparable:
            raise Differs(f"{name}{arguments}: {answers[0]} and {answers[1]}")
        return None if answers is None else answers[0]

    def run(self) -> None:
        steps = (
            self.place, self.place, self.place, self.place_many, self.offer, self.offer, self.clear,
            self.clear, self.amend, self.cancel, self.hold, self.hold_winners, self.withdraw, self.reprice,
            self.ask, self.cancel_many,
        )  # fmt: skip
        while self.source:
            self.source.one_of(steps)()
        self.clear()
        for handles in self.bids:
            self.same("explain", handles=handles)
        self.same("would_win", handles=self._which(self.bids))

    def place(self) -> None:
        source = self.source
        is_colocated = source.byte() % 3 == 0
        gpus = source.one_of(CHAIN) if is_colocated else source.number(1, 9)
        minimum = gpus if is_colocated else source.number(1, max(1, min(gpus, 9)))
        arrival = (source.number(0, 3), source.number(0, 3), self.seq)
        self.seq += 1
        valid_until = source.number(0, 3)
        answers = self.both(
            "place_bid", source.number(1, LEVELS), gpus, minimum, *arrival, is_colocated,
            len(self.bids) % 3, valid_until,
        )  # fmt: skip
        if answers is not None:
            self.bids.append(tuple(answers))

    def place_many(self) -> None:
        source = self.source
        count = source.byte() % 4
        self.is_cleared = False
        limits = [source.number(1, LEVELS) for _ in range(count)]
        gpus = [source.number(1, 9) for _ in range(count)]
        columns = [_column(limits), _column(gpus), _column([1] * count)]
        hashes = np.array([source.byte() % 4 for _ in range(count)], dtype=np.uint32)
        answers: list[Any] = []
        for side in self.sides:
            try:
                handles = side.place_bids(*columns, hashes, arrival_tick=1, first_seq=self.seq)
                answers.append(handles.tolist())
            except REFUSALS:
                answers.append(None)
        if len({answer is None for answer in answers}) != 1:
            raise Differs(f"place_bids({limits}, {gpus}): {answers}")
        self.seq += count
        if answers[0] is not None:
            self.bids.extend(zip(*answers, strict=True))

    def offer(self) -> None:
        source = self.source
        node = source.number(-1, 4)
        # A node lies in one domain all its life.
        domain = node % 2 if 0 <= node <= 3 else NONE
        answers = self.both("place_offer", source.number(0, LEVELS), source.number(1, 8), node, domain)
        if answers is not None:
            self.offers.append(tuple(answers))

    def clear(self) -> None:
        clearings = [side.clear() for side in self.sides]
        if clearings[0][:-2] != clearings[1][:-2]:
            raise Differs(f"clear: {clearings[0]} and {clearings[1]}")
        changes = []
        for number, clearing in enumerate(clearings):
            names = {handles[number]: name for name, handles in enumerate(self.bids)}
            fills = zip(clearing.handles.tolist(), clearing.fills.tolist(), strict=True)
            changes.append({names[handle]: fill for handle, fill in fills})
        if changes[0] != changes[1]:
            raise Differs(f"clear: fills changed {changes[0]} and {changes[1]}")
        self.clearings += 1
        self.is_cleared = True

    def amend(self) -> None:
        source = self.source
        gpus = source.number(1, 9)
        self.both(
            "amend_bid", source.number(1, LEVELS), gpus, source.number(1, max(1, min(gpus, 9))),
            handles=self._which(self.bids),
        )  # fmt: skip

    def cancel(self) -> None:
        handles = self._which(self.bids)
        if self.both("cancel_bid", handles=handles) is not None:
            self.bids.remove(handles)
            if self.both("cancel_bid", handles=handles) is not None:
                raise Differs("a bid was cancelled twice")

    def cancel_many(self) -> None:
        """Some handles at once, now and then one of them twice or dead: then none of it happens."""
        count = self.source.byte() % 4
        chosen = [self._which(self.bids) for _ in range(count)]
        columns = tuple(_column([handles[number] for handles in chosen]) for number in range(2))
        if self.both("cancel_bids", handles=columns) is not None:
            for handles in chosen:
                self.bids.remove(handles)

    def hold(self) -> None:
        self.both("set_held", self.source.number(0, 9), handles=self._which(self.bids))

    def hold_winners(self) -> None:
        """What the market does after a clearing: who won is an incumbent at the next."""
        self.clear()
        outcomes = [self.same("explain", handles=handles) for handles in self.bids]
        for handles, outcome in zip(self.bids, outcomes, strict=True):
            if outcome is not None:
                self.both("set_held", outcome.fill, handles=handles)

    def withdraw(self) -> None:
        handles = self._which(self.offers)
        if self.both("cancel_offer", handles=handles) is not None:
            self.offers.remove(handles)
            if self.both("cancel_offer", handles=handles) is not None:
                raise Differs("an offer was withdrawn twice")

    def reprice(self) -> None:
        source = self.source
        self.both(
            "amend_offer", source.number(0, LEVELS), source.number(1, 8), handles=self._which(self.offers)
        )

    def ask(self) -> None:
        """Questions that must change nothing."""
        source = self.source
        self.same("explain", handles=self._which(self.bids))
        self.same("would_win", handles=self._which(self.bids))
        is_colocated = source.byte() % 2 == 0
        gpus = source.one_of(CHAIN) if is_colocated else source.number(1, 9)
        self.same("probe", source.number(1, LEVELS), gpus, gpus if is_colocated else 1, is_colocated)
        self.same("depth", source.number(0, LEVELS))
        tick = max(-(2**31), min(2**31, source.number(0, 4)))  # it is cut to the range, not refused
        told = self.both("expired", tick)
        if told is not None:
            names = [
                sorted(name for name, handles in enumerate(self.bids) if handles[number] in set(told[number]))
                for number in range(2)
            ]
            if names[0] != names[1]:
                raise Differs(f"expired({tick}): {names[0]} and {names[1]}")

    def _which(self, objects: list[tuple[int, ...]]) -> tuple[int, ...]:
        which = self.source.byte()
        if not objects or which == 255:
            return (10_000 + which,) * 2
        return objects[which % len(objects)]


def play(data: bytes, modules: tuple[ModuleType, ...]) -> int:
    """Live one life on both; return how many clearings were compared. Raises Differs."""
    one = Play(Source(data), modules)
    one.run()
    return one.clearings


def _column(values: list[int]) -> Any:
    return np.array([max(-(2**31), min(2**31 - 1, value)) for value in values], dtype=np.int32)
