-- Every ledger account's balance, credits minus debits.
SELECT ledger_account, credits - debits AS balance FROM ledger_balances ORDER BY ledger_account
