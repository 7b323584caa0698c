-- The ledger of an account ($1) in [$2, $3): what it began and ended with, and what moved, by kind and market.
--
-- The pockets are money (available and held) and earnings (earning and payable). `earlier` is what moved before
-- the time, `later` what moved since; with the lines they must come to the balance of now, which a trigger
-- keeps: lines that do not add up are found and never printed.
WITH own AS (
    SELECT b.ledger_account, b.credits - b.debits AS balance, (b.ledger_account % 8) / 2 AS pocket
    FROM accounts a JOIN ledger_balances b ON b.ledger_account BETWEEN a.number * 8 AND a.number * 8 + 3
    WHERE a.id = $1
), span AS (
    SELECT first_transfer_at($2) AS first, first_transfer_at($3) AS after
), legs AS (
    SELECT own.pocket, t.code, -t.amount AS amount, t.reference, t.id >= span.after AS is_later
    FROM own CROSS JOIN span JOIN transfers t ON t.debit_account = own.ledger_account AND t.id >= span.first
    UNION ALL
    SELECT own.pocket, t.code, t.amount, t.reference, t.id >= span.after
    FROM own CROSS JOIN span JOIN transfers t ON t.credit_account = own.ledger_account AND t.id >= span.first
), lines AS (
    SELECT legs.pocket, CASE WHEN legs.code = 'fee' THEN 'charge' ELSE legs.code END AS kind, l.market,
        count(*) FILTER (WHERE NOT is_later) AS legs,
        coalesce(sum(legs.amount) FILTER (WHERE NOT is_later), 0)::bigint AS amount,
        coalesce(sum(legs.amount) FILTER (WHERE is_later), 0)::bigint AS later
    FROM legs LEFT JOIN leases l ON legs.code IN ('charge', 'fee', 'refund') AND l.id = legs.reference
    GROUP BY 1, 2, 3
)
SELECT 'balance' AS row, pocket::int, NULL AS kind, NULL AS market, 0::bigint AS legs, sum(balance)::bigint AS amount,
    0::bigint AS later,
    sum((SELECT coalesce(sum(t.amount), 0) FROM transfers t, span
            WHERE t.credit_account = own.ledger_account AND t.id < span.first)
        - (SELECT coalesce(sum(t.amount), 0) FROM transfers t, span
            WHERE t.debit_account = own.ledger_account AND t.id < span.first))::bigint AS earlier
FROM own GROUP BY pocket
UNION ALL
SELECT 'line', pocket::int, kind, market, legs, amount, later, 0 FROM lines
ORDER BY 1, 2, 3, 4
