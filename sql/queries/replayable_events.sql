-- An account's events that an endpoint wants and was not told, oldest first.
--
-- $1 account, $2 endpoint, $3 kinds, $4 after this account_seq, $5 and $6 from and to (microseconds),
-- $7 also those that were delivered, $8 limit.
SELECT e.id, e.account, e.account_seq, e.kind, e.at_us, $2::text
FROM events e
LEFT JOIN webhook_deliveries d ON d.endpoint = $2 AND d.event = e.id
WHERE e.account = $1 AND e.account_seq > $4 AND e.at_us BETWEEN $5 AND $6 AND e.kind = ANY($3::text[])
    AND (d.id IS NULL OR d.state = 'failed' OR (d.state = 'delivered' AND $7::boolean))
ORDER BY e.account_seq
LIMIT $8
