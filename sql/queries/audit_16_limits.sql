-- no second is priced above the limit its bid had since the tick that set the price
--
-- $1 bid, $2 at_us, $3 limit: the journal's limits of every bid that was ever amended, in journal order; of
-- one with alternatives, by bid and market with a space between.
-- An amendment counts from the next tick on, so the limits in force from the last tick before the row's
-- first second to the end of that second are admitted (commands of one batch share a tick's instant);
-- under notice the price is the one last won at, so any limit since the award, and the notice's own.
WITH history AS (
    SELECT bid, at_us, limit_price, lead(at_us) OVER (PARTITION BY bid ORDER BY position) AS until_us
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS h(bid, at_us, limit_price, position)
), amended AS (
    SELECT DISTINCT bid FROM history
), priced AS (
    -- Of each lease, the limit that its bid has now in its market, and the name of that limit's history.
    SELECT l.*, CASE WHEN a.own IS NULL THEN b.limit_price ELSE (a.own ->> 'limit')::bigint END AS bid_limit,
        CASE WHEN a.own IS NULL THEN l.bid ELSE l.bid || ' ' || l.market END AS history_of
    FROM leases l JOIN bids b ON b.id = l.bid
    LEFT JOIN LATERAL (
        SELECT own FROM jsonb_array_elements(b.alternatives) own WHERE own ->> 'market' = l.market
    ) a ON true
)
SELECT u.lease, u.from_s, l.bid, u.price, l.bid_limit, u.price > l.bid_limit AS is_bad
FROM usage u JOIN priced l ON l.id = u.lease
WHERE NOT EXISTS (SELECT FROM amended a WHERE a.bid = l.history_of)
UNION ALL
SELECT u.lease, u.from_s, l.bid, u.price, max(h.limit_price),
    u.price > greatest(max(h.limit_price), max(n.limit_price), -1)
FROM usage u JOIN priced l ON l.id = u.lease JOIN amended a ON a.bid = l.history_of
LEFT JOIN LATERAL (
    SELECT cleared_at_us FROM ticks
    WHERE market = l.market AND cleared_at_us <= u.from_s * 1000000 ORDER BY cleared_at_us DESC LIMIT 1
) t ON true
LEFT JOIN notices n ON n.lease = l.id AND n.issued_at_us < (u.from_s + 1) * 1000000
    AND coalesce(n.closed_at_us > u.from_s * 1000000, true)
LEFT JOIN history h ON h.bid = l.history_of AND h.at_us < (u.from_s + 1) * 1000000
    AND coalesce(h.until_us >= CASE WHEN n.id IS NULL THEN t.cleared_at_us ELSE l.awarded_at_us END, true)
GROUP BY u.lease, u.from_s, l.bid, u.price
