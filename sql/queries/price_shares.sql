-- For how long each price of a market stood among its newest $4 ticks in [$2, $3) microseconds; NULL when
-- nothing traded. A price stands until the next tick, an hour at most: a longer silence was no market.
WITH stood AS (
    -- Newest first, as the index is read for the limit: the tick before in that order is the next one.
    SELECT r.cleared_at_us, r.price, least(3600000000,
        lag(r.cleared_at_us, 1, $3::bigint) OVER (ORDER BY r.cleared_at_us DESC) - r.cleared_at_us) AS stood_us
    FROM (
        SELECT t.cleared_at_us, t.price FROM ticks t
        WHERE t.market = $1 AND t.cleared_at_us >= $2 AND t.cleared_at_us < $3
        ORDER BY t.cleared_at_us DESC LIMIT $4
    ) r
)
SELECT s.price, sum(s.stood_us)::bigint AS stood_us, count(*) AS ticks, min(s.cleared_at_us) AS first_us
FROM stood s
GROUP BY s.price
ORDER BY s.price
