-- Forget the deliveries of deleted endpoints, at most $1 at a time.
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT d.id FROM webhook_endpoints w JOIN webhook_deliveries d ON d.endpoint = w.id
    WHERE w.state = 'deleted' LIMIT $1
)
