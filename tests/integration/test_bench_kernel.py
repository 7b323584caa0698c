"""The kernel's benchmarks at their smoke size: they run, agree with their baselines, and have not rotted.

Every measured round compares the kernel's price and fills with three other clearings, so a run that ends
is a run in which all of them decided the same. Times are not asserted.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as program
from bench import growth, report, ticks
from bench.baselines import Batch, FlatSide
from bench.books import GANG_SHARE, KernelSide, Live

needs_compiler = pytest.mark.skipif(
    report.machine()["compiler"] is None, reason="the C baselines need a compiler"
)


@pytest.fixture(scope="module")
def tick_figures():
    return ticks.run(quick=True)


@needs_compiler
def test_ticks_run_and_their_figures_can_be_written(tick_figures, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    path = report.write("ticks", "python -m bench --quick", tick_figures)
    assert tick_figures["hash"] == json.loads(path.read_text())["figures"]["hash"]
    assert {"cpu", "cores", "kernel", "python", "numpy", "compiler"} <= set(report.read("ticks")["machine"])


@needs_compiler
def test_the_same_seed_decides_the_same(tick_figures):
    assert tick_figures["hash"] == ticks.run(quick=True)["hash"]


@needs_compiler
def test_every_question_of_ticks_has_an_answer(tick_figures):
    rows = program.answers({"ticks": tick_figures})
    answered = [row for row in rows if row.part == "ticks"]
    assert len(answered) >= 8
    assert all(row.verdict in ("met", "missed") for row in answered)
    assert {"not run"} == {row.verdict for row in rows if row.part != "ticks"}


@needs_compiler
def test_growth_gives_figures_without_a_picture():
    figures = growth.run(quick=True)
    assert [row["resting"] for row in figures["rows"]] == list(growth.QUICK.resting)
    assert not figures["has_picture"]


@needs_compiler
@pytest.mark.skipif(find_spec("matplotlib") is None, reason="pictures need matplotlib")
def test_growth_draws_its_picture(tmp_path):
    growth.run(quick=True, picture=tmp_path / "pictures" / "growth.svg")
    text = (tmp_path / "pictures" / "growth.svg").read_text()
    assert "resting bids" in text and "milliseconds a tick" in text


@needs_compiler
@pytest.mark.parametrize("seed", range(5))
def test_all_engines_clear_alike_after_every_tick(seed):
    """Small books, so that levels are empty and margins lie in every place; most of the book changes."""
    live = Live(60 + 40 * seed, seed=seed)
    side, flat = KernelSide(live), FlatSide(live, spare=len(live))
    for _ in range(20):
        changes = live.change(len(live) // 2)
        events = side.tick(changes).events
        assert events == flat.tick(changes).events
        flat.check(side)
        Batch(live).check(side)


def test_gang_books_are_drawn_as_they_say():
    live = Live(20_000, seed=1, has_gangs=True)
    bids = live.bids
    assert float((bids.min_gpus > 1).mean()) == pytest.approx(GANG_SHARE, abs=0.01)
    assert np.array_equal(bids.min_gpus > 1, bids.colocated == 1)
    assert float((bids.valid_until_ticks > 0).mean()) == pytest.approx(0.5, abs=0.02)
    assert live.supply.gpus / int(bids.gpus.sum()) == pytest.approx(0.3, abs=0.01)


def test_ratios_and_tables():
    assert 2 == report.median_ratio([2, 4, 9], [1, 2, 3])
    text = report.table(["name", "ms"], [["one", "1.50"], ["twenty", "20.25"]])
    assert ["| name   |    ms |", "|--------|------:|", "| one    |  1.50 |", "| twenty | 20.25 |"] == (
        text.splitlines()
    )


def test_a_part_without_its_package_is_named_not_run(capsys, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'highspy'", name="highspy")

    monkeypatch.setattr(program, "import_module", fail)
    assert program.run_part("quality", quick=True) is None
    assert "highspy" in capsys.readouterr().out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    text = capsys.readouterr().out
    assert all(part in text for part in program.PARTS)
    assert str(Path(report.RESULTS).name) in text
