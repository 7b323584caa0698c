"""What an operator does, and what an account does with itself: accounts, keys, deposits, markets."""

import msgspec

from auction import admission, billing, funds
from auction.clearing import genesis_digest
from auction.commands import (
    Adjust,
    AmendAccount,
    AmendMarket,
    ClosePayout,
    CreateAccount,
    CreateKey,
    CreateMarket,
    Deposit,
    RequestPayout,
    RevokeKey,
    RotateKey,
    SetMarketStatus,
)
from auction.errors import NotFound, Rejection
from auction.events import EventKind
from auction.ledger import (
    AVAILABLE,
    EARNING,
    ledger_account,
    plan_adjustment,
    plan_deposit,
    plan_payout,
    plan_payout_end,
)
from auction.model import BID_FINAL, Account, ApiKey, Market, MarketStatus
from auction.money import FundsTold, Payout, PayoutState
from auction.safety import set_limits
from auction.state import Balance, State
from auction.units import Amount, next_beat_us

ACCOUNTS_MAX = 1_000_000
OPEN_PAYOUTS_MAX = 16  # of one account
ADJUSTABLE = {"available": AVAILABLE, "earning": EARNING}
AMENDABLE = (  # of a market's terms
    "tick_seconds", "notice_seconds", "settlement_seconds", "provisioning_seconds", "stagger_share_bps",
)  # fmt: skip
ROLES = ("buyer", "owner", "operator")


def create(state: State, command: CreateAccount) -> Account:
    if command.account in state.accounts:
        raise Rejection("account_exists", "this account exists")
    if len(state.accounts) >= ACCOUNTS_MAX:
        raise Rejection("account_limit_reached", f"{ACCOUNTS_MAX} accounts at most")
    account = Account(
        id=command.account,
        number=len(state.accounts) + 1,
        name=command.name,
        roles=_roles(command.roles),
        state="open",
        created_at_us=state.now_us,
    )
    state.add_account(account)
    state.touch(account)
    if command.key is not None:
        state.touch(command.key)
    return account


def amend(state: State, command: AmendAccount) -> Account:
    """Change a name or roles; an operator stays one. Without a role nothing new is asked."""
    account = _known(state, command.account)
    admission.version(account.version, command.expected_version)
    if command.roles is not None:
        operating = [role for role in account.roles if role == "operator"]
        account.roles = _roles([*command.roles, *operating])
    account.name = account.name if command.name is None else command.name
    account.version += 1
    state.touch(account)
    return account


def create_key(state: State, command: CreateKey) -> ApiKey:
    _known(state, command.key.account)
    if command.limits is not None:
        set_limits(state, command.limits)
    state.touch(command.key)
    return command.key


def revoke_key(state: State, command: RevokeKey) -> ApiKey:
    """Revoke a key. The row comes with the command: keys are not part of the engine's state."""
    _known(state, command.key.account)
    revoked = msgspec.structs.replace(command.key, revoked_at_us=state.now_us)
    state.touch(revoked)
    return revoked


def rotate_key(state: State, command: RotateKey) -> ApiKey:
    _known(state, command.key.account)
    state.touch(command.key)
    return command.key


def deposit(state: State, command: Deposit) -> Balance:
    account = _known(state, command.account)
    admission.amount(command.amount)
    state.transfer(plan_deposit(account.number, command.amount, command.deposit))
    if account.funds_told is not FundsTold.NOTHING:
        funds.look(state, account)
    balance = state.balance(account)
    state.emit(EventKind.BALANCE_DEPOSITED, balance, account=account.id)
    return balance


def adjust(state: State, command: Adjust) -> Balance:
    """Correct a balance, never below zero. The journal and the event keep the reason."""
    account = _known(state, command.account)
    admission.amount(Amount(abs(command.amount)))
    if command.balance not in ADJUSTABLE:
        raise Rejection("state_unknown", "balance is available or earning", pointer="/balance")
    code = ADJUSTABLE[command.balance]
    there = state.balances[ledger_account(account.number, code)]
    if there + command.amount < 0:
        raise Rejection(
            "insufficient_funds",
            f"{command.balance} is {there} microusd",
            required=Amount(-command.amount),
            available=Amount(there),
        )
    state.transfer(plan_adjustment(account.number, code, command.amount, command.adjustment))
    funds.look(state, account)
    balance = state.balance(account)
    state.emit(EventKind.BALANCE_ADJUSTED, balance, account=account.id)
    return balance


def request_payout(state: State, command: RequestPayout) -> Payout:
    """Set an owner's earnings aside; the operator pays them."""
    account = admission.open_account(state, command.account, "owner")
    admission.amount(command.amount)
    earning = Amount(state.balances[ledger_account(account.number, EARNING)])
    if command.amount > earning:
        raise Rejection(
            "payout_above_earning",
            f"{earning} microusd are earned",
            pointer="/amount",
            required=command.amount,
            available=earning,
        )
    open_count = sum(payout.account == account.id for payout in state.payouts.values())
    if open_count >= OPEN_PAYOUTS_MAX:
        raise Rejection("payout_limit_reached", f"{OPEN_PAYOUTS_MAX} open payouts at most")
    payout = Payout(command.payout, account.id, command.amount, PayoutState.CREATED, "", state.now_us)
    state.payouts[payout.id] = payout
    state.transfer(plan_payout(account.number, payout.amount, payout.id))
    state.touch(payout)
    state.emit(EventKind.PAYOUT_CREATED, payout, account=account.id)
    return payout


def close_payout(state: State, command: ClosePayout) -> Payout:
    payout = state.payouts.get(command.payout)
    if payout is None:
        raise NotFound("payout")
    if command.state not in (PayoutState.PAID, PayoutState.FAILED):
        raise Rejection("state_unknown", "state is paid or failed", pointer="/state")
    payout.state = PayoutState(command.state)
    payout.reference = command.reference
    payout.closed_at_us = state.now_us
    number = state.accounts[payout.account].number
    is_paid = payout.state is PayoutState.PAID
    state.transfer(plan_payout_end(number, payout.amount, payout.id, is_paid=is_paid))
    del state.payouts[payout.id]
    state.touch(payout)
    kind = EventKind.PAYOUT_PAID if is_paid else EventKind.PAYOUT_FAILED
    state.emit(kind, payout, account=payout.account)
    return payout


def create_market(state: State, command: CreateMarket) -> Market:
    admission.new_market(state, command.market)
    market = msgspec.structs.replace(
        command.market,
        created_at_us=state.now_us,
        status=MarketStatus.OPEN,
        tick=0,
        next_tick_at_us=next_beat_us(state.now_us, command.market.tick_seconds),
        price=None,
        version=1,
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
    market.version += 1
    state.touch(market)
    kind = EventKind.MARKET_RESUMED if status is MarketStatus.OPEN else EventKind.MARKET_HALTED
    state.emit(kind, market, account=None, market=market.id)
    return market


def amend_market(state: State, command: AmendMarket) -> Market:
    market = admission.market(state, command.market)
    admission.version(market.version, command.expected_version)
    given = {name: getattr(command, name) for name in AMENDABLE if getattr(command, name) is not None}
    if given.get("stagger_share_bps") == 0:
        given["stagger_share_bps"] = None
    admission.market_terms(msgspec.structs.replace(market, **given))
    if given.get("tick_seconds", market.tick_seconds) != market.tick_seconds:
        market.next_tick_at_us = next_beat_us(state.now_us, given["tick_seconds"])
    for name, value in given.items():
        setattr(market, name, value)
    market.version += 1
    state.touch(market)
    billing.reschedule(state, market)
    # The hold window follows the timing: refill or trim every hold; who cannot pay has until the tick.
    for bid in sorted(state.market_bids[market.id].values(), key=lambda bid: bid.seq):
        if bid.status not in BID_FINAL and not billing.refill_hold(state, bid):
            state.books[market.id].underfunded.add(bid.id)
    return market


def _roles(asked: list[str]) -> list[str]:
    if not asked or any(role not in ROLES for role in asked):
        raise Rejection("role_unknown", f"roles are some of {', '.join(ROLES)}", pointer="/roles")
    return sorted(set(asked))


def _known(state: State, account_id: str) -> Account:
    account = state.accounts.get(account_id)
    if account is None:
        raise NotFound("account")
    return account
