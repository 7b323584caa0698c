"""The upgrade's comparison has teeth: a migration that loses or changes live rows is found."""

from dataclasses import replace

import pytest

from sql import migrate as module
from tests.upgrade import upgrade as upgrading
from tests.upgrade.upgrade import upgrade_all


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("UPDATE bids SET spent = 0;", "bids"),
        ("DELETE FROM notices;", "notices"),
        ("UPDATE leases SET carry = (carry + 1) % 3600;", "leases"),
    ],
)
async def test_a_migration_that_harms_live_rows_is_found(server, monkeypatch, planted, found):
    """The last migration with a line more, on a database filled before it came."""
    known = module.load_migrations()
    harmful = [*known[:-1], replace(known[-1], text=known[-1].text + planted)]
    (sound,) = await upgrade_all(server, [len(known) - 1])
    assert sound.is_sound, sound
    source = await server.new_database()
    await upgrading.live(source)
    monkeypatch.setattr(module, "load_migrations", lambda: harmful)
    (harmed,) = [await upgrading.upgrade(server, source, len(known) - 1)]
    assert found in harmed.differs and not harmed.is_sound
