-- The legs of one transfer ($2) on the ledger accounts of one account ($1), each with the balance after it.
WITH own AS (
    SELECT b.ledger_account, b.credits - b.debits AS balance
    FROM accounts a JOIN ledger_balances b ON b.ledger_account BETWEEN a.number * 8 AND a.number * 8 + 3
    WHERE a.id = $1
)
SELECT 2 * t.id + CASE WHEN own.ledger_account = t.credit_account THEN 1 ELSE 0 END AS entry,
    t.id, t.code, own.ledger_account, t.reference, t.interval_end_s, t.at_us,
    CASE WHEN own.ledger_account = t.credit_account THEN t.amount ELSE -t.amount END AS amount,
    own.balance
        - coalesce((SELECT sum(x.amount) FROM transfers x
            WHERE x.credit_account = own.ledger_account AND x.id > t.id), 0)::bigint
        + coalesce((SELECT sum(x.amount) FROM transfers x
            WHERE x.debit_account = own.ledger_account AND x.id > t.id), 0)::bigint AS balance
FROM transfers t JOIN own ON own.ledger_account IN (t.debit_account, t.credit_account)
WHERE t.id = $2
ORDER BY 1
