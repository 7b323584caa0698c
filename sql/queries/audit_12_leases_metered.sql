-- every lease's meter is the exact sum of its usage: one floor for its whole life, the rest in its carry
SELECT l.id AS lease, l.metered, l.carry, coalesce(u.amount, 0) AS usage_amount, coalesce(u.exact, 0) AS usage_exact,
    l.metered <> coalesce(u.amount, 0) OR l.metered * 3600::numeric + l.carry <> coalesce(u.exact, 0) AS is_bad
FROM leases l
LEFT JOIN (
    SELECT lease, sum(amount) AS amount, sum(price * gpu_count * (to_s - from_s)) AS exact FROM usage GROUP BY lease
) u ON u.lease = l.id
