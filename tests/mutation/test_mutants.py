"""Mutants are what they say, and a test that looks at nothing is told from one that looks."""

import ast
import subprocess
import sys

from tests.mutation import killing
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import Mutant, mutants_of

SOURCE = '''
LIMIT = 5

def pick(a: int, b: int = 2) -> int:
    """Say."""
    assert a > 0
    if a <= b and not b == 3:
        tell(a)
        return a + 1
    raise ValueError(f"{a + 1}")
'''


def test_every_kind_of_wrong_is_made_once_and_nothing_else_is_touched():
    found = {mutant.what for mutant in mutants_of("m", SOURCE)}
    assert {
        "the condition is negated", "And is Or", "LtE is Lt", "not is left out", "Eq is NotEq", "3 is 4",
        "tell() is left out", "nothing is returned", "Add is Sub", "1 is 2",
    } == found  # fmt: skip


def test_a_mutant_is_another_program_and_a_valid_one():
    right = ast.unparse(ast.parse(SOURCE))
    sources = [mutant.source for mutant in mutants_of("m", SOURCE)]
    assert len(sources) == len(set(sources))
    for source in sources:
        assert right != source
        compile(source, "mutant", "exec")


def test_a_mutant_says_where_it_is():
    found = {(mutant.line, mutant.function, mutant.text) for mutant in mutants_of("m", SOURCE)}
    assert {
        (7, "pick", "if a <= b and not b == 3:"), (8, "pick", "tell(a)"), (9, "pick", "return a + 1"),
    } == found  # fmt: skip


def test_each_mutant_that_is_said_to_be_equivalent_is_there():
    """A line that was changed since is to be thought about again."""
    found = {
        (mutant.module, mutant.function, mutant.text, mutant.what)
        for mutant in killing.all_mutants(equivalent=True)
    }
    assert set(EQUIVALENT) == found


def test_a_survivor_is_told_from_a_killed_one(tmp_path):
    """Goal: the hunt itself has teeth. Method: one mutant, with a test that looks and one that does not."""
    source = (killing.ROOT / "auction" / "units.py").read_text()
    assert "divmod(remainder + price" in source
    wrong = Mutant("auction.units", 0, "wrong", source.replace("divmod(remainder + price", "divmod(price"))
    looks = "from auction.units import charge\n\ndef test_it():\n    assert charge(3599, 1, 1, 1) == (1, 0)\n"
    sleeps = "from auction.units import charge\n\ndef test_it():\n    assert charge\n"
    verdicts = {}
    for name, text in (("looks", looks), ("sleeps", sleeps)):
        test = tmp_path / f"test_{name}.py"
        test.write_text(text)
        program = (
            "from tests.mutation import killing\n"
            f"killing.TESTS = killing.LATER_TESTS = ({str(test)!r},)\n"
            f"wrong = killing.Mutant('auction.units', 0, 'wrong', {wrong.source!r})\n"
            "print(killing.passes(None), killing.passes(wrong))\n"
        )
        verdicts[name] = in_a_process_of_its_own(program)
    assert {"looks": "True False", "sleeps": "True True"} == verdicts


def in_a_process_of_its_own(program):
    """This one has the system under test imported, which a fork would inherit."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=killing.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
