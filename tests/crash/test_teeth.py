"""Each suite reports the bug that it exists for, planted by the test alone."""

import asyncio
import random

import pytest

from api.services import SERVICES
from tests.crash import balances, cut_points, kills, lost_replies, planted, rivals
from tests.crash.linearizability import NEVER, Call, is_linearizable
from tests.crash.postgres_proxy import Fate
from tests.crash.purse import placed, was_read
from tests.crash.seeded_histories import OPENING, Bug, History

SEED = 1


def test_cut_points_report_a_key_that_was_forgotten():
    """The answer is not kept with the commit: a retry after a lost reply happens again."""
    with planted.keys_forgotten():
        found = cut_points.report(("deposit",), fates=(Fate.CUT_AFTER,))
    assert any("'Deposit': (2, 1)" in violation for violation in found["violations"]), found


def test_cut_points_report_a_loss_that_is_called_a_success():
    with planted.losses_called_successes():
        found = cut_points.report(("deposit",), fates=(Fate.CUT_BEFORE,))
    assert found["violations"], found


@pytest.mark.parametrize("plant", [planted.keys_forgotten, planted.losses_called_successes])
def test_lost_replies_report_what_is_there_twice_or_not_at_all(plant):
    with plant():
        told, _, _, wrong = asyncio.run(lost_replies.lose_replies(60, SEED))
    assert told.bids
    assert wrong, plant.__name__


@pytest.mark.timeout(300)
def test_kills_report_an_acknowledgement_before_its_commit(tmp_path):
    """A commit that comes 50 ms behind its acknowledgement is lost to almost every kill of the server."""
    running = kills.kill_often(tmp_path / "market", 5, SEED, plant="acknowledged_early", victims=("server",))
    found = asyncio.run(running)
    assert any("are not there" in wrong for wrong in found.wrong), found


def test_rivals_report_an_engine_that_writes_behind_its_successor():
    found = asyncio.run(rivals.rival(2, SEED, plant="unfenced"))
    assert any("behind its successor" in text for text in found.wrong), found


def test_balances_report_a_read_from_before_what_was_answered():
    """The server answers a balance that it has remembered for a tenth of a second."""

    def remember(venue):
        reader = venue.client.app[SERVICES].reader
        original, remembered = reader.balance, {}

        async def balance(account):
            now_s = asyncio.get_running_loop().time()
            if account not in remembered or now_s - remembered[account][0] > 0.1:
                remembered[account] = now_s, await original(account)
            return remembered[account][1]

        reader.balance = balance

    recorded = asyncio.run(balances.record(2, 60, SEED, change=remember))
    assert any(not is_linearizable(calls, purse) for calls, purse in recorded)


@pytest.mark.parametrize("bug", Bug)
def test_the_checker_rejects_histories_of_every_kind_of_bug(bug):
    dice = random.Random(SEED)
    histories = [history for _ in range(20) if (history := History(dice, bug)).is_planted]
    rejected = [not is_linearizable(history.calls, OPENING) for history in histories]
    assert sum(rejected) >= 0.8 * len(rejected) > 0


def test_the_checker_lets_an_unanswered_call_happen_late_or_never():
    late = Call(0, NEVER, placed("bid", 10_000))
    untouched, taken = Call(1, 2, was_read(*OPENING[:2])), Call(3, 4, was_read(OPENING[0] - 10_000, 10_000))
    assert is_linearizable([late, untouched], OPENING)
    assert is_linearizable([late, untouched, taken], OPENING)
    back = Call(5, 6, was_read(*OPENING[:2]))
    assert not is_linearizable([late, taken, back], OPENING)
