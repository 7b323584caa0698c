-- What was settled with an owner ($1) in ($2, $3] seconds, by node and UTC day: GPU-seconds, net and fee.
-- A refund belongs to the settlement that it follows and lowers it.
-- A settlement belongs, with all its seconds, to the day in which its interval ends: so the money is that
-- of the ledger's entries by `interval_end_s`, and the seconds are those that it was paid for.
WITH spans AS (
    SELECT l.id AS lease, l.node, l.gpu_count, least(l.settled_to_s, l.metered_to_s) AS settled_to_s, l.started_at_us / 1000000 AS started_s,
           -- A lease that was never split had its GPUs all the time: their seconds need no look at its usage.
           l.gpu_seconds = l.gpu_count * (l.metered_to_s - l.started_at_us / 1000000) AS is_whole,
           d.day,
           greatest(d.day * 86400, $2::bigint) AS from_s,
           least((d.day + 1) * 86400, $3::bigint) AS to_s
    FROM leases l
    CROSS JOIN LATERAL generate_series(greatest($2::bigint, l.started_at_us / 1000000) / 86400,
                                       (least($3::bigint, l.settled_to_s) - 1) / 86400) d(day)
    WHERE l.owner = $1 AND ($4::text IS NULL OR l.node = $4)
      -- For the index: a lease is settled at most moments after its end.
      AND coalesce(l.ended_at_us, 9223372036854775807) >= ($2::bigint - 3600) * 1000000
      AND l.settled_to_s > $2::bigint AND l.started_at_us < $3::bigint * 1000000
), settled AS (
    -- Up to where the lease was settled at both ends of the span. A settlement without a cent left no
    -- transfer, so the lease's own mark counts where it lies before the end.
    SELECT s.*,
           coalesce((SELECT t.interval_end_s FROM transfers t
                     WHERE t.reference = s.lease AND t.code IN ('charge', 'fee') AND t.interval_end_s <= s.from_s
                     ORDER BY t.interval_end_s DESC LIMIT 1), s.started_s) AS first_s,
           CASE WHEN s.settled_to_s <= s.to_s THEN s.settled_to_s ELSE
           coalesce((SELECT t.interval_end_s FROM transfers t
                     WHERE t.reference = s.lease AND t.code IN ('charge', 'fee') AND t.interval_end_s <= s.to_s
                     ORDER BY t.interval_end_s DESC LIMIT 1), s.started_s) END AS last_s
    FROM spans s
)
SELECT s.node, s.day,
       sum(CASE WHEN s.is_whole THEN s.gpu_count * (s.last_s - s.first_s) ELSE coalesce((
           SELECT sum(u.gpu_count * (u.to_s - u.from_s)) FROM usage u
           WHERE u.lease = s.lease AND u.from_s >= s.first_s AND u.from_s < s.last_s), 0) END)::bigint AS gpu_seconds,
       (coalesce(sum(paid.net), 0) - coalesce(sum(back.net), 0))::bigint AS net,
       (coalesce(sum(paid.fee), 0) - coalesce(sum(back.fee), 0))::bigint AS fee
FROM settled s
CROSS JOIN LATERAL (
    SELECT sum(t.amount) FILTER (WHERE t.code = 'charge') AS net,
           sum(t.amount) FILTER (WHERE t.code = 'fee') AS fee
    FROM transfers t
    WHERE t.reference = s.lease AND t.code IN ('charge', 'fee')
      AND t.interval_end_s > s.from_s AND t.interval_end_s <= s.to_s
) paid
CROSS JOIN LATERAL (
    SELECT sum(t.amount) FILTER (WHERE t.debit_account % 8 = 2) AS net,
           sum(t.amount) FILTER (WHERE t.debit_account = 5) AS fee
    FROM transfers t
    WHERE t.reference = s.lease AND t.code = 'refund'
      AND t.interval_end_s > s.from_s AND t.interval_end_s <= s.to_s
) back
GROUP BY s.node, s.day
ORDER BY 2 DESC, 1
