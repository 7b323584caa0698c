"""Each rule finds what it forbids, and not what it allows."""

import ast

import pytest

from api.keys import checksum
from tests.supply import promises, tools
from tests.supply.promises import broken_rules, know_parts
from tests.supply.rules import clock_or_dice, float_in_money, secret_compared, secret_kept, sql_outside

STEM = "fal_" + "test_" + "A" * 10 + "_" + "b" * 43


@pytest.mark.parametrize(
    ("rule", "path", "forbidden", "allowed"),
    [
        (sql_outside, "api/x.py", 'x = "SELECT a FROM bids"', '"""Select a bid from bids."""'),
        (sql_outside, "api/x.py", 'x = f"DELETE FROM bids WHERE {y}"', 'x = "delete"'),
        (clock_or_dice, "api/x.py", "import time\ntime.time()", "import time\ntime.monotonic()"),
        (clock_or_dice, "api/x.py", "from datetime import datetime\ndatetime.now()", "import datetime"),
        (clock_or_dice, "sql/x.py", "import random", "import randomness"),
        (float_in_money, "auction/units.py", "x = 3 / 2", "x = 3 // 2"),
        (float_in_money, "auction/ledger.py", "x = 0.5", "x = 5"),
        (secret_compared, "api/x.py", "a.secret == b", "hmac.compare_digest(a.secret, b)"),
        (secret_compared, "api/x.py", "b != row.secret_sha256", "b is row.secret_sha256"),
    ],
)
def test_a_rule_finds_what_it_forbids(rule, path, forbidden, allowed):
    assert list(rule(path, ast.parse(forbidden))) != []
    assert list(rule(path, ast.parse(allowed))) == []


def test_a_key_with_a_right_checksum_is_found_and_an_example_is_not():
    assert ["2: a key"] == list(secret_kept(f"\nkey = {STEM}{checksum(STEM)}"))
    assert [] == list(secret_kept(f"key = {STEM}AAAAAA"))
    armour = "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 64
    assert ["1: a private key"] == list(secret_kept(armour))


def test_every_rule_holds_over_this_tree():
    count, broken = broken_rules()
    assert count > 100
    assert [] == broken


def test_a_lock_that_lags_behind_is_found(monkeypatch, tmp_path):
    """A pin that was raised without the lock, and a distribution without its hash."""
    sound = know_parts(promises.Size.SHORT, 1)
    assert sound.is_kept, sound
    lagging = tmp_path / "requirements.lock"
    text = tools.LOCK.read_text()
    for wrong, told in ((text.replace("aiohttp==", "aiohttp==0"), "aiohttp"), (text + "x==1\n", "'x'")):
        assert wrong != text
        lagging.write_text(wrong)
        monkeypatch.setattr(tools, "LOCK", lagging)
        monkeypatch.setattr(promises, "LOCK", lagging)
        outcome = know_parts(promises.Size.SHORT, 1)
        assert outcome.is_kept is False and told in outcome.figure
