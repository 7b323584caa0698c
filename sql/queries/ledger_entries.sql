-- The legs of transfers on one account's ledger accounts, newest first, beside the four balances as they
-- are now. A leg's place in the one order of legs is 2 * id for the debit, + 1 for the credit.
-- One index scan per ledger account and side: ordered, and no longer than the page.
WITH own AS (
    SELECT a.number * 8 + c.code AS ledger_account, coalesce(b.credits - b.debits, 0) AS balance
    FROM accounts a
    CROSS JOIN generate_series(0, 3) c(code)
    LEFT JOIN ledger_balances b ON b.ledger_account = a.number * 8 + c.code
    WHERE a.id = $1
)
SELECT leg.entry, leg.id, leg.code, own.ledger_account, leg.amount, leg.reference, leg.interval_end_s,
       leg.at_us, (SELECT array_agg(o.balance ORDER BY o.ledger_account) FROM own o) AS balances_now
FROM own
CROSS JOIN LATERAL (
    (SELECT 2 * t.id AS entry, t.id, t.code, -t.amount AS amount, t.reference, t.interval_end_s, t.at_us
     FROM transfers t WHERE t.debit_account = own.ledger_account AND t.id < ($2::bigint + 1) / 2
     ORDER BY t.id DESC LIMIT $3)
    UNION ALL
    (SELECT 2 * t.id + 1, t.id, t.code, t.amount, t.reference, t.interval_end_s, t.at_us
     FROM transfers t WHERE t.credit_account = own.ledger_account AND t.id < $2::bigint / 2
     ORDER BY t.id DESC LIMIT $3)
) leg
ORDER BY leg.entry DESC
LIMIT $3
