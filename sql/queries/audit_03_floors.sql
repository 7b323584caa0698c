-- no account but the operator's cash is below zero, or is allowed to be
SELECT ledger_account, credits - debits AS balance, floored,
    CASE WHEN ledger_account = 4 THEN false ELSE credits < debits OR NOT floored END AS is_bad
FROM ledger_balances
