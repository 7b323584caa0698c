"""The shapes of accounts, keys and money. See wire.py for the rules that all wire modules follow.

A secret appears in `key` or `secret` of the answer that created it, once; what is stored of that
answer says null.
"""

from base64 import b64encode
from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.fields import (
    CURRENCY,
    AmountField,
    IdField,
    InstantField,
    NameField,
    NetworkField,
    PublicKeyField,
    ReferenceField,
    format_instant,
    format_instant_or_none,
)
from api.wire_limits import LimitsBody
from auction.model import Account, ApiKey
from auction.money import Payout
from auction.state import Balance
from auction.units import format_microusd

Scope = Literal[
    "audit:read",
    "bids:read",
    "bids:write",
    "supply:read",
    "supply:write",
    "agent",
    "billing:read",
    "billing:write",
    "keys:write",
    "webhooks:write",
    "operator:read",
    "operator:write",
]

KeyType = Literal["secret", "ed25519"]


class BalanceView(Struct, frozen=True):
    """`owed` is metered but not yet posted; `earning` and `payable` are an owner's."""

    available: str
    held: str
    owed: str
    earning: str
    payable: str
    currency: str


class EntryView(Struct, frozen=True):
    """One side of a transfer, signed, with the balance of its ledger account after it."""

    id: str
    transfer: str
    code: str
    ledger_account: str
    amount: str
    balance: str
    currency: str
    reference: str
    interval_end: str | None
    created_at: str


class DepositBody(Struct, frozen=True, forbid_unknown_fields=True):
    amount: AmountField
    account: IdField | None = None
    reference: ReferenceField | None = None


class DepositView(Struct, frozen=True):
    id: str
    account: str
    amount: str
    currency: str
    reference: str
    balance: BalanceView


class AdjustBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`credit` gives to the account, `debit` takes from it; `reason` stays in the journal."""

    account: IdField
    direction: Literal["credit", "debit"]
    amount: AmountField
    reason: NameField
    balance: Literal["available", "earning"] = "available"


class AdjustmentView(Struct, frozen=True):
    id: str
    account: str
    direction: str
    amount: str
    currency: str
    reason: str
    balance: BalanceView


class PayoutBody(Struct, frozen=True, forbid_unknown_fields=True):
    amount: AmountField


class ClosePayoutBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`reference` names the payment, or says why there was none."""

    reference: ReferenceField | None = None


class PayoutView(Struct, frozen=True):
    id: str
    account: str
    amount: str
    currency: str
    state: str
    reference: str
    created_at: str
    closed_at: str | None


class CreateKeyBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A key of type `ed25519` has no secret: `public_key` is given, and requests are signed."""

    name: NameField
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=11)]
    expires_at: InstantField | None = None
    limits: LimitsBody | None = None
    allowed_networks: Annotated[list[NetworkField], Meta(max_length=16)] = []
    type: KeyType = "secret"
    public_key: PublicKeyField | None = None


class RotateKeyBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What was good before stays so for `overlap_seconds`; 0 ends it now. A key of type `ed25519` is given
    its new `public_key`."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3_600
    public_key: PublicKeyField | None = None


class KeyView(Struct, frozen=True):
    id: str
    public_id: str
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    previous_valid_until: str | None
    allowed_networks: list[str]
    type: KeyType
    public_key: str | None  # of type `ed25519`, in base64
    secret: str | None = None


class CreateAccountBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: NameField
    roles: Annotated[list[Literal["buyer", "owner"]], Meta(min_length=1, max_length=2)]


class AmendAccountBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is; an operator stays one."""

    name: NameField | None = None
    roles: Annotated[list[Literal["buyer", "owner"]], Meta(min_length=1, max_length=2)] | None = None


class AccountView(Struct, frozen=True):
    id: str
    name: str
    roles: list[str]
    state: str
    affiliation: str | None
    created_at: str
    version: int
    key: str | None = None


def balance_view(balance: Balance, owed: int) -> BalanceView:
    return BalanceView(
        available=format_microusd(balance.available),
        held=format_microusd(balance.held),
        owed=format_microusd(owed),
        earning=format_microusd(balance.earning),
        payable=format_microusd(balance.payable),
        currency=CURRENCY,
    )


def payout_view(payout: Payout) -> PayoutView:
    return PayoutView(
        id=payout.id,
        account=payout.account,
        amount=format_microusd(payout.amount),
        currency=CURRENCY,
        state=payout.state,
        reference=payout.reference,
        created_at=format_instant(payout.created_at_us),
        closed_at=format_instant_or_none(payout.closed_at_us),
    )


def key_view(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id,
        public_id=key.public_id,
        name=key.name,
        scopes=key.scopes,
        created_at=format_instant(key.created_at_us),
        expires_at=format_instant_or_none(key.expires_at_us),
        revoked_at=format_instant_or_none(key.revoked_at_us),
        previous_valid_until=format_instant_or_none(key.previous_until_us),
        allowed_networks=key.allowed_networks,
        type="secret" if key.public_key is None else "ed25519",
        public_key=None if key.public_key is None else b64encode(key.public_key).decode(),
    )


def account_view(account: Account) -> AccountView:
    return AccountView(
        id=account.id,
        name=account.name,
        roles=account.roles,
        state=account.state,
        affiliation=account.affiliation,
        created_at=format_instant(account.created_at_us),
        version=account.version,
    )
