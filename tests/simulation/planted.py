"""Bugs on switches that only tests turn: each is what some check exists for, and must be caught by it."""

from contextlib import contextmanager

from msgspec import structs

from api import webhook_sender
from api.account_feed import AccountFeed
from auction import billing, ids, leases
from auction.engine import Engine
from auction.state import State
from auction.units import Amount
from tests.simulation.database import SimulatedStore


@contextmanager
def exchanged(place, name, value):
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def lost_hold():
    """A hold that shrinks is not given back to its account."""
    honest = billing.adjust_hold

    def forgets(state, bid, target):
        if target >= bid.held:
            return honest(state, bid, target)
        state.count_held(bid, target - bid.held)
        bid.held = target
        state.touch(bid)
        return True

    return exchanged(billing, "adjust_hold", forgets)


def double_charge():
    """What a lease owes is posted twice, the second time as if it were a second later."""
    honest = billing.plan_settlement

    def twice(*parties, interval_end_s, **terms):
        posted = honest(*parties, interval_end_s=interval_end_s, **terms)
        return [*posted, *honest(*parties, interval_end_s=interval_end_s + 1, **terms)]

    return exchanged(billing, "plan_settlement", twice)


def short_notice():
    """Notices promise less time than the market does."""
    honest = leases.issue_notice

    def hurries(state, lease, reason, *, notice_seconds, **terms):
        return honest(state, lease, reason, notice_seconds=notice_seconds // 2, **terms)

    return exchanged(leases, "issue_notice", hurries)


def unlocked_read():
    """A balance that was read is believed for ten minutes, whatever was written meanwhile."""
    honest, seen = State.available, {}

    def stale(self, account_id):
        at_us, amount = seen.get(account_id, (0, 0))
        if not 0 <= self.now_us - at_us < 600_000_000:
            amount = honest(self, account_id)
            seen[account_id] = self.now_us, amount
        return Amount(amount)

    return exchanged(State, "available", stale)


def gpu_sold_twice():
    """A lease is put on a node's first GPUs, whoever is there."""
    return exchanged(leases, "_free_gpus", lambda state, node: list(range(state.nodes[node].gpus)))


def drawn_in_a_tick():
    """What a tick creates gets an id by chance instead of by the tick's seed."""
    return exchanged(leases, "derived_id", lambda prefix, seed, number: ids.random_id(prefix))


def reused_key():
    """What was answered under a key is not looked up: the same request is decided again."""

    async def forgets(self, requests):
        await self._database.trip()
        return {}

    return exchanged(SimulatedStore, "find_answers", forgets)


def early_word():
    """A batch is answered before it is written."""

    async def hasty(self, decided, writing):
        self._answer(decided)
        await writing
        self._tell(decided.changes)

    return exchanged(Engine, "_write", hasty)


def lost_event():
    """One event in ten is committed and never told to who follows the account."""

    async def careless(self, event):
        if event.account == self.account:
            if event.account_seq % 10:
                await self._tell(event)
            self.seq = event.account_seq

    return exchanged(AccountFeed, "tell", careless)


def late_notice():
    """A webhook with a notice waits for its turn until the GPUs are gone."""
    honest = webhook_sender.delivery_of

    def patient(stored):
        planned = honest(stored)
        return structs.replace(planned, next_attempt_at_us=planned.at_us + 600_000_000)

    return exchanged(webhook_sender, "delivery_of", patient)


IN_THE_CORE = {
    plant.__name__: plant for plant in (lost_hold, double_charge, short_notice, unlocked_read, gpu_sold_twice)
}
IN_THE_SERVER = {
    plant.__name__: plant for plant in (drawn_in_a_tick, reused_key, early_word, lost_event, late_notice)
}
