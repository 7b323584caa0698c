"""What upgrading promises: every earlier schema becomes today's with its market unharmed."""

import asyncio
import tempfile
from pathlib import Path

from sql.migrate import load_migrations
from tests.proof.promise import Outcome, Promise, Size
from tests.support import Server
from tests.upgrade.upgrade import upgrade_all


def upgrade_every_schema(size: Size, seed: int) -> Outcome:
    """Upgrade all versions; CI takes the first, the middle and the last before today's. No chance in it."""
    newest = len(load_migrations())
    versions = list(range(1, newest)) if size is Size.FULL else [1, newest // 2, newest - 1]
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name) / "postgres")
        try:
            upgraded = asyncio.run(upgrade_all(server, versions))
        finally:
            server.stop()
    wrong = [one for one in upgraded if not one.is_sound]
    rows = sum(one.rows for one in upgraded)
    replayed = sum(one.is_replayed for one in upgraded)
    figure = f"{len(upgraded) - len(wrong)} of {len(upgraded)} schemas (of {newest - 1}), {rows:,} rows"
    told = f"{figure}: rows equal, audit clean, newer refused; {replayed} replay to the same state"
    return Outcome(not wrong, f"{figure}; {wrong[:2]}" if wrong else told)


PROMISES: list[Promise] = [
    Promise(
        "upgrade",
        "a market on any earlier schema migrates to today's and audits equal; a newer schema is refused",
        "today's rows cut to each old schema, under its constraints; migrated, compared, audited, replayed",
        "every schema before today's",
        upgrade_every_schema,
    ),
]
