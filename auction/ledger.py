"""The chart of accounts and the transfers that each business act makes. Pure.

A ledger account is named by arithmetic: account number × 8 + code; number 0 is the operator. Every
customer account is a liability with a floor of zero (balance = credits - debits >= 0); the operator's
cash is the other side of every deposit and the only one that may go below it. The sum of all balances
is zero, always, because a transfer is one row with both legs.
"""

from enum import StrEnum

from msgspec import Struct

from auction.units import Amount, fee_share

AVAILABLE = 0  # a buyer's money, free to bid with
HELD = 1  # a buyer's money, held for its bids
EARNING = 2  # an owner's, from charges
PAYABLE = 3  # an owner's, being paid out
CASH = 4  # the operator's: money that came in (negative) and went out
FEES = 5  # the operator's
ROUNDING = 6  # the operator's; the carried remainder keeps it at zero

CODES_PER_ACCOUNT = 8
OPERATOR_NUMBER = 0
CUSTOMER_CODES = (AVAILABLE, HELD, EARNING, PAYABLE)
OPERATOR_CODES = (CASH, FEES, ROUNDING)


class TransferCode(StrEnum):
    DEPOSIT = "deposit"
    HOLD = "hold"
    RELEASE = "release"
    CHARGE = "charge"
    FEE = "fee"
    REFUND = "refund"
    PAYOUT = "payout"
    PAYOUT_PAID = "payout_paid"
    PAYOUT_FAILED = "payout_failed"
    ADJUSTMENT = "adjustment"


class Transfer(Struct, frozen=True):
    """An immutable move of a positive amount from the debit to the credit ledger account."""

    code: TransferCode
    debit: int
    credit: int
    amount: Amount
    reference: str  # the bid, lease or deposit it belongs to
    interval_end_s: int  # settlement: end of the interval charged; otherwise 0


def ledger_account(number: int, code: int) -> int:
    """Return the ledger account of `code` of the account with this number."""
    return number * CODES_PER_ACCOUNT + code


CASH_ACCOUNT = ledger_account(OPERATOR_NUMBER, CASH)
FEES_ACCOUNT = ledger_account(OPERATOR_NUMBER, FEES)


def is_floored(account: int) -> bool:
    """Say whether this ledger account may not go below zero."""
    return account != CASH_ACCOUNT


def plan_deposit(number: int, amount: Amount, deposit: str) -> Transfer:
    """Money comes in: cash to the buyer's available."""
    available = ledger_account(number, AVAILABLE)
    return Transfer(TransferCode.DEPOSIT, CASH_ACCOUNT, available, amount, deposit, 0)


def plan_adjustment(number: int, code: int, amount: int, adjustment: str) -> Transfer:
    """Correct a balance against cash: above zero to the account, below zero from it."""
    account = ledger_account(number, code)
    debit, credit = (CASH_ACCOUNT, account) if amount > 0 else (account, CASH_ACCOUNT)
    return Transfer(TransferCode.ADJUSTMENT, debit, credit, Amount(abs(amount)), adjustment, 0)


def plan_payout(number: int, amount: Amount, payout: str) -> Transfer:
    """Set earnings aside to be paid out."""
    earning, payable = ledger_account(number, EARNING), ledger_account(number, PAYABLE)
    return Transfer(TransferCode.PAYOUT, earning, payable, amount, payout, 0)


def plan_payout_end(number: int, amount: Amount, payout: str, *, is_paid: bool) -> Transfer:
    """What was set aside leaves as cash, or goes back."""
    earning, payable = ledger_account(number, EARNING), ledger_account(number, PAYABLE)
    code = TransferCode.PAYOUT_PAID if is_paid else TransferCode.PAYOUT_FAILED
    return Transfer(code, payable, CASH_ACCOUNT if is_paid else earning, amount, payout, 0)


def plan_hold(number: int, amount: Amount, bid: str) -> Transfer:
    """Set money aside for a bid's exposure."""
    available, held = ledger_account(number, AVAILABLE), ledger_account(number, HELD)
    return Transfer(TransferCode.HOLD, available, held, amount, bid, 0)


def plan_release(number: int, amount: Amount, bid: str) -> Transfer:
    """Give held money back."""
    available, held = ledger_account(number, AVAILABLE), ledger_account(number, HELD)
    return Transfer(TransferCode.RELEASE, held, available, amount, bid, 0)


def plan_refund(
    buyer_number: int,
    owner_number: int,
    amount: Amount,
    *,
    fee_bps: int,
    earning: Amount,
    fees: Amount,
    lease: str,
    interval_end_s: int,
) -> list[Transfer]:
    """Give a charge back: the owner its net, the operator its fee, and cash what they no longer have."""
    available = ledger_account(buyer_number, AVAILABLE)
    fee = min(fee_share(amount, fee_bps), fees)
    net = min(amount - fee, earning)
    parts = (
        (ledger_account(owner_number, EARNING), net),
        (FEES_ACCOUNT, fee),
        (CASH_ACCOUNT, amount - fee - net),
    )
    return [
        Transfer(TransferCode.REFUND, account, available, Amount(part), lease, interval_end_s)
        for account, part in parts
        if part > 0
    ]


def plan_settlement(
    buyer_number: int, owner_number: int, amount: Amount, *, fee_bps: int, lease: str, interval_end_s: int
) -> list[Transfer]:
    """Charge one lease for one interval: buyer's debit = owner's credit + fee (RULES.md R9).

    The database refuses a second charge for the same (lease, interval end).
    """
    held = ledger_account(buyer_number, HELD)
    fee = fee_share(amount, fee_bps)
    transfers = []
    if amount > fee:
        earning = ledger_account(owner_number, EARNING)
        net = Amount(amount - fee)
        transfers.append(Transfer(TransferCode.CHARGE, held, earning, net, lease, interval_end_s))
    if fee > 0:
        transfers.append(Transfer(TransferCode.FEE, held, FEES_ACCOUNT, fee, lease, interval_end_s))
    return transfers
