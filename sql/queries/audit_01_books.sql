-- the books sum to zero over all ledger accounts
SELECT sum(credits) AS credits, sum(debits) AS debits, coalesce(sum(credits) <> sum(debits), false) AS is_bad
FROM ledger_balances
