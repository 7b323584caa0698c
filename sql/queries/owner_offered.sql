-- What an owner ($1) had on offer in [$2, $3) microseconds, by node and UTC day, in GPU-seconds; and how
-- much of it stood in times in which nothing traded, or in which the price was below the reserve.
-- Times are told by the hour: an offer that stood for part of an hour has that part of its ticks. The
-- reserve is the offer's present one; an amended offer's earlier reserves are not kept in its row.
WITH standing AS (
    SELECT o.node, o.market, o.gpus, o.gross_reserve,
           greatest(o.available_from_us, $2::bigint) AS from_us,
           least(o.available_until_us, $3::bigint,
                 CASE WHEN o.status IN ('withdrawing', 'withdrawn') THEN o.updated_at_us END) AS to_us
    FROM offers o
    WHERE o.account = $1 AND ($4::text IS NULL OR o.node = $4) AND o.available_from_us < $3::bigint
), pieces AS (
    SELECT s.node, s.market, s.gross_reserve, h.hour,
           s.gpus * (least(s.to_us, (h.hour + 1) * 3600000000)
                     - greatest(s.from_us, h.hour * 3600000000)) AS gpu_us
    FROM standing s
    CROSS JOIN LATERAL generate_series(s.from_us / 3600000000, (s.to_us - 1) / 3600000000) h(hour)
    WHERE s.to_us > s.from_us
), stood AS (
    SELECT m.market, t.cleared_at_us / 3600000000 AS hour, t.price, t.stood_us
    FROM (SELECT DISTINCT p.market FROM pieces p) m
    CROSS JOIN LATERAL (
        SELECT t.cleared_at_us, t.price, least(3600000000,
            lead(t.cleared_at_us, 1, $3::bigint) OVER (ORDER BY t.cleared_at_us) - t.cleared_at_us) AS stood_us
        FROM ticks t
        WHERE t.market = m.market AND t.cleared_at_us >= $2::bigint AND t.cleared_at_us < $3::bigint
    ) t
), prices AS (
    SELECT s.market, s.hour, s.price, sum(s.stood_us) AS stood_us
    FROM stood s
    GROUP BY s.market, s.hour, s.price
), reserves AS (
    SELECT DISTINCT p.market, p.hour, p.gross_reserve FROM pieces p
), shares AS (
    SELECT r.market, r.hour, r.gross_reserve,
           coalesce(sum(p.stood_us) FILTER (WHERE p.price IS NULL), 0) / sum(p.stood_us) AS no_trade,
           coalesce(sum(p.stood_us) FILTER (WHERE p.price < r.gross_reserve), 0) / sum(p.stood_us) AS below
    FROM reserves r
    JOIN prices p USING (market, hour)
    GROUP BY r.market, r.hour, r.gross_reserve
    HAVING sum(p.stood_us) > 0
)
SELECT p.node, p.hour / 24 AS day,
       round(sum(p.gpu_us) / 1000000)::bigint AS offered,
       round(sum(p.gpu_us * coalesce(s.no_trade, 0)) / 1000000)::bigint AS no_trade,
       round(sum(p.gpu_us * coalesce(s.below, 0)) / 1000000)::bigint AS below_reserve
FROM pieces p
LEFT JOIN shares s USING (market, hour, gross_reserve)
GROUP BY p.node, p.hour / 24
ORDER BY 2 DESC, 1
