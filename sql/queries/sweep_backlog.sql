-- Bound each endpoint's queue: past $1 waiting ordinary messages the oldest fail, $2 of an endpoint at a time.
--
-- An endpoint that has so many fails or is far too slow; they stay listed and can be replayed.
UPDATE webhook_deliveries SET state = 'failed', last_error = 'backlog_full'
WHERE state = 'pending' AND id IN (
    SELECT d.id FROM webhook_endpoints w
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE endpoint = w.id AND state = 'pending' AND NOT is_urgent ORDER BY id DESC OFFSET $1 LIMIT $2
    ) d
)
