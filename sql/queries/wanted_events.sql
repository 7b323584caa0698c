-- Events of the outbox with the endpoints that want them, in the order of both.
--
-- $1 and $2 after this (event, endpoint), $3 up to this event, $4 every kind that webhooks carry, $5 limit.
-- An endpoint is told what happened since it was enabled; public events go to everybody's.
SELECT event, account, account_seq, kind, at_us, endpoint,
    CASE WHEN kind LIKE 'notice.%' THEN (SELECT body FROM events WHERE id = event) END
FROM (
    SELECT e.id AS event, e.account, e.account_seq, e.kind, e.at_us, w.id AS endpoint
    FROM events e JOIN webhook_endpoints w ON w.account = e.account
    WHERE e.id >= $1 AND e.id <= $3 AND w.state = 'enabled' AND w.enabled_from_us <= e.at_us
        AND e.kind = ANY(CASE WHEN w.types = '{}' THEN $4::text[] ELSE w.types END)
    UNION ALL
    SELECT e.id, NULL, e.account_seq, e.kind, e.at_us, w.id
    FROM events e CROSS JOIN webhook_endpoints w
    WHERE e.account IS NULL AND e.kind = ANY($4::text[])
        AND e.id >= $1 AND e.id <= $3 AND w.state = 'enabled' AND w.enabled_from_us <= e.at_us
        AND e.kind = ANY(CASE WHEN w.types = '{}' THEN $4::text[] ELSE w.types END)
) wanted
WHERE (event, endpoint) > ($1, $2)
ORDER BY event, endpoint
LIMIT $5
