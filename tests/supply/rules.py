"""The house's own rules about source, by syntax tree: what no ready-made linter knows of this system.

No SQL outside `sql/`; no clock and no dice outside `auction/clock.py` and `auction/ids.py`; no float where
money is decided; secrets are compared in constant time; no key and no private key lies in the repository.
Each function says where a rule is broken, as `line: what`.
"""

import ast
import re
from collections.abc import Iterator

from api.keys import parse_key

MONEY_MODULES = frozenset(
    f"auction/{name}.py"
    for name in (
        "units",
        "ledger",
        "billing",
        "admission",
        "accounts",
        "leases",
        "funds",
        "limits",
        "bidding",
    )
)
# Its statements read the catalogue and the settings, no tenant's rows.
ASKS_THE_SERVER_OF_ITSELF = "fallow/doctor.py"
CLOCK_AND_DICE = frozenset({"auction/clock.py", "auction/ids.py"})
_SQL = re.compile(
    r"\s*(SELECT\s.+\sFROM\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|(CREATE|ALTER|DROP)\s+TABLE\s)",
    re.DOTALL,
)
_NOW = frozenset(
    {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
)
_DICE = frozenset({"random", "uuid"})
_SECRET = re.compile(r"(^|[._])(secret|signature|token|password|mac)(_sha256|_text)?$")
_KEY = re.compile(r"fal_(?:live|test)_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}")
_PRIVATE = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*\n[A-Za-z0-9+/=]{40}")


def sql_outside(path: str, tree: ast.AST) -> Iterator[str]:
    """SQL is written in `sql/` alone: only there a connection's role and tenant are set."""
    if path.startswith("sql/") or path == ASKS_THE_SERVER_OF_ITSELF:
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
        if is_text and _SQL.match(node.value):
            yield f"{node.lineno}: SQL"


def clock_or_dice(path: str, tree: ast.AST) -> Iterator[str]:
    """Time and chance come through their ports, or nothing can be replayed."""
    if path in CLOCK_AND_DICE:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if f"{node.value.id}.{node.attr}" in _NOW:
                yield f"{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import) and {alias.name for alias in node.names} & _DICE:
            yield f"{node.lineno}: chance"
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.module in _DICE or (node.module == "time" and names & {"time", "time_ns"}):
                yield f"{node.lineno}: from {node.module}"


def float_in_money(path: str, tree: ast.AST) -> Iterator[str]:
    """Money is whole microdollars from end to end."""
    if path not in MONEY_MODULES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{node.lineno}: the float {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield f"{node.lineno}: a true division"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield f"{node.lineno}: float"


def secret_compared(path: str, tree: ast.AST) -> Iterator[str]:
    """Who compares a secret with `==` tells how far a guess was right."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        for side in (node.left, *node.comparators):
            if isinstance(side, ast.Name | ast.Attribute) and _SECRET.search(ast.unparse(side)):
                yield f"{node.lineno}: {ast.unparse(side)} compared with =="


def secret_kept(text: str) -> Iterator[str]:
    """A key with a right checksum or a private key has no place in any file."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in _KEY.findall(line):
            if parse_key(found) is not None:
                yield f"{number}: a key"
    for found in _PRIVATE.finditer(text):
        yield f"{text.count(chr(10), 0, found.start()) + 1}: a private key"


SOURCE_RULES = (sql_outside, clock_or_dice, float_in_money, secret_compared)
