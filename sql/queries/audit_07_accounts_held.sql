-- every account's held balance is the sum of its bids' holds
SELECT a.id AS account, coalesce(l.credits - l.debits, 0) AS held_balance, coalesce(b.held, 0) AS held_by_bids,
    coalesce(l.credits - l.debits, 0) <> coalesce(b.held, 0) AS is_bad
FROM accounts a
LEFT JOIN ledger_balances l ON l.ledger_account = a.number * 8 + 1
LEFT JOIN (SELECT account, sum(held) AS held FROM bids GROUP BY account) b ON b.account = a.id
