-- Forget finished deliveries of events before $1, at most $2 at a time.
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE state <> 'pending' AND at_us < $1 ORDER BY at_us LIMIT $2
)
