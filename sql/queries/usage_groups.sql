-- Metered GPU time and its cost, of one account ($1), by lease, bid, market, UTC day or UTC hour, of the spans
-- that began in [$5, $6). A span counts where it began: it is settled as one.
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
        WHEN 'hour' THEN to_char(to_timestamp(u.from_s) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')
        ELSE to_char(to_timestamp(u.from_s) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
    END COLLATE "C" AS group_key
) g
WHERE l.account = $1 AND ($3::text IS NULL OR g.group_key < $3::text COLLATE "C")
    AND u.from_s >= $5 AND u.from_s < $6
GROUP BY g.group_key
ORDER BY g.group_key DESC
LIMIT $4
