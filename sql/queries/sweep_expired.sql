-- Give up what could not be told in time: $1 now, $2 at most so many.
UPDATE webhook_deliveries SET state = 'failed', last_error = 'deadline_passed'
WHERE state = 'pending' AND id IN (
    SELECT id FROM webhook_deliveries WHERE state = 'pending' AND deadline_us <= $1 ORDER BY deadline_us LIMIT $2
)
