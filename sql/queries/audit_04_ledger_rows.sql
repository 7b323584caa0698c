-- every account has its four ledger rows, and every ledger row an account or the operator
SELECT coalesce(a.id, 'no account') AS account, number, b.rows_found,
    CASE WHEN number = 0 THEN a.id IS NOT NULL OR b.rows_found <> 3 OR NOT b.is_operator
         ELSE a.id IS NULL OR b.rows_found IS DISTINCT FROM 4 OR NOT b.is_tenant END AS is_bad
FROM accounts a
FULL JOIN (
    SELECT ledger_account / 8 AS number, count(*) AS rows_found,
        bool_and(ledger_account % 8 BETWEEN 0 AND 3) AS is_tenant,
        bool_and(ledger_account % 8 BETWEEN 4 AND 6) AS is_operator
    FROM ledger_balances
    GROUP BY ledger_account / 8
) b USING (number)
