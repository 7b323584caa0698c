"""Small wrongs that a programmer might write, made one at a time out of a module's syntax tree.

Comparison, arithmetic, boolean, constant, condition, return, and a call that is left out. Left alone are:
asserts (they may only be stricter), what is raised with its words, texts, annotations, and constants at a
module's top, which are policy: a test that repeats them tests nothing.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    module: str
    line: int
    what: str
    source: str
    function: str = ""
    text: str = ""  # of its line, as it was

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line} {self.what}"


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    texts = source.splitlines()
    functions = {
        line: node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    made = []
    for node, field, replacement, what in list(_places(tree)):
        right = _get(node, field)
        line = int(getattr(right, "lineno", getattr(node, "lineno", 0)))  # an operator has none of its own
        _put(node, field, replacement)
        wrong = ast.unparse(ast.fix_missing_locations(tree))
        made.append(Mutant(module, line, what, wrong, functions[line], texts[line - 1].strip()))
        _put(node, field, right)
    return made


def _get(node: ast.AST, field: str | tuple[str, int]) -> ast.AST:
    found: ast.AST = getattr(node, field[0])[field[1]] if isinstance(field, tuple) else getattr(node, field)
    return found


def _put(node: ast.AST, field: str | tuple[str, int], replacement: ast.AST) -> None:
    if isinstance(field, tuple):
        getattr(node, field[0])[field[1]] = replacement
    else:
        setattr(node, field, replacement)


Place = tuple[ast.AST, str | tuple[str, int], ast.AST, str]


def _places(tree: ast.AST) -> Iterator[Place]:
    """Yield (node, field, replacement, what) for each wrong; only inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for number, statement in enumerate(node.body):
                yield from _own(node, ("body", number), statement)
                yield from _wrongs(statement)


def _wrongs(node: ast.AST) -> Iterator[Place]:
    if isinstance(node, ast.Assert | ast.Raise | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield from _own(node, "value", node.value)
            yield from _wrongs(node.value)
        return
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, ast.AST):
                field: str | tuple[str, int] = (name, index) if isinstance(value, list) else name
                yield from _own(node, field, child)
                yield from _wrongs(child)


def _own(parent: ast.AST, field: str | tuple[str, int], node: ast.AST) -> Iterator[Place]:
    """Yield what can be wrong with this node itself."""
    if isinstance(node, ast.Assert | ast.Raise):
        return
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            wrong = COMPARISONS[type(operator)]
            yield node, ("ops", number), wrong(), f"{type(operator).__name__} is {wrong.__name__}"
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        other = ARITHMETIC[type(node.op)]
        yield node, "op", other(), f"{type(node.op).__name__} is {other.__name__}"
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield node, "op", swapped(), f"{type(node.op).__name__} is {swapped.__name__}"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield parent, field, node.operand, "not is left out"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield parent, field, ast.Constant(not node.value), f"{node.value} is {not node.value}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield parent, field, ast.Constant(node.value + 1), f"{node.value} is {node.value + 1}"
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield node, "value", ast.Constant(None), "nothing is returned"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield parent, field, ast.Pass(), f"{ast.unparse(node.value.func)}() is left out"
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare):
        yield node, "test", ast.UnaryOp(ast.Not(), node.test), "the condition is negated"


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
