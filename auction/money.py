"""What is written down of money beside the ledger: metered seconds, payouts, what an account was told.

The ledger's accounts and transfers are in ledger.py. Units are those of model.py.
"""

from enum import StrEnum

from msgspec import Struct

from auction.units import Amount, Price


class PayoutState(StrEnum):
    CREATED = "created"  # set aside
    PAID = "paid"
    FAILED = "failed"  # given back


class FundsTold(StrEnum):
    """What an account was last told of its money."""

    NOTHING = "nothing"
    LOW = "low"
    EXHAUSTED = "exhausted"


class Usage(Struct, frozen=True):
    """Metered seconds of a lease at one price; each row starts where the last one ended."""

    lease: str
    from_s: int
    to_s: int
    gpu_count: int
    price: Price
    carry_in: int
    carry_out: int
    amount: Amount
    is_first: bool


class Payout(Struct):
    """An owner's earnings on their way out: set aside when asked for, gone when the operator has paid."""

    id: str
    account: str
    amount: Amount
    state: PayoutState
    reference: str  # of the payment, by whoever made it
    created_at_us: int
    closed_at_us: int | None = None
