"""PostgreSQL: migrations, named queries, and the thin code that runs them. No decisions, no HTTP."""

from functools import cache
from importlib import resources


@cache
def query(name: str) -> str:
    """Return the text of `sql/queries/<name>.sql`; raises FileNotFoundError for an unknown name."""
    return resources.files("sql").joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
