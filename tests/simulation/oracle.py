"""The judge of a simulated server: it hears of every transaction and of every answer, and compares.

Every transaction is carried out once more from its journal alone by a core of the judge's own; what was
stored must be exactly what that core says (P9), and the invariants must hold on it after each step. What an
answer of success says must be in the storage at the moment at which its client reads it (P3).
"""

import hashlib

from auction.commands import PlaceBid, decode_command, encode_command
from auction.core import Core
from auction.model import Account, ApiKey, Bid, Lease, Limits, Market, Node, Notice, Offer
from auction.money import Payout
from tests.simulation.invariants import Witness

KINDS = {
    "accounts": Account,
    "keys": ApiKey,
    "markets": Market,
    "nodes": Node,
    "offers": Offer,
    "bids": Bid,
    "leases": Lease,
    "notices": Notice,
    "payouts": Payout,
    "limits": Limits,
}


class Oracle:
    """What is known to be so."""

    def __init__(self):
        self.core = Core()
        self.witness = Witness(self.core)
        self.shard = None
        self.hash = hashlib.sha256()
        self.placed = set()
        self.answered_keys = set()
        self.acknowledged = {}
        self.violations = []

    def committed(self, changes):
        """One transaction has happened."""
        try:
            self._check_commit(changes)
        except AssertionError as violation:
            self.violations.append(violation)
            raise

    def _check_commit(self, changes):
        for entry in changes.journal:
            payload = encode_command(entry.command)
            self.hash.update(b"%d %d " % (entry.seq, entry.at_us) + payload)
            command = decode_command(payload)
            self.core.apply(command, entry.at_us)
            assert self.core.seq == entry.seq, f"the journal holds what is refused: {command}"
            if isinstance(command, PlaceBid):
                self.placed.add(command.bid)
        told = self.core.take_changes()
        self.witness.see(told)
        self.witness.check_now()
        for name, kind in KINDS.items():
            written, said = getattr(changes, name), getattr(told, name)
            assert written.keys() == said.keys(), f"P9: {name} written that the journal does not explain"
            for key, entity in said.items():
                assert self.shard.rows[kind][key] == entity, f"P9: {name} {key} differs from its journal"
        for name in ("transfers", "usage", "ticks", "events"):
            assert getattr(changes, name) == getattr(told, name), f"P9: {name} differ from their journal"
        for answer in changes.answers:
            key = (answer.request.account, answer.request.key)
            assert key not in self.answered_keys, f"P4: two answers under the key {key}"
            self.answered_keys.add(key)

    def acknowledge(self, account, bid, status):
        """A client reads that its bid was taken."""
        row = self.shard.rows[Bid].get(bid)
        is_stored = row is not None and row.account == account
        self.require(is_stored, f"P3: {status} for {bid}, which is not stored")
        self.acknowledged.setdefault(account, set()).add(bid)

    def require(self, is_so, claim):
        if not is_so:
            violation = AssertionError(claim)
            self.violations.append(violation)
            raise violation

    def check_end(self, definite):
        """When everybody has a definite answer: nothing was placed but what was acknowledged, and once."""
        self.witness.check_all()
        rows = self.shard.rows
        for account in definite:
            placed = {bid for bid in self.placed if rows[Bid][bid].account == account}
            extra = placed - self.acknowledged.get(account, set())
            assert not extra, f"P4: {account} placed {len(extra)} bids that no request of its asked for"
        for kind, live in ((Bid, self.core.bids), (Lease, self.core.leases)):
            for key, entity in live.items():
                assert rows[kind][key] == entity
        assert self.shard.balances == {**self.shard.balances, **self.core._state.balances}

    def digest(self):
        """The hash of all that was decided, in order, at its time."""
        return hashlib.sha256(self.hash.digest() + self.core.state_hash().encode()).hexdigest()
