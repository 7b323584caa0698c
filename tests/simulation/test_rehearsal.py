"""A rehearsal on the excerpt of a batch says what the whole market will say, refusals and all."""

import msgspec
import pytest

from auction.bidding import PlacedBid
from auction.commands import AmendBid, CancelBid, PlaceBid
from auction.core import Core
from auction.errors import Rejection
from auction.model import OnPreempt
from tests.simulation.driver import SECOND, Crowd


def batch_of(crowd, buyer):
    """Some operations of one buyer, each possible, and each possibly wrong."""
    dice, made = crowd.dice, []
    mine = sorted(bid.id for bid in crowd.core.bids.values() if bid.account == buyer)
    for _ in range(dice.randint(1, 8)):
        roll, limit, key = dice.random(), 10_000 * dice.randint(40, 300), dice.choice([None, f"key_{buyer}"])
        bid = dice.choice([*mine, *crowd.core.bids, "bid_unknown"][: max(8, len(mine) + 1)])
        if roll < 0.5:
            place = PlaceBid(
                crowd.new_id("bid"), buyer, crowd.market.id, dice.choice([1, 2, 8]), limit, key=key
            )
            ends = {"expires_at_us": crowd.at_us + SECOND, "time_in_force": "gtt"} if roll < 0.1 else {}
            made.append(msgspec.structs.replace(place, **ends, max_spend=dice.choice([None, None, 90_000])))
            mine.append(place.bid)
        elif roll < 0.8:
            gpus, paused = dice.choice([None, 1, 4, 16]), dice.choice([None, None, True, False])
            made.append(AmendBid(bid, buyer, dice.choice([None, limit]), gpus, None, paused, key=key))
        elif roll < 0.85:
            made.append(
                AmendBid(bid, buyer, on_preempt=OnPreempt.CANCEL, expected_version=dice.choice([1, 2]))
            )
        else:
            made.append(CancelBid(bid, buyer, dice.random() < 0.7))
    return made


def written(outcome):
    """An outcome as it is at this moment."""
    if isinstance(outcome, Rejection):
        return outcome.code, str(outcome)
    bid = outcome.bid if isinstance(outcome, PlacedBid) else outcome
    return msgspec.json.encode(bid)


@pytest.mark.parametrize("seed", range(8))
def test_a_rehearsal_decides_as_the_market_does(seed):
    crowd = Crowd(Core(), seed)
    codes, taken = set(), 0
    for number in range(240):
        crowd.step()
        if number % 2:
            continue
        buyer = crowd.dice.choice(crowd.buyers)
        commands = batch_of(crowd, buyer)
        before = crowd.core.state_hash()
        copy = crowd.core.rehearsal(buyer, commands)
        rehearsed = [written(copy.apply(command, crowd.at_us)) for command in commands]
        assert crowd.core.state_hash() == before, "a rehearsal changes nothing"
        decided = [written(crowd.do(command)) for command in commands]
        assert rehearsed == decided
        codes |= {one[0] for one in decided if isinstance(one, tuple)}
        taken += sum(isinstance(one, bytes) for one in decided)
        crowd.core.take_changes()
    assert taken > 100
    assert {"insufficient_funds", "not_found"} <= codes
