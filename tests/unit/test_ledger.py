"""What each business act does to the accounts: who pays, who gets it, and to the last microdollar."""

import pytest

from auction import ledger
from auction.ledger import Transfer, TransferCode, plan_adjustment, plan_refund, plan_settlement

BUYER, OWNER = 1, 2
AVAILABLE, HELD, EARNING, CASH, FEES = 8, 9, 18, 4, 5  # ledger accounts of these two, and the operator's


@pytest.mark.parametrize(
    ("amount", "fee_bps", "net", "fee"),
    [
        (1_000, 300, 970, 30), (33, 300, 33, 0), (34, 300, 33, 1), (1, 0, 1, 0), (2, 5_000, 1, 1),
        (0, 300, 0, 0),
    ],
)  # fmt: skip
def test_a_charge_is_the_owners_net_and_the_operators_fee(amount, fee_bps, net, fee):
    parts = (
        Transfer(TransferCode.CHARGE, HELD, EARNING, net, "lease", 60),
        Transfer(TransferCode.FEE, HELD, FEES, fee, "lease", 60),
    )
    found = plan_settlement(BUYER, OWNER, amount, fee_bps=fee_bps, lease="lease", interval_end_s=60)
    assert [part for part in parts if part.amount] == found
    assert amount == sum(part.amount for part in found)


@pytest.mark.parametrize(
    ("amount", "earning", "fees", "of_owner", "of_operator", "of_cash"),
    [
        (1_000, 5_000, 5_000, 970, 30, 0), (1_000, 970, 30, 970, 30, 0), (1_000, 969, 30, 969, 30, 1),
        (1_000, 5_000, 29, 971, 29, 0), (1_000, 0, 0, 0, 0, 1_000), (34, 50, 50, 33, 1, 0),
        (1, 1, 0, 1, 0, 0),
    ],
)  # fmt: skip
def test_a_refund_is_paid_by_who_earned_it_and_by_cash_what_they_have_not(
    amount, earning, fees, of_owner, of_operator, of_cash
):
    found = plan_refund(
        BUYER, OWNER, amount, fee_bps=300, earning=earning, fees=fees, lease="lease", interval_end_s=60
    )
    parts = [(EARNING, of_owner), (FEES, of_operator), (CASH, of_cash)]
    assert [part for part in parts if part[1]] == [(one.debit, one.amount) for one in found]
    assert {(TransferCode.REFUND, AVAILABLE, "lease", 60)} == {
        (one.code, one.credit, one.reference, one.interval_end_s) for one in found
    }


def test_the_least_correction_goes_to_the_account():
    assert (CASH, EARNING, 1) == parts_of(plan_adjustment(OWNER, 2, 1, "why"))
    assert (EARNING, CASH, 1) == parts_of(plan_adjustment(OWNER, 2, -1, "why"))


def parts_of(transfer):
    return transfer.debit, transfer.credit, transfer.amount


def test_each_act_is_called_what_it_is():
    plans = {
        TransferCode.DEPOSIT: ledger.plan_deposit(BUYER, 7, "r"),
        TransferCode.ADJUSTMENT: plan_adjustment(OWNER, ledger.EARNING, 7, "r"),
        TransferCode.PAYOUT: ledger.plan_payout(OWNER, 7, "r"),
        TransferCode.PAYOUT_PAID: ledger.plan_payout_end(OWNER, 7, "r", is_paid=True),
        TransferCode.PAYOUT_FAILED: ledger.plan_payout_end(OWNER, 7, "r", is_paid=False),
        TransferCode.HOLD: ledger.plan_hold(BUYER, 7, "r"),
        TransferCode.RELEASE: ledger.plan_release(BUYER, 7, "r"),
    }
    assert list(plans) == [plan.code for plan in plans.values()]
