"""What a buyer is told of its money running out, before its leases are noticed for it.

`balance.low` when what is available is less than LOW_HOLDS times what is held: a hold covers its bid at
the limit for the settlement interval, the notice and two ticks, so that is about an hour of all that runs
where these are a minute, half a minute and ten seconds. `balance.exhausted` when the first bid ends for
want of money. Each is told once, and again only after there was enough in between.
"""

from auction.events import EventKind
from auction.ledger import HELD, ledger_account
from auction.model import Account
from auction.money import FundsTold
from auction.state import State

LOW_HOLDS = 20


def look(state: State, account: Account) -> None:
    """Tell the account if its money is low and it does not know; forget that it was told if it is not."""
    held = state.balances[ledger_account(account.number, HELD)]
    is_low = state.available(account.id) < LOW_HOLDS * held
    if is_low and account.funds_told is FundsTold.NOTHING:
        _tell(state, account, FundsTold.LOW)
    elif not is_low and account.funds_told is not FundsTold.NOTHING:
        account.funds_told = FundsTold.NOTHING
        state.touch(account)


def exhausted(state: State, account: Account) -> None:
    """A bid of the account has just ended because its hold could not be paid."""
    if account.funds_told is not FundsTold.EXHAUSTED:
        _tell(state, account, FundsTold.EXHAUSTED)


def _tell(state: State, account: Account, what: FundsTold) -> None:
    account.funds_told = what
    kind = EventKind.BALANCE_LOW if what is FundsTold.LOW else EventKind.BALANCE_EXHAUSTED
    state.emit(kind, state.balance(account), account=account.id)
