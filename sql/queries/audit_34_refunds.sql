-- every lease that its owner or its node ended got back what the rule declares, and no other got anything
--
-- In its first ten minutes all of it; after that a lost node forfeits what it charged last, if that was at its end.
SELECT l.id AS lease, l.end_reason, l.settled, l.refunded, coalesce(r.amount, 0) AS transferred, c.last_charge,
    l.refunded <> coalesce(r.amount, 0) OR (l.refunded > 0 OR l.ended_at_us >= m.since_us) AND l.refunded <> CASE
        WHEN l.state <> 'ended' OR l.end_reason NOT IN ('node_lost', 'offer_withdrawn') THEN 0
        WHEN l.ended_at_us - l.started_at_us < 600000000 THEN l.settled
        WHEN l.end_reason = 'node_lost' AND l.refunded = c.last_charge THEN c.last_charge
        ELSE 0
    END AS is_bad
FROM leases l
-- The rule holds for what ended since there is one.
CROSS JOIN (
    SELECT (extract(epoch FROM applied_at) * 1000000)::bigint AS since_us FROM schema_migrations
    WHERE name = '0005_promises'
) m
LEFT JOIN (
    SELECT reference, sum(amount) AS amount FROM transfers WHERE code = 'refund' GROUP BY reference
) r ON r.reference = l.id
LEFT JOIN LATERAL (
    SELECT interval_end_s, sum(amount) AS last_charge FROM transfers t
    WHERE t.reference = l.id AND t.code IN ('charge', 'fee')
    GROUP BY interval_end_s ORDER BY interval_end_s DESC LIMIT 1
) c ON true
WHERE l.started_at_us IS NOT NULL
