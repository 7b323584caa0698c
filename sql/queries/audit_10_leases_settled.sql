-- every lease has settled the sum of its charges and fees
SELECT l.id AS lease, l.settled, coalesce(t.amount, 0) AS transferred, l.settled <> coalesce(t.amount, 0) AS is_bad
FROM leases l
LEFT JOIN (
    SELECT reference, sum(amount) AS amount FROM transfers WHERE code IN ('charge', 'fee') GROUP BY reference
) t ON t.reference = l.id
