"""Mutants that are no wrongs: another program text, but nothing that a rule speaks of differs.

Each stands here by itself, under (module, function, line, what), with why nobody could notice it. A test
fails when one is not there any more, and `python -m tests.mutation.killing --equivalent` runs them: all
must survive.
"""

from tests.mutation.mutants import Mutant

_TOLD = "telling it marks it as changed too"
_STAYS = "a hold that is brought to what it is stays as it is"

EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (
        "auction.ledger", "plan_adjustment",
        "debit, credit = (CASH_ACCOUNT, account) if amount > 0 else (account, CASH_ACCOUNT)", "Gt is GtE",
    ): "an adjustment of nothing is refused before it is planned",
    (
        "auction.admission", "place_bid",
        "if state.live_bid_counts.get((command.account, venue.id), 0) >= LIVE_BIDS_PER_MARKET_MAX:", "0 is 1",
    ): "whether who has no bids counts as none or one: both are thousands away from the limit",
    (
        "auction.admission", "amend_bid",
        "raises_risk = (command.limit or 0) > old_limit or (command.gpus or 0) > bid.gpus", "0 is 1",
    ): "a limit and a number of GPUs are at least one, and only what is above them raises the risk",
    ("auction.leases", "issue_notice", "state.touch(notice)", "state.touch() is left out"): _TOLD,
    ("auction.leases", "acknowledge", "state.touch(notice)", "state.touch() is left out"): _TOLD,
    ("auction.leases", "split", "state.touch(lease)", "state.touch() is left out"): _TOLD,
    ("auction.leases", "shrink_pending", "state.touch(lease)", "state.touch() is left out"): _TOLD,
    ("auction.leases", "finish", "state.touch(bid)", "state.touch() is left out"):
        "the book is shown that it asks for nothing, which marks it as changed",
    ("auction.leases", "end", "last_charge = Amount(0)", "0 is 1"):
        "only a lease that has not started keeps it, and that has nothing to be given back",
    ("auction.billing", "safe_hold", "peak = max(peak, lease.notice_price or Price(0))", "0 is 1"):
        "only what is above the limit counts, and that is at least one",
    ("auction.billing", "refill_hold", "return bid.held >= required or adjust_hold(state, bid, required)",
     "GtE is Gt"): _STAYS,
    ("auction.billing", "meter", "if unsettled + cost > bid.held:", "Gt is GtE"): _STAYS,
    ("auction.billing", "_affordable_seconds", "return 1 << 40", "1 is 2"): "longer than any lease, twice",
    ("auction.billing", "_affordable_seconds", "return 1 << 40", "40 is 41"): "longer than any lease, twice",
    ("auction.billing", "settle",
     "if lease.metered_to_s is not None and metered_to_s > lease.metered_to_s:", "Gt is GtE"):
        "metering up to where it is metered writes nothing",
    ("auction.billing", "prices_needed_from_s",
     "metered_to_s = [state.leases[lease_id].metered_to_s or 0 for lease_id in book.behind]", "0 is 1"):
        "who is behind has been metered up to some second",
}  # fmt: skip


def is_equivalent(mutant: Mutant) -> bool:
    return (mutant.module, mutant.function, mutant.text, mutant.what) in EQUIVALENT
