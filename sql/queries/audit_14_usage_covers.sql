-- every lease is billed from the second it started, and an ended one to the second it ended
SELECT l.id AS lease, l.state, l.start_s, l.end_s, l.metered_to_s, u.first_s, u.last_s,
    CASE
        WHEN l.start_s IS NULL THEN u.lease IS NOT NULL
        -- No whole second has passed yet, or none did before it ended.
        WHEN u.lease IS NULL THEN coalesce(l.end_s, l.metered_to_s, l.start_s) <> l.start_s
        ELSE u.first_s <> l.start_s OR u.last_s IS DISTINCT FROM l.metered_to_s
            OR u.last_s <> coalesce(l.end_s, u.last_s)
    END AS is_bad
FROM (
    SELECT id, state, started_at_us / 1000000 AS start_s, ended_at_us / 1000000 AS end_s, metered_to_s FROM leases
) l
LEFT JOIN (
    SELECT lease, min(from_s) AS first_s, max(to_s) AS last_s FROM usage GROUP BY lease
) u ON u.lease = l.id
