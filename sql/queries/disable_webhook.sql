-- Disable an endpoint that is gone, and queue that news for its account's other endpoints.
--
-- $1 endpoint, $2 now, $3 message id, $4 kind, $5 body, $6 deadline.
WITH gone AS (
    UPDATE webhook_endpoints
    SET state = 'disabled', reason = 'gone', updated_at_us = $2::bigint, version = version + 1
    WHERE id = $1 AND state = 'enabled'
    RETURNING id, account
), told AS (
    INSERT INTO webhook_deliveries
        (endpoint, message, kind, body, is_urgent, at_us, deadline_us, next_attempt_at_us)
    SELECT w.id, $3::text, $4::text, $5::bytea, false, $2::bigint, $6::bigint, $2::bigint
    FROM gone g JOIN webhook_endpoints w USING (account)
    WHERE w.id <> g.id AND w.state = 'enabled' AND (w.types = '{}' OR $4::text = ANY(w.types))
)
SELECT EXISTS (SELECT FROM gone) AS disabled
