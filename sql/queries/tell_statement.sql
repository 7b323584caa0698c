-- Queue `statement.final` for every endpoint that wants it, once a month; the first look tells nobody.
--
-- $1 month, $2 now, $3 kind, $4 body, $5 deadline, $6 message id, $7 the month's end: accounts made later
-- have none.
WITH told AS (
    UPDATE webhook_outbox o SET statement_told = $1
    FROM (SELECT statement_told FROM webhook_outbox) before
    WHERE o.statement_told IS DISTINCT FROM $1
    RETURNING before.statement_told AS previous
)
INSERT INTO webhook_deliveries (endpoint, message, kind, body, is_urgent, at_us, deadline_us, next_attempt_at_us)
SELECT w.id, $6::text, $3::text, $4::bytea, false, $2::bigint, $5::bigint, $2::bigint
FROM told t, webhook_endpoints w JOIN accounts a ON a.id = w.account
WHERE t.previous IS NOT NULL AND a.created_at_us < $7 AND w.state = 'enabled' AND (w.types = '{}' OR $3::text = ANY(w.types))
