-- Forget deleted endpoints that have no deliveries left.
DELETE FROM webhook_endpoints w
WHERE w.state = 'deleted' AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint = w.id)
