"""Every promise's short form is kept, every suite is in the list, and the table can be trusted."""

import ast
from pathlib import Path

import pytest

from tests.proof import table
from tests.proof.__main__ import EXIT_MISSED, EXIT_NOT_RUN, EXIT_USAGE, PAGE, main
from tests.proof.promise import Outcome, Promise, Size
from tests.proof.suites import SUITES, collect

TESTS = Path(__file__).parents[1]
SEED = 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("promise", collect(), ids=lambda promise: promise.name)
def test_the_short_form_is_kept(promise):
    """What cannot run here says why; every other promise is kept."""
    outcome = promise.run(Size.SHORT, SEED)
    assert outcome.figure, "an outcome says what it saw"
    assert outcome.is_kept is not False, f"{promise.promise}: {outcome.figure} (target {promise.target})"
    if outcome.is_kept is None:
        pytest.skip(outcome.figure)


def test_every_module_with_promises_is_named():
    """No promise is forgotten: the list is compared with the files."""
    keeping = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "PROMISES" for target in targets):
                keeping.add(".".join(["tests", *path.relative_to(TESTS).with_suffix("").parts]))
    assert set(SUITES) == keeping


def test_two_promises_of_one_name_are_refused(monkeypatch):
    import sys
    import types

    module = types.ModuleType("twins")
    module.PROMISES = [make_promise("a"), make_promise("a")]
    monkeypatch.setitem(sys.modules, "twins", module)
    with pytest.raises(AssertionError, match="one name"):
        collect(["twins"])


def make_promise(name, is_kept=True, figure="1 of 1"):
    def run(size, seed):
        if figure == "raise":
            raise ValueError("no such thing")
        return Outcome(is_kept, f"{figure}, {size.value}, seed {seed}")

    return Promise(name, f"{name} holds | always", "by looking", "all", run)


def test_the_table_keeps_rows_of_earlier_runs(tmp_path):
    """`--only` replaces its own row; what it leaves out stays as it was, word for word."""
    page = tmp_path / "PROOF.md"
    both = [make_promise("a"), make_promise("b")]
    assert main(["--page", str(page), "--seed", "3"], both) == 0
    before = table.parse(page.read_text())
    assert ["a", "b"] == [row.name for row in before]
    assert {"3"} == {row.seed for row in before}
    assert "b holds | always" == before[1].promise
    assert main(["--page", str(page), "--only", "a", "--short"], [make_promise("a", False), both[1]]) == 1
    after = table.parse(page.read_text())
    assert before[1] == after[1]
    assert ("**missed**", "short", "1 of 1, short, seed 1") == (
        after[0].verdict,
        after[0].size,
        after[0].figure,
    )


def test_a_promise_that_is_gone_leaves_the_table(tmp_path):
    page = tmp_path / "PROOF.md"
    main(["--page", str(page)], [make_promise("a"), make_promise("b")])
    main(["--page", str(page)], [make_promise("b")])
    assert ["b"] == [row.name for row in table.parse(page.read_text())]


@pytest.mark.parametrize(
    ("promise", "code", "verdict"),
    [
        (make_promise("a", False), EXIT_MISSED, "**missed**"),
        (make_promise("a", None, "no compiler"), EXIT_NOT_RUN, "not run"),
        (make_promise("a", figure="raise"), EXIT_MISSED, "**missed**"),
    ],
)
def test_what_failed_is_in_the_table_as_failed(tmp_path, promise, code, verdict):
    page = tmp_path / "PROOF.md"
    assert code == main(["--page", str(page)], [promise])
    (row,) = table.parse(page.read_text())
    assert verdict == row.verdict


def test_an_unknown_name_is_refused(capsys):
    assert EXIT_USAGE == main(["--only", "nonsense"], [make_promise("a")])
    assert "no such promise: nonsense" in capsys.readouterr().err


def test_a_broken_row_is_an_error():
    page = table.render([], ["here"]) + "| a | b |\n"
    with pytest.raises(AssertionError, match="expected 11 cells, found 2"):
        table.parse(page)


def test_the_committed_table_names_known_promises():
    """The page in the tree can be read, and every row of it is a promise of today."""
    rows = table.parse(PAGE.read_text()) if PAGE.exists() else []
    assert {row.name for row in rows} <= {promise.name for promise in collect()}
