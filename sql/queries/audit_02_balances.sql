-- every balance equals the fold of its transfers, debits and credits each
SELECT ledger_account, b.debits, b.credits, f.debits AS debits_folded, f.credits AS credits_folded,
    (coalesce(b.debits, 0), coalesce(b.credits, 0)) <> (coalesce(f.debits, 0), coalesce(f.credits, 0)) AS is_bad
FROM ledger_balances b
FULL JOIN (
    SELECT ledger_account, sum(debit) AS debits, sum(credit) AS credits
    FROM (
        SELECT debit_account AS ledger_account, amount AS debit, 0 AS credit FROM transfers
        UNION ALL
        SELECT credit_account, 0, amount FROM transfers
    ) legs
    GROUP BY ledger_account
) f USING (ledger_account)
