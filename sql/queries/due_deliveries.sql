-- What may be sent now, and everything an attempt needs.
--
-- $1 now, $2 deliveries that are being sent, $3 endpoints with all their slots taken, $4 those with the
-- slots for ordinary messages taken, $5 accounts with all theirs taken, $6 notices only, $7 at most so
-- many of one endpoint, $8 limit. Notices first; then each endpoint's first before anybody's second.
SELECT d.id, w.id AS endpoint, w.account, w.url, w.secret, w.previous_secret, w.previous_until_us,
    d.message, d.kind, d.is_urgent, d.at_us, d.deadline_us, d.attempts, d.body,
    e.account AS event_account, e.account_seq, e.kind AS event_kind, e.at_us AS event_at_us, e.market, e.tick,
    e.body AS event_body
FROM webhook_endpoints w
CROSS JOIN LATERAL (
    SELECT f.*, row_number() OVER (ORDER BY f.is_urgent DESC, f.next_attempt_at_us, f.id) AS place
    FROM (
        SELECT * FROM webhook_deliveries
        WHERE endpoint = w.id AND state = 'pending' AND next_attempt_at_us <= $1 AND deadline_us > $1
            AND id <> ALL($2::bigint[])
            AND (is_urgent OR NOT ($6::boolean OR w.closed_until_us > $1 OR w.id = ANY($4::text[])))
        ORDER BY is_urgent DESC, next_attempt_at_us
        LIMIT $7
    ) f
) d
LEFT JOIN events e ON e.id = d.event
WHERE w.state = 'enabled' AND w.id <> ALL($3::text[]) AND w.account <> ALL($5::text[])
ORDER BY d.is_urgent DESC, d.place, d.next_attempt_at_us, d.id
LIMIT $8
