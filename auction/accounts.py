"""What an operator does, and what an account does with itself: accounts, keys, deposits, markets."""

import msgspec

from auction import admission, billing
from auction.clearing import genesis_digest
from auction.commands import (
    CreateAccount,
    CreateKey,
    CreateMarket,
    Deposit,
    RevokeKey,
    SetAccountState,
    SetMarketStatus,
    SetMarketTiming,
)
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.ledger import plan_deposit
from auction.model import BID_FINAL, Account, ApiKey, Market, MarketStatus
from auction.state import Balance, State
from auction.units import MICROSECONDS_PER_SECOND

ACCOUNTS_MAX = 1_000_000
ROLES = ("buyer", "owner", "operator")


def create(state: State, command: CreateAccount) -> Account:
    if command.account in state.accounts:
        raise Rejection("account_exists", "this account exists")
    if len(state.accounts) >= ACCOUNTS_MAX:
        raise Rejection("account_limit_reached", f"{ACCOUNTS_MAX} accounts at most")
    if not command.roles or any(role not in ROLES for role in command.roles):
        raise Rejection("role_unknown", f"roles are some of {', '.join(ROLES)}", pointer="/roles")
    account = Account(
        id=command.account,
        number=len(state.accounts) + 1,
        name=command.name,
        roles=sorted(set(command.roles)),
        state="open",
        created_at_us=state.now_us,
    )
    state.add_account(account)
    state.touch(account)
    if command.key is not None:
        state.touch(command.key)
    return account


def set_state(state: State, command: SetAccountState) -> Account:
    account = _known(state, command.account)
    if command.state not in ("open", "frozen"):
        raise Rejection("state_unknown", "state is open or frozen", pointer="/state")
    account.state = command.state
    state.touch(account)
    return account


def create_key(state: State, command: CreateKey) -> ApiKey:
    _known(state, command.key.account)
    state.touch(command.key)
    return command.key


def revoke_key(state: State, command: RevokeKey) -> ApiKey:
    """Revoke a key. The row comes with the command: keys are not part of the engine's state."""
    _known(state, command.key.account)
    revoked = msgspec.structs.replace(command.key, revoked_at_us=state.now_us)
    state.touch(revoked)
    return revoked


def deposit(state: State, command: Deposit) -> Balance:
    account = _known(state, command.account)
    admission.amount(command.amount)
    state.transfer(plan_deposit(account.number, command.amount, command.deposit))
    balance = state.balance(account)
    state.emit(EventKind.BALANCE_DEPOSITED, balance, account=account.id)
    return balance


def create_market(state: State, command: CreateMarket) -> Market:
    admission.new_market(state, command.market)
    market = msgspec.structs.replace(
        command.market,
        created_at_us=state.now_us,
        status=MarketStatus.OPEN,
        tick=0,
        next_tick_at_us=state.now_us + command.market.tick_seconds * MICROSECONDS_PER_SECOND,
        price=None,
        digest=genesis_digest(command.market.id),
        input_hash="",
    )
    state.add_market(market)
    state.touch(market)
    return market


def set_market_status(state: State, command: SetMarketStatus) -> Market:
    """Halt, restrict or resume. A halted market's tenants run on at the last price (RULES.md R12)."""
    market = admission.market(state, command.market)
    try:
        status = MarketStatus(command.status)
    except ValueError:
        raise Rejection("state_unknown", "status is open, cancel_only or halted", pointer="/status") from None
    market.status, market.status_reason = status, command.reason
    state.touch(market)
    kind = EventKind.MARKET_RESUMED if status is MarketStatus.OPEN else EventKind.MARKET_HALTED
    state.emit(kind, market, account=None, market=market.id)
    return market


def set_market_timing(state: State, command: SetMarketTiming) -> Market:
    market = admission.market(state, command.market)
    admission.timing(command.tick_seconds, command.notice_seconds, command.settlement_seconds)
    market.tick_seconds = command.tick_seconds
    market.notice_seconds = command.notice_seconds
    market.settlement_seconds = command.settlement_seconds
    market.next_tick_at_us = state.now_us + command.tick_seconds * MICROSECONDS_PER_SECOND
    state.touch(market)
    billing.reschedule(state, market)
    # The hold window follows the timing: refill or trim every hold; who cannot pay has until the tick.
    for bid in sorted(state.market_bids[market.id].values(), key=lambda bid: bid.seq):
        if bid.status not in BID_FINAL and not billing.refill_hold(state, bid):
            state.books[market.id].underfunded.add(bid.id)
    return market


def _known(state: State, account_id: str) -> Account:
    account = state.accounts.get(account_id)
    if account is None:
        raise NotFound("account")
    return account
