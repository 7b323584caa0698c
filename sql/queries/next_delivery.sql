-- When the next delivery falls due after now ($1), apart from those being sent ($2).
--
-- What is due already waits for a slot, and the end of an attempt looks for it. Each endpoint's first
-- notice and first ordinary message are enough: the rest of them comes later.
SELECT min(due_us) AS due_us FROM (
    SELECT CASE WHEN d.is_urgent THEN d.next_attempt_at_us
        ELSE greatest(d.next_attempt_at_us, w.closed_until_us) END AS due_us
    FROM webhook_endpoints w
    CROSS JOIN LATERAL (
        (SELECT is_urgent, next_attempt_at_us FROM webhook_deliveries
         WHERE endpoint = w.id AND state = 'pending' AND is_urgent AND id <> ALL($2::bigint[])
         ORDER BY next_attempt_at_us LIMIT 1)
        UNION ALL
        (SELECT is_urgent, next_attempt_at_us FROM webhook_deliveries
         WHERE endpoint = w.id AND state = 'pending' AND NOT is_urgent AND id <> ALL($2::bigint[])
         ORDER BY next_attempt_at_us LIMIT 1)
    ) d
    WHERE w.state = 'enabled'
) firsts
WHERE due_us > $1
