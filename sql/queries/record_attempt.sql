-- What became of an attempt, and what it says of the endpoint's health.
--
-- $1 delivery, $2 state, $3 next attempt, $4 attempted at, $5 HTTP status, $6 error. From the $7th failure
-- in a row the endpoint gets only notices for $8 microseconds, doubling up to $9; a success opens it.
WITH attempted AS (
    UPDATE webhook_deliveries
    SET state = $2, next_attempt_at_us = $3, last_attempt_at_us = $4, last_status = $5, last_error = $6,
        attempts = attempts + 1
    WHERE id = $1 AND state = 'pending'
    RETURNING endpoint
)
UPDATE webhook_endpoints w
SET consecutive_failures = CASE WHEN $2 = 'delivered' THEN 0 ELSE w.consecutive_failures + 1 END,
    closed_until_us = CASE WHEN $2 = 'delivered' OR w.consecutive_failures + 1 < $7::integer THEN 0
        ELSE $4::bigint + least($9::bigint, $8::bigint << least(w.consecutive_failures + 1 - $7::integer, 20)) END
FROM attempted
WHERE w.id = attempted.endpoint AND ($2 <> 'delivered' OR w.consecutive_failures > 0)
