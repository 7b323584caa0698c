-- every account's events are numbered 1, 2, 3, … to its event_seq
SELECT a.id AS account, a.event_seq, e.events, e.first_seq, e.last_seq,
    a.event_seq <> coalesce(e.last_seq, 0) OR coalesce(e.first_seq <> 1 OR e.events <> e.last_seq, false) AS is_bad
FROM accounts a
LEFT JOIN (
    SELECT account, count(*) AS events, min(account_seq) AS first_seq, max(account_seq) AS last_seq
    FROM events WHERE account IS NOT NULL GROUP BY account
) e ON e.account = a.id
