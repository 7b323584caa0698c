-- no started lease ended by preemption without its notice, of the promised length and kept to the end
--
-- $1: ids of the notices that the journal says a tenant acknowledged ready, and of the leases whose node
-- reported them stopped; only these may end before reclaim_at, which is noted. $2 market, $3 at_us, $4
-- seconds: the market's notice as the journal set it, in journal order. Promised is the market's notice
-- when this one was issued; where the owner withdrew, the offer's if that is shorter.
WITH reported AS (
    SELECT DISTINCT id FROM unnest($1::text[]) AS r(id)
), timing AS (
    SELECT market, at_us, seconds, lead(at_us) OVER (PARTITION BY market ORDER BY position) AS until_us
    FROM unnest($2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS h(market, at_us, seconds, position)
)
SELECT l.id AS lease, l.end_reason, l.ended_at_us, p.promised_s,
    n.id AS notice, n.state, n.issued_at_us, n.reclaim_at_us,
    coalesce(n.state <> 'done' OR n.reclaim_at_us - n.issued_at_us < p.promised_s * 1000000
        OR (l.ended_at_us < n.reclaim_at_us AND NOT p.is_reported), true) AS is_bad,
    coalesce(l.ended_at_us < n.reclaim_at_us AND p.is_reported, false) AS is_noted
FROM leases l
JOIN markets m ON m.id = l.market
JOIN offers o ON o.id = l.offer
LEFT JOIN notices n ON n.id = l.notice AND n.lease = l.id
LEFT JOIN reported tenant ON tenant.id = n.id
LEFT JOIN reported node ON node.id = l.id
CROSS JOIN LATERAL (
    SELECT coalesce(min(seconds), m.notice_seconds) AS seconds FROM timing
    WHERE market = m.id AND at_us <= n.issued_at_us AND coalesce(until_us >= n.issued_at_us, true)
) t
CROSS JOIN LATERAL (
    SELECT tenant.id IS NOT NULL OR node.id IS NOT NULL AS is_reported,
        CASE l.end_reason WHEN 'offer_withdrawn' THEN least(t.seconds, o.notice_seconds)
            ELSE t.seconds END AS promised_s
) p
WHERE l.end_reason IN ('outbid', 'moved', 'funds_exhausted', 'max_spend', 'spend_cap', 'offer_withdrawn') AND l.started_at_us IS NOT NULL
