-- The legs behind one line of a statement, newest first: account $1, [$2, $3), pocket $4, kind $5, market $6;
-- before leg $7 (2 * id for a debit, + 1 for a credit), $8 at most.
WITH own AS (
    SELECT a.number * 8 + c.code AS ledger_account
    FROM accounts a CROSS JOIN generate_series(2 * $4::int, 2 * $4::int + 1) c(code) WHERE a.id = $1
), span AS (
    SELECT first_transfer_at($2) AS first, first_transfer_at($3) AS after
), legs AS (
    SELECT 2 * t.id AS leg, t.*, -t.amount AS signed
    FROM own CROSS JOIN span JOIN transfers t ON t.debit_account = own.ledger_account
        AND t.id >= span.first AND t.id < span.after AND 2 * t.id < $7
    UNION ALL
    SELECT 2 * t.id + 1, t.*, t.amount
    FROM own CROSS JOIN span JOIN transfers t ON t.credit_account = own.ledger_account
        AND t.id >= span.first AND t.id < span.after AND 2 * t.id + 1 < $7
)
SELECT legs.leg, legs.id, legs.code, legs.signed AS amount, legs.reference, legs.interval_end_s, legs.at_us
FROM legs LEFT JOIN leases l ON legs.code IN ('charge', 'fee', 'refund') AND l.id = legs.reference
WHERE CASE WHEN legs.code = 'fee' THEN 'charge' ELSE legs.code END = $5 AND l.market IS NOT DISTINCT FROM $6
ORDER BY legs.leg DESC
LIMIT $8
