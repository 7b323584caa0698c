"""Who is stopped, limited or declared to belong together: the operator's and the account's own brakes."""

from auction import admission, limits
from auction.bidding import cancel_bid
from auction.commands import ResumeKey, SetAccountState, SetAffiliation, SetLimits, StopKey
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.model import BID_FINAL, Account, Bid, Limits
from auction.state import State
from auction.units import AMOUNT_MAX, PRICE_MAX

LIMITED_SCOPES_MAX = 1_000  # an account and its keys


def set_limits(state: State, command: SetLimits) -> Limits:
    """Replace the three limits of an account or a key; None takes one away."""
    bounds = (
        ("max_price_per_gpu_hour", command.max_price, PRICE_MAX),
        ("max_open_notional_per_hour", command.max_open_notional, AMOUNT_MAX),
        ("spend_cap_per_day", command.spend_cap_per_day, AMOUNT_MAX),
    )
    for name, value, maximum in bounds:
        if value is not None and not 0 <= value <= maximum:
            raise Rejection("amount_out_of_range", f"{name} is 0..{maximum} microusd", pointer=f"/{name}")
    changed = _limits_of(state, command.scope, command.account)
    changed.max_price = command.max_price
    changed.max_open_notional = command.max_open_notional
    changed.spend_cap_per_day = command.spend_cap_per_day
    changed.version += 1
    state.touch(changed)
    return changed


def stop_key(state: State, command: StopKey) -> Limits:
    """The kill switch: the key's bids are cancelled, and it places nothing until another key resumes it."""
    stopped = _limits_of(state, command.key, command.account)
    stopped.is_stopped = True
    stopped.version += 1
    state.touch(stopped)
    state.emit(EventKind.KEY_STOPPED, stopped, account=stopped.account)
    _cancel_all(state, [bid for bid in state.bids.values() if bid.key == command.key], command.release)
    return stopped


def resume_key(state: State, command: ResumeKey) -> Limits:
    resumed = state.limits.get(command.key)
    if resumed is None or resumed.account != command.account:
        raise NotFound("key")
    resumed.is_stopped = False
    resumed.version += 1
    state.touch(resumed)
    state.emit(EventKind.KEY_RESUMED, resumed, account=resumed.account)
    return resumed


def set_account_state(state: State, command: SetAccountState) -> Account:
    """Freeze an account or reopen it; freezing may cancel its bids too, and end their leases."""
    account = _known(state, command.account)
    if command.state not in ("open", "frozen"):
        raise Rejection("state_unknown", "state is open or frozen", pointer="/state")
    account.state = command.state
    account.version += 1
    state.touch(account)
    if command.cancel_bids:
        own = [bid for bid in state.bids.values() if bid.account == account.id]
        _cancel_all(state, own, command.release)
    return account


def set_affiliation(state: State, command: SetAffiliation) -> Account:
    """Declare that an account belongs with all others of this name; None: with nobody."""
    account = _known(state, command.account)
    before = account.affiliation
    state.affiliate(account, command.affiliation)
    try:
        if len(state.parties(account.id)) > admission.AFFILIATES_MAX:
            raise Rejection("affiliation_full", f"{admission.AFFILIATES_MAX} accounts at most")
        for market in sorted(state.markets):
            if admission.bids_in(state, account.id, market) and admission.offers_in(
                state, account.id, market
            ):
                raise Rejection("self_trade", f"together they would bid and offer in {market}")
    except Rejection:
        state.affiliate(account, before)
        raise
    account.version += 1
    state.touch(account)
    return account


def _limits_of(state: State, scope: str, account: str) -> Limits:
    _known(state, account)
    found = state.limits.get(scope)
    if found is None:
        if sum(other.account == account for other in state.limits.values()) >= LIMITED_SCOPES_MAX:
            raise Rejection("limited_scopes_reached", f"{LIMITED_SCOPES_MAX} keys with limits at most")
        found = Limits(scope, account, day=state.now_us // limits.DAY_US)
        state.add_limits(found)
    elif found.account != account:
        raise NotFound("key")
    return found


def _known(state: State, account_id: str) -> Account:
    account = state.accounts.get(account_id)
    if account is None:
        raise NotFound("account")
    return account


def _cancel_all(state: State, bids: list[Bid], release: bool) -> None:
    live = sorted((bid for bid in bids if bid.status not in BID_FINAL), key=lambda bid: bid.seq)
    for bid in live:
        cancel_bid(state, bid, release=release)
