-- a lease is noticed exactly while a notice of its own is live
SELECT l.id AS lease, l.state, l.notice AS lease_notice, n.id AS live_notice,
    (l.state = 'noticed') <> (n.id IS NOT NULL) OR coalesce(n.id <> l.notice OR n.bid <> l.bid, false)
        OR (l.state = 'noticed' AND l.notice IS NULL) AS is_bad
FROM leases l
LEFT JOIN notices n ON n.lease = l.id AND n.closed_at_us IS NULL
