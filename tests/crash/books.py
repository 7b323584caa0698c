"""What the books say after a run, read past every proxy: the audit, the replay, and who has which row.

Also the small market that the suites without HTTP trade in.
"""

from collections import Counter
from typing import Any

import msgspec

from auction.commands import CreateAccount, CreateMarket, Deposit
from auction.engine import Engine
from auction.ids import random_id
from auction.recovery import verify_replay
from sql.audit import audit
from sql.pool import Database
from tests.simulation.driver import make_market

DEPOSIT = 10**12


async def open_market(engine: Engine, accounts: list[str], **settings: Any) -> str:
    """Make a market without machines and buyers with money; return its name."""
    market = make_market(tick_seconds=1, **settings)
    await engine.execute(CreateMarket(market))
    for account in accounts:
        await engine.execute(CreateAccount(account, account, ["buyer"]))
        await engine.execute(Deposit(random_id("dep"), account, DEPOSIT))
    return market.id


async def what_is_wrong(database: Database) -> list[str]:
    """Audit and replay; return what they object to."""
    connection = await database.connect()
    try:
        wrong = [
            f"audit: {found.claim}: {found.first_bad}" for found in await audit(connection) if not found.is_ok
        ]
    finally:
        await connection.close()
    store = database.store()
    await store.attach()
    try:
        replay = await verify_replay(store)
    finally:
        await store.close()
    return wrong if replay.is_match else [*wrong, f"replay: {replay.first_difference}"]


async def bids_by_key(database: Database) -> dict[str, list[str]]:
    """Return the bids that carry a label `key`, by it."""
    found: dict[str, list[str]] = {}
    connection = await database.connect()
    try:
        rows = await connection.fetch("SELECT id, labels FROM bids ORDER BY seq")
    finally:
        await connection.close()
    for bid, labels in rows:
        key = msgspec.msgpack.decode(labels, type=dict[str, str]).get("key")
        if key is not None:
            found.setdefault(key, []).append(bid)
    return found


async def deposits(database: Database) -> Counter[str]:
    """Return how often each deposit was credited."""
    connection = await database.connect()
    try:
        rows = await connection.fetch("SELECT reference FROM transfers WHERE code = 'deposit'")
    finally:
        await connection.close()
    return Counter(row["reference"] for row in rows)
