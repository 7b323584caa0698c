-- Metered GPU time and its cost, of one account ($1), by the labels of its bids (as stored), of the spans that
-- began in [$2, $3); $4 sets of labels at most.
SELECT b.labels, sum(u.gpu_count * (u.to_s - u.from_s)) AS gpu_seconds, sum(u.amount) AS amount
FROM leases l JOIN usage u ON u.lease = l.id JOIN bids b ON b.id = l.bid
WHERE l.account = $1 AND u.from_s >= $2 AND u.from_s < $3
GROUP BY b.labels
ORDER BY b.labels
LIMIT $4
