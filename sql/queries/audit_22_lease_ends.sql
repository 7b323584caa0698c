-- every ended lease has its reason, and every lease its times in order
SELECT id AS lease, state, end_reason, awarded_at_us, started_at_us, ended_at_us,
    (state = 'ended') <> (end_reason IS NOT NULL) OR (state = 'ended') <> (ended_at_us IS NOT NULL)
        OR awarded_at_us > coalesce(started_at_us, ended_at_us, awarded_at_us)
        OR coalesce(started_at_us > ended_at_us, false) AS is_bad
FROM leases
