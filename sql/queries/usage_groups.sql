-- Metered GPU time and its cost, of one account, by lease, bid, market or UTC day.
SELECT g.group_key,
       sum(u.gpu_count * (u.to_s - u.from_s)) AS gpu_seconds,
       sum(u.amount) AS amount
FROM leases l
JOIN usage u ON u.lease = l.id
CROSS JOIN LATERAL (
    SELECT CASE $2::text
        WHEN 'lease' THEN l.id
        WHEN 'bid' THEN l.bid
        WHEN 'market' THEN l.market
        ELSE to_char(to_timestamp(u.from_s) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
    END COLLATE "C" AS group_key
) g
WHERE l.account = $1 AND ($3::text IS NULL OR g.group_key < $3::text COLLATE "C")
GROUP BY g.group_key
ORDER BY g.group_key DESC
LIMIT $4
