-- An account's four balances and what its leases have metered but not yet posted, in one snapshot.
SELECT b.ledger_account % 8 AS code,
       b.credits - b.debits AS balance,
       (SELECT coalesce(sum(l.metered - l.settled), 0)::bigint FROM leases l
        WHERE l.account = $1 AND l.metered > l.settled) AS owed
FROM accounts a
JOIN ledger_balances b ON b.ledger_account BETWEEN a.number * 8 AND a.number * 8 + 3
WHERE a.id = $1
